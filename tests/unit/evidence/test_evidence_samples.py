"""Public samples beside the checkout: all of them parse or degrade by name. Skipped by name when they are not there."""

from collections import Counter
from pathlib import Path

import pytest

from gateway.core.claims import Disagreement, Evidence, Source, contradictions
from gateway.evidence.message import read_evidence
from tests.unit.evidence.evidence_messages import SENDER, codes, of_message, of_piece, part

FRAGMENTS = 8
"""Pieces of a header that HL7's examples show without the document around them."""


@pytest.fixture(scope="module")
def clinical(shared_data: Path) -> Path:
    folder = shared_data / "clinical"
    if not folder.is_dir():
        pytest.skip("the clinical samples (../shared/data/clinical) are not here")
    return folder


def test_every_c_cda_parses_or_degrades_by_name(clinical: Path) -> None:
    files = sorted(path for path in (clinical / "ccda").rglob("*") if path.suffix.lower() == ".xml")
    found = {path.name + str(n): of_piece(path.read_bytes(), "text/xml", path.name) for n, path in enumerate(files)}
    assert len(files) == 98
    assert Counter(code for evidence in found.values() for code in codes(evidence)) == {
        "cda_fragment": FRAGMENTS,
        "xml_malformed": 3,  # Two examples with an undeclared prefix, and the sample that is malformed on purpose.
        "cda_gender_unknown": 3,  # Samples with a wrong gender code on purpose.
    }
    documents = [evidence for evidence in found.values() if evidence.documents]
    assert len(documents) == 98 - FRAGMENTS - 3
    assert all(len(evidence.claims) == 1 for evidence in documents)
    claims = [evidence.claims[0] for evidence in documents]
    assert sum(claim.birth_date is None for claim in claims) == 0
    assert sum(not claim.names for claim in claims) == 1  # NT_Missing_PatientName.
    assert all(claim.sex or not evidence.is_complete for claim, evidence in zip(claims, documents, strict=True))
    assert all(claim.addresses for claim in claims)
    # Most of the samples have a social security number and no other.
    assert sum(bool(claim.identifiers) for claim in claims) == 43
    assert not [one for claim in claims for one in claim.identifiers if one.assigner == "2.16.840.1.113883.4.1"]
    assert [claim.direct_addresses for claim in claims if claim.direct_addresses] == [("lisarnelson@direct.myphd.us",)]


def _package(clinical: Path, name: str, setting: str) -> bytes:
    return next((clinical / "ccda").rglob(f"*ToC_{setting}/{name}")).read_bytes()


@pytest.mark.parametrize("setting", ["Amb", "Inp"])
@pytest.mark.parametrize("name", ["XDM_FULL.ZIP", "XDM_LIM.ZIP"])
def test_the_test_packages_of_onc_name_two_patients(clinical: Path, name: str, setting: str) -> None:
    found = of_message(part(_package(clinical, name, setting), "application/octet-stream"), sender=SENDER)
    assert codes(found) == []
    claims = {claim.source: claim for claim in found.claims}
    assert set(claims) == {Source.SIGNED_FROM, Source.CDA_HEADER, Source.XDM_METADATA}
    assert not claims[Source.CDA_HEADER].is_doubtful
    assert {one.field for one in contradictions(found.claims)} == {Disagreement.BIRTH_DATE, Disagreement.FAMILY}


def _context(clinical: Path, name: str) -> Evidence:
    return read_evidence((clinical / "direct-context/context.tests/ContextTestFiles" / name).read_bytes(), "")


@pytest.mark.parametrize(
    "name",
    [
        "ContextSimple1.txtBase64", "ContextSimple1.txtBinary", "ContextSimple1.txtDefault",
        "ContextSimple1.txtEightBit", "ContextSimple1.txtQuotedPrintable", "ContextSimple1.txtSevenBit",
        "ContextSimple1.txtUUEncode", "ContextSimple2.txtSevenBit.lineContinuation", "ContextSimple1.AdtContext",
        "v1.1/ContextSimple1.txtQuotedPrintable",
    ],
)  # fmt: skip
def test_the_contexts_of_the_reference_implementation(clinical: Path, name: str) -> None:
    found = _context(clinical, name)
    assert codes(found) == []
    (claim,) = found.claims
    assert (claim.names[0].family, claim.names[0].first, claim.names[0].middle) == ("Doe", "John", "Jacob")
    assert str(claim.birth_date) == "1961-12-31"
    assert claim.sex == "male"
    assert len(claim.identifiers) == (1 if "Adt" in name else 2)
    assert claim.direct_addresses == (("john.doe@direct.john-doe.net",) if "v1.1" in name else ())


def test_other_contexts_of_the_reference_implementation(clinical: Path) -> None:
    only_id = _context(clinical, "ContextSimple.PatienIdOnly.txtDefault")
    assert (codes(only_id), only_id.claims[0].names, len(only_id.claims[0].identifiers)) == ([], (), 1)
    hl7 = _context(clinical, "ContextHL7.Default.txtBase64")
    assert [claim.source for claim in hl7.claims] == [Source.HL7V2_PID]
    assert {name: codes(_context(clinical, f"BadContext/{name}.eml")) for name in (
        "ContextMissing", "ContextUnparsablePatient", "ContextUnparsableType", "NoContext", "NoDirectContextHeader"
    )} == {
        "ContextMissing": ["context_part_missing"],
        "ContextUnparsablePatient": ["context_element_unknown"],
        "ContextUnparsableType": ["context_type_unknown"],
        "NoContext": [],
        "NoDirectContextHeader": [],
    }  # fmt: skip


def test_fhir_examples_and_generated_patients(clinical: Path) -> None:
    for path in sorted((clinical / "fhir-us-core/examples").glob("*.json")):
        found = of_piece(path.read_bytes(), "application/json", path.name)
        assert codes(found) == []
        assert len(found.claims) == path.name.startswith("patient-")
    lines = (clinical / "synthea/patients_r4.ndjson").read_bytes().splitlines()
    for line in lines[:200]:
        (claim,) = of_piece(line, "application/fhir+ndjson").claims
        assert claim.names
        assert claim.birth_date
        assert not [one for one in claim.identifiers if one.kind == "SS" or "ssn" in one.assigner]
