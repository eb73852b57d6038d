"""What a PID segment says of its patient, as a :class:`gateway.core.claims.Claim` (HL7-5).

The names of PID-5 and PID-9 each with what they are to their bearer, every identifier but a social security number
(PID-19 is not even looked at), addresses, phones and e-mail addresses of PID-13, PID-14 and PID-40.

An e-mail address is never taken for a Direct address, whatever its domain. HL7 v2 has no code for the latter, so one
counts only when it is marked: its value begins with ``urn:direct:`` (as in FHIR), or the use code or the equipment
type (XTN-2, XTN-3) is the word that both sides agreed on, ``DIRECT``.

Guarantees: pure; texts are as written, with white space made single and control characters removed. Failure modes:
what cannot be read is left out of the claim and told in :attr:`PatientReading.doubts`, by its place.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo

from gateway.core.address import normalise
from gateway.core.claims import (
    Claim,
    Identifier,
    NameKind,
    PersonName,
    PostalAddress,
    Source,
    Strength,
    is_social_security_shape,
    kept_identifiers,
)
from gateway.core.errors import InputError
from gateway.core.hl7 import DATA_TYPE_ERROR, HL7Error, Repetition, Segment

DIRECT_CODE = "DIRECT"
"""XTN-2 or XTN-3 of a Direct address, unless the settings name another word."""
_DIRECT_PREFIX = "urn:direct:"
_OID = re.compile(r"[0-2](?:\.(?:0|[1-9]\d*))+\Z", re.ASCII)
_MOMENT = re.compile(
    r"(\d{4})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6})\d*)?)?)?)?)?)?([+-]\d{4})?\Z", re.ASCII
)
_SEXES = {"M": "male", "F": "female", "O": "other", "A": "other", "X": "other", "U": "unknown", "N": "unknown"}
_NAME_KINDS = {
    "": NameKind.CURRENT,
    "L": NameKind.CURRENT,
    "D": NameKind.CURRENT,
    "U": NameKind.CURRENT,
    "C": NameKind.CURRENT,
    "R": NameKind.CURRENT,
    "M": NameKind.BIRTH,
    "B": NameKind.BIRTH,
}
"""Table 0200; every other type is an alias."""
_OLD_ADDRESSES = frozenset({"BA"})
"""Table 0190: a bad address."""
_NO_PHONE_EQUIPMENT = frozenset({"FX", "BP", "INTERNET", "X.400", "TDD"})
"""Table 0202, without those that a person answers."""


@dataclass(frozen=True, slots=True)
class PatientReading:
    """A claim, and what could not be read."""

    claim: Claim
    doubts: tuple[HL7Error, ...] = ()


@dataclass(frozen=True, slots=True)
class Moment:
    """A time as HL7 writes it, which may be as coarse as a year: it lies somewhere between the two."""

    begin: datetime
    end: datetime


def read_pid(
    pid: Segment,
    *,
    source: Source = Source.HL7V2_PID,
    strength: Strength = Strength.AUTHOR,
    path: str = "",
    ordinal: int = 1,
    direct_code: str = DIRECT_CODE,
) -> PatientReading:
    """Read a PID segment. ``path`` and ``ordinal`` are those of the claim.

    Raises:
        HL7Error: a field has more parts than the limits of :mod:`gateway.core.hl7` allow.
    """
    doubts: list[HL7Error] = []
    birth, part = _birth_date(pid, doubts)
    contacts = [Contact.of(one, direct_code) for number in (13, 14, 40) for one in pid.repetitions(number)]
    claim = Claim(
        source=source,
        strength=strength,
        path=path,
        ordinal=ordinal,
        names=_names(pid),
        birth_date=birth,
        birth_part=part,
        sex=_SEXES.get(pid.text(8).strip().upper(), ""),
        identifiers=identifiers(pid),
        phones=tuple(dict.fromkeys(contact.phone for contact in contacts if contact.phone)),
        emails=tuple(dict.fromkeys(contact.email for contact in contacts if contact.email)),
        direct_addresses=_direct_addresses(contacts, doubts),
        addresses=tuple(address for one in pid.repetitions(11) if (address := _address(one)) is not None),
        deceased=_deceased(pid),
    )
    return PatientReading(claim, tuple(doubts))


def identifiers(segment: Segment, fields: tuple[int, ...] = (3, 2, 4)) -> tuple[Identifier, ...]:
    """The identifiers (CX) of those fields, without social security numbers. Raises HL7Error: too many."""
    return kept_identifiers(
        [
            Identifier(plain(one.text(1)).strip(), assigner(one, 4), plain(one.text(5)).strip().upper())
            for field in fields
            for one in segment.repetitions(field)
        ]
    )


def assigner(repetition: Repetition, component: int) -> str:
    """Who assigned an identifier (HD): its OID when there is one, else its namespace."""
    universal = plain(repetition.text(component, 2)).removeprefix("urn:oid:")
    if _OID.match(universal):
        return universal
    return plain(repetition.text(component, 1)) or universal


def read_moment(text: str, zone: tzinfo = UTC) -> Moment | None:
    """Read a time (TS, DTM); None when it is none.

    Args:
        text: ``YYYY[MM[DD[HH[MM[SS[.S...]]]]]][+ZZZZ]``.
        zone: of a time that names none.
    """
    found = _MOMENT.match(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    micro = int((fraction or "").ljust(6, "0"))
    try:
        if offset is not None:
            shift = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:]))
            zone = timezone(-shift if offset[0] == "-" else shift)
        begin = datetime(
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0), micro, zone
        )
        return Moment(begin.astimezone(UTC), _end(begin, [month, day, hour, minute, second, fraction]).astimezone(UTC))
    except (ValueError, OverflowError):
        return None


def _end(begin: datetime, finer: list[str | None]) -> datetime:
    """The last moment that a coarse time may mean."""
    known = finer.index(None) if None in finer else len(finer)
    if known == 0:
        return begin.replace(month=12, day=31, hour=23, minute=59, second=59, microsecond=999_999)
    if known == 1:
        following = begin.replace(day=28) + timedelta(days=4)
        return following.replace(day=1, hour=0) - timedelta(microseconds=1)
    width = (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1), timedelta(0))
    span = width[known - 2]
    return begin + span - timedelta(microseconds=1) if span else begin


def plain(text: str) -> str:
    """The text with white space made single and control characters removed."""
    spaced = " ".join(text.split())
    if spaced.isascii() and spaced.isprintable():
        return spaced
    kept = (char for char in spaced if unicodedata.category(char) not in {"Cc", "Cs"})
    return " ".join("".join(kept).split())


@dataclass(frozen=True, slots=True)
class Contact:
    """One phone number or electronic address (XTN)."""

    phone: str = ""
    email: str = ""
    direct: str = ""
    """As it was written, without its prefix."""

    @classmethod
    def of(cls, one: Repetition, direct_code: str = DIRECT_CODE) -> Contact:
        """Tell what a repetition of PID-13 is."""
        text, equipment = plain(one.text(1)), plain(one.text(3)).upper()
        electronic = plain(one.text(4)) or (text if "@" in text or text.lower().startswith(_DIRECT_PREFIX) else "")
        if electronic:
            marked = direct_code.upper() in {equipment, plain(one.text(2)).upper()}
            prefixed = electronic.lower().startswith(_DIRECT_PREFIX)
            value = electronic[len(_DIRECT_PREFIX) :] if prefixed else electronic
            value = value[7:] if value.lower().startswith("mailto:") else value
            return cls(direct=value) if marked or prefixed else cls(email=value)
        if equipment in _NO_PHONE_EQUIPMENT:
            return cls()
        pieces = [one.text(number).strip() for number in (6, 7)]
        number = text or plain(one.text(12)) or plain(" ".join(piece for piece in pieces if piece))
        return cls(phone=number)


def _names(pid: Segment) -> tuple[PersonName, ...]:
    names: list[PersonName] = []
    for field in (5, 9):
        for one in pid.repetitions(field):
            kind = _NAME_KINDS.get(one.text(7).strip().upper(), NameKind.ALIAS)
            if kind is NameKind.CURRENT and (field == 9 or any(n.kind is NameKind.CURRENT for n in names)):
                # The first one is the name in use (HL7 2.5.1 section 3.4.2.5), and PID-9 holds aliases only.
                kind = NameKind.ALIAS
            given = plain(one.text(2))
            name = PersonName(
                plain(one.text(1)), (given,) if given else (), plain(one.text(3)), plain(one.text(4)), kind
            )
            if name.family or name.given:
                names.append(name)
    return tuple(sorted(dict.fromkeys(names), key=lambda name: name.kind is not NameKind.CURRENT))


def _birth_date(pid: Segment, doubts: list[HL7Error]) -> tuple[date | None, str]:
    text = pid.text(7).strip()
    if not text:
        return None, ""
    found = _MOMENT.match(text)
    if found is not None:
        year, month, day = found.group(1, 2, 3)
        try:
            whole = date(int(year), int(month or 1), int(day or 1))
        except ValueError:
            pass
        else:
            return (whole, "") if day else (None, f"{year}-{month}" if month else year)
    doubts.append(HL7Error("PID-7 is not a date (YYYYMMDD)", segment="PID", field=7, code=DATA_TYPE_ERROR))
    return None, ""


def _direct_addresses(contacts: list[Contact], doubts: list[HL7Error]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for contact in contacts:
        if contact.direct:
            try:
                found[normalise(contact.direct)] = None
            except InputError:
                doubts.append(
                    HL7Error("a Direct address cannot be read", segment="PID", field=13, code=DATA_TYPE_ERROR)
                )
    return tuple(found)


def _address(one: Repetition) -> PostalAddress | None:
    lines = tuple(line for line in (plain(one.text(1)), plain(one.text(2))) if line)
    city, state, code, country = (plain(one.text(number)) for number in (3, 4, 5, 6))
    if not (lines or city or state or code):
        return None
    return PostalAddress(lines, city, state, code, country, is_old=one.text(7).strip().upper() in _OLD_ADDRESSES)


def _deceased(pid: Segment) -> bool | None:
    """PID-29 and PID-30. Where they disagree he counts as deceased: that links nothing by itself."""
    said = pid.text(30).strip().upper()
    if said == "Y" or pid.text(29).strip():
        return True
    return False if said == "N" else None


def is_usable_mrn(value: str) -> bool:
    """Whether a number may be kept as medical record number: some practices wrote social security numbers there."""
    return bool(value) and not is_social_security_shape(value)
