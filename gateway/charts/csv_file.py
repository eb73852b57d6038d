"""Patients from a CSV file with a header line.

The columns are found by name, in any order and case (``HEADERS`` has the accepted spellings, the ones of Synthea's
``patients.csv`` among them); columns with other names are ignored. A comma, semicolon or tab separates, whichever
the header uses. Several Direct addresses stand in one column, separated by ``;``, ``,`` or a space. Without an id
column the MRN is the id.

Failure modes: a header that names one field twice or has no id is an InputError for the whole file, because a
guess there would mix up patients. A row with another number of fields than the header is refused: a shifted row
would give a patient another one's values. Bytes that are not UTF-8 refuse the row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

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

HEADERS: dict[str, frozenset[str]] = {
    "id": frozenset({"id", "patient_id", "patientid", "patient"}),
    "mrn": frozenset({"mrn", "medical_record_number"}),
    "family": frozenset({"family", "family_name", "last", "last_name", "lastname", "surname"}),
    "given": frozenset({"given", "given_name", "first", "first_name", "firstname"}),
    "birth_date": frozenset({"birth_date", "birthdate", "birthday", "date_of_birth", "dateofbirth", "dob"}),
    "sex": frozenset({"sex", "gender"}),
    "phone": frozenset({"phone", "phone_number", "telephone"}),
    "address_line": frozenset({"line", "address", "address_line", "address1", "street", "street_address"}),
    "city": frozenset({"city", "town"}),
    "postal_code": frozenset({"zip", "zip_code", "zipcode", "postal_code", "postalcode", "postcode"}),
    "direct": frozenset(
        {"direct", "direct_address", "direct_addresses", "directaddress", "directaddresses", "direct_email"}
    ),
    "active": frozenset({"active", "is_active"}),
    "deceased": frozenset({"deceased", "is_deceased"}),
    "death_date": frozenset({"death_date", "deathdate", "date_of_death", "deceased_date"}),
}
MAX_FIELD_CHARS = 131_072
_FIELD_OF = {spelling: name for name, spellings in HEADERS.items() for spelling in spellings}
_SEPARATORS = (",", ";", "\t")
_YES = frozenset({"true", "t", "yes", "y", "1"})
_NO = frozenset({"false", "f", "no", "n", "0"})


def read_csv(path: Path) -> Iterator[PatientRow | RowProblem]:
    """Yield every patient of the file, or what is wrong with its row.

    Args:
        path: a regular file, UTF-8 with or without BOM, LF or CRLF.

    Raises:
        InputError: the header is missing, has no id or MRN, or names a field twice.
        OSError: the file cannot be read.
    """
    # surrogateescape carries bytes that are not UTF-8 through to the check of each value, so that one such
    # byte refuses its row and not the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header_line = file.readline(MAX_FIELD_CHARS)
        separator = _separator(header_line)
        file.seek(0)
        reader = csv.reader(file, delimiter=separator, strict=True)
        try:
            columns, width = _columns(next(reader, []))
        except csv.Error as exc:
            raise InputError(f"the header line cannot be read: {exc}") from None
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error:
                yield RowProblem(line, _unreadable(line, reader.line_num))
                continue
            if cells is None:
                return
            if any(cell.strip() for cell in cells):
                yield _row(cells, columns, width, line)


def _unreadable(first: int, last: int) -> str:
    where = f"lines {first} to {last}: " if last > first else ""
    return f"{where}the quotes of the row do not match, or a field is too long"


def _separator(header_line: str) -> str:
    return max(_SEPARATORS, key=lambda s: sum(_key(cell) in _FIELD_OF for cell in header_line.split(s)))


def _key(cell: str) -> str:
    return re.sub(r"[\s_-]+", "_", cell.strip().strip('"').strip().lower())


def _columns(header: list[str]) -> tuple[dict[str, int], int]:
    columns: dict[str, int] = {}
    for index, cell in enumerate(header):
        name = _FIELD_OF.get(_key(cell))
        if name is None:
            continue
        if name in columns:
            raise InputError(
                f"the columns {header[columns[name]].strip()!r} and {cell.strip()!r} mean the same; keep one of them"
            )
        columns[name] = index
    if "id" not in columns and "mrn" not in columns:
        raise InputError("the header line names no id column; expected for example: id,mrn,family,given,dob,sex,direct")
    columns.setdefault("id", columns.get("mrn", 0))
    return columns, len(header)


def _row(cells: list[str], columns: dict[str, int], width: int, line: int) -> PatientRow | RowProblem:
    if len(cells) != width:
        return RowProblem(line, f"the row has {len(cells)} fields and the header {width}")
    notices = Notices()
    values = {name: cells[index].strip() for name, index in columns.items()}
    try:
        patient = _patient(values, notices)
    except RowError as exc:
        return RowProblem(line, str(exc))
    return PatientRow(line, patient, tuple(notices.found), names_addresses=bool(values.get("direct")))


def _patient(values: dict[str, str], notices: Notices) -> Patient:
    def text(name: str, label: str) -> str:
        return checked_text(values.get(name, ""), label)

    return Patient(
        id=checked_id(values["id"]),
        mrn=text("mrn", "the MRN"),
        family=text("family", "the family name"),
        given=text("given", "the given name"),
        birth_date=checked_date(text("birth_date", "the birth date"), "the birth date"),
        sex=checked_sex(text("sex", "the sex")),
        phone=text("phone", "the phone number"),
        address_line=text("address_line", "the address line"),
        city=text("city", "the city"),
        postal_code=text("postal_code", "the postal code"),
        active=_flag(text("active", "active"), "active", empty=True),
        deceased=_flag(text("deceased", "deceased"), "deceased", empty=False)
        or bool(text("death_date", "the date of death")),
        direct_addresses=checked_addresses(re.split(r"[;,\s]+", values.get("direct", "").strip(";, \t")), notices)
        if values.get("direct")
        else (),
    )


def _flag(text: str, name: str, *, empty: bool) -> bool:
    lowered = text.lower()
    if not lowered:
        return empty
    if lowered in _YES:
        return True
    if lowered in _NO:
        return False
    # Somebody's date of death in a column called "deceased" is the usual case.
    if name == "deceased" and checked_date(lowered, name):
        return True
    raise RowError(f"{name} is neither true nor false")
