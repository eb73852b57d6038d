"""The hash chain of the audit log, as pure functions (tamper evidence).

Every event of a node carries ``SHA-256(previous hash ‖ canonical bytes)``. To change, drop, insert or reorder an
event, every later hash must be made anew, which shows against a head that was kept elsewhere. What the chain
cannot show by itself is a log whose tail was cut off: that also needs the head from elsewhere.

An event also answers for the *rows* that were written with it (messages, verdicts, states, links, settings): ``rows``
lists each by table and key with a digest of what it says, so that the chain protects them as it protects itself.

The canonical form is versioned: it never changes for events that exist. Version 1 is an event without rows, version 2
one with them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

GENESIS = bytes(32)
"""The hash before the first event of a node."""

ROW_DIGEST_BYTES = 24
"""What is kept of the SHA-256 of a row: 192 bits, so that not even the author of two rows can make them alike."""

Row = tuple[str, tuple[str | int, ...], str]
"""Table, key, and the digest of :func:`row_digest`."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event with its place in the chain of its node. ``detail`` is the JSON text as stored."""

    node: str
    seq: int
    """1, 2, 3 ... without a gap, for each node."""
    at: datetime
    actor: str
    action: str
    subject: str
    detail: str
    hash: bytes
    """32 bytes: of the previous event's hash and this event."""
    rows: str = ""
    """The rows that were written with it, as :func:`rows_text` makes it. Empty: none."""

    def canonical(self) -> bytes:
        """The bytes that are hashed."""
        return canonical_bytes(
            node=self.node,
            seq=self.seq,
            at=self.at,
            actor=self.actor,
            action=self.action,
            subject=self.subject,
            detail=self.detail,
            rows=self.rows,
        )


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which events to show, and in which order (ON-18). Empty text and None mean: whatever it is."""

    actor: str = ""
    action: str = ""
    """Whole, or with ``*`` at its end: ``message.*``."""
    subject: str = ""
    """For the id of a message also the events about a set of messages that it is one of."""
    node: str = ""
    since: datetime | None = None
    until: datetime | None = None
    """Before this moment."""
    sort: str = "at"
    """One of :data:`SORT_FIELDS`, or :data:`CHAIN_ORDER`; what is equal stays in the order of time."""
    ascending: bool = False
    limit: int = 50
    offset: int = 0


CHAIN_ORDER = "seq"
"""The order in which a node wrote its events, whatever its clock said. It compares the events of one node only."""
SORT_FIELDS = ("at", "actor", "action", "subject", "node", "detail")


def set_subject(mailbox_id: int) -> str:
    """Subject of an event about several messages of a mailbox; its detail says which, under ``uids``."""
    return f"mailbox/{mailbox_id}"


def holds_uid(uids: str, uid: int) -> bool:
    """Whether a set of numbers (``1:5,9``), as the detail of an event has it, holds the number."""
    for part in uids.split(","):
        first, _, last = part.partition(":")
        if first.isdecimal() and int(first) <= uid <= int(last if last.isdecimal() else first):
            return True
    return False


def compact_numbers(numbers: Iterable[int]) -> str:
    """Return ascending numbers as a set: ``1:5,9``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}:{last}" for first, last in runs)


def detail_text(detail: dict[str, Any] | None) -> str:
    """Return the one JSON spelling of the detail that is stored and hashed."""
    return _sorted_json(detail or {})


def canonical_bytes(
    *, node: str, seq: int, at: datetime, actor: str, action: str, subject: str, detail: str, rows: str = ""
) -> bytes:
    """Return the bytes of an event that are hashed: a JSON array of strings, which leaves no room for ambiguity."""
    moment = at.astimezone(UTC).isoformat(timespec="microseconds")
    fields = ["2" if rows else "1", node, str(seq), moment, actor, action, subject, detail]
    if rows:
        fields.append(rows)
    return _compact_json(fields).encode("ascii")


def next_hash(previous: bytes, canonical: bytes) -> bytes:
    """Return the hash of the event that follows the one whose hash is ``previous``."""
    return hashlib.sha256(previous + canonical).digest()


def row_digest(table: str, values: Mapping[str, Any]) -> str:
    """Return the digest of what a row says, in base64url.

    A column without a value is left out, so that a column that a later release adds changes no digest. Bytes count by
    their own SHA-256, text as the store keeps it, moments in UTC to the microsecond.
    """
    named = {
        # Most are texts and numbers as they are, and this runs for every row that is kept.
        name: value if type(value) in _AS_THEY_ARE else _plain(value)
        for name, value in values.items()
        if value is not None
    }
    digest = hashlib.sha256(_sorted_json([table, named]).encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest[:ROW_DIGEST_BYTES]).decode("ascii")


_AS_THEY_ARE = frozenset({str, int})
_compact_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode
_sorted_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode
"""Made once: :func:`json.dumps` makes one at every call."""


def _plain(value: Any) -> Any:
    """A value as JSON, with its type where JSON has none: the text of a moment is not the moment."""
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, datetime):
        return {"at": value.astimezone(UTC).isoformat(timespec="microseconds")}
    if isinstance(value, date):
        return {"on": value.isoformat()}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"sha256": hashlib.sha256(value).hexdigest()}
    raise TypeError(f"a row cannot hold a {type(value).__name__}")


def rows_text(rows: Iterable[Row]) -> str:
    """Return the one spelling of a list of rows that is stored and hashed: rows by table, each its key and digest."""
    tables: dict[str, list[list[str | int]]] = {}
    for table, key, digest in rows:
        tables.setdefault(table, []).append([*key, digest])
    return _compact_json(tables) if tables else ""


def rows_of(text: str) -> list[Row]:
    """Return the rows that :func:`rows_text` wrote down.

    Raises:
        ValueError: it is no such text.
    """
    found: list[Row] = []
    try:
        for table, entries in (json.loads(text) if text else {}).items():
            found.extend((table, tuple(key), digest) for *key, digest in entries)
    except (AttributeError, TypeError) as exc:
        raise ValueError("not a list of rows") from exc
    return found


def first_broken(events: Iterable[AuditEvent], *, seq: int = 0, previous: bytes = GENESIS) -> int | None:
    """Return the sequence number at which the chain of one node does not hold, or None when all of it does.

    Args:
        events: the events of one node by ascending sequence number.
        seq: the number of the event before the first one given; 0 for the start of the log.
        previous: the hash of that event.
    """
    for event in events:
        seq += 1
        if event.seq != seq or event.hash != next_hash(previous, event.canonical()):
            return seq
        previous = event.hash
    return None
