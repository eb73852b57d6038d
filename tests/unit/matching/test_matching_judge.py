"""From what a message says to a decision: who is linked, and who never is."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from gateway.core.claims import Claim, Evidence, Identifier, PersonName, PostalAddress, Source, Strength
from gateway.core.matching import Decision, DecisionKind, Ground, decide
from gateway.matching.index import PatientIndex
from gateway.matching.judge import MOST_AT_A_PHONE, findings, suggestions
from gateway.matching.records import PatientRecord
from gateway.ports import AddressBookEntry, Patient

OID = "2.16.840.1.113883.19.5"
HOME = PostalAddress(("12 Main Street Apt 4",), "Boston", "MA", "02108")
DALTON = PatientRecord(
    "p1",
    (PersonName("King", ("Dalton",)),),
    date(2013, 7, 4),
    "male",
    (Identifier("M100", OID, "MR"),),
    ("617-234-5678",),
    (),
    ("dalton@direct.example",),
    (HOME,),
)
CLAIM = Claim(
    Source.CDA_HEADER,
    Strength.AUTHOR,
    names=DALTON.names,
    birth_date=DALTON.birth_date,
    sex="male",
    phones=DALTON.phones,
    addresses=DALTON.addresses,
)
ENTRY = AddressBookEntry("dalton@direct.example", "p1", confirmed=True, shared=False, source="fhir-file")
NUMBER = Claim(
    Source.HL7V2_PID,
    Strength.SENDER,
    names=(PersonName("King"),),
    birth_date=DALTON.birth_date,
    identifiers=(Identifier("m-100", f"urn:oid:{OID}", "MR"),),
)


def decided(*claims: Claim, others: tuple[PatientRecord, ...] = (), own: PatientRecord = DALTON) -> Decision:
    index = PatientIndex((own, *others))
    return decide("", [], {}, automatic=True, demographics=True, findings=findings(index, Evidence(claims)))


def from_dalton(*claims: Claim) -> Decision:
    found = findings(PatientIndex([DALTON]), Evidence(claims), ["p1"])
    return decide(ENTRY.address, [ENTRY], {"p1": Patient("p1")}, automatic=True, findings=found)


def test_exact_demographics_and_a_contact_link() -> None:
    assert decided(CLAIM).patient_id == "p1"
    assert decided(replace(CLAIM, addresses=())).patient_id == "p1"
    assert decided(replace(CLAIM, phones=())).patient_id == "p1"
    only_direct = replace(CLAIM, phones=(), addresses=(), direct_addresses=("dalton@direct.example",))
    assert decided(only_direct).patient_id == "p1"


def test_the_same_person_written_otherwise_links() -> None:
    written = replace(
        CLAIM,
        names=(PersonName(" KING-", ("DALTON",)),),
        phones=("tel:+1(617)234-5678;ext=4",),
        addresses=(PostalAddress(("12 MAIN ST. #4",), "", "", "02108-0001"),),
    )
    assert decided(written).patient_id == "p1"


@pytest.mark.parametrize("given", ["Xalton", "Walton", "Emma", "Dalton James", "D", "Baby Boy", "Twin A", ""])
def test_a_sibling_who_is_not_registered_is_never_linked(given: str) -> None:
    sibling = replace(CLAIM, names=(PersonName("King", (given,) if given else ()),))
    assert decided(sibling).patient_id is None
    assert decided(replace(sibling, identifiers=())).kind is DecisionKind.SUGGESTED


@pytest.mark.parametrize("born", [date(1985, 7, 4), date(2013, 4, 7), date(2012, 7, 4), date(1900, 1, 1), None])
def test_a_parent_of_the_same_name_is_never_linked(born: date | None) -> None:
    assert decided(replace(CLAIM, birth_date=born)).patient_id is None


def test_senior_and_junior_are_two() -> None:
    junior = replace(DALTON, names=(PersonName("King", ("Dalton",), suffix="Jr"),))
    senior = replace(CLAIM, names=(PersonName("King, Sr.", ("Dalton",)),))
    assert decided(senior, own=junior).patient_id is None
    assert decided(replace(CLAIM, names=junior.names), own=junior).patient_id == "p1"


def test_placeholders_are_no_evidence() -> None:
    nobody = ("555-555-5555",)
    nowhere = (PostalAddress(("Unknown",), "Boston", "MA", "00000"),)
    own = replace(DALTON, phones=nobody, addresses=nowhere)
    assert decided(replace(CLAIM, phones=nobody, addresses=nowhere), own=own).patient_id is None
    epoch = replace(DALTON, birth_date=date(1900, 1, 1))
    assert decided(replace(CLAIM, birth_date=date(1900, 1, 1)), own=epoch).patient_id is None
    baby = replace(DALTON, names=(PersonName("King", ("Baby Boy",)),))
    assert decided(replace(CLAIM, names=baby.names), own=baby).patient_id is None


def test_a_number_that_many_have_is_no_contact() -> None:
    clinic = [
        replace(DALTON, id=f"x{at}", names=(PersonName(f"Other{at}", ("Kim",)),), birth_date=date(1950, 1, 2))
        for at in range(MOST_AT_A_PHONE)
    ]
    moved = replace(CLAIM, addresses=())
    assert decided(moved, others=tuple(clinic[:-1])).patient_id == "p1"
    assert decided(moved, others=tuple(clinic)).patient_id is None


def test_twins_who_are_both_registered() -> None:
    near = replace(DALTON, id="p2", names=(PersonName("King", ("Walton",)),), identifiers=(), direct_addresses=())
    assert decided(CLAIM, others=(near,)).patient_id is None
    far = replace(near, names=(PersonName("King", ("Emma",)),), sex="female")
    assert decided(CLAIM, others=(far,)).patient_id == "p1"
    hit = suggestions(PatientIndex([DALTON, far]), Evidence((CLAIM,))).hits[0]
    assert (hit.patient_id, hit.alike[0].patient_id) == ("p1", "p2")
    assert hit.alike[0].why == "similar patient at the same address"


@pytest.mark.parametrize("standing", [{"deceased": True}, {"active": False}, {"merged_into": "p9"}])
def test_who_died_left_or_was_merged_is_shown_and_never_linked(standing: dict[str, object]) -> None:
    own = replace(DALTON, **standing)  # type: ignore[arg-type]
    assert decided(CLAIM, own=own).kind is DecisionKind.SUGGESTED
    assert decided(NUMBER, own=own).kind is DecisionKind.SUGGESTED
    assert suggestions(PatientIndex([own]), Evidence((CLAIM,))).hits[0].patient_id == "p1"


def test_a_record_number_needs_a_known_assigner_and_the_rest() -> None:
    assert decided(NUMBER).rule.endswith(Ground.EXACT_NUMBER)
    assert decided(replace(NUMBER, identifiers=(Identifier("M100", "", "MR"),))).patient_id is None
    assert decided(replace(NUMBER, identifiers=(Identifier("M100", "1.2.3", "MR"),))).patient_id is None
    assert decided(replace(NUMBER, birth_date=None)).patient_id is None
    assert decided(replace(NUMBER, birth_date=date(2013, 7, 5))).kind is DecisionKind.CONFLICT
    assert decided(replace(NUMBER, names=(PersonName("Kong"),))).patient_id is None
    assert decided(replace(NUMBER, names=(PersonName("King", ("Walton",)),))).patient_id is None
    assert decided(replace(NUMBER, names=(PersonName("King", ("Emma",)),))).kind is DecisionKind.CONFLICT


def test_another_number_of_the_same_assigner_blocks() -> None:
    assert decided(replace(CLAIM, identifiers=(Identifier("M999", OID, "MR"),))).patient_id is None


@pytest.mark.parametrize(
    "other",
    [
        replace(CLAIM, birth_date=date(1970, 6, 1)),
        replace(CLAIM, names=(PersonName("Madison", ("Dalton",)),)),
        replace(CLAIM, sex="female"),
        replace(CLAIM, names=(PersonName("King", ("Walton",)),)),
        replace(CLAIM, is_doubtful=True),
        replace(CLAIM, ordinal=2),
    ],
)
def test_two_sources_that_disagree_link_nothing(other: Claim) -> None:
    second = replace(other, source=Source.XDM_METADATA)
    assert decided(CLAIM, second).patient_id is None
    assert decided(second, CLAIM).patient_id is None
    assert from_dalton(CLAIM, second).patient_id is None


def test_sources_that_agree_add_up() -> None:
    context = Claim(Source.DIRECT_CONTEXT, Strength.SENDER, names=DALTON.names, birth_date=DALTON.birth_date)
    package = Claim(Source.XDM_METADATA, Strength.PACKAGER, phones=DALTON.phones)
    assert decided(context).patient_id is None
    assert decided(context, package).patient_id == "p1"


def test_a_documented_sender_with_a_document_of_somebody_else() -> None:
    assert from_dalton(CLAIM).patient_id == "p1"
    assert from_dalton(Claim(Source.CDA_HEADER, Strength.AUTHOR, names=DALTON.names)).patient_id == "p1"
    assert from_dalton(replace(CLAIM, birth_date=date(1947, 5, 1))).kind is DecisionKind.CONFLICT
    assert from_dalton(replace(CLAIM, names=(PersonName("Jones", ("Isabella",)),))).kind is DecisionKind.CONFLICT
    assert from_dalton(replace(CLAIM, names=(PersonName("King", ("Xalton",)),))).patient_id is None


def test_evidence_that_could_not_all_be_read_links_nothing() -> None:
    found = findings(PatientIndex([DALTON]), Evidence((CLAIM,)))
    hidden = replace(found, is_complete=False)
    assert decide("", [], {}, automatic=True, demographics=True, findings=hidden).patient_id is None
