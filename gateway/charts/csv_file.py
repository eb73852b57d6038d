"""Patients from a CSV file with a header line.

The columns are found by name, in any order and case (``HEADERS`` has the accepted spellings, the ones of Synthea's
``patients.csv`` among them); columns with other names are ignored, and a notice says which, with the known name that
is nearest: a misspelt name must not empty a field of every patient unseen. A comma, semicolon or tab separates,
whichever the header uses. Several Direct addresses stand in one column, separated by ``;``, ``,`` or a space. Without
an id column the MRN is the id.

Failure modes: a header that names one field twice or has no id is an InputError for the whole file, because a
guess there would mix up patients; and so is one with an MRN and what looks like a misspelt id, because all patients
would get other ids than the EHR's. A row with another number of fields than the header is refused: a shifted row
would give a patient another one's values. Bytes that are not UTF-8 refuse the row.
"""

from __future__ import annotations

import csv
import difflib
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
MAX_COLUMNS_NAMED = 30
MAX_COLUMN_CHARS = 40
NEAR = 0.82
"""How alike (of 1) a name must be to a known one to be taken for a slip: one letter in six or so."""
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


def ignored_columns(path: Path) -> tuple[str, ...]:
    """A sentence for the columns that :func:`read_csv` does not read, and one for each that looks like a slip.

    Raises:
        InputError, OSError: as :func:`read_csv`.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        separator = _separator(file.readline(MAX_FIELD_CHARS))
        file.seek(0)
        try:
            header = next(csv.reader(file, delimiter=separator, strict=True), [])
        except csv.Error as exc:
            raise InputError(f"the header line cannot be read: {exc}") from None
    return tuple(_ignored(header, _columns(header)[0]))


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
    if "id" not in columns:
        _require_id(header, columns)
    columns.setdefault("id", columns.get("mrn", 0))
    return columns, len(header)


def _require_id(header: list[str], columns: dict[str, int]) -> None:
    """Refuse a header without an id column, unless the MRN is meant to be the id."""
    slips = [(cell, near) for cell in header if (near := _nearest(cell, HEADERS["id"]))]
    if slips:
        cell, near = slips[0]
        raise InputError(
            f"the header line names no id column, but {_shown(cell)}: did you mean {near!r}? Mend the name and import "
            f"again; if it is something else, give it a name that looks like no id"
        )
    if "mrn" not in columns:
        raise InputError("the header line names no id column; expected for example: id,mrn,family,given,dob,sex,direct")


def _ignored(header: list[str], columns: dict[str, int]) -> Iterator[str]:
    """Tell of the columns that are not read; those that look like a slip each with the name that was meant."""
    others: list[str] = []
    free = frozenset(spelling for spelling, name in _FIELD_OF.items() if name not in columns)
    for cell in header:
        if _key(cell) in _FIELD_OF or not _key(cell):
            continue
        if near := _nearest(cell, free):
            yield f"the column {_shown(cell)} is ignored; did you mean {near!r}?"
        else:
            others.append(_shown(cell))
    if others:
        more = f" and {len(others) - MAX_COLUMNS_NAMED} more" if len(others) > MAX_COLUMNS_NAMED else ""
        noun = "these columns are" if len(others) > 1 else "this column is"
        yield f"{noun} ignored: {', '.join(others[:MAX_COLUMNS_NAMED])}{more}"


def _nearest(cell: str, known: frozenset[str]) -> str:
    """The known name that the cell was probably meant to be, or nothing."""
    key = _key(cell)
    if key in _FIELD_OF or len(key) > MAX_COLUMN_CHARS:
        return ""
    return next(iter(difflib.get_close_matches(key, sorted(known), n=1, cutoff=NEAR)), "")


def _shown(cell: str) -> str:
    return repr(cell.strip()[:MAX_COLUMN_CHARS])


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
