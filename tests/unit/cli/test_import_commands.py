"""``import list``, ``retry``, ``replay``, ``dry-run``, and what ``config check`` says of targets."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.core.audit import AuditQuery
from gateway.core.errors import ConfigurationError
from gateway.core.lifecycle import State
from gateway.ports import Link, UnitOfWork
from gateway.readiness import import_doubts
from gateway.settings import from_document
from tests.support.plugin_packages import install
from tests.unit.cli.clinic_harness import _START, PATIENTS, Clinic

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
WEBHOOK = {"kind": "webhook", "url": "https://ehr.example/in", "allow": ["ehr.example"], "secret_files": ["secret"]}


def add_target(clinic: Clinic, **values: Any) -> None:
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    with Path(clinic.config).open("a") as file:
        file.write("\n[[importer]]\n" + "\n".join(lines) + "\n")


@pytest.fixture
def message(clinic: Clinic, tmp_path: Path) -> str:
    """A linked message whose order has been placed with the targets ``folder`` and ``ehr``."""
    (tmp_path / "patients.ndjson").write_text(PATIENTS)
    assert clinic.run("patient", "import", str(tmp_path / "patients.ndjson")) == 0
    message_id = clinic.add_message(State.FILED)

    def work(tx: UnitOfWork) -> None:
        tx.links.add(Link("L1", message_id, "p1", "manual", "olga", "manual", _START))
        tx.deliveries.order("L1", ["folder", "ehr"])

    clinic.write(work)
    return message_id


def fail(clinic: Clinic, target: str = "ehr") -> None:
    def work(tx: UnitOfWork) -> None:
        [held] = tx.deliveries.claim(target, 60, 5)
        assert tx.deliveries.fail(held, "http_422", None)

    clinic.write(work)


def listing(clinic: Clinic, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = clinic.run("import", "list", "--json", *words)
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, document


def test_what_waits_is_listed_and_set_aside_is_repaired(
    clinic: Clinic, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = listing(clinic, capsys)
    assert status == 0
    assert [(d["target"], d["state"], d["message_id"]) for d in found["deliveries"]] == [
        ("folder", "waiting", message),
        ("ehr", "waiting", message),
    ]
    fail(clinic)
    status, found = listing(clinic, capsys, "--state", "dead")
    [dead] = found["deliveries"]
    assert (status, dead["target"], dead["error"], dead["link_id"]) == (1, "ehr", "http_422", "L1")
    assert {t["name"]: t["configured"] for t in found["targets"]} == {"ehr": False, "folder": True}
    assert clinic.run("import", "list") == 1
    shown = capsys.readouterr()
    assert "http_422" in shown.out
    assert "ehr is no [[importer]] any more" in shown.err
    assert clinic.run("import", "retry", str(dead["id"])) == 0
    assert listing(clinic, capsys)[0] == 0
    assert clinic.run("import", "retry", "999") == 1
    assert clinic.run("import", "retry") == 2
    audited = clinic.write(lambda tx: [e.detail for e in tx.audit.find(AuditQuery(action="import.retried"))])
    assert audited == ['{"importer":"ehr"}']


def test_all_of_a_target_and_a_stopped_one(clinic: Clinic, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    fail(clinic)
    clinic.write(lambda tx: tx.deliveries.stop("ehr", "http_410", _START))
    assert listing(clinic, capsys, "--target", "folder")[0] == 0
    assert listing(clinic, capsys, "--target", "ehr")[0] == 1
    assert clinic.run("import", "retry", "--target", "ehr", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"target": "ehr", "tried_again": 1, "started": True}
    assert listing(clinic, capsys)[0] == 0
    assert clinic.run("import", "retry", "--target", "nobody") == 1


def test_a_new_target_is_sent_older_links_on_request(
    clinic: Clinic, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert clinic.run("import", "replay", "--target", "new") == 1
    add_target(clinic, name="new", kind="command", argv=["/bin/true"])
    capsys.readouterr()
    assert clinic.run("import", "replay", "--target", "new", "--since", "2027-01-01", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"target": "new", "ordered": 0}
    assert clinic.run("import", "replay", "--target", "new", "--since", "soon") == 2
    for ordered in (1, 0):
        capsys.readouterr()
        assert clinic.run("import", "replay", "--target", "new", "--json") == 0
        assert json.loads(capsys.readouterr().out)["ordered"] == ordered


def test_a_dry_run_shows_and_sends_nothing(
    clinic: Clinic, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clinic.directory / "secret").write_text(SECRET)
    add_target(clinic, name="ehr", **WEBHOOK)
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    add_target(clinic, name="program", kind="command", argv=[str(program)])
    before = clinic.write(lambda tx: len(tx.links.for_message(message)))
    capsys.readouterr()
    assert clinic.run("import", "dry-run", message[:12], "p2", "--json") == 0
    folder, ehr, command = json.loads(capsys.readouterr().out)
    assert json.loads(folder["text"])["patient"]["family"] == "Okafor"
    assert '"patient_id":"p2"' in ehr["text"]
    assert "Okafor" not in ehr["text"]
    assert json.loads(command["text"])["patient"]["id"] == "p2"
    assert not ran.exists()
    assert not list((clinic.directory / "charts").rglob("*.json"))
    assert clinic.write(lambda tx: len(tx.links.for_message(message))) == before
    assert clinic.run("import", "dry-run", message, "p1", "--target", "ehr") == 0
    assert "webhook-id: L1" in capsys.readouterr().out
    assert clinic.run("import", "dry-run", message, "nobody") == 1
    assert clinic.run("import", "dry-run", message, "p1", "--target", "nobody") == 1
    refused = clinic.add_message(State.REFUSED)
    assert clinic.run("import", "dry-run", refused, "p1") == 1
    assert len(clinic.write(lambda tx: list(tx.audit.find(AuditQuery(action="import.dry_run"))))) == 2


@pytest.mark.parametrize("number", ["0", "9" * 30, "x"])
def test_a_number_that_no_delivery_can_have_is_refused_in_words(
    number: str, clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        clinic.run("import", "retry", number)
    assert caught.value.code == 2
    assert "argument ID" in capsys.readouterr().err


# --- settings ---


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"name": "", "kind": "folder"}, "name must be"),
        ({"name": "Dr. Lee", "kind": "folder"}, "name must be"),
        ({"name": "a", "kind": "ftp"}, "kind must be one of command, fhir, folder, "),
        ({"name": "a", "kind": "folder"}, "directory is missing"),
        ({"name": "a", "kind": "folder", "directory": "x", "url": "https://x/"}, "url means nothing for kind 'folder'"),
        ({"name": "a", "kind": "folder", "directory": "x", "urll": "https://x/"}, "did you mean url?"),
        ({"name": "folder", "kind": "folder", "directory": "x"}, "charts.folder_importer_dir is one of them"),
        ({"name": "a", **WEBHOOK, "url": "http://ehr.example/"}, "url must begin with https:"),
        ({"name": "a", **WEBHOOK, "url": "https://u:p@ehr.example/"}, "url must be"),
        ({"name": "a", **WEBHOOK, "url": "https://ehr.example/#x"}, "url must be"),
        ({"name": "a", **WEBHOOK, "url": "https://ehr.example:99999/"}, "url must be"),
        ({"name": "a", **WEBHOOK, "url": "file:///etc/passwd"}, "url must be"),
        ({"name": "a", **WEBHOOK, "url": "https://[:::::1]/x"}, "url must be"),
        ({"name": "a", **WEBHOOK, "url": "https://[10.1.2.3]/x"}, "url must be"),
        ({"name": "a", "kind": "mdm", "host": "h\0st", "assigning_authority": "H"}, "host is missing"),
        ({"name": "a", **WEBHOOK, "allow": []}, "allow is empty"),
        ({"name": "a", **WEBHOOK, "allow": ["10.0.0.1/8"]}, "allow: each entry"),
        ({"name": "a", **WEBHOOK, "secret_files": []}, "secret_files must name"),
        ({"name": "a", **WEBHOOK, "secret_files": ["a", "b", "c"]}, "secret_files must name"),
        ({"name": "a", **WEBHOOK, "secret_files": ["credential:../x"]}, "the name of a credential"),
        ({"name": "a", **WEBHOOK, "retry_seconds": [0]}, "retry_seconds must be"),
        ({"name": "a", **WEBHOOK, "retry_seconds": ["1"]}, "list of whole numbers"),
        ({"name": "a", **WEBHOOK, "at_once": 0}, "between 1 and 64"),
        ({"name": "a", "kind": "command", "argv": ["to-ehr"]}, "argv must begin with"),
        ({"name": "a", "kind": "command"}, "argv must begin with"),
        ({"name": "a", "kind": "plugin"}, "plugin is missing"),
    ],
)
def test_a_wrong_target_is_named(values: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_document({"importer": [values]}, tmp_path)
    assert told in str(caught.value)
    assert "importer" in str(caught.value)


def test_two_targets_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"two \[\[importer\]\] have the name a"):
        from_document({"importer": [{"name": "a", **WEBHOOK}] * 2}, tmp_path)


def test_a_right_target(tmp_path: Path) -> None:
    values = {"name": "a", **WEBHOOK, "secret_files": ["one", "credential:two"], "retry_seconds": [1, 2]}
    [target] = from_document({"importer": [values]}, tmp_path).importer
    assert target.secret_files == (str(tmp_path / "one"), "credential:two")
    assert target.schedule == (1, 2)


def check(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = clinic.run("config", "check", "--json")
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, document


def test_config_check_finds_what_is_unfit(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path / "site", "sound", "raise SystemExit('run')", monkeypatch)
    add_target(clinic, name="hook", **WEBHOOK)
    add_target(clinic, name="plug", kind="plugin", plugin="no-such")
    add_target(clinic, name="fine", kind="plugin", plugin="sound")
    add_target(clinic, name="run", kind="command", argv=["/no/such"])
    add_target(clinic, name="off", kind="command", argv=["/no/such"], enabled=False)
    status, told = check(clinic, capsys)
    assert status == 2
    errors = [text for text in told["errors"] if "[[importer]]" in text]
    assert [text.split(": ")[0] for text in errors] == [f"[[importer]] {name}" for name in ("hook", "plug", "run")]
    (clinic.directory / "secret").write_text("secret")
    assert any("must be whsec_" in text for text in check(clinic, capsys)[1]["errors"])
    (clinic.directory / "secret").write_text(SECRET)
    (clinic.directory / "secret").chmod(0o644)
    assert any("[[importer]] hook" in text and "chmod 600" in text for text in check(clinic, capsys)[1]["warnings"])
    (clinic.directory / "secret").chmod(0o600)
    _, told = check(clinic, capsys)
    assert not [text for text in told["errors"] + told["warnings"] if "[[importer]] hook" in text]


# --- health, and what was there before ---


def test_health_counts_what_was_set_aside(clinic: Clinic, message: str) -> None:
    standings = clinic.write(lambda tx: tx.deliveries.standings())
    assert import_doubts(standings) is None, "what waits is no reason to look"
    fail(clinic)
    clinic.write(lambda tx: tx.deliveries.stop("folder", "http_410", _START))
    told = import_doubts(clinic.write(lambda tx: tx.deliveries.standings()))
    assert told is not None
    assert "1 linked messages for ehr were set aside" in told
    assert "folder wants no more" in told
