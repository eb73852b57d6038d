"""FHIR Patients in JSON, NDJSON and XML."""

import json
from datetime import date
from typing import Any

import pytest

from gateway.core.claims import Disagreement, Identifier, NameKind, PersonName, PostalAddress, Source, contradictions
from tests.unit.evidence.evidence_messages import codes, of_message, of_piece, part

DIRECT = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-direct"
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "identifier": [
        {"type": {"coding": [{"code": "MR"}]}, "system": "urn:oid:1.2.3.4", "value": "MRN-7"},
        {"system": "http://hl7.org/fhir/sid/us-ssn", "value": "444222222"},
        {"type": {"coding": [{"code": "SS"}]}, "value": "444222223"},
        {"use": "old", "system": "urn:oid:1.2.3.4", "value": "MRN-6"},
    ],
    "name": [
        {"use": "old", "family": "Before", "given": ["Ada"]},
        {"use": "maiden", "family": "Born", "given": ["Ada"]},
        {"use": "usual", "family": "Quimby", "given": ["Addie"]},
        {"use": "official", "family": "Quimby", "given": ["Ada", "Marie"], "suffix": ["Jr"]},
    ],
    "telecom": [
        {"system": "phone", "value": "555-723-1544"},
        {"system": "phone", "value": "555-000-0000", "use": "old"},
        {"system": "email", "value": "ada@mail.test"},
        {
            "system": "email",
            "value": "Ada@Direct.PHR.test",
            "extension": [{"url": DIRECT, "valueBoolean": True}],
        },
        {"system": "email", "value": "no@direct.test", "extension": [{"url": DIRECT, "valueBoolean": False}]},
    ],
    "gender": "female",
    "birthDate": "1961-03-14",
    "deceasedBoolean": False,
    "address": [
        {"line": ["1 Main St", "Apt 2"], "city": "Springfield", "state": "OR", "postalCode": "97477"},
        {"use": "old", "city": "Salem"},
    ],
}
XML = """<Patient xmlns="http://hl7.org/fhir"><text><div xmlns="http://www.w3.org/1999/xhtml">x</div></text>
<identifier><type><coding><code value="MR"/></coding></type><system value="urn:oid:1.2.3.4"/><value value="MRN-7"/>
</identifier><identifier><system value="http://hl7.org/fhir/sid/us-ssn"/><value value="444222222"/></identifier>
<name><use value="old"/><family value="Before"/><given value="Ada"/></name>
<name><use value="maiden"/><family value="Born"/><given value="Ada"/></name>
<name><use value="usual"/><family value="Quimby"/><given value="Addie"/></name>
<name><use value="official"/><family value="Quimby"/><given value="Ada"/><given value="Marie"/>
<suffix value="Jr"/></name>
<telecom><system value="phone"/><value value="555-723-1544"/></telecom>
<telecom><system value="email"/><value value="ada@mail.test"/></telecom>
<telecom><extension url="http://hl7.org/fhir/us/core/StructureDefinition/us-core-direct"><valueBoolean value="true"/>
</extension><system value="email"/><value value="Ada@Direct.PHR.test"/></telecom>
<telecom><extension url="http://hl7.org/fhir/us/core/StructureDefinition/us-core-direct"><valueBoolean value="false"/>
</extension><system value="email"/><value value="no@direct.test"/></telecom>
<gender value="female"/><birthDate value="1961-03-14"/><deceasedBoolean value="false"/>
<address><line value="1 Main St"/><line value="Apt 2"/><city value="Springfield"/><state value="OR"/>
<postalCode value="97477"/></address><address><use value="old"/><city value="Salem"/></address></Patient>"""


