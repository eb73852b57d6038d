"""Of a message with sixty-four patients of long names ``match explain`` told 110 MB of conflicts, each with each."""

from __future__ import annotations

from datetime import date

from gateway.core.claims import Claim, Evidence, PersonName, Source, Strength
from gateway.matching.explain import MOST_SHOWN_CHARS, conflicts


def claim(number: int) -> Claim:
    name = PersonName(f"{number}" + "x" * 30_000, (f"{number}" + "y" * 1_000,))
    return Claim(Source.HL7V2_PID, Strength.AUTHOR, "2", number, (name,), date(1950 + number, 1, 1))


def test_only_the_first_ones_are_told_and_how_many_more_there_are() -> None:
    found = conflicts(Evidence(tuple(map(claim, range(1, 65)))))
    all_of_them = 63 + 2 * (64 * 63 // 2)
    # Of one part of the message all are told alike: it names more than one patient.
    assert len(found) == 1 + 10 + 10 + 1 + 1
    assert (found[-1].field, found[-1].text) == ("more", f"and {all_of_them - 3 * 10} more")
    given = next(one for one in found if one.field == "given")
    assert len(given.text) < 65 * (MOST_SHOWN_CHARS + 60)
    assert max(len(one.text) for one in found if one is not given) < 3 * MOST_SHOWN_CHARS
    assert {one.field for one in found} == {"several_patients", "birth_date", "family", "given", "more"}


def test_a_few_are_told_in_full() -> None:
    found = conflicts(Evidence((claim(1), claim(2))))
    assert [one.field for one in found] == ["several_patients", "birth_date", "family", "given"]
