"""``keys`` and what ``config check`` says of the keys that stored messages rest on."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.core.lifecycle import State
from gateway.keys.body_key_file import parse_ring
from tests.unit.cli.clinic_harness import Clinic


def key_file(clinic: Clinic) -> Path:
    return clinic.directory / "certs" / "store" / "bodies.keys"


def ids(clinic: Clinic) -> list[str]:
    return [key.id for key in parse_ring(key_file(clinic).read_bytes(), "x")]


def actions(clinic: Clinic) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(clinic.directory / "data" / "gateway.db")) as database:
        return database.execute(
            "SELECT action, subject FROM audit_event WHERE action LIKE 'keys.%' ORDER BY seq"
        ).fetchall()


def configured(clinic: Clinic, line: str) -> None:
    config = Path(clinic.config)
    text, count = re.subn(r'(?m)^key_file = "certs/store/bodies\.keys"$', line, config.read_text())
    assert count == 1
    config.write_text(text)


def test_list_rotate_and_retire(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        clinic.add_message(State.FILED)
    [first] = ids(clinic)
    assert clinic.run("keys", "list") == 0
    shown = capsys.readouterr()
    assert re.search(rf"(?m)^{first}\s+2\S+Z\s+3\s+seals new mail$", shown.out)
    assert "keep a copy of" in shown.err
    assert clinic.run("keys", "rotate") == 0
    [new, old] = ids(clinic)
    assert old == first
    shown = capsys.readouterr()
    assert f"new mail is sealed under the new key {new}; 3 messages brought under it" in shown.out
    assert "0 of 3 messages" in shown.err
    assert clinic.run("keys", "list") == 0
    assert re.search(rf"(?m)^{first}\s+\S+\s+0\s+can be retired$", capsys.readouterr().out)
    assert clinic.run("keys", "retire", new) == 1
    assert "new mail is sealed under the key" in capsys.readouterr().err
    assert clinic.run("keys", "retire", first) == 0
    assert "backups that were made before the rotation" in capsys.readouterr().err
    assert ids(clinic) == [new]
    assert clinic.run("keys", "retire", first) == 1
    assert f"there is no key {first}" in capsys.readouterr().err
    assert actions(clinic) == [
        ("keys.listed", ""),
        ("keys.rotation_begun", new),
        ("keys.rotated", new),
        ("keys.listed", ""),
        ("keys.retired", first),
    ]


def test_json_has_ids_and_counts_and_no_key(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    clinic.add_message(State.RECEIVED)
    secret = key_file(clinic).read_text().split()[-1]
    assert clinic.run("keys", "rotate", "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert {key: done[key] for key in ("made", "total", "rewrapped", "damaged")} == {
        "made": True,
        "total": 1,
        "rewrapped": 1,
        "damaged": [],
    }
    assert clinic.run("keys", "list", "--json") == 0
    text = capsys.readouterr().out
    assert [line["messages"] for line in json.loads(text)] == [1, 0]
    assert secret not in text


def test_a_key_that_does_not_open_is_told(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    message_id = clinic.add_message(State.RECEIVED)
    with closing(sqlite3.connect(clinic.directory / "data" / "gateway.db")) as database, database:
        database.execute("UPDATE wrapped_key SET wrapped = zeroblob(41)")
    assert clinic.run("keys", "rotate") == 1
    assert f"the key of message {message_id} does not open" in capsys.readouterr().err


def test_a_missing_file_stops_what_reads_messages_and_nothing_else(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    message_id = clinic.add_message(State.FILED)
    [first] = ids(clinic)
    kept = key_file(clinic).read_bytes()
    key_file(clinic).unlink()
    assert clinic.run("message", "list") == 0
    assert clinic.run("message", "export", message_id, str(clinic.directory / "out.eml")) == 2
    assert "there is no file" in capsys.readouterr().err
    assert clinic.run("keys", "make") == 2
    assert f"stored messages rest on the key {first}" in capsys.readouterr().err
    assert not key_file(clinic).exists()
    assert clinic.run("config", "check") == 2
    assert "put it back from your copy" in capsys.readouterr().err
    key_file(clinic).write_bytes(kept)
    key_file(clinic).chmod(0o600)
    assert clinic.run("message", "export", message_id, str(clinic.directory / "out.eml")) == 0


def test_another_file_in_its_place_is_found_by_config_check(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    clinic.add_message(State.FILED)
    [first] = ids(clinic)
    capsys.readouterr()
    assert clinic.run("keys", "make", "--print") == 0
    key_file(clinic).write_text(capsys.readouterr().out)
    assert clinic.run("config", "check") == 2
    assert f"the key {first}, which stored mail rests on, is not in" in capsys.readouterr().err
    assert clinic.run("keys", "rotate") == 3
    assert "is not at hand" in capsys.readouterr().err
    assert clinic.run("keys", "list") == 1
    assert "MISSING: put it back from your copy" in capsys.readouterr().out


def test_config_check_reminds_of_the_copy_and_warns_of_open_files(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    assert clinic.run("config", "check") == 0
    assert f"note: keep a copy of {key_file(clinic)} apart" in capsys.readouterr().err
    key_file(clinic).chmod(0o644)
    assert clinic.run("config", "check") == 0
    assert f"{key_file(clinic)} can be read by others" in capsys.readouterr().err


def test_a_credential_serves_and_is_not_changed(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    credential = tmp_path / "mail-keys"
    credential.write_bytes(key_file(clinic).read_bytes())
    key_file(clinic).unlink()
    configured(clinic, 'key_file = "credential:mail-keys"')
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert clinic.run("config", "check") == 2
    assert "LoadCredentialEncrypted=mail-keys:FILE" in capsys.readouterr().err
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    clinic.add_message(State.FILED)
    assert clinic.run("config", "check") == 0
    capsys.readouterr()
    assert clinic.run("keys", "rotate") == 2
    assert "keys make --print" in capsys.readouterr().err
    assert clinic.run("keys", "make", "--print") == 0
    [line] = [one for one in capsys.readouterr().out.splitlines() if one.startswith("key ")]
    credential.write_text(f"{line}\n{credential.read_text()}")
    assert clinic.run("keys", "rotate", "--json") == 0
    assert json.loads(capsys.readouterr().out)["kek_id"] == line.split()[1]
    assert clinic.run("keys", "list") == 0
