"""The table that finds who may be meant: nobody who shares a trait is missed, whatever came when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.claims import Identifier, PersonName, PostalAddress
from gateway.matching import blocking
from gateway.matching.blocking import BlockingTable, shares, traits
from gateway.matching.profile import Profile, of_record
from gateway.matching.records import PatientRecord
from tests.support.people import World


def profile(person: PatientRecord) -> Profile:
    return of_record(person)


def records(seed: int, size: int) -> list[PatientRecord]:
    return [
        PatientRecord(
            one.id,
            (PersonName(one.family, (one.given,)),),
            one.dob,
            one.sex,
            (Identifier(one.mrn, "x", "MR"),),
            (one.phone,),
            (),
            (one.direct,) if one.direct else (),
            (PostalAddress((one.line,), one.city, "", one.zip),),
        )
        for one in World(seed, size).people
    ]


@pytest.mark.parametrize("recent", [10, 1_000_000])
def test_it_finds_exactly_those_who_share_a_trait(monkeypatch: pytest.MonkeyPatch, recent: int) -> None:
    monkeypatch.setattr(blocking, "_RECENT", recent)
    people = records(3, 300)
    table = BlockingTable()
    for one in people:
        table.add(one.id, profile(one))
    assert len(table) == len(people)
    for one in people[:60]:
        wanted = traits(profile(one)).keys()
        expected = {other.id for other in people if shares(profile(other), wanted)}
        found, complete = table.sharing(profile(one), 10_000)
        assert (set(found), complete) == (expected, True)
        # Who shares most stands first: the patient himself, or one with all that he has.
        assert one.id in found[:3]


def test_what_a_patient_had_before_still_finds_him() -> None:
    table = BlockingTable()
    before = profile(PatientRecord("p1", phones=("617-234-5678",)))
    after = profile(PatientRecord("p1", phones=("617-234-9999",)))
    table.add("p1", before)
    table.settle()
    table.add("p1", after)
    table.add("p1", after)
    for one in (before, after):
        assert table.sharing(one, 10) == (["p1"], True)
    assert table.sharing(profile(PatientRecord("q")), 10) == ([], True)


def test_of_a_crowd_those_who_share_most_are_given_and_the_holder_of_a_number_first() -> None:
    table = BlockingTable()
    for at in range(50):
        table.add(f"c{at}", profile(PatientRecord(f"c{at}", phones=("617-234-5678",))))
    named = PatientRecord("p1", (PersonName("Lee", ("Ann",)),), phones=("617-234-5678",))
    table.add("p1", profile(named))
    table.add("p2", profile(PatientRecord("p2", identifiers=(Identifier("MRN-7"),))))
    asked = PatientRecord("", named.names, identifiers=(Identifier("mrn 7", "1.2.3"),), phones=named.phones)
    found, complete = table.sharing(profile(asked), 5)
    assert (found[:2], len(found), complete) == (["p2", "p1"], 5, False)


def test_too_many_patients_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "MOST_PATIENTS", 1)
    table = BlockingTable()
    table.add("p1", Profile())
    with pytest.raises(OverflowError):
        table.add("p2", Profile())


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["a", "b", "c"])), max_size=30), st.integers(0, 30))
def test_the_order_in_which_things_come_makes_no_difference(pairs: list[tuple[int, str]], settle_at: int) -> None:
    table = BlockingTable()
    for at, (number, family) in enumerate(pairs):
        table.add(f"p{number}", profile(PatientRecord(f"p{number}", (PersonName(family * 3, ("Ann",)),))))
        if at == settle_at:
            table.settle()
    for family in "abc":
        asked = profile(PatientRecord("", (PersonName(family * 3, ("ann",)),)))
        assert set(table.sharing(asked, 100)[0]) == {f"p{number}" for number, one in pairs if one == family}
