"""What a certificate's own issuer says of it in its revocation lists (RFC 5280 6.3; AS-55, AS-69).

Only lists under the issuer's name and signed with the issuer's key count here, complete, in scope for the certificate,
or delta; all others are ``indirect_lists``' business.

``revoked`` needs an entry dated at or before the moment judged, in a list that is not older than the newest complete
one in force. A revocation is final, so a list past its nextUpdate, out of scope or with something critical that is not
understood still proves it; a hold counts only where it stands in what is in force. ``good`` needs a complete list in
force that is signed as RFC 5280 asks, with the delta list that goes with it, when there is one at hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pyhanko_certvalidator.policy_decl import AlgorithmUsagePolicy

from gateway.sta.certificates import Certificate
from gateway.sta.fetching.authority_access import freshest_points
from gateway.sta.paths.path_building import Path
from gateway.sta.revocation.crls import MESSAGE, RevocationList
from gateway.sta.revocation.data_signatures import working_public_key
from gateway.sta.revocation.findings import Finding, finding, unknown

MAX_CLOCK_SKEW = timedelta(minutes=5)
"""A list or answer made so shortly after the moment counts as in force: clocks differ, and a responder that answers on
demand answers after the message was received."""
WITHOUT_DELTA = timedelta(hours=1)
"""So long a base list is relied on whose delta list was not to be had."""
_HOLD = "certificateHold"
_LIFTED = "removeFromCRL"


@dataclass(frozen=True, slots=True)
class Question:
    """A certificate, what stands above it, and the moment."""

    path: Path
    """The certificate, its issuer, and so on up to the anchor."""
    at: datetime
    algorithms: AlgorithmUsagePolicy

    @property
    def certificate(self) -> Certificate:
        """Whose status is asked."""
        return self.path[0]

    @property
    def issuer(self) -> Certificate:
        """Whose key made it."""
        return self.path[1]

    @property
    def issuer_digest(self) -> bytes:
        """Names whose lists are asked for: the issuer's name and key, in however many certificates they stand."""
        name = self.certificate.issuer_key.encode("utf-8", "surrogatepass")
        return hashlib.sha256(name + b"\0" + self.issuer_public_key).digest()

    @property
    def issuer_public_key(self) -> bytes:
        """The issuer's key, DER."""
        return working_public_key(self.path[1:])


def is_current(one: RevocationList, at: datetime) -> bool:
    """Whether the list is in force, or was made just after the moment."""
    return one.is_in_force(at) or at < one.this_update <= at + MAX_CLOCK_SKEW


def of_issuer(question: Question, lists: Sequence[RevocationList]) -> list[RevocationList]:
    """The lists under the issuer's name and with its signature, for its own certificates, the newest first."""
    key = question.issuer_public_key
    name = question.certificate.issuer_key
    mine = [c for c in lists if c.issuer_key == name and not c.is_indirect and c.is_signed_by(key)]
    return sorted(dict.fromkeys(mine), key=lambda c: c.this_update, reverse=True)


def is_rollback(new: Sequence[RevocationList], kept: Sequence[RevocationList], at: datetime) -> bool:
    """Whether lists from a distribution point are older than those that it served before (RFC 5280 5.2.3).

    An earlier list is signed as well as a later one, and whoever stands on the way may serve it again. Each list is
    compared with the one of its kind (issuer, scope, complete or delta), and the newest with the newest. Time decides;
    a lower number of a later list counts only while the kept list is in force, because an authority may begin to
    count anew. A list dated in the future, as of the moment, is no measure: its successors would be older for years.
    """
    measures = [one for one in kept if one.this_update <= at + MAX_CLOCK_SKEW]
    if not measures:
        return False
    if max(one.this_update for one in new) < max(one.this_update for one in measures):
        return True
    return any(_is_older(one, other, at) for one in new for other in measures if _kind(one) == _kind(other))


def _kind(one: RevocationList) -> tuple[str, bytes, bool]:
    return one.issuer_key, one.scope_der, one.is_delta


def _is_older(new: RevocationList, kept: RevocationList, at: datetime) -> bool:
    if new.this_update < kept.this_update:
        return True
    counts_back = new.number is not None and kept.number is not None and new.number < kept.number
    return counts_back and kept.is_in_force(at)


