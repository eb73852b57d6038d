"""``match explain``: what was decided, what would be now, whom it may be about; status, audit log and names."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.core.lifecycle import State
from gateway.ports import Patient
from tests.unit.cli.clinic_harness import SENDER, Clinic
from tests.unit.evidence.evidence_messages import cda, message, part, xdm

AT = datetime(2026, 1, 5, tzinfo=UTC)
ADA = Patient(
    "p1", "MRN-7", "Quimby", "Ada", date(1961, 3, 14), "female", "617-234-5678", "12 Main St", "Boston", "02108"
)
TWIN = Patient(
    "p2", "MRN-8", "Quimby", "Eve", date(1961, 3, 14), "female", "617-234-5678", "12 Main St", "Boston", "02108"
)
GONE = Patient("p3", "MRN-9", "Quimby", "Ada", date(1961, 3, 14), deceased=True, active=False)
HOME = (
    '<telecom value="tel:617-234-5678"/><addr><streetAddressLine>12 Main St</streetAddressLine>'
    "<city>Boston</city><postalCode>02108</postalCode></addr>"
)
PERSON = (
    HOME + '<patient><name><given>Ada</given><family>Quimby</family></name><administrativeGenderCode code="F"/>'
    '<birthTime value="19610314"/></patient>'
)


def of(document: str) -> bytes:
    return message(part(document.encode(), "text/xml"))


def add(clinic: Clinic, *patients: Patient) -> None:
    clinic.write(lambda tx: tx.patients.upsert(patients, "csv-file", AT))


def explained(clinic: Clinic, capsys: pytest.CaptureFixture[str], known: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = clinic.run("match", "explain", known, "--json")
    return status, json.loads(capsys.readouterr().out)


def test_suggestions_come_with_reasons_in_words_and_warnings(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    add(clinic, ADA, TWIN, GONE)
    known = clinic.add_message(State.FILED, content=of(cda(PERSON)))
    status, document = explained(clinic, capsys, known[:12])
    assert status == 0
    now = document["now"]
    assert (now["decision"], now["patient"], now["differs"]) == ("suggested", None, False)
    by_id = {one["patient"]: one for one in now["suggestions"]}
    assert list(by_id) == ["p1", "p2", "p3"]
    first, twin, gone = by_id.values()
    assert {"family name the same", "given name the same", "birth date the same", "phone the same"} <= set(first["why"])
    assert any("p2" in warning and "twin" in warning for warning in first["warnings"])
    assert "recorded as deceased" in gone["warnings"]
    assert "given name different" in twin["why"][-1]
    assert "the clinical document (C-CDA) gives another given name" in twin["warnings"]
    assert clinic.run("match", "explain", known) == 0
    shown = capsys.readouterr().out
    for text in ("WHAT WAS DECIDED", "no source contradicts another one", "1. p1 (Quimby, Ada, born 1961-03-14): 13",
                 "family name the same", "! mind patient p2", "leave it to a person"):  # fmt: skip
        assert text in shown


def test_a_conflict_names_its_sources_and_what_each_says(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    add(clinic, ADA)
    content = message(part(xdm(cda(family="Mad\u202eison").encode()), "application/zip"))
    known = clinic.add_message(State.FILED, content=content)
    status, document = explained(clinic, capsys, known)
    assert status == 1
    assert document["now"]["decision"] == "conflict"
    assert document["now"]["rule"] == "evidence-1:sources_disagree"
    assert ("family", "cda_header", "xdm_metadata") in [
        (one["field"], one["left"].split()[0], one["right"].split()[0]) for one in document["conflicts"]
    ]
    assert clinic.run("match", "explain", known) == 1
    shown = capsys.readouterr().out
    assert "CONFLICT  family name: the clinical document (C-CDA) says" in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize("name", ["XDM_FULL.ZIP", "XDM_LIM.ZIP"])
def test_a_package_that_names_two_people(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], shared_data: Path, name: str
) -> None:
    """ONC's packages: METADATA.XML names one patient, the document inside another (CX-20)."""
    isabella = Patient("p9", "", "Jones", "Isabella", date(1947, 5, 1), "female", direct_addresses=(SENDER,))
    add(clinic, isabella)
    found = sorted((shared_data / "clinical" / "ccda").rglob(name))
    assert found
    for package in found:
        content = message(part(package.read_bytes(), "application/zip", filename="xdm.zip"))
        status, document = explained(clinic, capsys, clinic.add_message(State.FILED, content=content))
        assert status == 1
        assert (document["now"]["decision"], document["now"]["patient"]) == ("conflict", None)
        assert {"birth_date", "family"} <= {one["field"] for one in document["conflicts"]}
        assert "p9" in [one["patient"] for one in document["now"]["suggestions"]]


