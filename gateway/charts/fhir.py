"""Patients from FHIR R4: NDJSON (bulk data), one Patient, a Bundle, or a JSON array.

What is taken: ``id``; the ``identifier`` of type MR as MRN; the official (else usual, else first current) name;
``birthDate``, ``gender``, a current phone, a current address; ``active`` and ``deceased[x]``. A Patient that
``link`` says is *replaced by* another was merged away and counts as inactive (matching policy 7).

A telecom counts as Direct address only when something says that it is one: the us-core-direct extension with
``valueBoolean`` true, a ``system`` of ``direct``, or a value that begins with ``urn:direct:``. An ordinary e-mail
address never does, whatever its domain: mail from it would not be verified. ``use`` = ``old`` or a period that
has ended takes the address out of the address book.

Failure modes: each bad line is one :class:`RowProblem`, and reading goes on with the next line. A document that is
not line by line must fit ``MAX_DOCUMENT_BYTES``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

from gateway.charts.patient_rows import (
    Notices,
    PatientRow,
    RowError,
    RowProblem,
    checked_addresses,
    checked_date,
    checked_id,
    checked_sex,
    checked_text,
)
from gateway.core.errors import InputError
from gateway.ports import Patient

DIRECT_EXTENSION = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-direct"
MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_PARTIAL_DATE = re.compile(r"\d{4}(?:-\d{2})?\Z", re.ASCII)
_GENDERS = frozenset({"male", "female", "other", "unknown"})
_NAME_USES = ("official", "usual", "", "temp", "nickname", "anonymous", "maiden")


def read_fhir(path: Path, today: date) -> Iterator[PatientRow | RowProblem]:
    """Yield every patient of the file, or what is wrong with its line.

    Args:
        path: a regular file, UTF-8 with or without BOM, LF or CRLF.
        today: to tell which periods have ended.

    Raises:
        InputError: a document that is not line by line is too large or is not JSON.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        whole = _whole_document(file)
        if whole is not None:
            yield from _patients_of(whole, 1, today)
            return
        file.seek(0)
        yield from _lines(file, today)


def _whole_document(file: BinaryIO) -> Any:
    """The parsed document when the file is one JSON value over several lines, else None."""
    first = b""
    while not first:
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return None
        first = line.removeprefix(_BOM).strip()
    try:
        _parse(first)
    except RowError:
        pass
    else:
        return None
    file.seek(0)
    data = file.read(MAX_DOCUMENT_BYTES + 1)
    spread_out = first in {b"{", b"["}
    if len(data) > MAX_DOCUMENT_BYTES:
        if spread_out:
            limit = MAX_DOCUMENT_BYTES // 1024 // 1024
            raise InputError(f"a JSON document may have {limit} MiB; give larger sets as NDJSON, one Patient a line")
        return None
    try:
        return _parse(data.removeprefix(_BOM))
    except RowError as exc:
        if spread_out:
            raise InputError(f"the file is not valid JSON: {exc}") from None
        # Most likely NDJSON whose first line is broken: line by line, the others can still be read.
        return None


def _lines(file: BinaryIO, today: date) -> Iterator[PatientRow | RowProblem]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
            yield RowProblem(number, f"the line is longer than {MAX_LINE_BYTES // 1024 // 1024} MiB")
            continue
        text = (line.removeprefix(_BOM) if number == 1 else line).strip()
        if not text:
            continue
        try:
            document = _parse(text)
        except RowError as exc:
            yield RowProblem(number, str(exc))
            continue
        yield from _patients_of(document, number, today)


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise RowError("not valid UTF-8") from None
    except json.JSONDecodeError as exc:
        # The parser's own message is fixed text and a position; it never quotes the document.
        raise RowError(f"not valid JSON ({exc.msg} at line {exc.lineno}, column {exc.colno})") from None
    except RecursionError:
        raise RowError("the JSON is nested too deeply") from None
    except ValueError:
        raise RowError("the JSON holds a number that is too long") from None


def _patients_of(document: Any, line: int, today: date) -> Iterator[PatientRow | RowProblem]:
    """The patients of one JSON value: a Patient, a Bundle or an array."""
    if isinstance(document, list):
        for item in document:
            yield _row(item, line, today)
    elif isinstance(document, dict) and document.get("resourceType") == "Bundle":
        entries = document.get("entry", [])
        if not isinstance(entries, list):
            yield RowProblem(line, "Bundle.entry is not a list")
            return
        for entry in entries:
            resource = entry.get("resource") if isinstance(entry, dict) else None
            # A Bundle holds what belongs to its patients as well: that is no mistake of the file.
            if isinstance(resource, dict) and resource.get("resourceType") == "Patient":
                yield _row(resource, line, today)
    else:
        yield _row(document, line, today)


def _row(resource: Any, line: int, today: date) -> PatientRow | RowProblem:
    if not isinstance(resource, dict) or resource.get("resourceType") != "Patient":
        return RowProblem(line, "not a FHIR Patient")
    notices = Notices()
    try:
        patient = _patient(resource, today, notices)
    except RowError as exc:
        return RowProblem(line, str(exc))
    # An address that is marked old is not taken, but the file does speak of it: nothing older may outlive that word.
    named = any(_direct(contact) for contact in _objects(resource, "telecom"))
    return PatientRow(line, patient, tuple(notices.found), names_addresses=named)