def judge_lists(question: Question, lists: Sequence[RevocationList], *, by_message: bool = False) -> Finding:
    """The status by these lists.

    A list that the message itself carries may revoke. It clears only with ``by_message``, which is for when nothing
    else can be had: a sender who has been revoked would enclose the last list that did not say so.
    """
    mine = of_issuer(question, lists)
    clearing = [c for c in mine if by_message or c.origin != MESSAGE]
    complete = [c for c in clearing if not c.is_delta and c.covers(question.certificate)]
    base = next((c for c in complete if is_current(c, question.at)), None)
    delta = _delta_of(base, clearing, question) if base is not None else None
    return _revoked(question, mine, base, delta) or _cleared(question, mine, base, delta, lists)


def _delta_of(base: RevocationList, lists: Sequence[RevocationList], question: Question) -> RevocationList | None:
    """The newest delta list that can be combined with the base (RFC 5280 5.2.4)."""
    for one in lists:
        fits = (
            one.is_delta
            and one.covers(question.certificate)
            and one.scope_der == base.scope_der
            and is_current(one, question.at)
        )
        numbered = base.number is not None and one.base_number is not None and one.number is not None
        if fits and numbered and one.base_number <= base.number < one.number:  # type: ignore[operator]
            return one
    return None


def _revoked(
    question: Question, mine: Sequence[RevocationList], base: RevocationList | None, delta: RevocationList | None
) -> Finding | None:
    serial = question.certificate.serial
    news = delta.entry(serial) if delta is not None else None
    for one in mine:
        if base is not None and one.this_update < base.this_update:
            break
        entry = one.entry(serial)
        if entry is None or entry[0] > question.at or entry[1] == _LIFTED:
            continue
        in_force = one is base or one is delta
        if entry[1] == _HOLD and not in_force:
            continue
        lifted = delta is not None and news is not None and news[1] == _LIFTED
        if delta is not None and lifted and one.this_update <= delta.this_update:
            continue
        detail = f"revoked on {entry[0]:%Y-%m-%d} ({entry[1]})"
        until = one.next_update if one.next_update is not None and one.next_update > question.at else None
        return finding(question.certificate, "revoked", detail, [one.proof], revoked_at=entry[0], valid_until=until)
    return None


def _cleared(
    question: Question,
    mine: Sequence[RevocationList],
    base: RevocationList | None,
    delta: RevocationList | None,
    lists: Sequence[RevocationList],
) -> Finding:
    if base is None:
        return unknown(question.certificate, _why_not(question, mine, lists))
    used = [base] if delta is None else [base, delta]
    if not all(one.may_clear(question.issuer, question.algorithms) for one in used):
        return unknown(question.certificate, "the CRL is not signed as a CRL must be")
    entries = [one.entry(question.certificate.serial) for one in mine]
    later = [entry[0] for entry in entries if entry is not None and entry[0] > question.at]
    ends = [*later, *(one.next_update for one in used if one.next_update is not None)]
    detail = f"revoked only later, on {min(later):%Y-%m-%d}" if later else f"not on the CRL of {_day(used[-1])}"
    if delta is None and (base.freshest_urls or freshest_points(question.certificate.asn1)):
        detail += ", without its delta list"
        ends.append(question.at + WITHOUT_DELTA)
    # What a message encloses holds for that message alone.
    until = None if any(one.origin == MESSAGE for one in used) else min(ends)
    return finding(question.certificate, "good", detail, [one.proof for one in used], valid_until=until)


def _why_not(question: Question, mine: Sequence[RevocationList], lists: Sequence[RevocationList]) -> str:
    if any(not c.is_delta and c.covers(question.certificate) for c in mine):
        return "the CRL is not in force at this time"
    if mine:
        return "no complete CRL at hand"
    if any(c.issuer_key == question.certificate.issuer_key for c in lists):
        return "a CRL at hand is not signed by the certificate's issuer"
    return "no CRL at hand"


def _day(one: RevocationList) -> str:
    return f"{one.this_update:%Y-%m-%d}"