def test_what_the_gateway_would_decide_otherwise_today_is_told(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    known = clinic.add_message(State.FILED, content=of(cda(PERSON)))
    add(clinic, Patient("p1", "", "Quimby", "Ada", date(1961, 3, 14), direct_addresses=(SENDER,)))
    status, document = explained(clinic, capsys, known)
    assert status == 1
    assert (document["now"]["decision"], document["now"]["patient"]) == ("automatic", "p1")
    assert document["now"]["differs"]
    assert clinic.run("link", "add", known, "p1") == 0
    status, document = explained(clinic, capsys, known)
    assert status == 0
    assert [(one["action"], one["patient"], one["rule"]) for one in document["then"]] == [
        ("message.linked", "p1", "manual")
    ]
    assert document["charts"] == ["p1"]


def test_what_was_not_verified_is_not_explained(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    assert clinic.run("match", "explain", clinic.add_message(State.REFUSED)) == 1
    captured = capsys.readouterr()
    assert "only what was verified is evidence" in captured.err
    assert captured.out == ""
    assert clinic.run("match", "explain", "NOSUCHID") == 1


def test_reading_and_search_are_audited_without_a_name(clinic: Clinic) -> None:
    add(clinic, ADA)
    known = clinic.add_message(State.FILED, content=of(cda(PERSON)))
    assert clinic.run("match", "explain", known) == 0
    with sqlite3.connect(clinic.directory / "data" / "gateway.db") as connection:
        query = "SELECT action, subject, detail FROM audit_event WHERE action IN ('match.explain', 'patient.search')"
        rows = {action: (subject, detail) for action, subject, detail in connection.execute(query)}
    assert rows["match.explain"][0] == known
    assert json.loads(rows["match.explain"][1]) == {"claims": 2, "problems": 0, "shown": 1}
    assert json.loads(rows["patient.search"][1]) == {"message": known, "searched": True, "shown": 1}
    assert "Quimby" not in str(rows)


def test_what_was_decided_is_told_with_what_it_was_made_on(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    add(clinic, ADA)
    known = clinic.add_message(State.FILED, content=of(cda(PERSON)))
    detail = {
        "decision": "conflict", "rule": "evidence-1:sources_disagree", "entries": 0, "automatic": True, "points": 5.0,
        "between": ["birth_date: cda_header, xdm_metadata"],
        "candidates": [{"patient": "p1", "points": 5.0, "family": "equal", "birth_date": "different", "merged": True}],
    }  # fmt: skip
    clinic.write(lambda tx: tx.audit.add(AT, "gateway", "message.unlinked", known, detail))
    clinic.write(lambda tx: tx.audit.add(AT, "gateway", "message.duplicate_content", known, {"present": 1}))
    _, document = explained(clinic, capsys, known)
    assert [(one["action"], one["decision"]) for one in document["then"]] == [
        ("message.unlinked", "conflict"),
        ("message.duplicate_content", ""),
    ]
    assert document["then"][0]["inputs"] == {
        "entries": 0, "automatic": True, "between": ["birth_date: cda_header, xdm_metadata"],
    }  # fmt: skip
    clinic.run("match", "explain", known)
    shown = capsys.readouterr().out
    for text in (
        "left to a person: a conflict, by the gateway",
        "why: What the message says of its patient contradicts itself.",
        "rule: evidence-1:sources_disagree, 5 points",
        "contradicted: birth_date: cda_header, xdm_metadata",
        "p1 (Quimby, Ada, born 1961-03-14): 5 points; family name the same, birth date different, merged",
        "not decided: a copy of a message that was filed before, by the gateway",
    ):
        assert text in shown


def test_what_a_person_took_back_is_not_made_again(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    known = clinic.add_message(State.FILED, content=of(cda(PERSON)))
    add(clinic, Patient("p1", "", "Quimby", "Ada", date(1961, 3, 14), direct_addresses=(SENDER,)))
    undone = {"link": "L1", "patient": "p1", "reason": "wrong"}
    clinic.write(lambda tx: tx.audit.add(AT, "olga", "message.link_undone", known, undone))
    status, document = explained(clinic, capsys, known)
    assert (status, document["now"]["differs"], document["now"]["taken_back"]) == (0, False, True)
    assert clinic.run("match", "explain", known) == 0
    shown = capsys.readouterr().out
    assert "the link was taken back to patient" not in shown
    assert "the link to patient p1 (Quimby, Ada, born 1961-03-14) was taken back, by olga" in shown
    assert "never linked by itself again" in shown
