"""Labelled data to try a policy on: a registry of patients, and questions whose right answer is known.

Both are CSV with a header line, UTF-8 with or without BOM, LF or CRLF; the columns may stand in any order, others are
ignored. Nothing is guessed and nothing is left out in silence: a file with a row that cannot be used is refused as a
whole, because a result over the rest would look better or worse than it is.

Failure modes: ``InputError`` that names the file, the line and the column, never a value.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

from gateway.core.claims import (
    Claim,
    Evidence,
    Identifier,
    NameKind,
    PersonName,
    PostalAddress,
    Source,
    Strength,
)
from gateway.core.demographics import calendar_date
from gateway.core.errors import InputError
from gateway.matching.records import PatientRecord

REGISTRY_COLUMNS = ("id", "mrn", "given", "family", "maiden", "dob", "sex", "phone", "line", "zip", "city", "direct")
QUERY_COLUMNS = (
    "query_id", "mutation", "true_patient_id", "given", "family", "dob", "sex", "phone", "line", "zip", "city",
)  # fmt: skip
ASSIGNER = "registry"
"""Who assigned the record numbers of a labelled registry."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Labelled:
    """A question and its answer."""

    id: str
    mutation: str
    true_patient_id: str
    """Empty: the patient is not in the registry, and nothing may be linked."""
    evidence: Evidence


def read_registry(lines: Iterable[str], name: str) -> list[PatientRecord]:
    """The patients of a registry.

    Args:
        lines: of the file, decoded, with their line ends.
        name: of the file, for errors.

    Raises:
        InputError: the file is empty, lacks a column, or has rows that cannot be used or ids that repeat.
    """
    rows = _Rows(lines, name, REGISTRY_COLUMNS, "patient")
    records = [_record(values, day) for values, day in rows.usable("id")]
    rows.refuse_bad()
    return records


def read_queries(lines: Iterable[str], name: str) -> list[Labelled]:
    """The questions, each as what a document in a message would say.

    Args and errors as :func:`read_registry`.
    """
    rows = _Rows(lines, name, QUERY_COLUMNS, "query")
    queries = [_query(values, day) for values, day in rows.usable("query_id")]
    rows.refuse_bad()
    return queries


def _record(row: dict[str, str], day: date | None) -> PatientRecord:
    names = [PersonName(row["family"], _one(row["given"]))]
    if row["maiden"]:
        names.append(PersonName(row["maiden"], _one(row["given"]), kind=NameKind.BIRTH))
    return PatientRecord(
        row["id"],
        tuple(names),
        day,
        row["sex"],
        (Identifier(row["mrn"], ASSIGNER, "MR"),) if row["mrn"] else (),
        _one(row["phone"]),
        (),
        tuple(row["direct"].replace(";", " ").replace(",", " ").split()),
        _address(row),
    )


def _query(row: dict[str, str], day: date | None) -> Labelled:
    claim = Claim(
        Source.CDA_HEADER,
        Strength.AUTHOR,
        names=(PersonName(row["family"], _one(row["given"])),),
        birth_date=day,
        sex=row["sex"],
        phones=_one(row["phone"]),
        addresses=_address(row),
    )
    return Labelled(row["query_id"], row["mutation"], row["true_patient_id"], Evidence((claim,)))


def _one(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


def _address(row: dict[str, str]) -> tuple[PostalAddress, ...]:
    if not (row["line"] or row["city"] or row["zip"]):
        return ()
    return (PostalAddress(_one(row["line"]), row["city"], "", row["zip"]),)


class _Rows:
    """The rows of a file, and what is wrong with those that cannot be used."""

    def __init__(self, lines: Iterable[str], name: str, columns: tuple[str, ...], noun: str) -> None:
        self._name = name
        self._columns = columns
        self._noun = noun
        self._bad: list[str] = []
        self._seen: dict[str, int] = {}
        self._reader = csv.reader(lines, strict=True)
        try:
            header = next(self._reader, [])
        except csv.Error:
            raise InputError(f"{name}, line 1: the header line cannot be read as CSV") from None
        keys = [cell.removeprefix("\ufeff").strip().lower() for cell in header]
        if not any(keys):
            raise InputError(f"{name} is empty; expected a header line: {','.join(columns)}")
        if missing := [column for column in columns if column not in keys]:
            noun = "column is" if len(missing) == 1 else "columns are"
            raise InputError(f"{name}, line 1: the {noun} missing: {', '.join(missing)}; needed: {','.join(columns)}")
        if twice := [column for column in columns if keys.count(column) > 1]:
            raise InputError(f"{name}, line 1: more than one column is named {', '.join(twice)}; keep one")
        self._width = len(keys)
        self._at = {column: keys.index(column) for column in columns}

    def usable(self, key: str) -> Iterator[tuple[dict[str, str], date | None]]:
        """Each row by column, with its birth date; what cannot be used is remembered."""
        for line, cells in self._cells():
            if len(cells) != self._width:
                self._bad.append(f"line {line}: {len(cells)} fields, the header has {self._width}")
                continue
            row = {column: cells[at].strip() for column, at in self._at.items()}
            day = calendar_date(row["dob"])
            if not row[key]:
                self._bad.append(f"line {line}: {key} is empty")
            elif row[key] in self._seen:
                self._bad.append(f"line {line}: {key} is that of line {self._seen[row[key]]} again")
            elif row["dob"] and day is None:
                self._bad.append(f"line {line}: dob is not a date (YYYY-MM-DD)")
            else:
                self._seen[row[key]] = line
                yield row, day

    def refuse_bad(self) -> None:
        """Refuse a file of which rows could not be used, or which has none."""
        if self._bad:
            more = f"; and {len(self._bad) - _SHOWN} more" if len(self._bad) > _SHOWN else ""
            raise InputError(f"{self._name}, {'; '.join(self._bad[:_SHOWN])}{more}. Mend the file and try again")
        if not self._seen:
            raise InputError(f"{self._name} holds no {self._noun}: there is nothing below the header line")

    def _cells(self) -> Iterator[tuple[int, list[str]]]:
        while True:
            line = self._reader.line_num + 1
            try:
                cells = next(self._reader, None)
            except csv.Error:
                self._bad.append(f"line {line}: cannot be read as CSV (quotes that do not match, or a field too long)")
                return
            if cells is None:
                return
            if any(cell.strip() for cell in cells):
                yield line, cells