def _changed(**changes: Any) -> dict[str, Any]:
    return {**PATIENT, **changes}


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (json.dumps(PATIENT), "application/fhir+json"),
        (json.dumps(PATIENT), "application/octet-stream"),
        ("\ufeff" + json.dumps(PATIENT, indent=2), "application/json"),
        (json.dumps({"resourceType": "Bundle", "entry": [{"resource": PATIENT}, {}, {"resource": None}]}), ""),
        (json.dumps({"resourceType": "DocumentReference", "contained": [PATIENT]}), "application/json"),
        (json.dumps(PATIENT) + "\n" + json.dumps(PATIENT) + "\n", "application/fhir+ndjson"),
        (json.dumps([PATIENT]), "application/json"),
        (XML, "application/fhir+xml"),
        (XML, "application/octet-stream"),
        (f'<Bundle xmlns="http://hl7.org/fhir"><entry><resource>{XML}</resource></entry></Bundle>', "text/xml"),
    ],
)
def test_a_patient_in_every_form(data: str, content_type: str) -> None:
    found = of_message(part(data.encode(), content_type))
    assert codes(found) == []
    (claim,) = found.claims
    assert (claim.source, claim.path, claim.ordinal) == (Source.FHIR_PATIENT, "2", 1)
    assert claim.names == (
        PersonName("Quimby", ("Ada", "Marie"), "", "Jr"),
        PersonName("Quimby", ("Addie",)),
        PersonName("Before", ("Ada",), kind=NameKind.PREVIOUS),
        PersonName("Born", ("Ada",), kind=NameKind.BIRTH),
    )
    assert claim.identifiers == (Identifier("MRN-7", "1.2.3.4", "MR"),)
    assert claim.direct_addresses == ("ada@direct.phr.test",)
    assert claim.emails == ("ada@mail.test", "no@direct.test")
    assert claim.phones == ("555-723-1544",)
    assert (claim.birth_date, claim.sex, claim.deceased) == (date(1961, 3, 14), "female", False)
    assert claim.addresses == (
        PostalAddress(("1 Main St", "Apt 2"), "Springfield", "OR", "97477"),
        PostalAddress(city="Salem", is_old=True),
    )
    assert "44422222" not in repr(found)


def test_two_patients_of_a_bundle_contradict() -> None:
    twin = _changed(name=[{"family": "Quimby", "given": ["Eva"]}], identifier=[])
    found = of_piece(json.dumps({"resourceType": "Bundle", "entry": [{"resource": PATIENT}, {"resource": twin}]}))
    assert [one.field for one in contradictions(found.claims)] == [Disagreement.SEVERAL_PATIENTS]


@pytest.mark.parametrize(
    ("patient", "code"),
    [
        (_changed(birthDate="14.3.1961"), "fhir_birth_date_unreadable"),
        (_changed(birthDate=19610314), "fhir_birth_date_unreadable"),
        (_changed(gender="nonsense"), "fhir_gender_unknown"),
        (_changed(telecom="x"), "fhir_value_unreadable"),
        (_changed(telecom=[7]), "fhir_value_unreadable"),
        (_changed(telecom=[{"system": "direct", "value": "nobody"}]), "fhir_direct_address_unreadable"),
        (_changed(name=[{"text": "Ada Quimby"}]), "fhir_name_unstructured"),
        (_changed(name=[{"family": "Q" * 40_000}]), "claim_too_large"),
    ],
)
def test_what_cannot_be_read_has_a_name(patient: dict[str, Any], code: str) -> None:
    found = of_piece(json.dumps(patient))
    assert codes(found) == [code]
    assert not found.is_complete


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b'{"resourceType": "Patient"', "json_malformed"),
        (b'{"resourceType": "Patient"}\n{"resourceType": "Pa', "json_malformed"),
        (b'{"resourceType": "Patient", "x": "\xff"}', "json_malformed"),
        (b"[" * 100_000, "json_malformed"),
        (b"[" + b"[],[],[]," * 300_000, "json_too_complex"),
        (b'[{"resourceType": "Bundle", "entry": [{"resource": ' * 20 + b"{}" + b"}]}]" * 20, "fhir_nested_too_deeply"),
    ],
)
def test_broken_json_has_a_name(data: bytes, code: str) -> None:
    assert codes(of_piece(data, "application/fhir+json")) == [code]


def test_json_of_other_things_is_nothing() -> None:
    for data in ('{"a": [1, 2.5, null]}', '{"resourceType": "Practitioner", "name": [{"family": "House"}]}', "{broken"):
        found = of_piece(data, "application/json")
        assert (found.claims, found.problems) == ((), ())
