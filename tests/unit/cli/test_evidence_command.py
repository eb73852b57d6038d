"""``message evidence``: what it shows, what it refuses, and what the audit log keeps of it."""

import json
import sqlite3

import pytest

from gateway.core.lifecycle import State
from tests.unit.cli.clinic_harness import SENDER, Clinic
from tests.unit.evidence.evidence_messages import cda, message, part, xdm


def test_shows_claims_contradictions_documents_and_problems(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    content = message(part(xdm(cda(family="Mad\u202eison").encode()), "application/zip"), part(b"<a", "text/xml"))
    known = clinic.add_message(State.FILED, content=content)
    capsys.readouterr()
    assert clinic.run("message", "evidence", known) == 0
    shown = capsys.readouterr().out
    for text in ("1. signed_from: proved by the signature", SENDER, "xdm_metadata: the packager says so", "1961-03-14",
                 "family: claim 2 and claim 3", "MRN-7 (1.2.3.4)", "doc-1", "xml_malformed", "Ada Quimby",
                 "the evidence is incomplete"):  # fmt: skip
        assert text in shown
    assert "\u202e" not in shown
    assert "6789" not in shown
    assert clinic.run("message", "evidence", known, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["is_complete"] is False
    assert [claim["source"] for claim in document["claims"]] == ["signed_from", "cda_header", "xdm_metadata"]
    assert document["contradictions"] == [{"field": "family", "left": 1, "right": 2}]
    assert document["claims"][1]["birth_date"] == "1961-03-14"
    assert document["problems"][0]["code"] == "xml_malformed"


def test_a_message_that_names_nobody_else(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    known = clinic.add_message(State.FILED)
    assert clinic.run("message", "evidence", known) == 0
    shown = capsys.readouterr().out
    assert "contradictions: none" in shown
    assert "problems: none" in shown
    assert "incomplete" not in shown


def test_what_was_not_verified_is_no_evidence(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    refused = clinic.add_message(State.REFUSED)
    assert clinic.run("message", "evidence", refused) != 0
    captured = capsys.readouterr()
    assert "only what was verified is evidence" in captured.err
    assert captured.out == ""
    assert clinic.run("message", "evidence", "NOSUCHID") != 0


def test_a_look_is_audited_with_counts_only(clinic: Clinic) -> None:
    known = clinic.add_message(State.FILED, content=message(part(cda().encode(), "text/xml")))
    assert clinic.run("message", "evidence", known) == 0
    with sqlite3.connect(clinic.directory / "data" / "gateway.db") as connection:
        tables = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        name = next(table for table in tables if table.startswith("audit"))
        rows = [str(row) for row in connection.execute(f"select * from {name}")]  # noqa: S608 - a table of ours
    (row,) = [row for row in rows if "message.evidence" in row]
    assert known in row
    assert '"claims":2' in row.replace(" ", "")
    assert "Quimby" not in row
    assert SENDER not in row
