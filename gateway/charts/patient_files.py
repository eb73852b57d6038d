"""Patient files of an EHR: which kind a file is, and its patients one after the other.

The first character decides: a JSON value is FHIR, anything else is CSV. The name of the file says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path

from gateway.charts.csv_file import ignored_columns, read_csv
from gateway.charts.fhir import read_fhir
from gateway.charts.patient_rows import PatientRow, RowProblem
from gateway.core.errors import InputError
from gateway.ports import Patient

__all__ = ["FileContents", "FileKind", "PatientRow", "RowProblem", "kind_of", "read_contents", "read_patients"]


class FileKind(StrEnum):
    """Kept as the source of each patient and of each address that the file documents."""

    FHIR = "fhir-file"
    CSV = "csv-file"


@dataclass(frozen=True, slots=True)
class FileContents:
    """The patients of a file, the last row of each id; rows in the order of the file."""

    patients: dict[str, Patient]
    rejected: tuple[RowProblem, ...]
    notices: tuple[RowProblem, ...]
    names_addresses: bool
    """Whether the file speaks of a Direct address of any patient."""


def kind_of(path: Path) -> FileKind:
    """Tell the kind of the file.

    Raises:
        InputError: no such file, not a regular file, not readable, or empty; the text says which.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path} is not a file")
        with path.open("rb") as file:
            while chunk := file.read(4096):
                head = chunk.removeprefix(b"\xef\xbb\xbf").lstrip()
                if head:
                    return FileKind.FHIR if head[:1] in {b"{", b"["} else FileKind.CSV
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    raise InputError(f"{path} is empty")


def read_patients(path: Path, today: date) -> Iterator[PatientRow | RowProblem]:
    """Yield every patient of the file in order, or what is wrong with its line. Holds one row at a time.

    Raises:
        InputError: the file as a whole cannot be used.
    """
    kind = kind_of(path)
    try:
        yield from read_fhir(path, today) if kind is FileKind.FHIR else read_csv(path)
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc


def read_contents(path: Path, today: date, max_patients: int) -> FileContents:
    """Read the whole file into memory.

    Raises:
        InputError: the file as a whole cannot be used, holds no row at all, or more patients than ``max_patients``.
    """
    rejected: list[RowProblem] = []
    notices = [RowProblem(0, text) for text in _told_of_the_file(path)]
    patients: dict[str, Patient] = {}
    lines: dict[str, int] = {}
    names_addresses = False
    for row in read_patients(path, today):
        if isinstance(row, RowProblem):
            rejected.append(row)
            continue
        patient = row.patient
        if patient.id in patients:
            notices.append(
                RowProblem(row.line, f"replaces the patient of line {lines[patient.id]}: the id is the same")
            )
        elif len(patients) >= max_patients:
            raise InputError(f"the file holds more than {max_patients} patients; import it in pieces")
        patients[patient.id] = patient
        lines[patient.id] = row.line
        names_addresses = names_addresses or row.names_addresses
        notices.extend(RowProblem(row.line, text) for text in row.notices)
    if not patients and not rejected:
        raise InputError(f"{path} holds no patient")
    return FileContents(patients, tuple(rejected), tuple(notices), names_addresses)


def _told_of_the_file(path: Path) -> tuple[str, ...]:
    """What a person should know of the file as a whole, although it is read."""
    try:
        return ignored_columns(path) if kind_of(path) is FileKind.CSV else ()
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
