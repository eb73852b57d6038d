"""``audit``: verify, head, prove, list, export, key; and the script of docs/audit.md, which needs none of our code."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import stat
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.core.merkle import leaf_hash, verify_consistency, verify_inclusion
from tests.unit.cli.clinic_harness import Clinic


@dataclass(frozen=True)
class Done:
    """A command that has run."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Desk:
    """Runs commands on a practice and keeps what they print."""

    directory: Path
    _clinic: Clinic
    _capsys: pytest.CaptureFixture[str]

    def run(self, *words: str) -> Done:
        self._capsys.readouterr()
        try:
            status = self._clinic.run(*words)
        except SystemExit as exc:
            status = int(str(exc.code))
        printed = self._capsys.readouterr()
        return Done(status, printed.out, printed.err)


@pytest.fixture
def desk(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(clinic.directory, clinic, capsys)


DOCS = Path(__file__).resolve().parents[3] / "docs/audit.md"


def head_file(desk: Desk, name: str) -> Path:
    path = desk.directory / name
    assert desk.run("audit", "head", "--out", str(path)).status == 0
    return path


def tamper(desk: Desk, statement: str) -> None:
    connection = sqlite3.connect(desk.directory / "data" / "gateway.db", isolation_level=None)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        if name.startswith("audit_event"):
            connection.execute(f"DROP TRIGGER {name}")
    connection.execute(statement)
    connection.close()


def test_init_makes_the_key_and_a_new_log_holds(desk: Desk) -> None:
    key = desk.directory / "certs" / "audit" / "heads.key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    shown = desk.run("audit", "key")
    assert shown.out.startswith("-----BEGIN PUBLIC KEY-----")
    assert shown.out.strip() == key.with_name("heads.pub.pem").read_text().strip()
    done = desk.run("audit", "verify")
    assert done.status == 0, done.out
    assert done.out.startswith("the log holds (")


def test_a_head_is_a_file_and_the_log_extends_it(desk: Desk) -> None:
    head = head_file(desk, "head.json")
    exported = list((desk.directory / "audit-heads").iterdir())
    assert [path.read_text() for path in exported] == [head.read_text()]
    desk.run("patient", "list", "nobody")
    public = desk.directory / "certs" / "audit" / "heads.pub.pem"
    done = desk.run("audit", "verify", "--against", str(head), "--public-key", str(public), "--json")
    assert done.status == 0, done.out
    document = json.loads(done.out)
    assert document["holds"] is True
    assert document["against"][0]["size"] == json.loads(head.read_text())["size"]


def test_the_first_bad_event_is_named_with_status_1(desk: Desk) -> None:
    head = head_file(desk, "head.json")
    tamper(desk, "UPDATE audit_event SET actor = 'nobody' WHERE seq = 2")
    done = desk.run("audit", "verify", "--against", str(head), "--json")
    assert done.status == 1
    findings = json.loads(done.out)["findings"]
    assert any(f["node"] == "main" and f["seq"] == 2 and "chain breaks" in f["what"] for f in findings)
    assert desk.run("audit", "verify").status == 1


def test_heads_and_keys_that_are_none_are_wrong_use(desk: Desk, tmp_path: Path) -> None:
    head = head_file(desk, "head.json")
    altered = tmp_path / "altered.json"
    altered.write_text(head.read_text().replace('"size": ', '"size": 1'))
    for path in (tmp_path / "missing.json", desk.directory / "gateway.toml", altered):
        done = desk.run("audit", "verify", "--against", str(path))
        assert (done.status, done.out) == (2, ""), done.err
        assert "Traceback" not in done.err
    assert desk.run("audit", "verify", "--public-key", str(head)).status == 2
    assert desk.run("audit", "prove").status == 2
    assert desk.run("audit", "prove", "1").status == 0
    assert desk.run("audit", "prove", "99999").status == 1


def test_a_lost_key_is_not_replaced_in_silence(desk: Desk) -> None:
    head_file(desk, "head.json")
    (desk.directory / "certs" / "audit" / "heads.key.pem").unlink()
    done = desk.run("audit", "head")
    assert done.status == 2
    assert "put it back from your copy" in done.err


def test_proofs_hold_for_whoever_has_the_head(desk: Desk) -> None:
    older = json.loads(head_file(desk, "older.json").read_text())
    desk.run("patient", "list", "nobody")
    newer = json.loads(head_file(desk, "newer.json").read_text())
    document = json.loads(desk.run("audit", "prove", "2", "--json").out)
    assert document["head"] == newer
    leaf = leaf_hash(bytes.fromhex(document["event"]["hash"]))
    proof = [bytes.fromhex(step) for step in document["proof"]]
    verify_inclusion(leaf, document["leaf"], newer["size"], proof, bytes.fromhex(newer["root"]))
    document = json.loads(desk.run("audit", "prove", "--since", str(desk.directory / "older.json"), "--json").out)
    proof = [bytes.fromhex(step) for step in document["proof"]]
    roots = bytes.fromhex(older["root"]), bytes.fromhex(newer["root"])
    verify_consistency(older["size"], newer["size"], *roots, proof)


def test_the_report_has_any_period_in_any_order_and_is_itself_recorded(desk: Desk) -> None:
    for _ in range(3):
        desk.run("patient", "list", "secretname")
    desk.run("link", "list", "P1")
    listed = json.loads(desk.run("audit", "list", "--action", "patient.*", "--json").out)
    assert {event["action"] for event in listed} == {"patient.search"}
    assert len(listed) == 3
    assert "secretname" not in json.dumps(listed)
    [newest] = json.loads(desk.run("audit", "list", "--limit", "1", "--json").out)
    assert newest["action"] == "audit.list"
    pages = [json.loads(desk.run(*_paged(page)).out)[0]["seq"] for page in (1, 2, 3)]
    assert pages == [1, 2, 3]
    ordered = json.loads(desk.run("audit", "list", "--sort", "action", "--ascending", "--json").out)
    actions = [event["action"] for event in ordered]
    assert actions == sorted(actions)
    assert json.loads(desk.run("audit", "list", "--until", "2001-01-01", "--json").out) == []
    assert json.loads(desk.run("audit", "list", "--who", "nobody", "--json").out) == []
    assert desk.run("audit", "list", "--since", "yesterday").status == 2
    assert "patient.search" in desk.run("audit", "list").out


def _paged(page: int) -> list[str]:
    words = ["audit", "list", "--ascending", "--limit", "1", "--page", str(page), "--until", "2100-01-01", "--json"]
    return [*words, "--node", "main"]


def script(desk: Desk, log: Path, *heads: Path) -> subprocess.CompletedProcess[str]:
    """The script of the documentation, as anybody would run it."""
    [text] = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    path = desk.directory / "check.py"
    path.write_text(text)
    words = [sys.executable, "-I", str(path), str(log), *map(str, heads)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def test_the_script_of_the_documentation_verifies_an_export(desk: Desk) -> None:
    for _ in range(9):
        desk.run("patient", "list", "nobody")
    head, log = head_file(desk, "head.json"), desk.directory / "log.jsonl"
    desk.run("patient", "list", "nobody")
    newer = head_file(desk, "newer.json")
    assert desk.run("audit", "export", "--out", str(log)).status == 0
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    for known in ((), (head,), (newer,)):
        assert script(desk, log, *known).returncode == 0
    lines = log.read_text().splitlines()
    assert json.loads(lines[-1])["action"] == "audit.export"
    log.write_text("\n".join(line.replace("patient.search", "patient.purge") for line in lines))
    assert "the chain breaks" in script(desk, log).stderr
    log.write_text("\n".join(lines[:8]))
    assert "does not hold the head" in script(desk, log, newer).stderr


def test_openssl_agrees_with_the_signature(desk: Desk) -> None:
    head: dict[str, Any] = json.loads(head_file(desk, "head.json").read_text())
    message, signature = desk.directory / "m", desk.directory / "s"
    message.write_text(head["signed"])
    signature.write_bytes(base64.b64decode(head["signature"]))
    public = desk.directory / "certs" / "audit" / "heads.pub.pem"
    words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin"]
    words += ["-in", str(message), "-sigfile", str(signature)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    assert done.returncode == 0, done.stderr


def test_a_head_goes_into_no_folder_that_is_not_there(desk: Desk) -> None:
    """A stick that is not mounted: the head would stay on this very machine."""
    before = len(json.loads(desk.run("audit", "list", "--action", "audit.head", "--json").out))
    done = desk.run("audit", "head", "--out", str(desk.directory / "stick" / "head.json"))
    assert done.status == 2
    assert f"there is no folder {desk.directory / 'stick'}" in done.err
    assert not (desk.directory / "stick").exists()
    assert len(json.loads(desk.run("audit", "list", "--action", "audit.head", "--json").out)) == before


def test_a_line_of_the_report_fits_a_screen(desk: Desk) -> None:
    desk.run("audit", "list", "--who", "a" * 60, "--action", "b" * 70, "--subject", "c" * 80)
    desk._clinic.write(
        lambda tx: tx.audit.add(datetime.now(UTC), "d" * 50, "message.read", "e" * 64, {"filters": "f" * 200})
    )
    shown = desk.run("audit", "list")
    assert shown.status == 0
    assert max(len(line) for line in shown.out.splitlines()) <= 120
    assert "..." in shown.out
    whole = desk.run("audit", "list", "--json").out
    assert "f" * 200 in whole
    assert "e" * 64 in whole
