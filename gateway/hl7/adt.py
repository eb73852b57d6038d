"""What an ADT message says of which patients (HL7 2.5.1 chapter 3, HL7-5, HL7-8). Pure.

An event is applied, or ignored by name because it says nothing that the index holds (a transfer, a discharge), or
refused because it changes who is who in a way that is not understood here: to accept that would lose it.

A patient is the one identifier of PID-3 that the practice's own assigning authority gave, of the type that the settings
name. None, or several different ones, is refused: a number of another hospital may be anybody's here.

Failure modes: HL7Error, which is an AR: the same message can never be applied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from gateway.core.claims import is_social_security
from gateway.core.hl7 import (
    DATA_TYPE_ERROR,
    REQUIRED_FIELD_MISSING,
    SEGMENT_SEQUENCE_ERROR,
    TABLE_VALUE_NOT_FOUND,
    UNKNOWN_KEY,
    UNSUPPORTED_MESSAGE_TYPE,
    HL7Error,
    Message,
    Repetition,
    Segment,
)
from gateway.core.hl7_patient import Moment, read_moment

UNSUPPORTED_EVENT = "201"
UNSUPPORTED_PROCESSING_ID = "202"
MAX_PAIRS = 100
"""Merges of one message."""
REGISTERING = frozenset({"A01", "A04", "A05", "A28"})
UPDATING = frozenset({"A08", "A31"})
MERGING = frozenset({"A34", "A39", "A40", "A47"})
REMOVING = frozenset({"A29"})
IGNORED = frozenset(
    f"A{number:02}"
    for number in (2, 3, 6, 7, *range(9, 18), *range(20, 24), 25, 26, 27, 32, 33, 38, *range(52, 56), *range(60, 63))
)
"""Events about visits, beds and their cancelling: nothing of them is in the patient index."""
_ID = re.compile(r"[!-~]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class IdentifierRule:
    """Which identifier of a list is meant. Case does not count."""

    authority: str
    """Namespace or OID of CX.4."""
    kind: str
    """CX.5; empty: any."""


@dataclass(frozen=True, slots=True)
class ADTRules:
    """What the settings say of the feed."""

    patient: IdentifierRule
    mrn: IdentifierRule
    processing_id: str = "P"
    zone: tzinfo = UTC
    direct_code: str = "DIRECT"
    replaces_addresses: bool = False


@dataclass(frozen=True, slots=True)
class PatientGroup:
    """A patient of a message, and the record that was merged into his."""

    patient_id: str
    mrn: str
    pid: Segment
    loser_id: str = ""


@dataclass(frozen=True, slots=True)
class ADTMessage:
    """An event to be applied."""

    event: str
    event_at: Moment
    groups: tuple[PatientGroup, ...]


def read_adt(message: Message, rules: ADTRules, now: datetime) -> ADTMessage | None:
    """Read an ADT message; None for an event that is ignored.

    Raises:
        HL7Error: it cannot be applied as it is.
    """
    if not message.msh.text(10).strip():
        raise HL7Error("MSH-10: the control id is missing", segment="MSH", field=10, code=REQUIRED_FIELD_MISSING)
    event = _event(message)
    given = message.msh.text(11).strip().upper()
    if given and given != rules.processing_id.upper():
        raise HL7Error(
            "MSH-11: the message is not meant for this environment (adt.processing_id)",
            segment="MSH",
            field=11,
            code=UNSUPPORTED_PROCESSING_ID,
        )
    if event in IGNORED:
        return None
    if event not in REGISTERING | UPDATING | MERGING | REMOVING:
        raise HL7Error("MSH-9: the event is not supported", segment="MSH", field=9, code=UNSUPPORTED_EVENT)
    moment = _moment(message, rules, now)
    groups = _merges(message, rules) if event in MERGING else (_single(message, rules),)
    return ADTMessage(event, moment, groups)


def _event(message: Message) -> str:
    kind, event = message.kind()
    if kind != "ADT":
        raise HL7Error("MSH-9: only ADT is taken here", segment="MSH", field=9, code=UNSUPPORTED_MESSAGE_TYPE)
    if not event:
        evn = message.first("EVN")
        event = evn.text(1).strip().upper() if evn is not None else ""
    if not event:
        raise HL7Error("MSH-9: the event is missing", segment="MSH", field=9, code=REQUIRED_FIELD_MISSING)
    return event


def _moment(message: Message, rules: ADTRules, now: datetime) -> Moment:
    """When it happened: EVN-2, else MSH-7. A time that is still to come is taken for now.

    Otherwise one wrong clock would shut out every later message of that patient.
    """
    evn = message.first("EVN")
    for segment, field in ((evn, 2), (message.msh, 7)):
        text = "" if segment is None else segment.text(field).strip()
        if segment is None or not text:
            continue
        found = read_moment(text, rules.zone)
        if found is None:
            place = f"{segment.name}-{field}"
            raise HL7Error(f"{place} is not a time", segment=segment.name, field=field, code=DATA_TYPE_ERROR)
        return Moment(min(found.begin, now), min(found.end, now))
    raise HL7Error("MSH-7: the time is missing", segment="MSH", field=7, code=REQUIRED_FIELD_MISSING)


def _single(message: Message, rules: ADTRules) -> PatientGroup:
    found = message.all("PID")
    if len(found) != 1:
        code = SEGMENT_SEQUENCE_ERROR if found else REQUIRED_FIELD_MISSING
        raise HL7Error("the event is of one patient and needs one PID segment", segment="PID", code=code)
    return _group(found[0], rules)


def _merges(message: Message, rules: ADTRules) -> tuple[PatientGroup, ...]:
    """Each MRG with the PID before it."""
    groups: list[PatientGroup] = []
    pid: Segment | None = None
    for segment in message.segments:
        if segment.name == "PID":
            if pid is not None:
                break
            pid = segment
        elif segment.name == "MRG":
            if pid is None or len(groups) >= MAX_PAIRS:
                raise HL7Error("MRG stands after no PID", segment="MRG", code=SEGMENT_SEQUENCE_ERROR)
            survivor = _group(pid, rules)
            loser = _the_one(segment, 1, rules.patient)
            if loser == survivor.patient_id:
                raise HL7Error("MRG-1 names the patient of PID-3", segment="MRG", field=1, code=UNKNOWN_KEY)
            groups.append(PatientGroup(survivor.patient_id, survivor.mrn, pid, loser))
            pid = None
    if pid is not None or not groups:
        raise HL7Error("a merge needs an MRG segment after each PID", segment="MRG", code=REQUIRED_FIELD_MISSING)
    return tuple(groups)


def _group(pid: Segment, rules: ADTRules) -> PatientGroup:
    patient_id = _the_one(pid, 3, rules.patient)
    record_numbers = _matching(pid, 3, rules.mrn)
    # The first one, as in every file: a record number serves for looking, and who is meant is said by the id.
    mrn = record_numbers[0] if record_numbers else ""
    usable = mrn.isprintable() and len(mrn) <= 128 and not is_social_security(mrn)
    return PatientGroup(patient_id, mrn if usable else "", pid)


def _the_one(segment: Segment, field: int, rule: IdentifierRule) -> str:
    found = _matching(segment, field, rule)
    place = f"{segment.name}-{field}"
    if not found:
        raise HL7Error(
            f"{place} has no identifier of the authority and type that [adt] names",
            segment=segment.name,
            field=field,
            code=REQUIRED_FIELD_MISSING,
        )
    if len(found) > 1:
        raise HL7Error(
            f"{place} has several identifiers of the authority and type that [adt] names",
            segment=segment.name,
            field=field,
            code=TABLE_VALUE_NOT_FOUND,
        )
    if not _ID.match(found[0]) or is_social_security(found[0]):
        raise HL7Error(
            f"{place}: the id must be 1 to 128 printable ASCII characters without a space, and no social security "
            "number",
            segment=segment.name,
            field=field,
            code=DATA_TYPE_ERROR,
        )
    return found[0]


def _matching(segment: Segment, field: int, rule: IdentifierRule) -> Sequence[str]:
    """The different values of the authority and type."""
    wanted = rule.authority.casefold()
    return list(
        dict.fromkeys(
            value
            for one in segment.repetitions(field)
            if wanted in {one.text(4, 1).strip().casefold(), one.text(4, 2).strip().casefold()}
            and (not rule.kind or one.text(5).strip().casefold() == rule.kind.casefold())
            and (value := _number(one))
        )
    )


def _number(one: Repetition) -> str:
    """CX.1. Raises HL7Error: it has several parts, as an id with an ampersand that was not escaped."""
    if one.text(1, 2):
        # Its first part may be the number of somebody else.
        place = f"{one.segment.name}-{one.field}"
        raise HL7Error(
            f"{place}: an id has several parts; a delimiter in it must be escaped",
            segment=one.segment.name,
            field=one.field,
            code=DATA_TYPE_ERROR,
        )
    return one.text(1).strip()
