"""``patient import`` passed over a misspelt column, and so emptied that field of every patient, without a word."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from gateway.charts.patient_files import FileContents, read_contents
from gateway.core.errors import InputError

TODAY = date(2026, 6, 1)


def read(tmp_path: Path, text: str) -> FileContents:
    path = tmp_path / "patients.csv"
    path.write_text(text, encoding="utf-8")
    return read_contents(path, TODAY, 1_000)


def notices(tmp_path: Path, text: str) -> list[str]:
    found = read(tmp_path, text)
    assert {one.line for one in found.notices} <= {0}, "they concern the whole file"
    return [one.reason for one in found.notices]


def test_a_slip_is_told_with_the_name_that_was_meant(tmp_path: Path) -> None:
    assert notices(tmp_path, "id,famly,Drect_Address,dob\np1,Roe,jane@phr.example,1961-03-14\n") == [
        "the column 'famly' is ignored; did you mean 'family'?",
        "the column 'Drect_Address' is ignored; did you mean 'direct_address'?",
    ]


def test_other_columns_are_told_in_one_line(tmp_path: Path) -> None:
    text = "id,family,shoe size,favourite colour,,family2\np1,Roe,42,green,,\n"
    # The family name is there, so the last one is no slip for it.
    assert notices(tmp_path, text) == ["these columns are ignored: 'shoe size', 'favourite colour', 'family2'"]
    assert notices(tmp_path, "id,shoe size\np1,42\n") == ["this column is ignored: 'shoe size'"]
    assert notices(tmp_path, "id,family\np1,Roe\n") == []


def test_a_flood_of_columns_is_told_in_few_words(tmp_path: Path) -> None:
    header = ",".join(["id", *(f"{'measurement' * 9}{n}" for n in range(500))])
    (told,) = notices(tmp_path, f"{header}\np1{',' * 500}\n")
    assert told.endswith("and 470 more")
    assert len(told) < 2_000


@pytest.mark.parametrize("header", ["pateint_id,family", "pateint_id,mrn,family"])
def test_a_misspelt_id_is_refused(tmp_path: Path, header: str) -> None:
    """With the MRN in its place every patient would get another id than in the EHR."""
    with pytest.raises(InputError, match="no id column, but 'pateint_id': did you mean 'patient_id'"):
        read(tmp_path, f"{header}\n1,2,3\n")


def test_a_missing_id_is_refused_and_the_mrn_may_stand_in(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no id column; expected"):
        read(tmp_path, "family,given\nRoe,Jane\n")
    assert list(read(tmp_path, "mrn,family\n7,Roe\n").patients) == ["7"]


def test_a_file_without_a_header_shows_nobody_s_name(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read(tmp_path, "p1,Roe,Jane,1961-03-14\n")
    assert "Roe" not in str(refused.value)
