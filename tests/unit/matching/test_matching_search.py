"""The box and the fields: what is typed, who is found, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.claims import Identifier, NameKind, PersonName, PostalAddress
from gateway.core.errors import ConflictError, NotFoundError
from gateway.matching.index import PatientIndex
from gateway.matching.query import Fields, in_fields, in_one_box, possible_days, unreadable
from gateway.matching.records import PatientRecord
from gateway.matching.search import MAX_LIMIT, search
from tests.support.people import World

SMITH = PatientRecord(
    "p1",
    (PersonName("Smith", ("María",)), PersonName("O'Connor", ("María",), kind=NameKind.BIRTH)),
    date(1956, 8, 3),
    "female",
    (Identifier("MRN-00417", "reg"),),
    ("617-978-4581",),
    (),
    ("maria.smith@direct.example",),
    (PostalAddress(("313 Lockman Row Suite 4",), "Boston", "MA", "02108"),),
)


def records() -> list[PatientRecord]:
    world = World(11, 400)
    return [
        PatientRecord(
            f"w{own.id}",
            (PersonName(own.family, (own.given,)),),
            own.dob,
            own.sex,
            (Identifier(own.mrn, "reg"),),
            (own.phone,),
            (),
            (),
            (PostalAddress((own.line,), own.city, "", own.zip),),
        )
        for own in world.people
    ]


@pytest.fixture(scope="module")
def index() -> PatientIndex:
    return PatientIndex([SMITH, *records()])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("smith 1956-08-03 boston", "birth date ="),
        ("SMITH, MARIA 8/3/56", "family name ="),
        ("maria smiht Aug 3 1956", "family name \u2248"),
        ("3 Aug 1956 smith", "birth date ="),
        ("August 3rd, 1956 maria", "given name ="),
        ("19560803 smith", "birth date ="),
        ("smith 1956", "birth date: part of it"),
        ("oconnor 1956-08-03", "family name: previous name"),
        ("maria o'connor", "family name: previous name"),
        ("m smith 8/3/1956", "given name: initial"),
        ("smith 3/8/1956", "birth date: day and month swapped"),
        ("(617) 978-4581", "phone ="),
        ("+1 617.978.4581", "phone ="),
        ("6179784581", "phone ="),
        ("mrn-00417", "record number: equal, assigner unknown"),
        ("MRN00417", "record number: equal, assigner unknown"),
        ("Maria.Smith@Direct.example", "Direct address ="),
        ("313 lockman row 02108", "number: house number"),
        ("lockman smith", "street ="),
    ],
)
def test_one_box(index: PatientIndex, text: str, why: str) -> None:
    hit = search(index, in_one_box(text)).hits[0]
    assert hit.patient_id == "p1"
    assert why in [str(reason) for reason in hit.reasons]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (Fields(given="Smith", family="Maria", dob="1956-08-03"), "name: swapped"),
        (Fields(family="Smyth", dob="8/3/56"), "family name \u2248"),
        (Fields(family="Smith", zip="02108-1234", sex="F"), "ZIP ="),
        (Fields(address="313 lockman row ste 4", zip="02108"), "address ="),
        (Fields(phone="508-978-4581", family="smith"), "phone: other area code"),
        (Fields(given="Mary", family="Smith", dob="1956-08-03"), "given name: nickname"),
        (Fields(direct="maria.smith@direct.example"), "Direct address ="),
        (Fields(mrn="mrn 00417"), "record number: equal, assigner unknown"),
    ],
)
def test_fields(index: PatientIndex, fields: Fields, why: str) -> None:
    hit = search(index, in_fields(fields)).hits[0]
    assert hit.patient_id == "p1"
    assert why in [str(reason) for reason in hit.reasons]


@pytest.mark.parametrize(
    "text", ["1956-08-03", "8/3/56", "08/03/1956", "8-3-1956", "Aug 3 1956", "3 aug 1956", "19560803", "August 3, '56"]
)
def test_dates(text: str) -> None:
    assert date(1956, 8, 3).toordinal() in possible_days(text)


def test_a_date_that_cannot_be_month_first_is_day_first() -> None:
    assert possible_days("25/12/1980") == (date(1980, 12, 25).toordinal(),)
    assert possible_days("8/3/1956") == (date(1956, 8, 3).toordinal(),)


def test_fields_that_cannot_be_read_are_named() -> None:
    bad = Fields(dob="31/31/1950", sex="yes", phone="12", zip="abc", direct="nobody")
    assert unreadable(bad) == ("dob", "sex", "phone", "zip", "direct")
    assert unreadable(Fields(family="x", dob="1956")) == ()


def test_nothing_asked_is_nothing_found(index: PatientIndex) -> None:
    for text in ("", "   ", "...", "1900-01-01", "999-999-9999"):
        assert search(index, in_one_box(text)).hits == ()


@given(st.text(max_size=60))
def test_any_text_gives_an_answer_of_bounded_size(text: str) -> None:
    index = PatientIndex([SMITH])
    assert len(search(index, in_one_box(text), 10_000).hits) <= MAX_LIMIT


def test_a_name_that_everybody_has_is_bounded_and_says_so() -> None:
    many = [replace(SMITH, id=f"s{at}", identifiers=(), phones=(), direct_addresses=()) for at in range(2_000)]
    found = search(PatientIndex(many), in_one_box("smith"), 20)
    assert (len(found.hits), found.more) == (20, True)
    right = replace(SMITH, id="right", birth_date=date(1980, 2, 9))
    assert search(PatientIndex([*many, right]), in_one_box("smith 1980-02-09")).hits[0].patient_id == "right"


def test_adding_replacing_and_removing() -> None:
    index = PatientIndex([SMITH])
    with pytest.raises(ConflictError):
        index.add(SMITH)
    index.replace(replace(SMITH, phones=("508-222-3333",)))
    assert search(index, in_one_box("617-978-4581")).hits == ()
    assert search(index, in_one_box("508-222-3333")).hits[0].patient_id == "p1"
    index.remove("p1")
    with pytest.raises(NotFoundError):
        index.remove("p1")
    assert len(index) == 0
    assert search(index, in_one_box("smith maria 1956-08-03")).hits == ()
    assert len(index.vocabulary) == len(index.phones) == len(index.births) == len(index.houses) == 0


def test_an_index_that_changed_answers_as_one_made_anew() -> None:
    everybody = records()
    changed = PatientIndex(everybody)
    for record in everybody[::2]:
        changed.remove(record.id)
    for record in everybody[::4]:
        changed.replace(record)
    left = [record for at, record in enumerate(everybody) if at % 2 or at % 4 == 0]
    anew = PatientIndex(left)
    for record in everybody[:60]:
        text = f"{record.names[0].family} {record.birth_date}"
        assert search(changed, in_one_box(text)).hits[:3] == search(anew, in_one_box(text)).hits[:3]
