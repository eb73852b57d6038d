"""F29: somebody who may write the database exchanges keys of bodies, or the key that new mail is sealed under.

The log answers for the sealed bytes and not for the keys, which rotation writes anew. ``audit verify`` tries the keys
where they are at hand, and holds the order of the key-encryption keys against the events.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.main import main
from gateway.store.audit_verify import LogReport, Witnesses, verify_store
from gateway.store.ids import new_id
from gateway.store.upgrading import upgrade_store
from tests.faults.tampering import SIGNER, Forger, practice
from tests.support.body_keys import sealer_in
from tests.support.old_practice import OldPractice, old_practice
from tests.support.store_samples import NOW, inbound, open_store, settings_for

MEBIBYTE = 1 << 20


def verified(folder: Path, *, keys: Path | None = None, every_part: bool = False) -> LogReport:
    witnesses = Witnesses(SIGNER.check, (), sealer_in(keys or folder), every_part=every_part)
    return verify_store(settings_for(folder), witnesses)


def said(report: LogReport) -> list[str]:
    return [str(finding) for finding in report.findings]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three messages, and a large one of three parts."""
    folder = tmp_path_factory.mktemp("original")
    practice(folder)
    with open_store(folder) as store:
        store.write_blocking(lambda tx: tx.messages.add_raw(new_id(NOW), NOW, inbound(bytes(5 * MEBIBYTE // 2))))
    return folder


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "copy")
    return tmp_path / "copy"


def test_what_is_untouched_opens_and_is_counted(original: Path) -> None:
    for every_part, whole in ((False, 5), (True, 6)):
        report = verified(original, every_part=every_part)
        assert said(report) == []
        looked = report.bodies
        assert looked is not None
        # The three raw ones, two contents with a digest, and two texts for the search, which have none; the large one.
        assert (looked.messages, looked.whole, looked.without_key, looked.in_bucket) == (4, whole, 0, 0)
        assert looked.bodies >= 6


def test_without_the_keys_nothing_is_opened_and_nothing_is_found(original: Path, tmp_path: Path) -> None:
    report = verified(original, keys=tmp_path)
    assert said(report) == []
    assert report.bodies is not None
    assert (report.bodies.messages, report.bodies.bodies, report.bodies.without_key) == (0, 0, 4)


FORGERIES = {
    "a key overwritten": (
        "UPDATE wrapped_key SET wrapped = randomblob(40) WHERE message_id = (SELECT min(id) FROM raw_message)",
        "its wrapped key does not open with the key",
    ),
    "a key cut short": (
        "UPDATE wrapped_key SET wrapped = x'00' WHERE message_id = (SELECT min(id) FROM raw_message)",
        "its wrapped key does not open with the key",
    ),
    "a key exchanged for that of another message": (
        "UPDATE wrapped_key SET wrapped = (SELECT max(wrapped) FROM wrapped_key)",
        "its raw does not open under its key",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_key_that_does_not_open_its_message_is_named(copy: Path, name: str) -> None:
    statement, words = FORGERIES[name]
    forger = Forger(copy)
    forger.run(statement)
    forger.done()
    found = said(verified(copy))
    assert [line for line in found if words in line], found
    # Nobody who has no key can see it: that is why the report says what was opened.
    assert not verify_store(settings_for(copy), Witnesses(SIGNER.check)).findings


def test_a_later_part_that_was_altered_is_seen_by_opening_all(copy: Path) -> None:
    forger = Forger(copy)
    forger.run("UPDATE body_part SET sealed = zeroblob(length(sealed)) WHERE position = 1")
    forger.make_chain_anew()
    forger.done()
    assert not any("does not open" in line for line in said(verified(copy)))
    assert any("its raw does not open" in line for line in said(verified(copy, every_part=True)))


def test_many_broken_messages_are_counted(copy: Path) -> None:
    with open_store(copy) as store:
        for number in range(5):
            store.write_blocking(lambda tx, n=number: tx.messages.add_raw(new_id(NOW), NOW, inbound(b"m%d" % n)))  # type: ignore[misc]
    forger = Forger(copy)
    forger.run("UPDATE wrapped_key SET wrapped = randomblob(40)")
    forger.done()
    found = said(verified(copy))
    assert sum("does not open with the key" in line for line in found) == 5
    assert "9 bodies or keys of bodies in all do not open" in found


# --- which key new mail is sealed under ---


@pytest.fixture
def clinic(tmp_path: Path) -> OldPractice:
    """A practice whose key was rotated by the command, brought up to date."""
    made = old_practice(tmp_path)
    upgrade_store(made.settings().store, "cli:test")
    return made


def run(clinic: OldPractice, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    capsys.readouterr()
    status = main([*words, "--json", "--config", str(clinic.config)])
    return status, json.loads(capsys.readouterr().out)


def forge(clinic: OldPractice, *statements: str) -> None:
    with closing(sqlite3.connect(clinic.folder / "gateway.db", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_rotated_and_retired_keys_are_in_order(clinic: OldPractice, capsys: pytest.CaptureFixture[str]) -> None:
    status, document = run(clinic, capsys, "audit", "verify")
    assert (status, document["holds"], document["bodies"]["messages"]) == (0, True, 4)
    older = run(clinic, capsys, "keys", "list")[1]
    assert len(older["keys"] if isinstance(older, dict) else older) == 2
    [(first,)] = rows(clinic, "SELECT kek_id FROM key_encryption_key ORDER BY seq LIMIT 1")
    assert main(["keys", "retire", first, "--config", str(clinic.config)]) == 0
    assert main(["keys", "rotate", "--config", str(clinic.config)]) == 0
    assert run(clinic, capsys, "audit", "verify")[1]["findings"] == []


def rows(clinic: OldPractice, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(clinic.folder / "gateway.db")) as connection:
        return connection.execute(query).fetchall()


def test_an_older_key_that_was_raised_is_named(clinic: OldPractice, capsys: pytest.CaptureFixture[str]) -> None:
    forge(clinic, "UPDATE key_encryption_key SET seq = 99 WHERE seq = (SELECT min(seq) FROM key_encryption_key)")
    status, document = run(clinic, capsys, "audit", "verify")
    assert status == 1
    [finding] = document["findings"]
    assert finding["what"].startswith("new mail is sealed under the key ")
    assert "came after it: somebody changed their order past the gateway" in finding["what"]


def test_a_retired_key_that_was_put_back_is_named(clinic: OldPractice, capsys: pytest.CaptureFixture[str]) -> None:
    [(kek_id, seq, since, proof)] = rows(clinic, "SELECT * FROM key_encryption_key ORDER BY seq LIMIT 1")
    assert main(["keys", "retire", kek_id, "--config", str(clinic.config)]) == 0
    with closing(sqlite3.connect(clinic.folder / "gateway.db", isolation_level=None)) as connection:
        connection.execute("INSERT INTO key_encryption_key VALUES (?, 99, ?, ?)", (kek_id, since, proof))
    status, document = run(clinic, capsys, "audit", "verify")
    assert (status, seq) == (1, 1)
    assert [finding["what"] for finding in document["findings"] if "was retired, and was put back" in finding["what"]]


def test_a_key_that_nobody_took_into_use_is_named(clinic: OldPractice, capsys: pytest.CaptureFixture[str]) -> None:
    forge(clinic, "INSERT INTO key_encryption_key SELECT 'his-own', 99, since, proof FROM key_encryption_key LIMIT 1")
    document = run(clinic, capsys, "audit", "verify")[1]
    told = [finding["what"] for finding in document["findings"]]
    assert any("the key his-own was put into use past the gateway" in what for what in told), told


# --- the command ---


def test_the_command_says_what_was_opened(clinic: OldPractice, capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", str(clinic.config)]
    assert main(["audit", "verify", "--bodies", "all", *config]) == 0
    assert "bodies of 4 messages opened" in capsys.readouterr().err
    assert main(["audit", "verify", "--bodies", "none", *config]) == 0
    assert "no body was opened" in capsys.readouterr().err
    (clinic.folder / "bodies.keys").unlink()
    assert main(["audit", "verify", *config]) == 0
    told = capsys.readouterr().err
    assert "4 messages not opened: the keys are not at hand" in told
