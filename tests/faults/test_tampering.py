"""F29: somebody with write access to the database file alters it, and ``audit verify`` names what he did.

Each forgery is done on a closed file, with the triggers taken away and put back. The harness is believed because a
verifier with a part taken out misses the forgery that the part is there for (``test_the_harness_catches...``).
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.core.tree_head import TreeHead, from_text
from gateway.keys.head_signing import HeadSigner
from gateway.store import audit_verify
from gateway.store.audit_rows_check import RowsCheck
from tests.faults.tampering import SIGNER, Forger, findings, make_head, practice, verify
from tests.support.store_samples import NOW, open_store

# ruff: noqa: S608 - the names are our own, and SQL is what is tested
ONE = "(SELECT min(id) FROM raw_message)"
Forgery = tuple[str, str]

FORGERIES: dict[str, Forgery] = {
    # What is done, and a part of what must be said of it first.
    "event altered": ("UPDATE audit_event SET actor = 'nobody' WHERE seq = 4", "event main/4: the chain breaks"),
    "event's time altered": (
        "UPDATE audit_event SET at = '2020-01-01T00:00:00.000000Z' WHERE seq = 4",
        "event main/4: the chain breaks",
    ),
    "event's hash altered": (
        "UPDATE audit_event SET hash = zeroblob(32) WHERE seq = 4",
        "event main/4: the chain breaks",
    ),
    "event's rows altered": ("UPDATE audit_event SET rows = '' WHERE seq = 4", "event main/4: the chain breaks"),
    "event removed": ("DELETE FROM audit_event WHERE seq = 4", "event main/4: it is missing"),
    "event renamed to another node": (
        "UPDATE audit_event SET node = 'other' WHERE seq = 4",
        "event main/4: it is missing",
    ),
    "keyword taken away": (
        "UPDATE mailbox_flag SET flags = '$DirectVerified' WHERE uid = 1",
        "message 1 of mailbox 1 is told to mail clients as something else than it is",
    ),
    "keyword made up": (
        "UPDATE mailbox_flag SET flags = flags || ' $DirectNeedsReview' WHERE uid = 1",
        "message 1 of mailbox 1 is told to mail clients as something else than it is",
    ),
    "message taken out of its view": (
        "DELETE FROM view_entry WHERE of_uid = 1",
        "message 1 of mailbox 1 is in no view, or in several",
    ),
    "message put into another view": (
        "UPDATE view_entry SET view = 'unlinked', uid = uid + 100 WHERE of_uid = 1",
        "message 1 of mailbox 1 is on a chart, and in the view of the unlinked ones",
    ),
    "message put into a second view": (
        "INSERT INTO view_entry SELECT mailbox_id, 'unlinked', uid, of_uid, modseq FROM view_entry WHERE of_uid = 1",
        "message 1 of mailbox 1 is on a chart, and in the view of the unlinked ones",
    ),
    "raw message altered": (f"UPDATE raw_message SET mail_from = 'x@y' WHERE id = {ONE}", "the row raw_message "),
    "received time altered": (
        f"UPDATE raw_message SET received_at = '2020-01-01T00:00:00.000000Z' WHERE id = {ONE}",
        "the row raw_message ",
    ),
    "body altered": (f"UPDATE body_part SET sealed = sealed || x'00' WHERE message_id = {ONE}", "the row body_part "),
    "body removed": (f"DELETE FROM body_part WHERE message_id = {ONE}", "is gone"),
    "recipient altered": (
        "UPDATE raw_recipient SET recipient = 'eve@direct.practice.example'",
        "the row raw_recipient ",
    ),
    "verdict altered": ("UPDATE verdict SET reason = 'ok'", "the row verdict "),
    "state altered": ("UPDATE message_state SET state = 'filed' WHERE state = 'refused'", "the row message_state "),
    "state removed": ("DELETE FROM message_state WHERE state = 'refused'", "is gone"),
    "state put in": (
        f"INSERT INTO message_state VALUES ({ONE}, 9, 'refused', '2026-03-01T12:00:00.000000Z', '')",
        "is in no event",
    ),
    "link moved to another patient": ("UPDATE link SET patient_id = 'P2' WHERE id = 'L0'", "the row link L0"),
    "link removed": ("DELETE FROM link WHERE id = 'L0'", "the row link L0"),
    "link put in": (
        (
            "INSERT INTO link SELECT 'X', message_id, 'P7', mode, actor, rule, linked_at, part, seq FROM link "
            "WHERE id = 'L0'"
        ),
        "the row link X is in no event",
    ),
    "undo put in": (
        "INSERT INTO link_undo VALUES ('L0', '2026-03-01T12:00:00.000000Z', 'olga', 'wrong')",
        "the row link_undo L0 is in no event",
    ),
    "patient altered": ("UPDATE patient_version SET birth_date = '1900-01-01'", "the row patient_version "),
    "rights altered": ("UPDATE account_folder SET rights = 'lrsw'", "the row account_folder "),
    "certificate altered": ("UPDATE certificate SET der = x'00'", "the row certificate "),
    "content's digest altered": ("UPDATE message_content SET content_sha256 = 'x'", "the row message_content "),
    "mailbox entry moved": ("UPDATE mailbox_message SET uid = uid + 100", "is gone"),
    "password hash replaced": (
        "UPDATE account SET password_hash = 'mine'",
        "the password hash of account 1 was replaced",
    ),
    "account put in": (
        "INSERT INTO account (login, login_key, password_hash, created_at) VALUES ('eve', 'eve', 'h', '2026')",
        "account 2 is in no event",
    ),
    "quarantine emptied": ("DELETE FROM quarantine", "was taken out of the quarantine"),
    "key of a body removed": (f"DELETE FROM wrapped_key WHERE message_id = {ONE}", "its wrapped key is gone"),
    "span altered": ("UPDATE audit_tree_span SET count = count - 1", "is of"),
    "head altered": ("UPDATE audit_tree_head SET head = replace(head, '\"size\":', '\"size\":1')", "does not hold"),
    "head's size altered": ("UPDATE audit_tree_head SET size = size - 1", "another size"),
    "head removed": ("DELETE FROM audit_tree_head WHERE number = 1", "signed heads are missing"),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    practice(folder, heads=2)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "copy")
    return tmp_path / "copy"


def test_an_untouched_log_holds(folder: Path) -> None:
    report = verify(folder)
    assert report.findings == []
    assert report.heads == 2
    assert report.events == report.leaves == 12
    assert report.rows > 40


@pytest.mark.parametrize("name", FORGERIES)
def test_each_forgery_is_named(folder: Path, name: str) -> None:
    statement, said = FORGERIES[name]
    forger = Forger(folder)
    forger.run(statement)
    assert forger.connection.total_changes
    forger.done()
    found = findings(folder)
    assert found
    assert said in found[0], found


def test_two_swapped_events_are_named(folder: Path) -> None:
    forger = Forger(folder)
    for old, new in ((4, -1), (5, 4), (-1, 5)):
        forger.run("UPDATE audit_event SET seq = ? WHERE seq = ?", values=(new, old))
    forger.done()
    assert findings(folder)[0].startswith("event main/4: the chain breaks")


def test_two_swapped_bodies_are_named(folder: Path) -> None:
    forger = Forger(folder)
    first, second = (row[0] for row in forger.connection.execute("SELECT id FROM raw_message ORDER BY id LIMIT 2"))
    for old, new in ((first, "x"), (second, first), ("x", second)):
        forger.run("UPDATE body_part SET message_id = ? WHERE message_id = ? AND kind = 'raw'", values=(new, old))
    forger.done()
    assert "the row body_part " in findings(folder)[0]


def test_a_guard_that_is_gone_or_hollow_is_named_and_put_back_with_an_event(folder: Path) -> None:
    connection = sqlite3.connect(folder / "gateway.db", isolation_level=None)
    connection.execute("DROP TRIGGER raw_message_no_delete")
    connection.execute("DROP TRIGGER link_no_update")
    connection.execute("CREATE TRIGGER link_no_update BEFORE UPDATE ON link BEGIN SELECT 1; END")
    connection.close()
    assert sorted(line.split()[2] for line in findings(folder)) == ["link_no_update", "raw_message_no_delete"]
    with open_store(folder) as store:
        [event] = store.read_blocking(lambda rows: [e for e in rows.audit.events() if e.action == "guards.restored"])  # type: ignore[attr-defined]
    assert "raw_message_no_delete" in event.detail
    assert "link_no_update" in event.detail
    assert findings(folder) == []


# --- the file itself ---


@pytest.mark.parametrize("needle", [b"message.accepted", b"by hand", b"untrusted"])
def test_one_flipped_bit_in_the_file_is_named(folder: Path, needle: bytes) -> None:
    path = folder / "gateway.db"
    data = bytearray(path.read_bytes())
    place = data.find(needle)
    if place < 0:
        pytest.skip("this text is not in the file")
    data[place] ^= 1
    path.write_bytes(data)
    assert findings(folder)


def test_a_flipped_bit_anywhere_in_the_rows_never_passes_for_another_row(folder: Path) -> None:
    """Every 193rd byte of the pages of the audit log: named, or in a place that holds nothing."""
    path = folder / "gateway.db"
    clean = path.read_bytes()
    before = _contents(path)
    page_size = int.from_bytes(clean[16:18], "big")
    page = clean.find(b"message.accepted") // page_size
    missed = caught = 0
    for place in range(page * page_size, (page + 1) * page_size, 193):
        data = bytearray(clean)
        data[place] ^= 0x10
        path.write_bytes(data)
        for beside in ("-wal", "-shm"):
            path.with_name(path.name + beside).unlink(missing_ok=True)
        if findings(folder):
            caught += 1
        else:
            missed += 1
            assert _contents(path) == before, place
    assert caught > 10, (caught, missed)


def _contents(path: Path) -> list[object]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT * FROM audit_event ORDER BY seq").fetchall()
    connection.close()
    return rows


def test_a_file_that_is_no_database_any_more_is_a_finding(folder: Path) -> None:
    (folder / "gateway.db").write_bytes(b"\0" * 8192)
    for beside in ("-wal", "-shm"):
        (folder / f"gateway.db{beside}").unlink(missing_ok=True)
    assert findings(folder)


# --- what only a head from elsewhere shows ---


def test_a_whole_forged_chain_meets_the_signed_heads(folder: Path) -> None:
    forger = Forger(folder)
    forger.run("UPDATE link SET patient_id = 'P2' WHERE id = 'L0'")
    forger.make_chain_anew()
    forger.done()
    assert "the log was rewritten" in findings(folder)[0]


def test_a_forged_chain_without_its_heads_shows_only_elsewhere(folder: Path) -> None:
    head = _newest_head(folder)
    forger = Forger(folder)
    forger.run("UPDATE link SET patient_id = 'P2' WHERE id = 'L0'")
    forger.make_chain_anew()
    forger.make_tree_anew(None)
    assert findings(folder) == []
    assert "the end was cut off" in findings(folder, head)[0]


def test_a_forger_with_another_key_is_named_by_its_signature(folder: Path) -> None:
    forger = Forger(folder)
    forger.run("UPDATE link SET patient_id = 'P2' WHERE id = 'L0'")
    forger.make_chain_anew()
    forger.make_tree_anew(HeadSigner(Ed25519PrivateKey.generate()))
    assert "signed by another key" in findings(folder)[0]


def test_a_forger_with_our_key_shows_only_elsewhere(folder: Path) -> None:
    head = _newest_head(folder)
    forger = Forger(folder)
    forger.run("UPDATE link SET patient_id = 'P2' WHERE id = 'L0'")
    forger.make_chain_anew()
    forger.make_tree_anew(SIGNER)
    assert findings(folder) == []
    assert "the log was rewritten" in findings(folder, head)[0]


def test_an_older_copy_shows_only_elsewhere(tmp_path: Path) -> None:
    practice(tmp_path)
    older = (tmp_path / "gateway.db").read_bytes()
    with open_store(tmp_path) as store:
        store.write_blocking(lambda tx: tx.audit.add(NOW, "a", "b", "c"))
        head = make_head(store)
    assert findings(tmp_path, head) == []
    for beside in ("-wal", "-shm"):
        (tmp_path / f"gateway.db{beside}").unlink(missing_ok=True)
    (tmp_path / "gateway.db").write_bytes(older)
    assert findings(tmp_path) == []
    assert "an older copy of the database" in findings(tmp_path, head)[0]


def test_a_tail_that_was_cut_off_leaves_its_rows_behind(folder: Path) -> None:
    """Even without a head: the messages of the events that are gone are in no event now."""
    head = _newest_head(folder)
    forger = Forger(folder)
    forger.run("DELETE FROM audit_event WHERE seq > 6")
    forger.make_tree_anew(None)
    assert "is in no event" in findings(folder)[0]
    assert any("the end was cut off" in line for line in findings(folder, head))


def test_a_head_from_elsewhere_is_extended_by_an_honest_log(tmp_path: Path) -> None:
    head = practice(tmp_path)
    assert head is not None
    with open_store(tmp_path) as store:
        for number in range(600):
            store.write_blocking(lambda tx, n=number: tx.audit.add(NOW, "a", "b", str(n)))  # type: ignore[misc]
            if number % 250 == 0:
                make_head(store)
        make_head(store)
    report = verify(tmp_path, head)
    assert report.findings == []
    assert report.leaves == head.size + 600
    forger = Forger(tmp_path)
    forger.run("UPDATE audit_tree_node SET hash = zeroblob(32) WHERE position = 1 AND level = 8")
    forger.done()
    assert findings(tmp_path)[0] == "the stored subtree of 256 events from leaf 256 on does not fit the events"


# --- the harness ---


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ((audit_verify._Verification, "_chain"), "event's time altered"),
        ((RowsCheck, "_compare"), "link moved to another patient"),
        ((RowsCheck, "finish"), "link put in"),
        ((audit_verify._Verification, "_read_heads"), "head removed"),
    ],
)
def test_the_harness_catches_a_verifier_that_does_not_look(
    folder: Path, monkeypatch: pytest.MonkeyPatch, part: tuple[type, str], name: str
) -> None:
    """Seeded bugs: with a part taken out, its forgery passes, so the tests above would fail."""

    def blind(self: object, *_args: object) -> None:
        newest = getattr(self, "_newest", None)
        if newest is not None and _args:
            event = _args[0]
            newest[event.node] = event.seq, bytes(event.hash)  # type: ignore[attr-defined]

    monkeypatch.setattr(part[0], part[1], blind)
    forger = Forger(folder)
    forger.run(FORGERIES[name][0])
    forger.done()
    assert not any(FORGERIES[name][1] in line for line in findings(folder))


def _newest_head(folder: Path) -> TreeHead:
    with open_store(folder) as store:
        text = store.read_blocking(lambda rows: rows.audit_tree.newest_head())
    assert text is not None
    return from_text(text)
