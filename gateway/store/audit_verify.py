"""``audit verify``: reads the whole audit log and every row that it answers for, and says what does not hold.

What somebody who may write the database file can do, and what shows it:

* alter, insert, swap or remove an event: the chain of its node breaks there;
* remove or alter a message, a verdict, a state, a link, a setting: its event answers for it by a digest;
* put in a row, with its triggers or without: no event answers for it;
* do any of this and make the chain anew from there on: the stored subtrees and the signed heads no longer fit;
* make these anew as well: the signatures of the heads do not hold, for he has not the key; and if he drops the heads,
  or cuts the log back to an older head, or puts an older copy of the whole file in place, then only a head that was
  kept *elsewhere* shows it (``against``), because the file by itself is a log that once was true. The same holds for
  one who has the signing key as well;
* take away or alter a trigger: it is named, unless he puts it back; a trigger or a view of his own is named as well;
* put in an event that no chain reaches (number 0, or one that was stepped over): it is counted, and named;
* overwrite or exchange the wrapped key of a message: its body does not open, where the keys are at hand to try;
* damage the file: SQLite's own check finds pages that do not fit, and the digests find bytes that do.

What was added after the newest head that somebody keeps elsewhere is protected by the chain alone: whoever can write
the file can cut the log there. That is why heads are made often, and copied away.

Nothing is written. All of it is one read snapshot, so mail may go on beside it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, func, select, text
from sqlalchemy.exc import DBAPIError

from gateway.core.audit import GENESIS, AuditEvent, next_hash
from gateway.core.errors import ConfigurationError, GatewayError, InputError, TamperedError
from gateway.core.merkle import Frontier, leaf_hash
from gateway.core.tree_head import TreeHead, from_text
from gateway.ports import BodySealer
from gateway.settings import StoreSettings
from gateway.store.audit_bodies_check import BodiesCheck, BodiesLooked
from gateway.store.audit_counters_check import check_counters
from gateway.store.audit_log import event_of
from gateway.store.audit_rows_check import RowsCheck
from gateway.store.audit_shown_check import check_shown
from gateway.store.audit_tree import BLOCK_LEVEL, AuditTree
from gateway.store.audit_views_check import check_views
from gateway.store.copying_marker import refuse_unfinished
from gateway.store.database_errors import as_gateway_error, is_fatal
from gateway.store.guards import strangers, unsound_guards
from gateway.store.opening import open_database
from gateway.store.schema_versions import found_schema, refuse_other
from gateway.store.tables import audit_event, audit_tree_node

_PAGE = 1_000
_NAMED = 5
"""Of one kind of finding so many are named."""
MAX_FINDINGS = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold. ``node`` is empty where no event can be named."""

    node: str
    seq: int
    what: str

    def __str__(self) -> str:
        return f"event {self.node}/{self.seq}: {self.what}" if self.node else self.what


@dataclass(slots=True)
class LogReport:
    """What was looked at, and what was found."""

    events: int = 0
    rows: int = 0
    heads: int = 0
    leaves: int = 0
    """Events that the tree holds; later ones are protected by the chain only until the next head."""
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0
    bodies: BodiesLooked | None = None
    """What was opened of the bodies; None when nobody asked for it."""


@dataclass(frozen=True, slots=True)
class Witnesses:
    """What the log is held against besides itself."""

    check_signature: Callable[[TreeHead], None]
    """Raises TamperedError for a head that no known key has signed."""
    against: Sequence[TreeHead] = ()
    """Heads that were kept elsewhere."""
    sealer: BodySealer | None = None
    """What opens the bodies. None: they are not opened."""
    every_part: bool = False
    """Whether all of each body is opened, and not its first part only."""


