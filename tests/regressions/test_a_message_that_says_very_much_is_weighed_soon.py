"""A message with sixty-four sources of sixteen names each held the writer of the store for nine seconds.

Every name was held against every patient, and every record number was folded anew for each of them.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from gateway.core.claims import Claim, Evidence, Identifier, PersonName, Source, Strength
from gateway.matching import compare, judge
from gateway.matching.index import PatientIndex
from gateway.matching.profile import Name, identifier_key
from gateway.matching.records import PatientRecord

PATIENTS = [
    PatientRecord(f"p{at}", (PersonName("Quimby", (f"Ada{at}",)),), date(1961, 3, 14), "", (), (f"617-234-{at:04d}",))
    for at in range(1_000, 1_020)
]


def claim(number: int) -> Claim:
    letters = "abcdefghijklmnop"
    names = tuple(PersonName("Quimby", (f"{letters[number % 16]}{letters[number // 16]}{one}",)) for one in letters)
    return Claim(Source.CDA_HEADER, Strength.AUTHOR, str(number), names=names, birth_date=date(1961, 3, 14))


def test_names_and_numbers_are_compared_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, folds = [0], [0]
    name_pair = compare.name_pair

    def counted_pair(one: Name, other: Name) -> compare.NamePair:
        pairs[0] += 1
        return name_pair(one, other)

    def counted_fold(text: str) -> str:
        folds[0] += 1
        return identifier_key(text)

    monkeypatch.setattr(compare, "name_pair", counted_pair)
    monkeypatch.setattr(judge, "identifier_key", counted_fold)
    numbers = tuple(Identifier(f"N{at}", "1.2") for at in range(60))
    claims = tuple(replace(claim(number), identifiers=numbers) for number in range(64))
    found = judge.findings(PatientIndex(PATIENTS), Evidence(claims))
    assert len(found.comparisons) == len(PATIENTS)
    assert not found.is_complete, "nothing is linked on a part of what is said"
    assert pairs[0] <= 2 * judge.MOST_VALUES * len(PATIENTS)
    assert folds[0] == len(claims) * len(numbers)
    # What honest messages say is compared as a whole.
    assert judge.findings(PatientIndex(PATIENTS), Evidence(tuple(map(claim, range(8))))).is_complete
