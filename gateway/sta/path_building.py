"""Building candidate paths from a signer's certificate to a recipient's anchors, within hard bounds (S/MIME rule 16).

Every certificate but the anchors comes from an attacker, and the number of paths through same-named certificates
is factorial. The search is therefore depth first with one budget for everything: depth, signature checks and
steps. An issuer whose key did not make the signature is never followed. When the budget is used up the paths
found until then are what there is: a correspondent that needs more is untrusted, not slow.

A path is leaf first, anchor last. An anchor may be an intermediate CA (AS-65); the leaf alone is a path when that
very certificate is configured as an anchor. Validity, constraints and revocation are judged later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gateway.sta.certificates import Certificate, signed_by

MAX_DEPTH = 8
"""Certificates in a path, leaf and anchor included."""
MAX_SIGNATURE_CHECKS = 32
MAX_STEPS = 256
MAX_UNTRUSTED = 16
MAX_PATHS = 8
MAX_ISSUER_FETCHES = 4

Path = tuple[Certificate, ...]
IssuerFetch = Callable[[Certificate], Sequence[Certificate]]
"""Fetch the issuers that a certificate names by AIA caIssuers (AS-66); empty when there are none to be had."""


@dataclass
class _Search:
    anchors: Sequence[Certificate]
    untrusted: Sequence[Certificate]
    at: datetime
    signature_checks: int = MAX_SIGNATURE_CHECKS
    steps: int = MAX_STEPS
    known: dict[tuple[str, str], bool | None] = field(default_factory=dict)
    dead_ends: dict[Certificate, None] = field(default_factory=dict)

    def paths(self, trail: Path) -> Iterator[Path]:
        """Yield the paths that continue the trail. Recursion is bounded by MAX_DEPTH."""
        tail = trail[-1]
        if len(trail) >= MAX_DEPTH or self.steps <= 0:
            return
        self.steps -= 1
        followed = False
        for anchor in self._issuers(tail, self.anchors):
            if anchor not in trail and self._made_by(tail, anchor):
                followed = True
                yield (*trail, anchor)
        for issuer in self._issuers(tail, self.untrusted):
            # The same CA may appear under several certificates; going round through its key again proves nothing.
            if any(issuer.public_key_der == c.public_key_der and issuer.subject_key == c.subject_key for c in trail):
                continue
            if self._made_by(tail, issuer):
                followed = True
                yield from self.paths((*trail, issuer))
        if not followed:
            self.dead_ends.setdefault(tail)

    def _issuers(self, subject: Certificate, pool: Sequence[Certificate]) -> list[Certificate]:
        """Certificates that bear the issuer's name: those whose key identifier agrees and that are in date first."""
        named = [c for c in pool if c.subject_key == subject.issuer_key and c != subject]

        def rank(candidate: Certificate) -> tuple[bool, bool]:
            wanted = subject.authority_key_id
            return (wanted is not None and candidate.key_id != wanted, not candidate.is_valid_at(self.at))

        return sorted(named, key=rank)

    def _made_by(self, subject: Certificate, issuer: Certificate) -> bool:
        """Whether the issuer's key may have made the signature; what this check cannot tell is left open."""
        pair = (subject.sha256, issuer.sha256)
        if pair not in self.known:
            if self.signature_checks <= 0:
                return False
            self.signature_checks -= 1
            self.known[pair] = signed_by(subject, issuer)
        return self.known[pair] is not False


def build_paths(
    leaf: Certificate,
    anchors: Sequence[Certificate],
    untrusted: Sequence[Certificate],
    at: datetime,
    fetch_issuers: IssuerFetch | None = None,
) -> list[Path]:
    """Return at most MAX_PATHS candidate paths, the most promising first; empty when nothing leads to an anchor.

    Of ``untrusted`` at most MAX_UNTRUSTED count: those that bear a name on the way up. Issuers are fetched only when
    what is at hand leads nowhere, for at most MAX_ISSUER_FETCHES certificates; the signature and step budgets are not
    renewed for them.
    """
    if leaf in anchors:
        return [(leaf,)]
    search = _Search(anchors, _on_the_way(leaf, untrusted), at)
    found = _take(search, leaf)
    fetched: set[Certificate] = set()
    fetched_issuers: list[Certificate] = []
    while not found and fetch_issuers is not None and len(fetched) < MAX_ISSUER_FETCHES:
        ends = [end for end in search.dead_ends if end not in fetched]
        if not ends:
            break
        fetched.add(ends[0])
        new = [c for c in fetch_issuers(ends[0]) if c not in search.untrusted][:MAX_UNTRUSTED]
        if new:
            # Fetched issuers come first: a message stuffed with certificates must not crowd them out.
            fetched_issuers = [*new, *fetched_issuers]
            search.untrusted = [*fetched_issuers, *_on_the_way(leaf, [*fetched_issuers, *untrusted])]
            search.untrusted = list(dict.fromkeys(search.untrusted))[: 2 * MAX_UNTRUSTED]
            search.dead_ends.clear()
            found = _take(search, leaf)
    return found


def _on_the_way(leaf: Certificate, pool: Sequence[Certificate]) -> list[Certificate]:
    """The certificates of the pool whose names lead up from the leaf, nearest first, at most MAX_UNTRUSTED.

    A message may carry many certificates that have nothing to do with its signer (SET OF sorts them by their
    encoding), and the one issuer that matters must not be cut off behind them.
    """
    chosen: dict[Certificate, None] = {leaf: None}
    waiting = [leaf]
    for subject in waiting:
        named = [c for c in pool if c.subject_key == subject.issuer_key and c not in chosen]
        wanted = subject.authority_key_id
        named.sort(key=lambda c: wanted is not None and c.key_id != wanted)
        chosen.update(dict.fromkeys(named))
        waiting += named
    return list(chosen)[1 : MAX_UNTRUSTED + 1]


def _take(search: _Search, leaf: Certificate) -> list[Path]:
    found: list[Path] = []
    for path in search.paths((leaf,)):
        found.append(path)
        if len(found) >= MAX_PATHS:
            break
    return found
