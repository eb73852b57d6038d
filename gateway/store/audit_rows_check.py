"""``audit verify``, second half: whether the rows are what the audit log says of them.

Every event lists the rows that were written with it, with their digests (:mod:`gateway.store.facts`). So

* a row that was altered, whichever column, has another digest than its event says;
* a row that was removed is missing at its event;
* a row that was put in past the gateway is in no event: the table has more rows than the log lists. Only then is the
  log read again, to name it.

The mutable tables that decide something are held against what they repeat: the quarantine against the states and the
verdicts, the keys of bodies against the bodies, the jobs against the states that wait for them, the accounts (which
login has which id and which hash) against the events that set them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, Table, and_, func, select, tuple_
from sqlalchemy.exc import DBAPIError

from gateway.core.audit import AuditEvent, Row, rows_of
from gateway.core.lifecycle import JobKind, State
from gateway.store.accounts import login_key
from gateway.store.audit_keys_check import KEY_EVENTS, KeyUseCheck
from gateway.store.facts import fact, is_fact
from gateway.store.quarantine_folder import FOLDER
from gateway.store.tables import (
    account,
    audit_event,
    body_object,
    body_part,
    job,
    key_encryption_key,
    mailbox,
    message_state,
    metadata,
    quarantine,
    quarantine_entry,
    quarantine_exit,
    verdict,
    wrapped_key,
)


@dataclass(frozen=True, slots=True)
class _KnownAccount:
    """What the log says of an account."""

    at: datetime
    id: int
    hash_digest: str


Report = Callable[[str, int, str], None]
"""``(node, seq, what is wrong)``; without an event: ``("", 0, ...)``."""

_CHUNK = 200
_NAMED = 5
"""Rows of one kind of finding that are named; what is wrong with a thousand is told by the first."""
_NEXT_STEPS = {State.RECEIVED: JobKind.UNWRAP, State.UNWRAPPED: JobKind.FILE}
"""The states that are no end, each with the job that must be there (:mod:`gateway.core.lifecycle`)."""
PASSWORD_EVENTS = frozenset({"account.added", "account.password_changed"})


class RowsCheck:
    """Holds the rows against the events. Give it the events in order, page by page, and ``finish`` at the end."""

    def __init__(self, connection: Connection, report: Report) -> None:
        self._connection = connection
        self._report = report
        self._listed: Counter[str] = Counter()
        self._newest_seq: dict[str, int] = {}
        self._accounts: dict[str, _KnownAccount] = {}
        self._keks = KeyUseCheck()
        self.rows = 0
        """Rows that were looked at."""

    def events(self, page: Iterable[AuditEvent]) -> None:
        """Look at every row that these events answer for."""
        wanted: dict[str, list[tuple[Row, AuditEvent]]] = {}
        for event in page:
            self._newest_seq[event.node] = event.seq
            if event.action in PASSWORD_EVENTS:
                self._note_account(event)
            elif event.action in KEY_EVENTS:
                self._keks.note(event)
            try:
                rows = rows_of(event.rows)
            except ValueError:
                self._report(event.node, event.seq, "its list of rows cannot be read")
                continue
            for row in rows:
                wanted.setdefault(row[0], []).append((row, event))
        for name, pairs in wanted.items():
            self._listed[name] += len(pairs)
            self.rows += len(pairs)
            table = metadata.tables.get(name)
            if table is None or not is_fact(table):
                event = pairs[0][1]
                self._report(event.node, event.seq, f"it answers for a table that is not there ({name})")
                continue
            for start in range(0, len(pairs), _CHUNK):
                self._compare(table, pairs[start : start + _CHUNK])

    def _compare(self, table: Table, pairs: list[tuple[Row, AuditEvent]]) -> None:
        try:
            found = self._digests(table, [row[1] for row, _ in pairs])
        except (DBAPIError, TypeError, ValueError):
            # One of them holds what its column cannot: text that is none, a time that is none.
            found = {}
            for row, event in list(pairs):
                try:
                    found |= self._digests(table, [row[1]])
                except (DBAPIError, TypeError, ValueError):
                    self._report(
                        event.node, event.seq, f"the row {_named(*row[:2])} that it answers for cannot be read"
                    )
                    pairs = [pair for pair in pairs if pair[0] != row]
        for (name, key, digest), event in pairs:
            if key not in found:
                what = f"the row {_named(name, key)} that it answers for is gone"
            elif found[key] != digest:
                what = f"the row {_named(name, key)} that it answers for was altered"
            else:
                continue
            self._report(event.node, event.seq, f"{what} ({event.action} {event.subject})".rstrip())

    def _digests(self, table: Table, keys: list[tuple[str | int, ...]]) -> dict[tuple[str | int, ...], str]:
        """The digests of the rows that are there, by key."""
        found = {}
        for stored in self._connection.execute(_by_keys(table, keys)).mappings():
            _, key, digest = fact(table, {column.name: stored[column.name] for column in table.c})
            found[key] = digest
        return found

    def finish(self) -> None:
        """Look for rows that no event answers for, and for mutable rows that contradict the others."""
        for table in metadata.sorted_tables:
            if is_fact(table) and not table.info["by_digest"]:
                count = self._connection.scalar(select(func.count()).select_from(table)) or 0
                if count > self._listed[table.name]:
                    self._name_strangers(table)
        self._check_digests()
        self._check_quarantine()
        self._check_jobs()
        self._check_keys()
        self._check_accounts()

    def _name_strangers(self, table: Table) -> None:
        events = select(audit_event.c.node, audit_event.c.seq, audit_event.c.rows).where(audit_event.c.rows != "")
        known = {
            row[1]
            for node, seq, text in self._connection.execute(events)
            # An event that the walk has not passed is in no chain, and answers for nothing.
            if 1 <= seq <= self._newest_seq.get(node, 0)
            for row in _rows_or_none(text)
            if row[0] == table.name
        }
        named = 0
        for stored in self._connection.execute(select(*table.primary_key).order_by(*table.primary_key)):
            if tuple(stored) not in known and named < _NAMED:
                named += 1
                what = f"the row {_named(table.name, tuple(stored))} is in no event: it was put there past the gateway"
                self._report("", 0, what)
        if not named:
            # Never silent: the table has more rows than the log answers for.
            self._report("", 0, f"the table {table.name} has rows that are in no event")

    def _check_digests(self) -> None:
        """Rows that go by the digest of what they say, which is not written again where it is: they must say that."""
        for table in metadata.sorted_tables:
            if not is_fact(table) or not table.info["by_digest"]:
                continue
            [key], [said] = table.primary_key, [column for column in table.c if not column.primary_key]
            named = 0
            rows = self._connection.execute(select(key, said), execution_options={"yield_per": _CHUNK})
            for digest, value in rows:
                data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
                if hashlib.sha256(data).hexdigest() != digest and named < _NAMED:
                    named += 1
                    self._report("", 0, f"the row {_named(table.name, (digest,))} is not what its digest says")

    def _check_quarantine(self) -> None:
        newest = select(message_state.c.message_id, func.max(message_state.c.seq).label("seq")).group_by(
            message_state.c.message_id
        )
        last = newest.subquery()
        refused = (
            select(message_state.c.message_id)
            .join(last, and_(last.c.message_id == message_state.c.message_id, last.c.seq == message_state.c.seq))
            .where(message_state.c.state == "refused")
        )
        listed = select(quarantine.c.message_id)
        self._name(listed.except_(refused), "is in the quarantine and is not refused by its states")
        self._name(refused.except_(listed), "is refused by its states and was taken out of the quarantine")
        reported = (
            select(quarantine_entry.c.message_id)
            .join(quarantine_exit, quarantine_exit.c.uid == quarantine_entry.c.uid, isouter=True)
            .where(quarantine_exit.c.uid.is_(None))
        )
        self._name(reported.except_(listed), "has a report in the quarantine folder and is not in the quarantine")
        if self._connection.scalar(select(mailbox.c.id).where(mailbox.c.name == FOLDER)) is not None:
            self._name(listed.except_(reported), "is in the quarantine and has no report in its folder")
        judged = select(verdict.c.message_id, func.max(verdict.c.seq).label("seq")).group_by(verdict.c.message_id)
        newest_verdict = judged.subquery()
        other = (
            select(quarantine.c.message_id)
            .join(newest_verdict, newest_verdict.c.message_id == quarantine.c.message_id)
            .join(
                verdict,
                and_(verdict.c.message_id == newest_verdict.c.message_id, verdict.c.seq == newest_verdict.c.seq),
            )
            .where(verdict.c.reason != quarantine.c.reason)
        )
        self._name(other, "is in the quarantine for another reason than its verdict says")

    def _check_jobs(self) -> None:
        """A message that is on its way has the job of its next step; without it, it would lie there for ever."""
        newest = select(message_state.c.message_id, func.max(message_state.c.seq).label("seq")).group_by(
            message_state.c.message_id
        )
        last = newest.subquery()
        for state, kind in _NEXT_STEPS.items():
            waiting = (
                select(message_state.c.message_id)
                .join(last, and_(last.c.message_id == message_state.c.message_id, last.c.seq == message_state.c.seq))
                .where(message_state.c.state == state.value)
            )
            asked = select(job.c.subject).where(job.c.kind == kind.value)
            self._name(waiting.except_(asked), f"is {state.value}, and the job of its next step was taken out")

    def _check_keys(self) -> None:
        keys = select(wrapped_key.c.message_id)
        for bodies in (body_part, body_object):
            gone = select(bodies.c.message_id).except_(keys)
            self._name(gone, "cannot be read any more: its wrapped key is gone")
        unknown = wrapped_key.c.kek_id.not_in(select(key_encryption_key.c.kek_id))
        self._name(select(wrapped_key.c.message_id).where(unknown), "rests on a key that was taken out of the table")
        # What is wrapped in the proof is known to everybody (gateway.store.message_keys).
        proofs = select(key_encryption_key.c.proof)
        known = select(wrapped_key.c.message_id).where(wrapped_key.c.wrapped.in_(proofs))
        self._name(known, "had its key replaced by one that is known")

        for what in self._keks.found(self._connection):
            self._report("", 0, what)

    def _name(self, query: Any, what: str) -> None:
        for message_id in self._connection.execute(query.limit(_NAMED)).scalars():
            self._report("", 0, f"message {message_id} {what}")

    def _note_account(self, event: AuditEvent) -> None:
        """The newest word of the log on an account; nodes take turns in the tree, so the time decides."""
        before = self._accounts.get(event.subject)
        if before is None or before.at <= event.at:
            self._accounts[event.subject] = _KnownAccount(event.at, *_account_of(event))

    def _check_accounts(self) -> None:
        """An account is mutable, so no row of an event holds it: its events say which login has which id and hash."""
        found = set()
        columns = (account.c.id, account.c.login, account.c.login_key, account.c.password_hash)
        for row in self._connection.execute(select(*columns)):
            found.add(row.login)
            known = self._accounts.get(row.login)
            if known is None:
                self._report("", 0, f"account {row.id} is in no event: it was put there past the gateway")
                continue
            if known.hash_digest != password_digest(row.password_hash):
                self._report("", 0, f"the password hash of account {row.id} was replaced past the gateway")
            if row.id != known.id or row.login_key != login_key(row.login):
                # The rights hang on the id: who exchanges two of them exchanges what two people may read.
                self._report("", 0, f"the login of account {row.id} was changed past the gateway")
        for login, known in self._accounts.items():
            if login not in found:
                self._report("", 0, f"account {known.id} was taken out past the gateway")


def password_digest(password_hash: str) -> str:
    """What an event keeps of a password hash: enough to know it again, nothing to find the password by."""
    return hashlib.sha256(password_hash.encode("utf-8")).hexdigest()


def _account_of(event: AuditEvent) -> tuple[int, str]:
    """Id and digest of the hash; what cannot be read is nobody's."""
    try:
        detail = json.loads(event.detail)
        return int(detail["account"]), str(detail["hash_sha256"])
    except (KeyError, TypeError, ValueError):
        return 0, ""


def _rows_or_none(text: str) -> Iterator[Row]:
    try:
        yield from rows_of(text)
    except ValueError:
        return


def _by_keys(table: Table, keys: list[tuple[str | int, ...]]) -> Select[Any]:
    columns = list(table.primary_key)
    if len(columns) == 1:
        return select(table).where(columns[0].in_([key[0] for key in keys]))
    return select(table).where(tuple_(*columns).in_(keys))


def _named(table: str, key: tuple[str | int, ...]) -> str:
    return f"{table} {'/'.join(str(part) for part in key)}"
