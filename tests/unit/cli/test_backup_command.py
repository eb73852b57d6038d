"""``backup create``, ``verify``, ``restore``: status, output, the log, and what must never be in a backup."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.main import main
from gateway.keys.body_keys import body_sealer
from gateway.settings import load
from gateway.store.sql_store import SQLStore
from tests.support.store_samples import NOW, inbound


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clinic") / "clinic"
    assert main(["init", str(folder), "--domain", "clinic.example", "--address", "inbox", "--json"]) == 0
    settings = load(folder / "gateway.toml")
    with SQLStore.open(settings.store, body_sealer(settings)) as store:
        for number in range(3):
            raw = inbound(b"message %d" % number)
            store.write_blocking(lambda tx, n=number, raw=raw: tx.messages.add_raw(f"{n:026d}", NOW, raw))  # type: ignore[misc]
    return folder


@pytest.fixture
def clinic(made_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_once, tmp_path / "clinic"))


def run(capsys: pytest.CaptureFixture[str], clinic: Path, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(["backup", *words, "--config", str(clinic)])
    told = capsys.readouterr()
    return status, told.out, told.err


def answer(capsys: pytest.CaptureFixture[str], clinic: Path, *words: str, status: int = 0) -> Any:
    found, out, err = run(capsys, clinic, *words, "--json")
    assert found == status, (out, err)
    return json.loads(out)


def actions(clinic: Path) -> Sequence[tuple[str, str]]:
    settings = load(clinic / "gateway.toml")
    from gateway.core.audit import AuditQuery

    with SQLStore.open(settings.store, body_sealer(settings)) as store:
        events = store.read_blocking(lambda tx: tx.audit.find(AuditQuery(ascending=True)))
    return [(event.action, event.detail) for event in events]


def emptied(clinic: Path) -> Path:
    """The same practice on another machine: settings and keys, and no database."""
    return Path(shutil.copytree(clinic, clinic.with_name("new"), ignore=shutil.ignore_patterns("data")))


def test_there_and_back(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "media").mkdir()
    status, out, err = run(capsys, clinic, "create", str(tmp_path / "media"))
    assert status == 0
    [path] = (tmp_path / "media").iterdir()
    assert path.name.startswith("gateway-20")
    assert f"the backup is in {path}" in out
    assert "copying: " in err
    assert "keep it apart: certs/store/bodies.keys" in err
    checked = answer(capsys, clinic, "verify", str(path), "--bodies", "all")
    assert (checked["holds"], checked["messages_opened"], checked["backup"]["messages"]) == (True, 3, 3)
    [created] = [detail for action, detail in actions(clinic) if action == "backup.created"]
    assert json.loads(created)["manifest_sha256"] in out
    new = emptied(clinic)
    planned = answer(capsys, new, "restore", str(path), "--dry-run")
    assert (planned["restored"], planned["dry_run"]) == (False, True)
    assert not (new / "data").exists(), "a dry run made something"
    status, out, err = run(capsys, new, "restore", str(path), "--dry-run")
    assert (status, "nothing was written" in out, "raw_message" in out) == (0, True, True)
    assert not (new / "data").exists()
    assert answer(capsys, new, "restore", str(path))["restored"]
    told = [action for action, _ in actions(new)]
    assert told[-1] == "store.restored"
    assert "backup.begun" in told
    assert main(["audit", "verify", "--config", str(new)]) in {0, 1}


def test_no_secret_is_in_a_backup(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clinic / "certs" / "anchors" / "mistake.pem").write_text(
        (clinic / "certs" / "tls" / "server.key.pem").read_text() + "-----BEGIN CERTIFICATE-----\n"
    )
    (clinic / "certs" / "identities" / "x.p12").write_bytes(b"\x30\x82 a key and a certificate")
    made = answer(capsys, clinic, "create", str(tmp_path / "copy"))
    secrets = [file for file in clinic.rglob("*") if file.is_file() and b"PRIVATE KEY" in file.read_bytes()]
    assert len(secrets) >= 4
    keys = (clinic / "certs" / "store" / "bodies.keys").read_text().split()
    [key] = [word for word in keys if len(word) > 40]
    for file in (tmp_path / "copy").rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert b"PRIVATE" not in data, file
            assert key.encode() not in data, file
            assert b"message 1" not in data, file
    left = set(made["left_out"])
    assert {"certs/store/bodies.keys", "certs/anchors/mistake.pem", "certs/identities/x.p12"} <= left
    assert {str(one.relative_to(clinic)) for one in secrets} <= left
    assert (tmp_path / "copy" / "settings" / "gateway.toml").read_bytes() == (clinic / "gateway.toml").read_bytes()
    assert {one.stat().st_mode & 0o077 for one in (tmp_path / "copy").rglob("*")} == {0}


def test_damage_is_status_1_and_is_not_restored(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, clinic, "create", str(tmp_path / "copy"))
    with (tmp_path / "copy" / "store.db").open("r+b") as file:
        file.seek(-100, 2)
        file.write(b"\xaa" * 10)
    checked = answer(capsys, clinic, "verify", str(tmp_path / "copy"), status=1)
    assert "store.db was altered or damaged" in checked["findings"][0]
    new = emptied(clinic)
    status, out, err = run(capsys, new, "restore", str(tmp_path / "copy"))
    assert status == 1
    assert "does NOT hold" in out
    assert "use another backup" in err
    assert not (new / "data" / "gateway.db").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["create", "{tmp}/none/copy"], "there is no folder"),
        (["create", "{clinic}/gateway.toml"], "is there already"),
        (["verify", "{tmp}"], "is no backup: it has no manifest.json"),
        (["verify", "{tmp}", "--bucket"], "--bucket: the settings name no bucket"),
        (["restore", "{tmp}/copy"], "is restored into an empty place only"),
        (["verify", "{tmp}/copy", "--key-file", "{tmp}/none"], "none"),
    ],
)
def test_what_is_wrong_is_told(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    answer(capsys, clinic, "create", str(tmp_path / "copy"))
    filled = [word.format(tmp=tmp_path, clinic=clinic) for word in words]
    status, _, err = run(capsys, clinic, *filled)
    assert status == 2
    assert told in err
    assert "Traceback" not in err


def test_without_keys_a_backup_is_made_and_checked_as_far_as_it_goes(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clinic / "certs" / "store" / "bodies.keys").unlink()
    (clinic / "certs" / "audit" / "heads.key.pem").unlink()
    (clinic / "certs" / "audit" / "heads.pub.pem").unlink()
    status, _, err = run(capsys, clinic, "create", str(tmp_path / "copy"))
    assert status == 0
    assert "is not at hand: without it 3 messages cannot be read" in err
    checked = answer(capsys, clinic, "verify", str(tmp_path / "copy"))
    assert checked["messages_opened"] == 0
    assert any("no body was opened" in note for note in checked["notes"])


def test_a_restore_without_the_keys_says_so_loudly(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, clinic, "create", str(tmp_path / "copy"))
    assert (status, "(3 messages)" in out) == (0, True), out
    new = emptied(clinic)
    there = answer(capsys, new, "restore", str(tmp_path / "copy"), "--dry-run")["keys_at_hand"]
    assert len(there) == 1
    ring = new / "certs" / "store" / "bodies.keys"
    kept = ring.read_bytes()
    ring.unlink()
    for words in (("--dry-run",), ()):
        status, _, err = run(capsys, new, "restore", str(tmp_path / "copy"), *words)
        assert status == 0
        assert f"warning: the key {there[0]} is not at hand: without it 3 messages cannot be read" in err
        assert err.rstrip().endswith(
            "put the file of these keys back from your safe before the gateway starts: store.key_file"
        )
    ring.write_bytes(kept)
    ring.chmod(0o600)
    checked = answer(capsys, new, "verify", str(tmp_path / "copy"), "--bodies", "all")
    assert checked["messages_opened"] == 3
