"""The decision table of automatic linking (S41, S42, CX-12, CX-13)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.matching import EXPLANATIONS, RULE_VERSION, DecisionKind, Ground, decide
from gateway.ports import AddressBookEntry, Patient

ANN = "ann@patients.direct.example"
ENTRY = AddressBookEntry(ANN, "p1", confirmed=True, shared=False, source="fhir-file")
P1 = Patient("p1", family="Lee", given="Ann")
P2 = Patient("p2", family="Lee", given="Amy")
DEAD = replace(P2, deceased=True)


def test_the_one_case_that_links() -> None:
    decision = decide(ANN, [ENTRY], {"p1": P1}, automatic=True)
    assert decision.kind is DecisionKind.AUTOMATIC
    assert decision.patient_id == "p1"
    assert decision.rule == f"{RULE_VERSION}:sole_patient"


@pytest.mark.parametrize(
    ("sender", "entries", "patients", "automatic", "ground"),
    [
        ("", [ENTRY], {"p1": P1}, True, Ground.NO_SENDER),
        ("  ", [ENTRY], {"p1": P1}, True, Ground.NO_SENDER),
        (ANN, [], {"p1": P1}, True, Ground.NOT_DOCUMENTED),
        ("eve@patients.direct.example", [ENTRY], {"p1": P1}, True, Ground.NOT_DOCUMENTED),
        (ANN, [replace(ENTRY, shared=True)], {"p1": P1}, True, Ground.SHARED),
        # Twins with one address: shared whatever the flags of the entries say.
        (ANN, [ENTRY, replace(ENTRY, patient_id="p2")], {"p1": P1, "p2": P2}, True, Ground.SHARED),
        # A second patient's entry counts although unconfirmed, unknown, dead or spelt in capitals.
        (ANN, [ENTRY, replace(ENTRY, patient_id="p2", confirmed=False)], {"p1": P1, "p2": P2}, True, Ground.SHARED),
        (ANN, [ENTRY, replace(ENTRY, patient_id="p2")], {"p1": P1}, True, Ground.SHARED),
        (ANN, [ENTRY, replace(ENTRY, patient_id="p2")], {"p1": P1, "p2": DEAD}, True, Ground.SHARED),
        (ANN, [ENTRY, replace(ENTRY, patient_id="p2", address=ANN.upper())], {"p1": P1, "p2": P2}, True, Ground.SHARED),
        (ANN, [replace(ENTRY, confirmed=False)], {"p1": P1}, True, Ground.UNCONFIRMED),
        (ANN, [ENTRY], {}, True, Ground.UNKNOWN_PATIENT),
        (ANN, [ENTRY], {"p1": replace(P1, deceased=True)}, True, Ground.DECEASED),
        (ANN, [ENTRY], {"p1": replace(P1, active=False)}, True, Ground.INACTIVE),
        (ANN, [ENTRY], {"p1": P1}, False, Ground.POLICY_OFF),
    ],
)  # fmt: skip
def test_everything_else_waits_for_a_person(
    sender: str, entries: list[AddressBookEntry], patients: dict[str, Patient], automatic: bool, ground: Ground
) -> None:
    decision = decide(sender, entries, patients, automatic=automatic)
    assert decision.kind is DecisionKind.UNLINKED
    assert decision.patient_id is None
    assert decision.rule == f"{RULE_VERSION}:{ground}"
    assert decision.explanation == EXPLANATIONS[ground]


def test_case_of_the_sender_does_not_matter() -> None:
    assert decide(ANN.upper(), [ENTRY], {"p1": P1}, automatic=True).patient_id == "p1"


def test_entries_of_other_addresses_do_not_make_it_shared() -> None:
    other = replace(ENTRY, address="bob@patients.direct.example", patient_id="p2")
    assert decide(ANN, [ENTRY, other], {"p1": P1, "p2": P2}, automatic=True).patient_id == "p1"


def test_the_same_patient_documented_twice_is_one_patient() -> None:
    assert decide(ANN, [ENTRY, replace(ENTRY, source="csv-file")], {"p1": P1}, automatic=True).patient_id == "p1"


def test_every_ground_is_explained_without_a_value() -> None:
    assert set(EXPLANATIONS) == set(Ground)
    assert not any("@" in text for text in EXPLANATIONS.values())


entries = st.lists(
    st.builds(
        AddressBookEntry,
        address=st.sampled_from([ANN, ANN.upper(), "bob@patients.direct.example"]),
        patient_id=st.sampled_from(["p1", "p2", "p3"]),
        confirmed=st.booleans(),
        shared=st.booleans(),
        source=st.just("csv-file"),
    ),
    max_size=4,
)
patients = st.dictionaries(
    st.sampled_from(["p1", "p2", "p3"]),
    st.builds(Patient, id=st.just("x"), active=st.booleans(), deceased=st.booleans()),
)


@given(entries, patients, st.booleans())
def test_an_automatic_link_always_has_every_condition(
    book: list[AddressBookEntry], index: dict[str, Patient], automatic: bool
) -> None:
    decision = decide(ANN, book, index, automatic=automatic)
    own = [entry for entry in book if entry.address.lower() == ANN]
    certain = (
        automatic
        and len({entry.patient_id for entry in own}) == 1
        and any(entry.confirmed for entry in own)
        and not any(entry.shared for entry in own)
        and own[0].patient_id in index
        and index[own[0].patient_id].active
        and not index[own[0].patient_id].deceased
    )
    assert (decision.kind is DecisionKind.AUTOMATIC) == certain
    assert decision.patient_id == (own[0].patient_id if certain else None)
