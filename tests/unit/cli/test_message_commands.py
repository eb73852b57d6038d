"""``message`` against a real store: lists, evidence, exact export, retry, and what the audit log keeps."""

import json
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.core.lifecycle import JobKind, State
from tests.unit.cli.clinic_harness import FRONT, SENDER, Clinic


def _json(clinic: Clinic, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
    capsys.readouterr()
    assert clinic.run(*words, "--json") == status
    return json.loads(capsys.readouterr().out)


def _audited(clinic: Clinic) -> list[str]:
    with sqlite3.connect(clinic.directory / "data" / "gateway.db") as connection:
        tables = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        name = next(table for table in tables if table.startswith("audit"))
        return [str(row) for row in connection.execute(f"select * from {name}")]  # noqa: S608 - a table of ours


def test_lists_by_state_newest_first(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    refused = clinic.add_message(State.REFUSED)
    filed = clinic.add_message(State.FILED)
    received = clinic.add_message(State.RECEIVED)
    assert [m["id"] for m in _json(clinic, capsys, "message", "list")] == [received, filed, refused]
    assert [m["id"] for m in _json(clinic, capsys, "message", "list", "--quarantine")] == [refused]
    unlinked = _json(clinic, capsys, "message", "list", "--unlinked")
    assert [m["id"] for m in unlinked] == [filed]
    assert unlinked[0]["sender"] == SENDER
    assert unlinked[0]["delivered_to"] == [FRONT]
    assert unlinked[0]["patient_ids"] == []
    assert [m["reason"] for m in _json(clinic, capsys, "message", "list", "--state", "refused")] == ["untrusted"]
    assert [m["id"] for m in _json(clinic, capsys, "message", "list", "--limit", "1", "--before", received)] == [filed]
    assert clinic.run("message", "list", "--limit", "2") == 0
    captured = capsys.readouterr()
    assert filed in captured.out
    assert f"--before {filed}" in captured.err


def test_a_claimed_sender_does_not_look_like_a_verified_one(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """The envelope of a forged message says whatever its maker likes."""
    refused, received = clinic.add_message(State.REFUSED), clinic.add_message(State.RECEIVED)
    filed = clinic.add_message(State.FILED)
    found = {m["id"]: (m["sender"], m["claimed_sender"]) for m in _json(clinic, capsys, "message", "list")}
    assert found == {refused: ("", SENDER), received: ("", SENDER), filed: (SENDER, SENDER)}
    assert clinic.run("message", "list") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert f"  (claims) {SENDER}  " in lines[refused]
    assert f"  (claims) {SENDER}" in lines[received]
    assert f"  {SENDER}  " in lines[filed]
    assert "claims" not in lines[filed]


def test_an_empty_store_is_no_fault(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    assert clinic.run("message", "list") == 0
    assert capsys.readouterr().out == "no messages\n"
    assert _json(clinic, capsys, "message", "list") == []


def test_a_hostile_subject_cannot_drive_the_terminal(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    message = clinic.add_message(State.FILED, subject="\x1b[2J\x1b]0;owned\x07")
    for words in (("list",), ("show", message), ("show", message, "--body")):
        assert clinic.run("message", *words) == 0
        assert "\x1b" not in capsys.readouterr().out


def test_show_tells_the_reason_and_the_repair_but_no_body(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    refused = clinic.add_message(State.REFUSED)
    assert clinic.run("message", "show", refused) == 0
    text = capsys.readouterr().out
    assert "untrusted: no anchor" in text
    assert "add its anchor or its trust bundle" in text
    assert "192.0.2.7" in text
    filed = clinic.add_message(State.FILED)
    assert clinic.run("message", "show", filed) == 0
    text = capsys.readouterr().out
    assert "signature" in text
    assert "body 2" not in text
    assert clinic.run("message", "show", filed, "--body") == 0
    assert "body 2" in capsys.readouterr().out
    document = _json(clinic, capsys, "message", "show", filed)
    assert document["verdict"]["verdict"] == "accepted"
    assert document["state"] == "filed"
    assert document["links"] == []
    assert "body" not in document


def test_the_body_of_a_refused_message_is_never_shown(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    refused = clinic.add_message(State.REFUSED)
    assert clinic.run("message", "show", refused, "--body") == 1
    assert capsys.readouterr().out == ""


def test_an_id_may_be_shortened_while_it_is_unique(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = clinic.add_message(State.FILED), clinic.add_message(State.FILED)
    common = next(first[:n] for n in range(len(first)) if first[n] != second[n])
    unique = first[: len(common) + 1]
    assert _json(clinic, capsys, "message", "show", unique.lower())["id"] == first
    assert clinic.run("message", "show", common) == 1
    assert "several messages" in capsys.readouterr().err
    assert clinic.run("message", "show", "ZZZZZZZZ") == 1
    assert clinic.run("message", "show", first[:2]) == 1


def test_export_gives_exactly_the_verified_bytes(clinic: Clinic, tmp_path: Path) -> None:
    message = clinic.add_message(State.FILED)
    target = tmp_path / "out.eml"
    assert clinic.run("message", "export", message, str(target)) == 0
    assert target.read_bytes() == f"From: {SENDER}\r\nSubject: Lab result\r\n\r\nbody 1\r\n".encode()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert clinic.run("message", "export", message, "--raw", str(target)) == 0
    assert target.read_bytes().startswith(b"sealed From:")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_export_to_standard_output_is_byte_for_byte(clinic: Clinic) -> None:
    message = clinic.add_message(State.FILED)
    command = [sys.executable, "-m", "gateway", "--config", clinic.config, "message", "export", message]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert done.stdout == f"From: {SENDER}\r\nSubject: Lab result\r\n\r\nbody 1\r\n".encode()


def test_export_reports_as_json(clinic: Clinic, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = clinic.add_message(State.FILED)
    target = tmp_path / "out.eml"
    report = _json(clinic, capsys, "message", "export", message, str(target))
    assert report["size_bytes"] == len(target.read_bytes())
    assert clinic.run("message", "export", message, "--json") == 2


@pytest.mark.parametrize("state", [State.REFUSED, State.RECEIVED])
def test_what_was_not_accepted_is_exported_raw_only(clinic: Clinic, tmp_path: Path, state: State) -> None:
    message = clinic.add_message(state)
    assert clinic.run("message", "export", message, str(tmp_path / "x")) == 1
    assert not (tmp_path / "x").exists()
    assert clinic.run("message", "export", message, "--raw", str(tmp_path / "x")) == 0


def test_export_into_a_missing_folder_is_one_line(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    message = clinic.add_message(State.FILED)
    folder = clinic.directory / "no"
    assert clinic.run("message", "export", message, str(folder / "x")) == 2
    assert capsys.readouterr().err == f"error: there is no folder {folder}; make it first, or name another file\n"
    assert not folder.exists()
    assert clinic.run("message", "export", message, str(clinic.directory)) == 2
    assert capsys.readouterr().err == f"error: {clinic.directory} is a folder; name a file in it\n"


def test_export_where_nothing_can_be_written_names_the_file(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere/.export-x1y2")

    message = clinic.add_message(State.FILED)
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    target = clinic.directory / "out.eml"
    assert clinic.run("message", "export", message, str(target)) == 3
    assert capsys.readouterr().err == f"error: {target}: Permission denied\n"


def test_retry_puts_a_refused_message_back(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    refused = clinic.add_message(State.REFUSED)
    assert _json(clinic, capsys, "message", "retry", refused) == {"id": refused, "state": "received"}
    jobs = clinic.write(lambda tx: tx.jobs.claim(60, 10))
    assert [(job.kind, job.subject) for job in jobs] == [(JobKind.UNWRAP, refused)]
    assert clinic.run("message", "retry", refused) == 1
    filed = clinic.add_message(State.FILED)
    assert clinic.run("message", "retry", filed) == 1


def test_retry_files_what_had_no_mailbox(clinic: Clinic) -> None:
    message = clinic.add_message(State.UNWRAPPED)
    assert clinic.run("message", "retry", message) == 0
    jobs = clinic.write(lambda tx: tx.jobs.claim(60, 10))
    assert [(job.kind, job.subject) for job in jobs] == [(JobKind.FILE, message)]


def test_every_look_is_audited_without_what_was_seen(clinic: Clinic, tmp_path: Path) -> None:
    message = clinic.add_message(State.FILED, subject="Very private subject")
    before = len(_audited(clinic))
    assert clinic.run("message", "list") == 0
    assert clinic.run("message", "show", message) == 0
    assert clinic.run("message", "export", message, str(tmp_path / "x")) == 0
    rows = _audited(clinic)
    assert len(rows) == before + 3
    text = " ".join(rows)
    for action in ("message.list", "message.show", "message.export"):
        assert action in text
    assert "cli:" in text
    assert "private" not in text
    assert SENDER not in text
