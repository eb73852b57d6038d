"""Normalising, placeholders, and comparisons that are the same from both sides."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.claims import NameKind, PersonName, PostalAddress
from gateway.core.demographics import folded, street_key, us_phone
from gateway.core.findings import Agreement
from gateway.matching.compare import match, near_days, place_pair
from gateway.matching.profile import Profile, names_of, of_record, phones_of, place_of
from gateway.matching.records import PatientRecord
from gateway.matching.vocabulary import Vocabulary

BASE = PatientRecord(
    "p1",
    (PersonName("García-López", ("José",)), PersonName("Peña", ("José",), kind=NameKind.BIRTH)),
    date(1956, 8, 3),
    "male",
    phones=("(617) 555-0142",),
    direct_addresses=("jose@direct.example",),
    addresses=(PostalAddress(("12 Main Street Apt 4",), "Boston", "MA", "02108-1234"),),
)


def names(family: str, *given_names: str, suffix: str = "") -> Profile:
    return Profile(names=names_of([PersonName(family, given_names, suffix=suffix)]))


@pytest.mark.parametrize(
    ("one", "other", "family", "given_name"),
    [
        (names("García-López", "José"), names("GARCIA LOPEZ", "jose"), Agreement.EQUAL, Agreement.EQUAL),
        (names("O'Brien", "Mary Ann"), names("OBRIEN", "Maryann"), Agreement.EQUAL, Agreement.EQUAL),
        (names("Garcia", "Ana"), names("Garcia Lopez", "Ana"), Agreement.COMPATIBLE, Agreement.EQUAL),
        (names("Smith", "William"), names("Smith", "Bill"), Agreement.EQUAL, Agreement.COMPATIBLE),
        (names("Smith", "J"), names("Smith", "John"), Agreement.EQUAL, Agreement.COMPATIBLE),
        (names("Smith", "J"), names("Smith", "J."), Agreement.EQUAL, Agreement.COMPATIBLE),
        (names("Smith", "J R"), names("Smith", "J. R."), Agreement.EQUAL, Agreement.COMPATIBLE),
        (names("Smith", "J Robert"), names("Smith", "J. Robert"), Agreement.EQUAL, Agreement.EQUAL),
        (names("王", "伟"), names("王", "伟"), Agreement.EQUAL, Agreement.EQUAL),
        (names("Smith", "Maria Elena"), names("Smith", "Maria"), Agreement.EQUAL, Agreement.COMPATIBLE),
        (names("Smith", "Maria Elena"), names("Smith", "Maria Luisa"), Agreement.EQUAL, Agreement.NEAR),
        (names("Smith", "Jhon"), names("Smyth", "John"), Agreement.NEAR, Agreement.NEAR),
        (names("Smith", "Emma"), names("Jones", "Noah"), Agreement.DIFFERENT, Agreement.DIFFERENT),
        (names("Smith Jr", "John"), names("Smith", "John", suffix="Sr."), Agreement.EQUAL, Agreement.DIFFERENT),
        (names("Smith", "John", suffix="Jr"), names("Smith", "John"), Agreement.EQUAL, Agreement.EQUAL),
        (names("John", "Smith"), names("Smith", "John"), Agreement.NEAR, Agreement.NEAR),
        (names("Smith"), names("Smith", "John"), Agreement.EQUAL, Agreement.UNKNOWN),
        (names("Smith", "Baby Boy"), names("Smith", "Baby Boy"), Agreement.EQUAL, Agreement.UNKNOWN),
        (names("Doe", "Jane"), names("Doe", "Jane"), Agreement.UNKNOWN, Agreement.UNKNOWN),
    ],
)  # fmt: skip
def test_names(one: Profile, other: Profile, family: Agreement, given_name: Agreement) -> None:
    matched = match(one, other)
    assert (matched.family, matched.given) == (family, given_name)


def test_a_previous_name_is_one_of_the_patients() -> None:
    own = of_record(BASE)
    assert match(own, names("Pena", "Jose")).family is Agreement.PREVIOUS
    married = Profile(
        names=names_of([PersonName("Kim", ("José",)), PersonName("Peña", ("José",), kind=NameKind.BIRTH)])
    )
    # Two who bear other names today and were born with one are not shown to be one person.
    assert match(own, married).family is Agreement.COMPATIBLE


@pytest.mark.parametrize(
    "placeholder", ["555-555-5555", "000-000-0000", "999-999-9999", "(617) 000-0000", "6179999999", "123-456-7890", ""]
)
def test_no_telephone_is_nobodys(placeholder: str) -> None:
    assert phones_of([placeholder]) == ()


@pytest.mark.parametrize("day", [date(1900, 1, 1), date(1901, 1, 1), date(1800, 1, 1), date(9999, 12, 31)])
def test_no_birth_date_is_nobodys(day: date) -> None:
    assert of_record(replace(BASE, birth_date=day)).births == ()


@pytest.mark.parametrize(
    "given_name",
    [
        "Unknown", "BABY BOY", "Babygirl", "Test", "TWIN A", "Baby Boy 2", "Infant", "?", "Boy1", "Girl2", "BBoy",
        "Bgirl", "BabyMale", "Newborn2", "InfantOf Maria",
    ],
)  # fmt: skip
def test_no_name_is_nobodys(given_name: str) -> None:
    assert not any(name.is_given_real for name in names_of([PersonName("Smith", (given_name,))]))


@pytest.mark.parametrize("given_name", ["Boyd", "Boyce", "Girlie", "Abba", "Malea", "Babette", "Twinkle", "Bob"])
def test_a_name_that_begins_like_none_is_one(given_name: str) -> None:
    assert all(name.is_given_real for name in names_of([PersonName("Smith", (given_name,))]))


def test_addresses() -> None:
    own = place_of(BASE.addresses[0])
    same = place_of(PostalAddress(("12 MAIN ST. #4",), "", "", "02108"))
    assert place_pair(own, same)[1] == "equal"
    assert place_pair(own, place_of(PostalAddress(("12 Main St Apt 5",), "", "", "02108")))[1] == "other unit"
    assert place_pair(own, place_of(PostalAddress(("12 Mian St Apt 4",), "", "", "02108")))[1] == "near"
    no_zip = place_of(PostalAddress(("12 Main St Apt 4",), "Boston"))
    assert place_pair(own, no_zip)[1] == "equal"
    for zip_code in ("00000", "99999"):
        assert place_of(PostalAddress(("Unknown",), "", "", zip_code)).street == ""
        assert place_of(PostalAddress(("Unknown",), "", "", zip_code)).zip == ""


def test_days() -> None:
    day = date(1956, 8, 3).toordinal()
    assert near_days(day, date(1956, 3, 8).toordinal()) == "day and month swapped"
    assert near_days(day, date(1957, 8, 3).toordinal()) == "year near"
    assert near_days(day, date(1956, 8, 8).toordinal()) == "near"
    assert near_days(day, date(1961, 4, 27).toordinal()) == ""


TEXT = st.text("aábcdeñor' -.JSmith12é", max_size=12)
NAME = st.builds(
    PersonName,
    family=TEXT,
    given=st.lists(TEXT, max_size=2).map(tuple),
    suffix=st.sampled_from(["", "Jr", "Sr", "III"]),
    kind=st.sampled_from(NameKind),
)
ADDRESS = st.builds(
    PostalAddress,
    st.sampled_from([("12 Main St",), ("12 Main Street Apt 4",), ("12 Mian St",), ()]),
    st.sampled_from(["", "Boston", "Salem"]),
    st.sampled_from(["", "MA"]),
    st.sampled_from(["", "02108", "01970"]),
)
RECORD = st.builds(
    PatientRecord,
    id=st.just("p"),
    names=st.lists(NAME, max_size=2).map(tuple),
    birth_date=st.none() | st.dates(date(1950, 1, 1), date(1951, 12, 31)),
    sex=st.sampled_from(["", "male", "female"]),
    phones=st.lists(st.sampled_from(["617-234-5678", "508-234-5678", "617-234-5679"]), max_size=2).map(tuple),
    direct_addresses=st.lists(st.sampled_from(["a@direct.example", "b@direct.example"]), max_size=2).map(tuple),
    addresses=st.lists(ADDRESS, max_size=2).map(tuple),
)


@given(RECORD, RECORD)
def test_a_comparison_is_the_same_from_both_sides(one: PatientRecord, other: PatientRecord) -> None:
    left, right = of_record(one), of_record(other)
    there, back = match(left, right), match(right, left)
    assert there.points == pytest.approx(back.points)
    assert there.rank == pytest.approx(back.rank)
    assert (there.family, there.given, there.birth_date, there.sex) == (
        back.family, back.given, back.birth_date, back.sex
    )  # fmt: skip
    assert (there.phones, there.direct, there.places) == (back.phones, back.direct, back.places)


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert folded(folded(text)) == folded(text)
    assert street_key([street_key([text])]) == street_key([text])
    assert us_phone(us_phone(text)) == us_phone(text)


@given(st.lists(st.text("abcdef", min_size=1, max_size=7), max_size=20))
def test_a_vocabulary_forgets_what_is_taken_out(words: list[str]) -> None:
    vocabulary = Vocabulary()
    vocabulary.add("smith")
    before = vocabulary.near("smiht")
    for word in words:
        vocabulary.add(word)
    for word in words:
        assert (word, 0) in vocabulary.near(word)
        vocabulary.remove(word)
    assert vocabulary.near("smiht") == before == [("smith", 1)]
    assert len(vocabulary) == 1
