"""What somebody with write access to the database file could do while ``audit verify`` said that all was well (F29).

Each of these passed, with the signed heads in the file and with one from elsewhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from gateway.core.audit import rows_text
from gateway.core.errors import StoreError
from gateway.core.lifecycle import JobKind, State
from gateway.core.tree_head import TreeHead
from gateway.ports import UnitOfWork
from gateway.store.ids import new_id
from tests.faults.tampering import Forger, findings, make_head, practice
from tests.support.store_samples import NOW, inbound, open_store

EVENT = (
    "INSERT INTO audit_event (node, seq, at, actor, action, subject, detail, hash, rows) "
    "VALUES ('main', -1, '2026-03-01T12:00:00.000000Z', 'dr', 'message.read', 'x', '{}', zeroblob(32), ?)"
)
LINK = (
    "INSERT INTO link SELECT 'X', message_id, 'P7', mode, actor, rule, linked_at, part, seq FROM link WHERE id = 'L0'"
)
RIGHT = "INSERT INTO account_folder SELECT account_id, folder, 2, mailbox_id, 'lrswa' FROM account_folder"


def _event(forger: Forger) -> None:
    forger.run(EVENT, values=("",))


def _link(forger: Forger) -> None:
    forger.run(LINK)
    forger.run(EVENT, values=(rows_text([("link", ("X",), "any")]),))


def _right(forger: Forger) -> None:
    forger.run(RIGHT)
    forger.run(EVENT, values=(rows_text([("account_folder", (1, "INBOX", 2), "any")]),))


def _other_spelling(forger: Forger) -> None:
    [at] = forger.connection.execute("SELECT at FROM audit_event WHERE seq = 4").fetchone()
    same = datetime.fromisoformat(at).astimezone(timezone(timedelta(hours=-23)))
    assert same == datetime.fromisoformat(at)
    forger.run("UPDATE audit_event SET at = ? WHERE seq = 4", values=(same.isoformat(),))


def _week(forger: Forger) -> None:
    forger.run("UPDATE message_state SET at = '2026-W09-7T12:00:00.000000Z' WHERE seq = 1")


def _trigger(forger: Forger) -> None:
    forger._triggers.append("CREATE TRIGGER helper AFTER INSERT ON message_state BEGIN DELETE FROM job; END")


def _sql(statement: str) -> Callable[[Forger], None]:
    return lambda forger: forger.run(statement)


FORGERIES: dict[str, tuple[Callable[[Forger], None], str]] = {
    "an event before the first one": (_event, "event main/-1: it is in no chain"),
    "a link, and an event in no chain that answers for it": (_link, "the row link X is in no event"),
    "a right, and an event in no chain that answers for it": (
        _right,
        "the row account_folder 1/INBOX/2 is in no event",
    ),
    "an event moved in time by another spelling": (_other_spelling, "event main/4: it cannot be read"),
    "a state moved in time by another spelling": (_week, "message_state "),
    "a trigger": (_trigger, "the trigger helper is none of this program"),
    "a view": (_sql("CREATE VIEW helper AS SELECT * FROM link"), "the view helper is none of this program"),
    "an account taken out": (_sql("DELETE FROM account"), "account 1 was taken out"),
    "an account with the id of another": (_sql("UPDATE account SET id = 7"), "the login of account 7 was changed"),
    "an account under another login": (
        _sql("UPDATE account SET login_key = 'mallory'"),
        "the login of account 1 was changed",
    ),
    "a quarantine with another reason": (_sql("UPDATE quarantine SET reason = 'expired'"), "for another reason"),
    "keys replaced by a known one": (
        _sql("UPDATE wrapped_key SET wrapped = (SELECT proof FROM key_encryption_key)"),
        "had its key replaced by one that is known",
    ),
    "a key-encryption key taken out": (_sql("DELETE FROM key_encryption_key"), "rests on a key that was taken out"),
    "the job of a message taken out": (_sql("DELETE FROM job"), "the job of its next step was taken out"),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TreeHead]:
    folder = tmp_path_factory.mktemp("original")
    practice(folder)

    def on_its_way(tx: UnitOfWork) -> None:
        message_id = new_id(NOW)
        tx.messages.add_raw(message_id, NOW, inbound(b"on its way"))
        tx.messages.set_state(message_id, State.RECEIVED, NOW)
        tx.jobs.enqueue(JobKind.UNWRAP, message_id)
        tx.audit.add(NOW, "gateway", "message.received", message_id)

    with open_store(folder) as store:
        store.write_blocking(on_its_way)
        head = make_head(store)
    return folder, head


def test_the_untouched_log_holds(original: tuple[Path, TreeHead]) -> None:
    folder, head = original
    assert findings(folder, head) == []


@pytest.mark.parametrize("name", FORGERIES)
def test_each_is_named(original: tuple[Path, TreeHead], tmp_path: Path, name: str) -> None:
    folder, head = original
    shutil.copytree(folder, tmp_path / "copy")
    forge, said = FORGERIES[name]
    forger = Forger(tmp_path / "copy")
    forge(forger)
    forger.done()
    for against in ((), (head,)):
        found = findings(tmp_path / "copy", *against)
        assert any(said in line for line in found), found


def test_two_accounts_that_exchange_their_ids_are_named(tmp_path: Path) -> None:
    """The rights hang on the id: mallory would have read alice's mail with his own password."""
    practice(tmp_path)

    def mallory(tx: UnitOfWork) -> None:
        account = tx.accounts.add("mallory", "his own", NOW)
        digest = "98f4a0ef5ea2e2cb1a9b4cd0f8ad1d0b"
        tx.audit.add(NOW, "operator", "account.added", "mallory", {"account": account, "hash_sha256": digest})

    with open_store(tmp_path) as store:
        store.write_blocking(mallory)
    forger = Forger(tmp_path)
    for old, new in ((1, 9), (2, 1), (9, 2)):
        forger.run("UPDATE account SET id = ? WHERE id = ?", values=(new, old))
    forger.done()
    assert sum("the login of account" in line for line in findings(tmp_path)) == 2


def test_a_key_that_everybody_knows_opens_and_seals_nothing(tmp_path: Path) -> None:
    """The proof of a KEK is a value that stands in our source, wrapped: it must not serve as the key of a message."""
    practice(tmp_path)
    forger = Forger(tmp_path)
    forger.run("UPDATE wrapped_key SET wrapped = (SELECT proof FROM key_encryption_key)")
    [message_id] = forger.connection.execute("SELECT min(id) FROM raw_message").fetchone()
    forger.done()
    with open_store(tmp_path) as store:
        with pytest.raises(StoreError, match="replaced by one that is known"):
            store.read_blocking(lambda tx: tx.messages.raw(message_id))
        with pytest.raises(StoreError, match="replaced by one that is known"):
            # What would be sealed now could be read by whoever put that key there.
            store.read_blocking(lambda tx: tx.messages._bodies.key_of(message_id))  # type: ignore[attr-defined]
