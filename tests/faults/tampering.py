"""A store with something of everything, a forger with write access to its file, and the verifier (F29)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.dialects import sqlite

from gateway.auditing.heads import TreeHeads
from gateway.core.audit import GENESIS, AuditEvent, canonical_bytes, next_hash, row_digest, rows_of, rows_text
from gateway.core.lifecycle import State
from gateway.core.standing import Standing
from gateway.core.tree_head import TreeHead
from gateway.keys.head_signing import HeadSigner
from gateway.ports import Link, UnitOfWork
from gateway.store.audit_rows_check import password_digest
from gateway.store.audit_verify import LogReport, Witnesses, verify_store
from gateway.store.facts import fact
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from gateway.store.tables import metadata
from tests.support.store_samples import (
    ALICE,
    NOW,
    SteadyClock,
    accepted,
    inbound,
    indexed,
    open_store,
    patient,
    rejected,
    settings_for,
)

# ruff: noqa: S608 - the names are our own, and SQL is what is tested
SIGNER = HeadSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
DIALECT = sqlite.dialect()
HASH = "$argon2id$v=19$m=1,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g"


def fill(store: SQLStore, messages: int = 3) -> None:
    """Several units of work, each with its events, as the gateway writes them."""

    def desk(tx: UnitOfWork) -> None:
        mailbox = tx.mailboxes.create("INBOX", NOW, [ALICE])
        account = tx.accounts.add("alice", HASH, NOW)
        tx.accounts.grant(account, "INBOX", mailbox, "lrs")
        digest = password_digest(HASH)
        tx.audit.add(NOW, "operator", "account.added", "alice", {"account": account, "hash_sha256": digest})
        tx.patients.upsert([patient()], "csv", NOW)
        tx.audit.add(NOW, "operator", "patients.imported", "csv", {"patients": 1})

    store.write_blocking(desk)
    for number in range(messages):
        store.write_blocking(lambda tx, n=number: _message(tx, n))  # type: ignore[misc]


def _message(tx: UnitOfWork, number: int) -> None:
    message_id = new_id(NOW)
    tx.messages.add_raw(message_id, NOW, inbound(b"raw %d" % number))
    tx.messages.set_state(message_id, State.RECEIVED, NOW)
    tx.audit.add(NOW, "gateway", "message.received", message_id, {"number": number})
    if number == 1:
        tx.messages.add_verdict(message_id, NOW, rejected())
        tx.messages.set_state(message_id, State.REFUSED, NOW, "untrusted")
        tx.audit.add(NOW, "gateway", "message.refused", message_id)
        return
    judgement = accepted(ALICE, content=b"content %d" % number)
    tx.messages.add_verdict(message_id, NOW, judgement)
    tx.messages.add_content(message_id, judgement)
    tx.messages.set_state(message_id, State.UNWRAPPED, NOW)
    tx.audit.add(NOW, "gateway", "message.accepted", message_id)
    [mailbox_id] = tx.mailboxes.for_recipient(ALICE)
    sha256, standing = judgement.content_sha256, Standing(linked=True, decided=True)
    tx.mailboxes.add(mailbox_id, message_id, sha256, indexed(), NOW, standing=standing)
    tx.messages.set_state(message_id, State.FILED, NOW)
    tx.audit.add(NOW, "gateway", "message.filed", message_id)
    tx.links.add(Link(f"L{number}", message_id, "P1", "manual", "olga", "by hand", NOW))
    tx.messages.set_state(message_id, State.LINKED, NOW)
    tx.audit.add(NOW, "olga", "message.linked", message_id, {"link": f"L{number}"})


def make_head(store: SQLStore) -> TreeHead:
    return asyncio.run(TreeHeads(store, SteadyClock(), SIGNER, None).make())


def practice(folder: Path, *, messages: int = 3, heads: int = 1) -> TreeHead | None:
    """A closed database with everything checkpointed into its one file; returns the last head."""
    head = None
    with open_store(folder) as store:
        fill(store, messages)
        for _ in range(heads):
            head = make_head(store)
    connection = sqlite3.connect(folder / "gateway.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return head


def verify(folder: Path, *against: TreeHead) -> LogReport:
    return verify_store(settings_for(folder), Witnesses(SIGNER.check, against))


def findings(folder: Path, *against: TreeHead) -> list[str]:
    return [str(finding) for finding in verify(folder, *against).findings]


class Forger:
    """Writes into the file past the gateway: no pragma of ours, no trigger, no foreign key."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gateway.db"
        self.connection = sqlite3.connect(self.path, isolation_level=None)
        # One transaction: a commit for each trigger would sync the disk a hundred times.
        self.connection.execute("BEGIN IMMEDIATE")
        triggers = self.connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        self._triggers = [sql for _, sql in triggers]
        for name, _ in triggers:
            self.connection.execute(f"DROP TRIGGER {name}")

    def run(self, *statements: str, values: Sequence[object] = ()) -> None:
        for statement in statements:
            self.connection.execute(statement, values)

    def done(self) -> None:
        """Put the triggers back, as a careful forger does."""
        for sql in self._triggers:
            self.connection.execute(sql)
        self.connection.execute("COMMIT")
        self.connection.close()

    def events(self) -> list[AuditEvent]:
        rows = self.connection.execute(
            "SELECT node, seq, at, actor, action, subject, detail, hash, rows FROM audit_event ORDER BY seq"
        ).fetchall()
        return [AuditEvent(r[0], r[1], datetime.fromisoformat(r[2]), *r[3:]) for r in rows]

    def make_chain_anew(self) -> None:
        """Every row digest and every hash as if what stands there now had been written so."""
        previous = GENESIS
        for seq, event in enumerate(self.events(), 1):
            rows = rows_text(self._as_now(row) for row in rows_of(event.rows) if self._is_there(row))
            canonical = canonical_bytes(
                node=event.node,
                seq=seq,
                at=event.at,
                actor=event.actor,
                action=event.action,
                subject=event.subject,
                detail=event.detail,
                rows=rows,
            )
            previous = next_hash(previous, canonical)
            values = (seq, previous, rows, event.seq)
            self.run("UPDATE audit_event SET seq = -?1, hash = ?2, rows = ?3 WHERE seq = ?4", values=values)
        self.run("UPDATE audit_event SET seq = -seq")

    def _where(self, name: str) -> str:
        return " AND ".join(f"{column.name} = ?" for column in metadata.tables[name].primary_key)

    def _is_there(self, row: tuple[str, tuple[str | int, ...], str]) -> bool:
        name, key, _ = row
        return self.connection.execute(f"SELECT 1 FROM {name} WHERE {self._where(name)}", key).fetchone() is not None

    def _as_now(self, row: tuple[str, tuple[str | int, ...], str]) -> tuple[str, tuple[str | int, ...], str]:
        name, key, _ = row
        table = metadata.tables[name]
        stored = self.connection.execute(f"SELECT * FROM {name} WHERE {self._where(name)}", key).fetchone()
        names = [c[0] for c in self.connection.execute(f"SELECT * FROM {name} LIMIT 0").description]
        values = {}
        for column_name, value in zip(names, stored, strict=True):
            kind = table.c[column_name].type.dialect_impl(DIALECT)
            convert = kind.result_processor(DIALECT, None)
            values[column_name] = convert(value) if convert is not None else value
        found = fact(table, values)
        assert found[2] == row_digest(name, values)
        return found

    def make_tree_anew(self, signer: HeadSigner | None) -> None:
        """Subtrees and heads of what stands there now; without the key only the heads are dropped."""
        self.run("DELETE FROM audit_tree_span", "DELETE FROM audit_tree_node", "DELETE FROM audit_tree_head")
        self.done()
        if signer is not None:
            with open_store(self.path.parent) as store:
                asyncio.run(TreeHeads(store, SteadyClock(), signer, None).make())
