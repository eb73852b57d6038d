"""``patient`` and ``link``: imports with bad lines, searches, and a message that is on another chart already."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.core.lifecycle import JobKind, State
from tests.unit.cli.clinic_harness import PATIENTS, Clinic


@pytest.fixture
def patients(clinic: Clinic, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Clinic:
    path = tmp_path / "patients.ndjson"
    path.write_text(PATIENTS, encoding="utf-8")
    assert clinic.run("patient", "import", str(path)) == 0
    capsys.readouterr()
    return clinic


def _json(clinic: Clinic, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
    capsys.readouterr()
    assert clinic.run(*words, "--json") == status
    return json.loads(capsys.readouterr().out)


def test_an_import_names_the_lines_it_rejects(
    clinic: Clinic, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "patients.csv"
    path.write_text("id,family,given,dob\np1,Quimby,Ada,1961-03-14\np2,Okafor,Ben,31.02.1985\n", encoding="utf-8")
    assert clinic.run("patient", "import", str(path)) == 1
    captured = capsys.readouterr()
    assert "1 patient read" in captured.out
    assert "rejected: line 3:" in captured.err
    assert "31.02" not in captured.err, "a reason names the field, never the value"
    report = _json(clinic, capsys, "patient", "import", str(path), status=1)
    assert (report["read"], report["changed"], report["unchanged"]) == (1, 0, 1)
    assert report["rejected"][0]["line"] == 3


def test_an_import_warns_of_addresses_that_are_documented_no_more(
    clinic: Clinic, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "patients.csv"
    path.write_text("id,direct\np1,ada@d.example\np2,ben@d.example\n", encoding="utf-8")
    assert clinic.run("patient", "import", str(path)) == 0
    assert "warning" not in capsys.readouterr().err
    path.write_text("id,direct\np1,ada@d.example\np2,\n", encoding="utf-8")
    assert clinic.run("patient", "import", str(path)) == 0
    assert "warning: 1 Direct address is no longer documented" in capsys.readouterr().err
    path.write_text("id,direct\np1,other@d.example\n", encoding="utf-8")
    assert _json(clinic, capsys, "patient", "import", str(path))["addresses_removed"] == 1
    path.write_text("id,family\np1,Quimby\n", encoding="utf-8")
    assert clinic.run("patient", "import", str(path)) == 0
    told = capsys.readouterr().err
    assert "note: the file documents no Direct address" in told
    assert "line 0" not in told
    assert "warning" not in told
    assert _json(clinic, capsys, "patient", "list", "p1")[0]["direct_addresses"] == ["other@d.example"]


def test_the_list_marks_who_shares_an_address(
    clinic: Clinic, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "patients.csv"
    path.write_text("id,direct,active\np1,own@d.example,\np2,fam@d.example,\np3,fam@d.example,no\n", encoding="utf-8")
    assert clinic.run("patient", "import", str(path)) == 0
    capsys.readouterr()
    assert clinic.run("patient", "list") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "shared" not in lines["p1"]
    assert lines["p2"].endswith("  shared address")
    assert lines["p3"].endswith("  inactive, shared address")
    found = {p["id"]: p["shared_addresses"] for p in _json(clinic, capsys, "patient", "list")}
    assert found == {"p1": [], "p2": ["fam@d.example"], "p3": ["fam@d.example"]}


@pytest.mark.parametrize("content", [None, "", "no,such,columns\n1,2,3\n", "{\n not json"])
def test_a_file_that_cannot_be_used_is_misuse(clinic: Clinic, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "patients"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert clinic.run("patient", "import", str(path)) == 2


def test_patients_are_listed_and_searched(patients: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    assert [p["id"] for p in _json(patients, capsys, "patient", "list")] == ["p2", "p1"], "by name"
    found = _json(patients, capsys, "patient", "list", "quimby")
    assert [(p["id"], p["family"], p["birth_date"]) for p in found] == [("p1", "Quimby", "1961-03-14")]
    assert [p["id"] for p in _json(patients, capsys, "patient", "list", "--limit", "1", "--offset", "1")] == ["p1"]
    assert patients.run("patient", "list", "nobody") == 0
    assert capsys.readouterr().out == "no patients\n"
    assert patients.run("patient", "list") == 0
    assert "Quimby, Ada" in capsys.readouterr().out


def test_a_link_puts_the_message_on_the_chart_and_orders_the_import(
    patients: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    message = patients.add_message(State.FILED)
    outcome = _json(patients, capsys, "link", "add", message, "p1")
    assert outcome["created"] is True
    assert outcome["link"]["mode"] == "manual"
    assert outcome["link"]["actor"].startswith("cli:")
    links = _json(patients, capsys, "link", "list", "p1")
    assert [(link["message_id"], link["id"]) for link in links] == [(message, outcome["link"]["id"])]
    assert _json(patients, capsys, "message", "list")[0]["patient_ids"] == ["p1"]
    assert _json(patients, capsys, "message", "list", "--unlinked") == []

    jobs = patients.write(lambda tx: tx.jobs.claim(60, 10))
    assert [(job.kind, job.subject) for job in jobs] == [(JobKind.IMPORT, outcome["link"]["id"])]


def test_the_same_patient_again_is_a_notice(patients: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    message = patients.add_message(State.FILED)
    assert patients.run("link", "add", message, "p1") == 0
    capsys.readouterr()
    assert patients.run("link", "add", message, "p1") == 0
    assert "on this chart already" in capsys.readouterr().err
    assert _json(patients, capsys, "link", "add", message, "p1")["created"] is False
    assert len(_json(patients, capsys, "link", "list", "p1")) == 1


def test_another_chart_is_a_warning_and_nothing_changes(patients: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    message = patients.add_message(State.FILED)
    assert patients.run("link", "add", message, "p1") == 0
    capsys.readouterr()
    assert patients.run("link", "add", message, "p2") == 1
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ")
    assert "p1" in warning
    assert "cli:" in warning, "it says by whom"
    assert "20" in warning, "it says since when"
    assert _json(patients, capsys, "link", "list", "p2") == []
    conflict = _json(patients, capsys, "link", "add", message, "p2", status=1)
    assert conflict["conflict"] is True
    assert [link["patient_id"] for link in conflict["links"]] == ["p1"]


def test_an_override_needs_a_reason_and_keeps_both(patients: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    message = patients.add_message(State.FILED)
    assert patients.run("link", "add", message, "p1") == 0
    assert patients.run("link", "add", message, "p2", "--override") == 2
    assert patients.run("link", "add", message, "p2", "--override", "--reason", "twins") == 0
    assert len(_json(patients, capsys, "link", "list", "p1")) == 1
    assert len(_json(patients, capsys, "link", "list", "p2")) == 1


@pytest.mark.parametrize("state", [State.REFUSED, State.RECEIVED, State.UNWRAPPED])
def test_what_is_not_filed_cannot_be_linked(patients: Clinic, state: State, capsys: pytest.CaptureFixture[str]) -> None:
    message = patients.add_message(state)
    assert patients.run("link", "add", message, "p1") == 1
    assert _json(patients, capsys, "link", "list", "p1") == []


def test_unknown_patient_and_message_are_findings(patients: Clinic) -> None:
    message = patients.add_message(State.FILED)
    assert patients.run("link", "add", message, "nobody") == 1
    assert patients.run("link", "add", "01ZZZZZZZZ", "p1") == 1
    assert patients.run("link", "list", "nobody") == 1
