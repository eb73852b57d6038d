"""A store with rows in every table that hold what is hard to copy, made from the tables themselves.

A table that is added later is filled as well, without a change here. The rows are written through units of work, so
the audit log answers for them, and ``audit verify`` holds.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, Table, UniqueConstraint, insert

from gateway.auditing.heads import TreeHeads
from gateway.core.verdict_fields import FORMAT, verdict_fields
from gateway.keys.head_signing import HeadSigner
from gateway.ports import UnitOfWork
from gateway.store.audit_rows_check import password_digest
from gateway.store.audit_verify import Witnesses
from gateway.store.sql_store import SQLStore
from gateway.store.tables import UTCTime, metadata
from tests.support.store_samples import NOW, SteadyClock

SETS = 3
LEFT_OUT = frozenset({"schema_version", "audit_event", "audit_tree_span", "audit_tree_node", "audit_tree_head"})
"""Filled by working with the store."""
TEXTS = (
    "",
    "plain",
    "\U0001d518n\u00efcode \U0001fa7a \u202e\ufffd \\N \\. \\x41 \t\r\n\v\f\x1f\x7f \"'%s :k0 ${}",
)
BLOBS = (b"", bytes(range(256)) * 3, b"\\N\\.\n\t" + b"\0" * 70_000)
TIMES = (
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    NOW + timedelta(microseconds=1),
)
_LARGEST = 2**63 - 1
SIGNER = HeadSigner(Ed25519PrivateKey.generate())
WITNESSES = Witnesses(SIGNER.check)


def fill_with_odd_rows(store: SQLStore) -> None:
    """At least :data:`SETS` rows in every table, and a signed head over more than one block of events."""

    def work(tx: UnitOfWork) -> None:
        held: Any = tx.audit
        made: dict[str, list[dict[str, Any]]] = {}
        for table in metadata.sorted_tables:
            if table.name not in LEFT_OUT:
                made[table.name] = [_row(table, number, made) for number in range(SETS)]
                held._connection.execute(insert(table), made[table.name])
        # Each message of a mailbox has left one view, and stands in the other: it is on no chart.
        stands = [{**row, "view": "unlinked"} for row in made["view_entry"]]
        held._connection.execute(insert(metadata.tables["view_entry"]), stands)
        for row in made["account"]:
            known = {"account": row["id"], "hash_sha256": password_digest(row["password_hash"])}
            tx.audit.add(NOW, "cli:admin", "account.added", row["login"], known)
        for row in sorted(made["key_encryption_key"], key=lambda row: row["seq"])[1:]:
            tx.audit.add(NOW, "cli:admin", "keys.rotation_begun", row["kek_id"])
        for number in range(260):
            tx.audit.add(TIMES[number % 3], TEXTS[number % 3], "test", TEXTS[2], {"text": TEXTS[2], "n": 2**70})

    store.write_blocking(work)
    asyncio.run(TreeHeads(store, SteadyClock(), SIGNER, None).make())
    store.write_blocking(lambda tx: tx.audit.add(NOW, "user", "after.the.head", ""))


def _row(table: Table, number: int, made: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for constraint in table.foreign_key_constraints:
        for element in constraint.elements:
            row[element.parent.name] = made[element.column.table.name][number][element.column.name]
    for column in table.columns:
        if column.name not in row:
            row[column.name] = _value(table, column, number)
    if table.info.get("by_digest"):
        [key], [said] = table.primary_key, [c for c in table.c if not c.primary_key]
        value = row[said.name]
        row[key.name] = hashlib.sha256(value if isinstance(value, bytes) else value.encode()).hexdigest()
    if (table.name, "state") == ("message_state", "state"):
        row["state"] = "refused"
    if table.name == "account":
        row["login_key"] = row["login"].casefold()
    if table.name == "mailbox_flag":
        row["flags"] += " $DirectVerified"
    if table.name in {"view_entry", "view_exit"}:
        row["view"] = "linked"
    # What is shown to mail clients counts on: no UID and no MODSEQ is beyond its counter, and a view begins at 1.
    if table.name == "mailbox_counter":
        row |= {"uid_next": _LARGEST, "highest_modseq": _LARGEST}
    if table.name == "mailbox_message":
        row["uid"] = min(row["uid"], _LARGEST - 1)
    if table.name == "view_entry":
        row["uid"] = 1
    # What mail clients are shown of a verdict is what it says.
    if table.name == "verdict":
        row["judgement"] = json.dumps(_evidence(number), ensure_ascii=False)
    if table.name == "shown_fields":
        told = verdict_fields(
            _evidence(number), message_id=row["message_id"], verified_at=TIMES[number], link="undecided"
        )
        row |= {"format": FORMAT, "fields": told}
    return row


def _evidence(number: int) -> dict[str, Any]:
    """A verdict as it is stored, as far as mail clients are told of it."""
    text = TEXTS[number]
    trust = [{"reason": "ok", "anchor_sha256": text, "anchor_sources": [text]}]
    signer = {"identity": text, "sha256": text}
    told = {"verdict": "accepted", "sender": text, "signer": signer, "trust": trust, "policy_version": text}
    return {"format": 2, **told}


def _value(table: Table, column: Column[Any], number: int) -> Any:
    """Odd, and another one in each row where a key needs that."""
    if column.nullable and number == 0:
        return None
    unique = column.primary_key or column.unique or _in_unique_constraint(table, column)
    if isinstance(column.type, UTCTime):
        return TIMES[number]
    if isinstance(column.type, Boolean):
        return bool(number % 2)
    if isinstance(column.type, LargeBinary):
        # What is wrapped must not be a proof.
        return b"proof" + BLOBS[number] if column.name == "proof" else BLOBS[number]
    if table.autoincrement_column is column:
        return (5, 70_001, 70_003)[number]
    if isinstance(column.type, BigInteger):
        return (0, 2**63 - 1, 1)[number]
    if isinstance(column.type, Integer):
        return (0, 2**31 - 1, 1)[number]
    return f"{TEXTS[number]}{number}" if unique else TEXTS[number]


def _in_unique_constraint(table: Table, column: Column[Any]) -> bool:
    return any(column.name in u.columns for u in table.constraints if isinstance(u, UniqueConstraint))
