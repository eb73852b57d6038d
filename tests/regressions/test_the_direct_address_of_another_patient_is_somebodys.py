"""A message that named another patient by nothing but his Direct address went onto the chart of whoever sent it.

A Direct Context may name its patient by ``directAddress`` alone. Without a name nothing contradicted the chart.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.claims import Claim, Evidence, PersonName, Source, Strength
from gateway.core.matching import Ground, decide
from gateway.matching.index import PatientIndex
from gateway.matching.judge import findings
from gateway.matching.records import PatientRecord
from gateway.ports import AddressBookEntry, Patient

SENDER, OTHER = "dalton@phr.example", "ada@phr.example"
HIS = PatientRecord("p1", (PersonName("King", ("Dalton",)),), direct_addresses=(SENDER,))
HERS = PatientRecord("p2", (PersonName("Quimby", ("Ada",)),), direct_addresses=(OTHER,))
SIGNED = Claim(Source.SIGNED_FROM, Strength.SIGNATURE, direct_addresses=(SENDER,))
CONTEXT = Claim(Source.DIRECT_CONTEXT, Strength.SENDER)


@pytest.mark.parametrize(
    ("addresses", "emails", "wanted"),
    [
        ((OTHER,), (), Ground.OTHER_PATIENT),
        ((), (OTHER.upper(),), Ground.OTHER_PATIENT),
        ((SENDER,), (), Ground.SOLE_PATIENT),
        ((SENDER, OTHER), (), Ground.SOLE_PATIENT),
        (("nobody@phr.example",), (), Ground.SOLE_PATIENT),
    ],
    ids=["of another", "as e-mail", "of the sender", "of both", "of nobody"],
)
def test_an_address_inside_speaks_of_its_patient(
    addresses: tuple[str, ...], emails: tuple[str, ...], wanted: Ground
) -> None:
    said = replace(CONTEXT, direct_addresses=addresses, emails=emails)
    found = findings(PatientIndex([HIS, HERS]), Evidence((SIGNED, said)), ["p1"])
    entries = [AddressBookEntry(SENDER, "p1", confirmed=True, shared=False, source="fhir-file")]
    decision = decide(SENDER, entries, {"p1": Patient("p1")}, automatic=True, findings=found)
    assert decision.rule.partition(":")[2] == wanted
