"""``patient search 190A`` ended in a fault: four characters between 1890 and 2100, as text, were taken for a year."""

from __future__ import annotations

from datetime import date

import pytest

from gateway.core.claims import PersonName
from gateway.matching.index import PatientIndex
from gateway.matching.query import in_one_box
from gateway.matching.records import PatientRecord
from gateway.matching.search import search

ANN = PatientRecord("p1", (PersonName("Lee", ("Ann",)),), date(1956, 8, 3))


@pytest.mark.parametrize("text", ["190A", "19A0", "1a56", "20b4", "19\u0665\u0666"])
def test_it_is_looked_for_as_a_number(text: str) -> None:
    query = in_one_box(text)
    assert query.profile.birth_part == ""
    search(PatientIndex([ANN]), query)


def test_a_year_is_still_one() -> None:
    assert in_one_box("1956").profile.birth_part == "1956"
    assert [hit.patient_id for hit in search(PatientIndex([ANN]), in_one_box("1956")).hits] == ["p1"]
