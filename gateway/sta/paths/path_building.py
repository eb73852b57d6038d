"""Building candidate paths from a signer's certificate to the recipients' anchors, within hard bounds (S/MIME rule 16).

Every certificate but the anchors comes from an attacker, and the number of paths through same-named certificates is
factorial. The search is therefore depth first with a budget of depth, signature checks and steps for each signer. The
ways up through a stranger's certificates are the same whoever trusts: they are walked once, and each recipient's
anchors are only looked for at their ends. So neither many recipients nor other signers use up what a signer needs. An
issuer whose key did not make the signature is never followed. When the budget is used up the paths found until then
are what there is: a correspondent that needs more is untrusted, not slow.

A path is leaf first, anchor last. An anchor may be an intermediate CA (AS-65); the leaf alone is a path when that
very certificate is configured as an anchor. Validity, constraints and revocation are judged later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from gateway.sta.algorithm_policy import RSA_BITS_CEILING, RSA_EXPONENT_BITS
from gateway.sta.certificates import Certificate, signed_by

MAX_DEPTH = 8
"""Certificates in a path, leaf and anchor included."""
MAX_SIGNATURE_CHECKS = 32
"""With the keys of a stranger for each signer, and with those of anchors for each signer and set of anchors."""
MAX_STEPS = 256
MAX_UNTRUSTED = 16
MAX_PATHS = 8
MAX_ISSUER_FETCHES = 4

Path = tuple[Certificate, ...]
SignatureChecks = dict[tuple[str, str], bool | None]
"""What signature checks said, by the digests of subject and issuer: a fact about the two, whoever trusts them."""
IssuerFetch = Callable[[Certificate], Sequence[Certificate]]
"""Fetch the issuers that a certificate names by AIA caIssuers (AS-66); empty when there are none to be had."""
BySubject = Mapping[str, Sequence[Certificate]]
"""Certificates by the name that they bear (``Certificate.subject_key``): there may be thousands of anchors."""


def by_subject(certificates: Iterable[Certificate]) -> BySubject:
    """Arrange certificates by name, in their order."""
    found: dict[str, list[Certificate]] = {}
    for certificate in certificates:
        found.setdefault(certificate.subject_key, []).append(certificate)
    return found


class PathSearch:
    """The search of one signer for paths to anybody's anchors.

    Of ``untrusted`` at most MAX_UNTRUSTED count: those that bear a name on the way up. ``fetch`` gets the issuers of
    certificates from which nothing leads on, of at most MAX_ISSUER_FETCHES. ``known`` is shared by the searches of one
    message. Not safe to share between threads.
    """

    def __init__(
        self,
        leaf: Certificate,
        untrusted: Sequence[Certificate],
        at: datetime,
        fetch: IssuerFetch | None = None,
        known: SignatureChecks | None = None,
    ) -> None:
        self._leaf = leaf
        self._given = untrusted
        self._at = at
        self._fetch = fetch if leaf.is_valid_at(at) else None
        self._signatures = _Signatures({} if known is None else known)
        self._steps = _Steps()
        self._asked: dict[Certificate, None] = {}
        self._fetched: list[Certificate] = []
        self._walks = [self._walk(_on_the_way(leaf, untrusted))]
        """First with what is at hand, then with what each fetch added."""
        self._out_of_date: _Walk | None = None

    def paths(self, anchors: BySubject) -> list[Path]:
        """At most MAX_PATHS candidate paths, the most promising first; empty when nothing leads to an anchor.

        Issuers are fetched only when what is at hand leads nowhere. Issuers out of date lead to a path only when no
        others do: they then say why it does not hold, and until then hide no renewed twin, be it at hand or to be
        fetched.
        """
        if self._leaf in anchors.get(self._leaf.subject_key, ()):
            return [(self._leaf,)]
        signatures = _Signatures(self._signatures.known)
        number = 0
        while (walk := self._numbered(number)) is not None:
            found = walk.paths(anchors, signatures)
            if found:
                return found
            number += 1
        if self._out_of_date is None:
            self._out_of_date = _Walk(self._leaf, self._walks[-1].pool, None, self._signatures, _Steps())
        return self._out_of_date.paths(anchors, signatures)

    def topmost(self) -> Path:
        """The way up as far as it leads without any anchor: to tell an operator which one is missing."""
        pool = by_subject(self._walks[-1].pool)
        trail: Path = (self._leaf,)
        while len(trail) < MAX_DEPTH:
            above = [c for c in _named(trail[-1], pool) if c not in trail]
            maker = next((c for c in above if self._signatures.made(trail[-1], c)), None)
            if maker is None:
                break
            trail = (*trail, maker)
        return trail

    def _walk(self, pool: list[Certificate]) -> _Walk:
        return _Walk(self._leaf, pool, self._at, self._signatures, self._steps)

    def _numbered(self, number: int) -> _Walk | None:
        """The walk of that number; the last one has led nowhere when a further one is asked for."""
        if number == len(self._walks) and self._fetch is not None:
            new = self._fetch_more(self._fetch)
            if new:
                # Fetched issuers come first: a message stuffed with certificates must not crowd them out.
                self._fetched = [*new, *self._fetched]
                near = _on_the_way(self._leaf, [*self._fetched, *self._given])
                self._walks.append(self._walk(list(dict.fromkeys((*self._fetched, *near)))[: 2 * MAX_UNTRUSTED]))
        return self._walks[number] if number < len(self._walks) else None

    def _fetch_more(self, fetch: IssuerFetch) -> list[Certificate]:
        """Fetch the issuers of dead ends, one after the other, until there are any that were not at hand."""
        last = self._walks[-1]
        for end in last.dead_ends:
            if len(self._asked) >= MAX_ISSUER_FETCHES:
                break
            if end not in self._asked:
                self._asked[end] = None
                new = [c for c in fetch(end) if c not in last.pool][:MAX_UNTRUSTED]
                if new:
                    return new
        return []


class _Signatures:
    """Signature checks within a budget; those that are known cost nothing."""

    def __init__(self, known: SignatureChecks) -> None:
        self.known = known
        self._left = MAX_SIGNATURE_CHECKS

    def made(self, subject: Certificate, issuer: Certificate) -> bool:
        """Whether the issuer's key may have made the signature; what this check cannot tell is left open."""
        pair = (subject.sha256, issuer.sha256)
        if pair not in self.known:
            if self._left <= 0:
                return False
            self._left -= 1
            self.known[pair] = signed_by(subject, issuer) if _is_affordable(issuer) else False
        return self.known[pair] is not False