def verify_store(
    settings: StoreSettings, witnesses: Witnesses, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> LogReport:
    """Verify the log of a database without a change to it.

    Args:
        settings: where the database is.
        witnesses: the keys, and the heads from elsewhere.
        progress: told of events done and events in all, now and then.

    Raises:
        ConfigurationError: it is no database of ours. StoreUnavailableError: it does not answer now.
    """
    database = open_database(settings, daemon=False)
    try:
        with database.reader.begin() as connection:
            with suppress(DBAPIError):  # What is damaged is told below.
                refuse_unfinished(connection)
            return verify_snapshot(connection, witnesses, progress)
    except (DBAPIError, sqlite3.DatabaseError) as exc:
        if is_fatal(exc):
            return LogReport(findings=[Finding("", 0, "the file is damaged: it cannot be opened as a database")])
        raise as_gateway_error(exc) from exc
    finally:
        database.close()


def verify_snapshot(
    connection: Connection, witnesses: Witnesses, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> LogReport:
    """As :func:`verify_store`, of the snapshot of a transaction that is open. Raises ConfigurationError, DBAPIError."""
    return _Verification(connection, witnesses, progress).run()


class _Verification:
    def __init__(self, connection: Connection, witnesses: Witnesses, progress: Callable[[int, int], None]) -> None:
        self._connection = connection
        self._witnesses = witnesses
        self._progress = progress
        self._tree = AuditTree(connection)
        self._report = LogReport()
        self._rows = RowsCheck(connection, self._found)
        self._frontier = Frontier(self._subtree_complete)
        self._subtrees = 0
        self._newest: dict[str, tuple[int, bytes]] = {}
        """Number and hash of the last event that was seen of each node."""
        self._heads: dict[int, list[tuple[str, TreeHead]]] = {}
        """Heads by size, each with its name, until the walk gets there."""

    def run(self) -> LogReport:
        """Everything, each part by itself: damage in one must not hide the others."""
        log = (self._file, self._guards, self._read_heads, self._walk, self._tree_ends)
        for part in (*log, self._rest, self._views, self._bodies):
            try:
                part()
            except (DBAPIError, TypeError, ValueError, GatewayError) as exc:
                if isinstance(exc, ConfigurationError):
                    raise
                self._found("", 0, f"the database cannot be read ({part.__name__.strip('_')}: {type(exc).__name__})")
        return self._report

    def _found(self, node: str, seq: int, what: str) -> None:
        if len(self._report.findings) < MAX_FINDINGS:
            self._report.findings.append(Finding(node, seq, what))
        else:
            self._report.more_findings += 1

    # --- the file ---

    def _file(self) -> None:
        if self._connection.dialect.name == "sqlite":
            for line in self._connection.execute(text(f"PRAGMA integrity_check({MAX_FINDINGS})")).scalars():
                if line != "ok":
                    self._found("", 0, f"the file is damaged: {line}")
        found = found_schema(self._connection)
        if found is None:
            raise ConfigurationError("store.url: the database has no tables")
        refuse_other(found)

    def _guards(self) -> None:
        for name in unsound_guards(self._connection):
            self._found("", 0, f"the guard {name} is missing or was altered")
        for what in strangers(self._connection):
            self._found("", 0, f"the {what} is none of this program: it was put there past the gateway")

    # --- heads ---

    def _read_heads(self) -> None:
        previous = 0
        for number, size, head_text in self._tree.heads():
            name = f"the signed head number {number}"
            if number != previous + 1:
                self._found("", 0, f"signed heads are missing between number {previous} and number {number}")
            previous = number
            try:
                head = from_text(head_text)
                self._witnesses.check_signature(head)
            except (InputError, TamperedError) as exc:
                self._found("", 0, f"{name} does not hold: {exc}")
                continue
            if head.size != size:
                self._found("", 0, f"{name} was filed under another size than it says")
            self._report.heads += 1
            self._heads.setdefault(head.size, []).append((name, head))
        for head in self._witnesses.against:
            name = f"the head of {head.at:%Y-%m-%d %H:%M:%SZ} that was kept elsewhere"
            try:
                self._witnesses.check_signature(head)
            except TamperedError as exc:
                self._found("", 0, f"{name} does not hold: {exc}")
                continue
            self._heads.setdefault(head.size, []).append((name, head))

    def _compare_heads(self) -> None:
        for name, head in self._heads.pop(self._frontier.size, []):
            if head.root != self._frontier.root():
                self._found("", 0, f"the first {head.size} events are not those of {name}: the log was rewritten")

    # --- events ---

    def _walk(self) -> None:
        total = self._connection.scalar(select(func.count()).select_from(audit_event)) or 0
        self._compare_heads()
        for page in self._pages():
            self._rows.events(page)
            self._report.events += len(page)
            self._report.rows = self._rows.rows
            self._progress(self._report.events, total)
        if total != self._report.events:
            self._name_unread(total - self._report.events)

    def _name_unread(self, count: int) -> None:
        """Events that no chain holds: a number below the first one, or one that the chain steps over.

        They would be shown in lists, and could answer for rows that nobody wrote.
        """
        self._found("", 0, f"{count} events are in no chain: they were put there past the gateway")
        for node, (last, _) in sorted(self._newest.items()):
            outside = audit_event.c.node == node, (audit_event.c.seq < 1) | (audit_event.c.seq > last)
            for seq in self._connection.execute(select(audit_event.c.seq).where(*outside).limit(_NAMED)).scalars():
                self._found(node, seq, "it is in no chain: it was put there past the gateway")

    def _pages(self) -> Iterator[list[AuditEvent]]:
        """Every event, checked against its chain: first those of the tree in its order, then the rest of each node."""
        for span in self._tree.spans():
            if span.start != self._frontier.size:
                self._found(span.node, span.first_seq, "the order of the tree has a gap before it")
            yield from self._node_pages(span.node, span.first_seq, span.first_seq + span.count - 1)
        self._report.leaves = self._frontier.size
        nodes = self._connection.execute(select(audit_event.c.node).distinct().order_by(audit_event.c.node)).scalars()
        for node in nodes.all():
            first = self._newest.get(node, (0, b""))[0] + 1
            yield from self._tail_pages(node, first)

    def _node_pages(self, node: str, first: int, last: int) -> Iterator[list[AuditEvent]]:
        """A span: each of its numbers must be there, and becomes a leaf."""
        while first <= last:
            stop = min(last, first + _PAGE - 1)
            events = {event.seq: event for event in self._read(node, first, stop)}
            page = []
            for seq in range(first, stop + 1):
                event = events.get(seq)
                if event is None:
                    self._found(node, seq, "it is missing")
                    self._newest[node] = seq, bytes(32)
                else:
                    self._chain(event)
                    page.append(event)
                self._frontier.append(leaf_hash(self._newest[node][1]))
                self._compare_heads()
            yield page
            first = stop + 1

    def _tail_pages(self, node: str, first: int) -> Iterator[list[AuditEvent]]:
        """What came after the tree: as far as it goes, without a gap."""
        while events := self._read(node, first, None):
            for event in events:
                self._chain(event)
            yield events
            first = events[-1].seq + 1

    def _read(self, node: str, first: int, last: int | None) -> list[AuditEvent]:
        query = select(audit_event).where(audit_event.c.node == node, audit_event.c.seq >= first)
        if last is not None:
            query = query.where(audit_event.c.seq <= last)
        query = query.order_by(audit_event.c.seq).limit(_PAGE)
        try:
            return [event_of(row) for row in self._connection.execute(query)]
        except (DBAPIError, TypeError, ValueError):
            return list(self._readable(node, query))

    def _readable(self, node: str, query: Select[Any]) -> Iterator[AuditEvent]:
        """The events of a page one by one: one of them holds what no event can, and is named."""
        for seq in self._connection.execute(query.with_only_columns(audit_event.c.seq)).scalars().all():
            one = select(audit_event).where(audit_event.c.node == node, audit_event.c.seq == seq)
            try:
                yield event_of(self._connection.execute(one).one())
            except (DBAPIError, TypeError, ValueError):
                self._found(node, seq, "it cannot be read: it was altered")

    def _chain(self, event: AuditEvent) -> None:
        before, previous = self._newest.get(event.node, (0, GENESIS))
        if event.seq != before + 1:
            # Also where the hash fits: an event that the chain steps over would be seen by nobody.
            self._found(event.node, event.seq, f"events are missing before it, or it is not the one after {before}")
        self._newest[event.node] = event.seq, bytes(event.hash)
        if bytes(event.hash) != next_hash(previous, event.canonical()):
            follows = f"does not follow event {event.node}/{before}" if before else "is no first event"
            self._found(event.node, event.seq, f"the chain breaks: it was altered, or it {follows} ({event.action})")

    # --- the tree ---

    def _subtree_complete(self, level: int, index: int, digest: bytes) -> None:
        if level < BLOCK_LEVEL:
            return
        self._subtrees += 1
        stored = self._connection.scalar(
            select(audit_tree_node.c.hash).where(audit_tree_node.c.level == level, audit_tree_node.c.position == index)
        )
        if stored is None or bytes(stored) != digest:
            first = index << level
            what = "is missing" if stored is None else "does not fit the events"
            self._found("", 0, f"the stored subtree of {1 << level} events from leaf {first} on {what}")

    def _tree_ends(self) -> None:
        stored = self._connection.scalar(select(func.count()).select_from(audit_tree_node)) or 0
        if stored > self._subtrees:
            self._found("", 0, f"{stored - self._subtrees} stored subtrees are of no events")
        # The walk has passed every size up to the last one, and has taken the heads of that size away.
        for name, head in (pair for heads in self._heads.values() for pair in heads):
            self._found("", 0, _cut_off(name, head.size, self._frontier.size))

    def _rest(self) -> None:
        """Rows that no event answers for: last, because events that are gone leave many of them behind."""
        self._rows.finish()

    def _views(self) -> None:
        """What mail clients are told of each message."""
        check_views(self._connection, self._found)
        check_counters(self._connection, self._found)
        check_shown(self._connection, self._found)

    def _bodies(self) -> None:
        """Bodies and their keys, where the keys are at hand."""
        sealer = self._witnesses.sealer
        if sealer is not None:
            check = BodiesCheck(self._connection, sealer, self._found, every_part=self._witnesses.every_part)
            self._report.bodies = check.looked
            check.run()


def _cut_off(name: str, size: int, found: int) -> str:
    return (
        f"{name} is of {size} events, and the log has {found} in its tree: the end was cut off, or an older copy of "
        f"the database was put in place"
    )
