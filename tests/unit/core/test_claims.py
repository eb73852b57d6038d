"""Claims: what is never held, and what contradicts what."""

from dataclasses import replace
from datetime import date

import pytest

from gateway.core.claims import (
    Claim,
    Disagreement,
    Evidence,
    Identifier,
    NameKind,
    PersonName,
    Problem,
    Source,
    Strength,
    contradictions,
    given_names_differ,
    is_social_security,
    kept_identifiers,
)

ADA = Claim(
    Source.CDA_HEADER,
    Strength.AUTHOR,
    "2",
    names=(PersonName("García-López", ("Ada",)),),
    birth_date=date(1961, 3, 14),
    sex="female",
)


def _named(family: str, *, given: str = "Ada", kind: NameKind = NameKind.CURRENT) -> Claim:
    return replace(ADA, names=(PersonName(family, (given,), kind=kind),))


def _fields(*claims: Claim) -> list[Disagreement]:
    return [found.field for found in contradictions(claims)]


@pytest.mark.parametrize(
    "other",
    [
        ADA,
        _named("GARCIA LOPEZ"),
        _named("Garci\u0301a Lo\u0301pez"),
        replace(ADA, birth_date=None, birth_part="1961-03"),
        replace(ADA, birth_date=None, birth_part="1961"),
        replace(ADA, sex="unknown"),
        replace(ADA, sex=""),
        replace(ADA, names=()),
        replace(ADA, names=(PersonName("Smith"), PersonName("Garcia Lopez", kind=NameKind.PREVIOUS))),
    ],
)
def test_another_spelling_or_silence_is_no_contradiction(other: Claim) -> None:
    assert _fields(ADA, other) == []
    assert _fields(other, ADA) == []


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (_named("Lopez"), Disagreement.FAMILY),
        (replace(ADA, birth_date=date(1961, 4, 13)), Disagreement.BIRTH_DATE),
        (replace(ADA, birth_date=None, birth_part="1962"), Disagreement.BIRTH_DATE),
        (replace(ADA, sex="male"), Disagreement.SEX),
        (replace(ADA, sex="other"), Disagreement.SEX),
        (replace(ADA, ordinal=2), Disagreement.SEVERAL_PATIENTS),
        (replace(ADA, is_doubtful=True), Disagreement.INTEGRITY),
    ],
)
def test_what_cannot_be_one_person_contradicts(other: Claim, field: Disagreement) -> None:
    assert _fields(ADA, other) == [field]
    assert _fields(other, ADA) == [field]


def test_equal_claims_are_compared_once() -> None:
    assert len(contradictions([ADA, ADA, replace(ADA, sex="male"), replace(ADA, sex="male", path="3")])) == 1


def test_a_partial_date_of_another_claim_counts_in_any_order() -> None:
    year = replace(ADA, birth_date=None, birth_part="1961")
    assert _fields(year, ADA, replace(ADA, birth_date=date(1961, 5, 1))) == [Disagreement.BIRTH_DATE]


def test_given_names_of_twins_differ_and_initials_do_not() -> None:
    assert given_names_differ([ADA, _named("García-López", given="Eva")])
    assert not given_names_differ([ADA, _named("García-López", given="A.")])
    assert not given_names_differ([ADA, _named("García-López", given="ADA")])
    assert given_names_differ([ADA, _named("García-López", given="E")])
    assert not given_names_differ([ADA, replace(ADA, names=())])


@pytest.mark.parametrize(
    ("value", "assigner", "kind"),
    [
        ("444222222", "2.16.840.1.113883.4.1", ""),
        ("444222222", "urn:oid:2.16.840.1.113883.4.1", ""),
        ("444222222", "http://hl7.org/fhir/sid/us-ssn", ""),
        ("444222222", "", "SS"),
        ("444-22-2222", "1.2.3", "MR"),
        ("***-**-2222", "1.2.3", ""),
    ],
)
def test_a_social_security_number_is_never_kept(value: str, assigner: str, kind: str) -> None:
    assert is_social_security(value, assigner, kind)
    assert kept_identifiers([Identifier(value, assigner, kind), Identifier("7", "1.2.3")]) == (
        Identifier("7", "1.2.3"),
    )


def test_other_identifiers_are_kept_once() -> None:
    numbers = [Identifier("444222222", "1.2.3"), Identifier("", "1.2.3"), Identifier("444222222", "1.2.3")]
    assert kept_identifiers(numbers) == (Identifier("444222222", "1.2.3"),)


def test_evidence_with_a_problem_that_hides_is_incomplete() -> None:
    told = Problem(Source.CDA_HEADER, "2", "xml_malformed", "the document is not well-formed")
    assert not Evidence(problems=(told,)).is_complete
    assert Evidence(problems=(replace(told, hides=False),)).is_complete


def test_middle_names_are_found_wherever_they_stand() -> None:
    assert PersonName("Q", ("Ada", "Marie"), "Jane Eve").middles == ("Marie", "Jane", "Eve")
    assert Claim(Source.SIGNED_FROM, Strength.SIGNATURE, sex="male").is_empty