class _Steps:
    """A budget of steps."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def take(self) -> bool:
        """Take one; False when none is left."""
        self._left -= 1
        return self._left >= 0


class _Walk:
    """The ways up from a leaf through a pool of certificates, walked as far as somebody asks, and never twice."""

    def __init__(
        self, leaf: Certificate, pool: list[Certificate], at: datetime | None, signatures: _Signatures, steps: _Steps
    ) -> None:
        """With a moment, issuers count only within their validity dates."""
        self.pool = pool
        self.dead_ends: dict[Certificate, None] = {}
        """From which nothing leads on; complete when the walk led to no path."""
        self._by_subject = by_subject(pool)
        self._at = at
        self._signatures = signatures
        self._steps = steps
        self._trails: list[Path] = []
        self._more = self._explore((leaf,))
        self._names: set[str] = set()
        """Of the issuers of all ends; complete when the walk is."""
        self._is_complete = False

    def paths(self, anchors: BySubject, signatures: _Signatures) -> list[Path]:
        """At most MAX_PATHS ways that end at an anchor."""
        found: list[Path] = []
        if self._is_complete and not any(wanted in anchors for wanted in self._names):
            return found
        makers: dict[Certificate, list[Certificate]] = {}
        for trail in self._all():
            tail = trail[-1]
            if tail.issuer_key not in anchors:
                continue
            if tail not in makers:
                makers[tail] = [c for c in _named(tail, anchors, self._at) if signatures.made(tail, c)]
            found += [(*trail, anchor) for anchor in makers[tail] if anchor not in trail]
            if len(found) >= MAX_PATHS:
                break
        return found[:MAX_PATHS]

    def _all(self) -> Iterator[Path]:
        """The trails in order: those that are known, then further ones."""
        yield from self._trails
        for trail in self._more:
            self._trails.append(trail)
            self._names.add(trail[-1].issuer_key)
            yield trail
        self._is_complete = True

    def _explore(self, trail: Path) -> Iterator[Path]:
        """Yield the trail and those that continue it. Recursion is bounded by MAX_DEPTH."""
        if len(trail) >= MAX_DEPTH or not self._steps.take():
            return
        yield trail
        tail, followed = trail[-1], False
        for issuer in _named(tail, self._by_subject, self._at):
            # The same CA may appear under several certificates; going round through its key again proves nothing.
            if any(issuer.public_key_der == c.public_key_der and issuer.subject_key == c.subject_key for c in trail):
                continue
            if self._signatures.made(tail, issuer):
                followed = True
                yield from self._explore((*trail, issuer))
        if not followed:
            self.dead_ends.setdefault(tail)


def _named(subject: Certificate, pool: BySubject, at: datetime | None = None) -> list[Certificate]:
    """Certificates that bear the issuer's name: those whose key identifier agrees first."""
    wanted = subject.authority_key_id
    named = [c for c in pool.get(subject.issuer_key, ()) if c != subject and (at is None or c.is_valid_at(at))]
    return sorted(named, key=lambda c: wanted is not None and c.key_id != wanted)


def _is_affordable(issuer: Certificate) -> bool:
    """Whether a signature check with the key costs no more than it should (S/MIME rule 15)."""
    try:
        key = issuer.asn1.public_key
        if key.algorithm != "rsa":
            return True
        exponent = int(key["public_key"].parsed["public_exponent"].native)
        return key.bit_size <= RSA_BITS_CEILING and exponent.bit_length() <= RSA_EXPONENT_BITS[-1]
    except Exception:  # noqa: BLE001 - asn1crypto raises many types on hostile input
        return False


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
