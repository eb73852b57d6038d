"""Of a source with many record numbers the first sixteen were looked for: a second patient's stood behind them.

The message was linked to the first patient, or to the one whom its sender is documented for, although it names another
patient's number as well. The seventeenth telephone of a runner-up was overlooked likewise, and a patient on record with
many numbers was not found by the last ones.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from gateway.core.claims import Claim, Evidence, Identifier, PersonName, Source, Strength
from gateway.core.matching import Decision, Ground, decide
from gateway.matching.index import PatientIndex
from gateway.matching.judge import findings
from gateway.matching.records import PatientRecord
from gateway.ports import AddressBookEntry, Patient

OURS = "1.2.3"
BORN = date(1961, 3, 14)
ADA = PatientRecord(
    "p1", (PersonName("Quimby", ("Ada",)),), BORN, "", (Identifier("A-100", OURS, "MR"),), ("617-234-5678",)
)
OTHER = PatientRecord("p2", (PersonName("Okafor", ("Ben",)),), date(1990, 1, 2), "", (Identifier("B-200", OURS, "MR"),))
MANY = tuple(Identifier(f"X{at:04d}", "9.9", "MR") for at in range(40))
CLAIM = Claim(Source.CDA_HEADER, Strength.AUTHOR, names=ADA.names, birth_date=BORN)


def decided(claim: Claim, *others: PatientRecord, sender: str = "") -> Decision:
    found = findings(PatientIndex((ADA, *others)), Evidence((claim,)), ["p1"] if sender else [])
    entries = [AddressBookEntry(sender, "p1", confirmed=True, shared=False, source="fhir-file")] if sender else []
    return decide(sender, entries, {"p1": Patient("p1")}, automatic=True, demographics=True, findings=found)


def ground(decision: Decision) -> str:
    return decision.rule.partition(":")[2]


def test_the_number_of_another_patient_behind_many_others() -> None:
    claim = replace(CLAIM, identifiers=(*ADA.identifiers, *MANY, *OTHER.identifiers))
    assert ground(decided(claim, OTHER)) == Ground.SEVERAL_PATIENTS
    assert ground(decided(claim, OTHER, sender="ada@direct.example")) == Ground.OTHER_PATIENT


def test_a_patient_who_has_many_numbers_on_record() -> None:
    known = replace(OTHER, identifiers=(*MANY, *OTHER.identifiers))
    claim = replace(CLAIM, identifiers=(*ADA.identifiers, *OTHER.identifiers))
    assert ground(decided(claim, known)) == Ground.SEVERAL_PATIENTS


def test_more_than_can_be_compared_links_nothing() -> None:
    phones = tuple(f"617-555-{at:04d}" for at in range(1_001, 1_040))
    namesake = replace(ADA, id="p3", identifiers=(), phones=("617-876-5432",))
    claim = replace(CLAIM, phones=(*ADA.phones, *phones, *namesake.phones))
    assert ground(decided(claim, namesake)) == Ground.NOT_ALL_READ
    numbers = tuple(Identifier(f"Y{at:04d}", "9.9", "MR") for at in range(200))
    assert ground(decided(replace(CLAIM, identifiers=(*ADA.identifiers, *numbers)))) == Ground.NOT_ALL_READ
    assert ground(decided(replace(CLAIM, phones=ADA.phones))) == Ground.EXACT_DEMOGRAPHICS
