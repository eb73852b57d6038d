"""The decision table of automatic links where a message says something of its patient (matching policy 2 to 5, 7)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.claims import Claim, Contradiction, Disagreement, Source, Strength
from gateway.core.findings import Agreement, Comparison, Findings
from gateway.core.matching import EVIDENCE_RULE_VERSION, LINKING, RULE_VERSION, Decision, DecisionKind, Ground, decide
from gateway.ports import AddressBookEntry, Patient

ANN = "ann@patients.direct.example"
ENTRY = AddressBookEntry(ANN, "p1", confirmed=True, shared=False, source="fhir-file")
P1 = Patient("p1", family="Lee", given="Ann")
SAME = Comparison(
    "p1", 13.0, Agreement.EQUAL, Agreement.EQUAL, Agreement.EQUAL, Agreement.EQUAL, contact=True, identifier=False
)
NUMBERED = replace(SAME, contact=False, identifier=True, given=Agreement.UNKNOWN, points=7.0)
OTHER = replace(SAME, patient_id="p2", points=11.0, given=Agreement.DIFFERENT)
CLAIM = Claim(Source.CDA_HEADER, Strength.AUTHOR)
CONFLICT = Contradiction(Disagreement.BIRTH_DATE, CLAIM, CLAIM)


def by_demographics(*comparisons: Comparison, **more: Any) -> Decision:
    return decide("", [], {}, automatic=True, demographics=True, findings=Findings(comparisons=comparisons, **more))


def by_sender(*comparisons: Comparison, **more: Any) -> Decision:
    found = Findings(comparisons=comparisons, **more)
    return decide(ANN, [ENTRY], {"p1": P1}, automatic=True, demographics=True, findings=found)


def ground(decision: Decision) -> str:
    return decision.rule.partition(":")[2]


def test_exact_demographics_with_a_contact_link_where_the_policy_allows() -> None:
    decision = by_demographics(SAME, OTHER)
    assert (decision.kind, decision.patient_id, decision.points) == (DecisionKind.AUTOMATIC, "p1", 13.0)
    assert decision.rule == f"{EVIDENCE_RULE_VERSION}:exact_demographics"


def test_the_default_policy_suggests() -> None:
    decision = decide("", [], {}, automatic=True, findings=Findings(comparisons=(SAME,)))
    assert (decision.kind, decision.patient_id) == (DecisionKind.SUGGESTED, None)
    assert ground(decision) == Ground.POLICY_OFF


def test_a_known_record_number_with_birth_date_and_family_links() -> None:
    decision = decide("", [], {}, automatic=True, findings=Findings(comparisons=(NUMBERED,)))
    assert (decision.kind, decision.patient_id) == (DecisionKind.AUTOMATIC, "p1")
    assert ground(decision) == Ground.EXACT_NUMBER


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        (replace(SAME, contact=False), Ground.NOT_EXACT),
        (replace(SAME, given=Agreement.NEAR), Ground.NOT_EXACT),
        (replace(SAME, given=Agreement.COMPATIBLE), Ground.NOT_EXACT),
        (replace(SAME, given=Agreement.UNKNOWN), Ground.NOT_EXACT),
        (replace(SAME, given=Agreement.DIFFERENT), Ground.NOT_EXACT),
        (replace(SAME, family=Agreement.NEAR), Ground.NOT_EXACT),
        (replace(SAME, family=Agreement.COMPATIBLE), Ground.NOT_EXACT),
        (replace(SAME, family=Agreement.UNKNOWN), Ground.NOT_EXACT),
        (replace(SAME, birth_date=Agreement.NEAR), Ground.NOT_EXACT),
        (replace(SAME, birth_date=Agreement.UNKNOWN), Ground.NOT_EXACT),
        (replace(SAME, birth_date=Agreement.COMPATIBLE), Ground.NOT_EXACT),
        (replace(SAME, sex=Agreement.DIFFERENT), Ground.CHART_DISAGREES),
        (replace(SAME, other_identifier=True), Ground.CHART_DISAGREES),
        (replace(SAME, deceased=True), Ground.DECEASED),
        (replace(SAME, active=False), Ground.INACTIVE),
        (replace(SAME, merged=True, active=False), Ground.MERGED),
        (replace(NUMBERED, given=Agreement.DIFFERENT), Ground.CHART_DISAGREES),
        (replace(NUMBERED, birth_date=Agreement.NEAR), Ground.CHART_DISAGREES),
        (replace(NUMBERED, family=Agreement.DIFFERENT), Ground.CHART_DISAGREES),
        (replace(NUMBERED, given=Agreement.NEAR), Ground.NOT_EXACT),
        (replace(NUMBERED, deceased=True), Ground.DECEASED),
    ],
)
def test_whatever_is_less_than_exact_waits(comparison: Comparison, expected: Ground) -> None:
    decision = by_demographics(comparison)
    assert decision.patient_id is None
    assert ground(decision) == expected


def test_two_exact_patients_and_a_runner_up_wait() -> None:
    assert ground(by_demographics(SAME, replace(SAME, patient_id="p2"))) == Ground.SEVERAL_PATIENTS
    assert ground(by_demographics(SAME, replace(OTHER, points=11.1))) == Ground.RUNNER_UP
    assert ground(by_demographics(NUMBERED, replace(NUMBERED, patient_id="p2"))) == Ground.SEVERAL_PATIENTS


def test_claims_that_contradict_each_other_block_every_ground() -> None:
    for decide_by in (by_demographics, by_sender):
        decision = decide_by(SAME, contradictions=(CONFLICT,))
        assert (decision.kind, decision.patient_id) == (DecisionKind.CONFLICT, None)
        assert ground(decide_by(SAME, givens_differ=True)) == Ground.GIVEN_NAMES_DIFFER
        assert ground(decide_by(SAME, is_complete=False)) == Ground.NOT_ALL_READ


@pytest.mark.parametrize("more", [{"contact": False}, {"given": Agreement.COMPATIBLE}, {"family": Agreement.PREVIOUS}])
def test_a_documented_sender_links_where_nothing_contradicts(more: dict[str, Any]) -> None:
    decision = by_sender(replace(SAME, **more))
    assert (decision.kind, decision.patient_id) == (DecisionKind.AUTOMATIC, "p1")
    assert ground(decision) == Ground.SOLE_PATIENT


@pytest.mark.parametrize(
    ("comparisons", "expected"),
    [
        ((replace(SAME, birth_date=Agreement.DIFFERENT),), Ground.CHART_DISAGREES),
        ((replace(SAME, family=Agreement.DIFFERENT),), Ground.CHART_DISAGREES),
        ((replace(SAME, given=Agreement.DIFFERENT),), Ground.CHART_DISAGREES),
        ((replace(SAME, sex=Agreement.DIFFERENT),), Ground.CHART_DISAGREES),
        ((replace(SAME, given=Agreement.NEAR),), Ground.DOUBTFUL_NAME),
        ((replace(SAME, patient_id="p2"), replace(SAME, given=Agreement.DIFFERENT)), Ground.OTHER_PATIENT),
        ((replace(NUMBERED, patient_id="p2"), SAME), Ground.OTHER_PATIENT),
        ((replace(SAME, patient_id="p2", contact=False),), Ground.NOT_ALL_READ),
        ((replace(SAME, merged=True),), Ground.MERGED),
    ],
)
def test_a_documented_sender_with_somebody_elses_document_waits(
    comparisons: tuple[Comparison, ...], expected: Ground
) -> None:
    decision = by_sender(*comparisons)
    assert decision.patient_id is None
    assert ground(decision) == expected


def test_mail_from_a_shared_address_links_on_no_evidence() -> None:
    shared = replace(ENTRY, shared=True)
    found = Findings(comparisons=(replace(SAME, identifier=True),))
    decision = decide(ANN, [shared], {"p1": P1}, automatic=True, demographics=True, findings=found)
    assert decision.patient_id is None
    assert ground(decision) == Ground.SHARED


def test_an_unconfirmed_sender_may_not_say_of_another_patient() -> None:
    doubted = replace(ENTRY, confirmed=False)
    found = Findings(comparisons=(replace(SAME, patient_id="p2"),))
    decision = decide(ANN, [doubted], {"p1": P1}, automatic=True, demographics=True, findings=found)
    assert ground(decision) == Ground.OTHER_PATIENT


def test_empty_findings_decide_as_none_do() -> None:
    with_none = decide(ANN, [ENTRY], {"p1": P1}, automatic=True)
    assert decide(ANN, [ENTRY], {"p1": P1}, automatic=True, findings=Findings()) == with_none
    assert with_none.rule == f"{RULE_VERSION}:sole_patient"


AGREEMENTS = st.sampled_from(Agreement)
COMPARISONS = st.builds(
    Comparison,
    st.sampled_from(["p1", "p2", "p3"]),
    st.floats(0, 20),
    *[AGREEMENTS] * 4,
    *[st.booleans()] * 6,
)


@given(st.lists(COMPARISONS, max_size=4, unique_by=lambda one: one.patient_id), st.booleans(), st.booleans())
def test_nobody_is_ever_linked_against_what_is_said(
    comparisons: list[Comparison], known_sender: bool, demographics: bool
) -> None:
    sender = ANN if known_sender else ""
    found = Findings(comparisons=tuple(comparisons))
    decision = decide(sender, [ENTRY], {"p1": P1}, automatic=True, demographics=demographics, findings=found)
    if decision.kind is not DecisionKind.AUTOMATIC:
        assert decision.patient_id is None
        return
    assert ground(decision) in {str(one) for one in LINKING}
    linked = [one for one in comparisons if one.patient_id == decision.patient_id]
    # Without any claim the address book alone decides.
    assert linked or not comparisons
    assert not any(one.contradicts or one.deceased or one.merged or not one.active for one in linked)
    assert decide(sender, [ENTRY], {"p1": P1}, automatic=False, findings=found).patient_id is None


def test_each_ground_is_allowed_for_itself() -> None:
    numbered, exact = Findings(comparisons=(NUMBERED,)), Findings(comparisons=(SAME,))
    off = decide("", [], {}, automatic=True, numbers=False, demographics=False, findings=numbered)
    assert (off.kind, ground(off)) == (DecisionKind.SUGGESTED, Ground.POLICY_OFF)
    by_number = decide("", [], {}, automatic=True, numbers=True, demographics=False, findings=exact)
    assert (by_number.patient_id, ground(by_number)) == (None, Ground.POLICY_OFF)
    found = Findings(comparisons=(replace(SAME, identifier=True),))
    sender = decide(ANN, [ENTRY], {"p1": P1}, automatic=True, numbers=False, findings=found)
    assert (sender.patient_id, ground(sender)) == ("p1", Ground.SOLE_PATIENT)


def test_where_not_everybody_was_compared_only_the_sender_links() -> None:
    for one in (SAME, NUMBERED):
        decision = by_demographics(one, all_compared=False)
        assert (decision.patient_id, ground(decision)) == (None, Ground.TOO_MANY)
    assert ground(by_sender(SAME, all_compared=False)) == Ground.SOLE_PATIENT


def test_a_namesake_with_the_documents_contacts_stops_the_link_of_the_sender() -> None:
    namesake = replace(SAME, patient_id="p2", points=SAME.points + 4)
    assert ground(by_sender(SAME, namesake)) == Ground.OTHER_PATIENT
    assert ground(by_sender(SAME, replace(namesake, points=SAME.points))) == Ground.SOLE_PATIENT
    assert ground(by_sender(SAME, replace(namesake, merged=True))) == Ground.SOLE_PATIENT
