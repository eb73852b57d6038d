"""Paths that were accepted, so that the next message of the same correspondent need not prove them again.

An entry is a pure memory: its key holds everything that the decision depended on (the leaf, the other certificates of
the message in their order, the set of anchors, the direction, the policy), so that a message is never accepted by
what another one happened to carry. A message that brings revocation lists of its own neither reads nor writes the
cache: it may bring news, and what it brings must count for nobody else. What remains is time: an entry counts from
the moment at which it was judged until the first of its certificates or answers runs out, and for an hour at most
(five minutes when the status of a certificate is unknown). Refusals are not kept: what was missing may come along.

The cache belongs to one set of keys, anchors and revocation lists; a reload begins with an empty one. It is bounded
in entries and in the bytes of the revocation data that it holds, and safe to use from several threads.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from gateway.core.trust import Direction
from gateway.core.verdict import Check, RevocationAnswer
from gateway.sta.certificates import Certificate
from gateway.sta.paths.path_building import Path
from gateway.sta.revocation.findings import Finding
from gateway.sta.trust_anchors.anchors import Anchors

MAX_AGE = timedelta(hours=1)
MAX_AGE_UNKNOWN = timedelta(minutes=5)
MAX_ENTRIES = 4_096
MAX_DATA_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PathKey:
    """Everything that the acceptance of a path depends on, time apart."""

    leaf_sha256: str
    carried: str
    """Of all certificates of the message, by :func:`carried_digest`."""
    anchor_set: str
    direction: Direction
    policy: str
    """``TrustPolicy.version``."""
    is_hard: bool
    """Whether an unknown revocation status refuses."""


@dataclass(frozen=True, slots=True)
class AcceptedPath:
    """What an accepted path was found to be, and for how long that holds."""

    chain_sha256: tuple[str, ...]
    """Leaf first, anchor last."""
    fetched: tuple[Certificate, ...]
    """Those of the chain that came neither with the message nor from the anchors."""
    checks: tuple[Check, ...]
    answers: tuple[RevocationAnswer, ...]
    data: tuple[bytes, ...]
    """DER of the lists and responses that the answers rest on."""
    judged_at: datetime
    valid_until: datetime
    """The first moment at which it does not count any more."""

    def path(self, leaf: Certificate, carried: Iterable[Certificate], anchors: Anchors) -> Path | None:
        """The path out of certificates at hand; None when one is not, which a key that agrees rules out."""
        anchor = anchors.find(self.chain_sha256[-1])
        if anchor is None:
            return None
        known = {c.sha256: c for c in (*self.fetched, *carried, leaf, anchor.certificate)}
        found = tuple(known[digest] for digest in self.chain_sha256 if digest in known)
        return found if len(found) == len(self.chain_sha256) else None


def carried_digest(certificates: Sequence[Certificate]) -> str:
    """Names the certificates that a message carries, in their order."""
    return hashlib.sha256("".join(c.sha256 for c in certificates).encode("ascii")).hexdigest()


def holds_until(path: Path, findings: Sequence[Finding], at: datetime) -> datetime:
    """Until when a path that was accepted at the moment may count without being judged again."""
    is_certain = all(f.status == "good" and f.valid_until is not None for f in findings)
    ends = [c.not_after for c in path] + [f.valid_until for f in findings if f.valid_until is not None]
    return min(at + (MAX_AGE if is_certain else MAX_AGE_UNKNOWN), *ends)


@dataclass
class PathCache:
    """Accepted paths; the least recently used ones go first."""

    max_entries: int = MAX_ENTRIES
    max_data_bytes: int = MAX_DATA_BYTES
    _entries: OrderedDict[PathKey, AcceptedPath] = field(default_factory=OrderedDict, init=False)
    _held: dict[bytes, tuple[bytes, int]] = field(default_factory=dict, init=False)
    """The one copy of each piece of revocation data, and how many entries hold it: a list concerns many paths."""
    _data_bytes: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def get(self, key: PathKey, at: datetime) -> AcceptedPath | None:
        """The accepted path, when it counts at the moment (which lies in the past when a message is judged again)."""
        with self._lock:
            found = self._entries.get(key)
            if found is None or not found.judged_at <= at < found.valid_until:
                return None
            self._entries.move_to_end(key)
            return found

    def put(self, key: PathKey, accepted: AcceptedPath) -> None:
        """Remember an accepted path in the place of what was known under the key."""
        if accepted.valid_until <= accepted.judged_at:
            return
        with self._lock:
            self._forget(key)
            held = tuple(self._hold(data) for data in accepted.data)
            self._entries[key] = replace(accepted, data=held)
            while self._entries and (len(self._entries) > self.max_entries or self._data_bytes > self.max_data_bytes):
                self._forget(next(iter(self._entries)))

    def __len__(self) -> int:
        return len(self._entries)

    def _hold(self, data: bytes) -> bytes:
        """Count one more use of the data, and return the copy of it that is kept."""
        kept, uses = self._held.get(data, (data, 0))
        self._held[kept] = (kept, uses + 1)
        self._data_bytes += 0 if uses else len(kept)
        return kept

    def _forget(self, key: PathKey) -> None:
        gone = self._entries.pop(key, None)
        for data in gone.data if gone else ():
            kept, uses = self._held[data]
            if uses > 1:
                self._held[kept] = (kept, uses - 1)
            else:
                del self._held[kept]
                self._data_bytes -= len(kept)
