"""A message with the old record number of a parent went onto the chart of the child from whose address it came.

The parent's old record was left out because the record that took its place was compared too. But a merge hands no
numbers over: nobody else had the number that speaks against the child.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from gateway.core.claims import Claim, Evidence, Identifier, PersonName, Source, Strength
from gateway.core.matching import Ground, decide
from gateway.matching.index import PatientIndex
from gateway.matching.judge import findings
from gateway.matching.records import PatientRecord
from gateway.ports import AddressBookEntry, Patient

OURS = "1.2.3"
NAMES = (PersonName("King", ("Dalton",)),)
PARENT = PatientRecord(
    "p1", NAMES, date(1980, 7, 4), "male", (Identifier("A-100", OURS, "MR"),), ("617-234-5678",)
)  # fmt: skip
OLD = replace(PARENT, id="p2", identifiers=(Identifier("B-200", OURS, "MR"),), active=False, merged_into="p1")
CHILD = replace(PARENT, id="p3", birth_date=date(2013, 7, 5), identifiers=())
CLAIM = Claim(Source.HL7V2_PID, Strength.AUTHOR, names=NAMES, identifiers=OLD.identifiers, phones=PARENT.phones)


def ground(claim: Claim, documented: str, *patients: PatientRecord) -> str:
    found = findings(PatientIndex(patients), Evidence((claim,)), [documented] if documented else [])
    sender = "king@direct.example" if documented else ""
    entries = [AddressBookEntry(sender, documented, confirmed=True, shared=False, source="fhir-file")]
    known = {documented: Patient(documented)}
    decision = decide(sender, entries, known, automatic=True, demographics=True, findings=found)
    return decision.rule.partition(":")[2]


def test_the_number_speaks_against_another_patient() -> None:
    assert ground(CLAIM, "p3", PARENT, CHILD) == Ground.SOLE_PATIENT, "nothing speaks against it"
    assert ground(CLAIM, "p3", PARENT, OLD, CHILD) == Ground.OTHER_PATIENT


def test_it_does_not_speak_against_the_record_that_took_its_place() -> None:
    unnumbered = replace(PARENT, identifiers=())
    assert ground(CLAIM, "p1", unnumbered, OLD) == Ground.SOLE_PATIENT


def test_mail_of_a_stranger_is_shown_the_record() -> None:
    claim = replace(CLAIM, birth_date=PARENT.birth_date)
    assert ground(claim, "", PARENT, OLD) == Ground.MERGED
    assert ground(replace(claim, identifiers=PARENT.identifiers), "", PARENT, OLD) == Ground.EXACT_NUMBER
    kept = replace(OLD, identifiers=PARENT.identifiers)
    assert ground(replace(claim, identifiers=PARENT.identifiers), "", PARENT, kept) == Ground.EXACT_NUMBER
