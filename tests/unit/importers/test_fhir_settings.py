"""The settings of a FHIR target, and what is read of a C-CDA header."""

from __future__ import annotations

import contextlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ConfigurationError, ImportFailedError
from gateway.core.import_settings import FHIR, FHIR_SCOPE, KEYS
from gateway.importers.configured import findings
from gateway.importers.fhir.capabilities import capabilities_of
from gateway.importers.fhir.cda_header import CDAHeader, read_cda_header
from gateway.importers.fhir.importer import FHIRImporter
from gateway.importers.fhir.resources import MAX_TEXT_CHARS, line, named_in, string
from gateway.importers.fhir.server import Answer, _issue_of
from gateway.importing import adapter_for
from gateway.observability.clock import SystemClock
from gateway.settings.reading import from_document

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs/fhir.md").read_text(encoding="utf-8")
TARGET = {"name": "ehr", "kind": "fhir", "url": "https://ehr.example/fhir", "allow": ["ehr.example"]}
WORDS = [
    "rest", "mode", "resource", "type", "interaction", "code", "searchParam", "name", "system", "value", "what",
    "reference", "identifier", "entity", "target", "issue", "resourceType", "id",
]  # fmt: skip
SMART = {"client_id": "gateway", "key_file": "client.pem"}


async def test_a_target_becomes_its_adapter() -> None:
    [target] = from_document({"importer": [TARGET | SMART]}, Path("/practice")).importer
    assert target.key_file == Path("/practice/client.pem")
    made = adapter_for(target, SystemClock())
    assert isinstance(made, FHIRImporter)
    assert (made.name, made.capabilities.retract, made.capabilities.preview) == ("ehr", True, True)
    await made.close()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"url": "http://ehr.example/fhir"}, "url"),
        ({"url": "https://ehr.example/fhir?x=1"}, "url"),
        ({"url": ""}, "url"),
        ({"allow": []}, "allow"),
        ({"client_id": "gateway"}, "key_file"),
        ({"key_file": "client.pem"}, "client_id"),
        (SMART | {"bearer_file": "token"}, "bearer_file"),
        (SMART | {"token_url": "http://ehr.example/token"}, "token_url"),
        ({"token_url": "https://ehr.example/token"}, "token_url"),
        ({"kid": "1"}, "kid"),
        ({"scope": ""}, "scope"),
        (SMART | {"client_id": "gate\nway"}, "client_id"),
        ({"patient_identifier_system": "urn:oid:1|2"}, "patient_identifier_system"),
        ({"secret_files": ["x"]}, "secret_files"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_its_key(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        from_document({"importer": [TARGET | changes]}, Path("/practice"))


def test_what_is_unfit_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    [target] = from_document({"importer": [TARGET | SMART | {"ca_file": "ca.pem"}]}, tmp_path).importer
    errors, warnings = findings([target])
    assert [error.split(": ")[1] for error in errors] == ["key_file", "ca_file"]
    (tmp_path / "client.pem").write_text("x")
    (tmp_path / "client.pem").chmod(0o644)
    (tmp_path / "ca.pem").write_text("x")
    errors, warnings = findings([target])
    assert errors == []
    assert "chmod 600" in warnings[0]
    [target] = from_document({"importer": [TARGET]}, tmp_path).importer
    assert "without a token" in findings([target])[1][0]


def test_the_document_shows_every_key_and_what_is_shown_is_taken(tmp_path: Path) -> None:
    [shown] = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)]
    [target] = from_document(shown, tmp_path).importer
    assert target.kind == FHIR
    assert set(re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE)) >= KEYS[FHIR]
    assert FHIR_SCOPE in DOCUMENT


# --- C-CDA ---

HEAD = '<ClinicalDocument xmlns="urn:hl7-org:v3">'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'{HEAD}<id root="1.2.3"/><recordTarget/></ClinicalDocument>', CDAHeader("urn:oid:1.2.3")),
        (
            f'{HEAD}<id root="6B29FC40-CA47-1067-B31D-00DD010662DA"/></ClinicalDocument>',
            CDAHeader("urn:uuid:6b29fc40-ca47-1067-b31d-00dd010662da"),
        ),
        (f'{HEAD}<id root="not an oid" extension="x"/></ClinicalDocument>', CDAHeader()),
        (f'{HEAD}<id nullFlavor="UNK"/></ClinicalDocument>', CDAHeader()),
        (f'{HEAD}<code code="34133-9" codeSystem="9"/></ClinicalDocument>', CDAHeader()),
        (f'{HEAD}<code code="x&amp;y" codeSystem="2.16.840.1.113883.6.1"/></ClinicalDocument>', CDAHeader()),
        (f'{HEAD}<effectiveTime value="20260230"/></ClinicalDocument>', CDAHeader()),
        (f'{HEAD}<effectiveTime value="20260228"/></ClinicalDocument>', CDAHeader(created="2026-02-28")),
        (
            f'{HEAD}<effectiveTime value="202602281530-0500"/></ClinicalDocument>',
            CDAHeader(created="2026-02-28T15:30:00-05:00"),
        ),
        (f'{HEAD}<recordTarget/><id root="1.2.3"/></ClinicalDocument>', CDAHeader()),
        (f'{HEAD}<component><id root="1.2.3"/></component></ClinicalDocument>', CDAHeader()),
        (f'{HEAD}<id root="1.2.3"/><broken', CDAHeader("urn:oid:1.2.3")),
        ('<other xmlns="urn:hl7-org:v3"><id root="1.2.3"/></other>', None),
        (f'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>{HEAD}<id root="&a;"/></ClinicalDocument>', None),
        ("urn:hl7-org:v3", None),
        ("", None),
    ],
)
def test_what_a_header_says_of_its_document(text: str, expected: CDAHeader | None) -> None:
    assert read_cda_header(text.encode()) == expected


# --- what servers write ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=25,
)


@given(JSON)
def test_no_statement_of_a_server_makes_us_stumble(told: Any) -> None:
    statement = {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": told}
    for document in (
        told,
        statement,
        {**statement, "rest": [{"mode": "server", "resource": told, "interaction": told}]},
    ):
        with contextlib.suppress(ImportFailedError):
            able = capabilities_of(document)
            assert able.missing()
    resource = told if isinstance(told, dict) else {"identifier": told}
    for name in ("identifier", "entity", "target"):
        named_in(resource, name)
    _issue_of({"resourceType": "OperationOutcome", "issue": told})
    assert Answer(200, {"location": str(told)}, resource).id_of("Patient").isascii()


def test_texts_become_fhir_strings() -> None:
    assert string(" a\r\nb\x00\ud800 ") == "a\nb\ufffd\ufffd"
    assert len(string("x" * 2 * MAX_TEXT_CHARS)) == MAX_TEXT_CHARS
    assert line("a\n\tb\x01") == "a b\ufffd"
    assert len(line("x " * 1_000)) <= 200
