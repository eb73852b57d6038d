"""A patient as he is after an event: what is stored, changed by what the PID segment says (HL7-8). Pure.

A field that is empty says nothing, and what is stored stays; ``""`` deletes it; anything else takes its place, as a
whole. So a feed that never sends an address does not take away the one that a file brought.

Direct addresses: those that are marked as such (:mod:`gateway.core.hl7_patient`) are added to the documented ones, or
take their place where the settings say that the feed names all of them. They count as confirmed: the EHR says so. A
message without any of the fields for them, or with an address that cannot be read, takes none away: an address that two
patients share would then be documented for one of them alone, and mail from it would be linked to him.

Failure modes: HL7Error for a value that the index cannot hold; the text names the field.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field, replace

from gateway.core.claims import Claim, PostalAddress
from gateway.core.hl7 import DATA_TYPE_ERROR, HL7Error, Segment
from gateway.core.hl7_patient import read_pid
from gateway.hl7.adt import REGISTERING, ADTRules, PatientGroup
from gateway.ports import Patient, PatientDetail

MAX_TEXT_CHARS = 256
MAX_ADDRESSES = 32
MAX_DETAILS = 50
"""Of each kind of further names, numbers, phones and addresses."""
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored of a patient. ``patient`` is None for one who is not in the index."""

    patient: Patient | None = None
    detail: PatientDetail = field(default_factory=PatientDetail)
    unconfirmed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Update:
    """What is to be stored, and what a person might want to know of it."""

    patient: Patient
    detail: PatientDetail
    unconfirmed: frozenset[str]
    notice: str = ""


def updated(known: Known, group: PatientGroup, event: str, rules: ADTRules) -> Update:
    """Apply the PID segment of an event to a patient.

    Raises:
        HL7Error: a value cannot be read or kept; nothing of the event may be applied then.
    """
    reading = read_pid(group.pid, direct_code=rules.direct_code)
    notice = ""
    for doubt in reading.doubts:
        if doubt.field == 7:
            raise doubt
        notice = "PID-13: a Direct address cannot be read and was left out"
    claim, before = reading.claim, known.patient or Patient(group.patient_id)
    patient = _demographics(before, claim, group)
    named = claim.direct_addresses
    names_all = rules.replaces_addresses and not notice and any(map(group.pid.raw, (13, 14, 40)))
    addresses = named if names_all else tuple(dict.fromkeys((*before.direct_addresses, *named)))
    if len(addresses) > MAX_ADDRESSES:
        raise _unfit("PID", 13, f"more than {MAX_ADDRESSES} Direct addresses")
    # To be registered again is what makes an inactive record active; a change of its address does not.
    active = known.patient is None or before.active or event in REGISTERING
    return Update(
        patient=replace(patient, direct_addresses=addresses, active=active),
        detail=_detail(known.detail, claim, group.pid),
        unconfirmed=(known.unconfirmed & set(addresses)) - set(named),
        notice=notice,
    )


def _demographics(before: Patient, claim: Claim, group: PatientGroup) -> Patient:
    pid = group.pid
    changed = replace(before, mrn=group.mrn or before.mrn)
    if pid.raw(5):
        name = claim.names[0] if claim.names else None
        given = " ".join((*name.given, *name.middle.split())) if name else ""
        changed = replace(changed, family=_fit(name.family if name else "", 5), given=_fit(given, 5))
    if pid.raw(7):
        changed = replace(changed, birth_date=claim.birth_date)
    if pid.raw(8):
        changed = replace(changed, sex=claim.sex)
    if pid.raw(11):
        address = _address(claim)
        changed = replace(
            changed,
            address_line=_fit(", ".join(address.lines), 11),
            city=_fit(address.city, 11),
            postal_code=_fit(address.postal_code, 11),
        )
    if pid.raw(13) or pid.raw(14) or pid.raw(40):
        changed = replace(changed, phone=_fit(claim.phones[0] if claim.phones else "", 13))
    if claim.deceased is not None:
        changed = replace(changed, deceased=claim.deceased)
    elif pid.is_null(30) or pid.is_null(29):
        changed = replace(changed, deceased=False)
    return changed


def _address(claim: Claim) -> PostalAddress:
    """The one in use, else the first one, else none."""
    current = [address for address in claim.addresses if not address.is_old]
    return next(iter((*current, *claim.addresses)), PostalAddress())


def _detail(known: PatientDetail, claim: Claim, pid: Segment) -> PatientDetail:
    """What the row of the patient has no place for."""
    chosen = _address(claim)
    detail = known
    if pid.raw(5) or pid.raw(9):
        detail = replace(detail, names=tuple(name for name in claim.names[1:] if _short(name.family, *name.given)))
    if pid.raw(3):
        detail = replace(detail, identifiers=tuple(i for i in claim.identifiers if _short(i.value, i.assigner, i.kind)))
    if pid.raw(11):
        others = (a for a in claim.addresses if a is not chosen)
        detail = replace(detail, addresses=tuple(a for a in others if _short(*a.lines, a.city, a.state, a.postal_code)))
    if pid.raw(13) or pid.raw(14) or pid.raw(40):
        detail = replace(
            detail,
            phones=tuple(phone for phone in claim.phones[1:] if _short(phone)),
            emails=tuple(email for email in claim.emails if _short(email)),
        )
    return PatientDetail(
        detail.names[:MAX_DETAILS],
        detail.identifiers[:MAX_DETAILS],
        detail.phones[:MAX_DETAILS],
        detail.emails[:MAX_DETAILS],
        detail.addresses[:MAX_DETAILS],
    )


def _short(*texts: str) -> bool:
    """Whether a further value is worth keeping: what is longer than any name is none."""
    return all(len(text) <= MAX_TEXT_CHARS and _is_plain(text) for text in texts)


def _fit(text: str, number: int) -> str:
    if len(text) > MAX_TEXT_CHARS:
        raise _unfit("PID", number, f"longer than {MAX_TEXT_CHARS} characters")
    if not _is_plain(text):
        raise _unfit("PID", number, "holds control characters")
    return text


def _is_plain(text: str) -> bool:
    if text.isascii():
        return text.isprintable()
    return not any(char in _BIDI_CONTROLS or unicodedata.category(char) in {"Cc", "Cs"} for char in text)


def _unfit(segment: str, number: int, why: str) -> HL7Error:
    return HL7Error(f"{segment}-{number}: {why}", segment=segment, field=number, code=DATA_TYPE_ERROR)