def _patient(resource: Mapping[str, Any], today: date, notices: Notices) -> Patient:
    names = _current(resource, "name", today) or _objects(resource, "name")
    name = min(names, key=_name_rank, default={})
    telecom = _current(resource, "telecom", today)
    addresses = _current(resource, "address", today)
    address = min(addresses, key=lambda a: a.get("use") != "home", default={})
    given = " ".join(_strings(name, "given"))
    # Some systems fill only the text of a name; as one word it can at least be seen and searched.
    family = name.get("family") or (None if given else name.get("text"))
    return Patient(
        id=checked_id(resource.get("id")),
        mrn=checked_text(_mrn(resource, today), "the MRN"),
        family=checked_text(family, "the family name"),
        given=checked_text(given, "the given name"),
        birth_date=_birth_date(resource, notices),
        sex=_gender(resource),
        phone=checked_text(_phone(telecom), "the phone number"),
        address_line=checked_text(", ".join(_strings(address, "line")), "the address line"),
        city=checked_text(address.get("city"), "the city"),
        postal_code=checked_text(address.get("postalCode"), "the postal code"),
        active=_flag(resource, "active", default=True) and not _replaced(resource),
        deceased=_deceased(resource),
        direct_addresses=checked_addresses([value for t in telecom if (value := _direct(t))], notices),
    )


def _objects(resource: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    values = resource.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise RowError(f"Patient.{key} is not a list of objects")
    return values


def _strings(value: Mapping[str, Any], key: str) -> list[str]:
    found = value.get(key, [])
    if not isinstance(found, list):
        raise RowError(f"{key} is not a list")
    # FHIR pads lists with null where only an extension stands.
    texts = [item for item in found if item is not None]
    if not all(isinstance(item, str) for item in texts):
        raise RowError(f"{key} is not a list of text")
    return texts


def _current(resource: Mapping[str, Any], key: str, today: date) -> list[Mapping[str, Any]]:
    """The elements that are not marked old and whose period has not ended."""
    return [value for value in _objects(resource, key) if value.get("use") != "old" and not _ended(value, today)]


def _ended(value: Mapping[str, Any], today: date) -> bool:
    period = value.get("period")
    end = period.get("end") if isinstance(period, dict) else None
    if not isinstance(end, str) or not end:
        return False
    # FHIR dates may be partial: "2020" has ended when 2020 has.
    known = end[:10]
    return known < today.isoformat()[: len(known)]


def _name_rank(name: Mapping[str, Any]) -> int:
    use = name.get("use", "")
    return _NAME_USES.index(use) if use in _NAME_USES else len(_NAME_USES)


def _mrn(resource: Mapping[str, Any], today: date) -> str:
    for identifier in _current(resource, "identifier", today):
        kind = identifier.get("type")
        codings: object = kind.get("coding") if isinstance(kind, dict) else None
        if isinstance(codings, list) and any(isinstance(c, dict) and c.get("code") == "MR" for c in codings):
            value = identifier.get("value")
            if isinstance(value, str):
                return value
    return ""


def _birth_date(resource: Mapping[str, Any], notices: Notices) -> date | None:
    value = resource.get("birthDate")
    if value is None:
        return None
    if not isinstance(value, str):
        raise RowError("the birth date is not text")
    if _PARTIAL_DATE.match(value):
        notices.add("the birth date is incomplete and was left out")
        return None
    return checked_date(value, "the birth date")


def _gender(resource: Mapping[str, Any]) -> str:
    value = checked_text(resource.get("gender"), "the gender")
    if value and value not in _GENDERS:
        raise RowError("the gender is none of male, female, other, unknown")
    return checked_sex(value)


def _flag(resource: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = resource.get(key, default)
    if not isinstance(value, bool):
        raise RowError(f"Patient.{key} is neither true nor false")
    return value


def _deceased(resource: Mapping[str, Any]) -> bool:
    moment = resource.get("deceasedDateTime")
    if moment is not None and not isinstance(moment, str):
        raise RowError("Patient.deceasedDateTime is not a date")
    return bool(moment) or _flag(resource, "deceasedBoolean", default=False)


def _replaced(resource: Mapping[str, Any]) -> bool:
    return any(link.get("type") == "replaced-by" for link in _objects(resource, "link"))


def _phone(telecom: Sequence[Mapping[str, Any]]) -> str:
    for contact in telecom:
        if contact.get("system") == "phone" and isinstance(contact.get("value"), str):
            return str(contact["value"])
    return ""


def _direct(contact: Mapping[str, Any]) -> str:
    value = contact.get("value")
    if not isinstance(value, str) or not value.strip():
        return ""
    extensions = contact.get("extension")
    flagged = isinstance(extensions, list) and any(
        isinstance(e, dict) and e.get("url") == DIRECT_EXTENSION and e.get("valueBoolean") is True for e in extensions
    )
    hinted = contact.get("system") == "direct" or value.strip().lower().startswith("urn:direct:")
    return value if flagged or hinted else ""
