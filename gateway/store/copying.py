"""``copy-store``: every row of one store into another, resumable and verified.

Guarantees

* The source is not changed, and nobody can change it meanwhile (:mod:`gateway.store.copying_ends`).
* The target says that it is an unfinished copy until every table was read back and has the digest of the source's, the
  counters of ids stand as high, and its audit log was verified. Until then no gateway and no command opens it.
* Values go over as they are kept: the same ids, UIDs, MODSEQ, times, hashes, sealed bytes and wrapped keys. No key is
  needed and nothing is opened. Bodies that lie in a bucket stay there; their rows are copied.
* The guards of the append-only tables are there from the first row on.

Crash story (killed at any point, run again)

===============================  =====================================================================================
there is then                    the next run
===============================  =====================================================================================
nothing, or empty tables         begins
empty tables with the mark       goes on: each append-only table after its last row; a mutable one is compared
some rows with the mark          the same
all rows with the mark           finds nothing to add, and verifies
no mark, ``store.copied``        says that the copy is complete
===============================  =====================================================================================

When the source has more events than in an earlier run, because the gateway worked on it in between, every table is
compared from its beginning and what is missing is added. A source whose log does not go on from the one that was copied
is refused, and so is a target with rows that no copy left there.

Failure modes: DifferenceError when the two stores differ in the end, TamperedError when the audit log does not hold;
the mark stays. StoreError when one of the databases fails; run it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Table, select

from gateway.core.errors import ConfigurationError
from gateway.observability.clock import SystemClock
from gateway.store.audit_log import AuditLog
from gateway.store.audit_verify import LogReport
from gateway.store.copying_ends import (
    Source,
    held_source,
    kind_of,
    named,
    open_end,
    place_of,
    refuse_gateways_on_target,
    refuse_held_here,
    refuse_same,
    snapshot,
)
from gateway.store.copying_heads import COPIED, heads_digest, missing_event, newest_events, was_copied
from gateway.store.copying_marker import Heads, Mark, find_mark, remove_mark, set_mark
from gateway.store.copying_proof import compare, verify_log
from gateway.store.copying_report import Copying, CopyReport, TableCopy
from gateway.store.copying_rows import (
    add,
    align,
    copied_tables,
    is_mutable,
    last_key,
    rows_of_store,
    transaction,
    what_is_missing,
)
from gateway.store.engines import Database
from gateway.store.id_counters import counters, raise_counters
from gateway.store.opening import init_store, missing_tables
from gateway.store.schema import create_schema
from gateway.store.schema_versions import found_schema, refuse_other
from gateway.store.table_rows import count_rows
from gateway.store.tables import body_object


def copy_store(wanted: Copying, *, dry_run: bool = False) -> CopyReport:
    """Copy, or go on with a copy that was begun, and verify it.

    Raises:
        ConfigurationError: a bad URL, a running gateway, a target that holds something else, another schema.
        DifferenceError: the target is not what the source is. TamperedError: the audit log does not hold.
        StoreError: a database failed or does not answer; what was copied stays, and the next run goes on.
    """
    refuse_same(wanted.source, wanted.target)
    with held_source(wanted.source) as source:
        run = _Run(wanted, source)
        return run.try_out() if dry_run else run.run()


class _Run:
    def __init__(self, wanted: Copying, source: Source) -> None:
        self._wanted = wanted
        self._source = source
        self._heads = newest_events(source.rows)
        self._report = CopyReport(place_of(wanted.source), place_of(wanted.target))

    # --- the course of it ---

    def try_out(self) -> CopyReport:
        """Everything that can be known without a change to the target."""
        report = self._report
        self._count()
        report.log = self._verify_source()
        report.state = "dry run"
        with named("--to"):
            missing = missing_tables(self._wanted.target)
        report.lacks_tables = bool(missing)
        owner = self._wanted.owner_url
        if missing and owner is not None:
            # Who shall make them must answer: better known now than when mail waits.
            with named("--owner-url"):
                missing_tables(replace(self._wanted.target, url=owner, password_file=None))
        if not missing:
            target = open_end(self._wanted.target, "--to")
            try:
                refuse_gateways_on_target(target, self._wanted.target)
                report.resumed, done = self._look(target)
                report.state = "already complete" if done else report.state
            finally:
                target.close()
        return report

    def run(self) -> CopyReport:
        """The copy."""
        target = self._open_target()
        try:
            resumed, done = self._look(target)
            self._report.resumed = resumed
            if done:
                self._report.state = "already complete"
                return self._report
            self._count()
            if not resumed:
                # What does not hold at the source cannot hold at the target: better known now than at the end.
                self._verify_source()
            fast = self._begin(target)
            self._copy(target, fast=fast)
            carry_counters(target, counters(self._source.rows))
            self._require_still_source()
            with closing(snapshot(target)) as rows:
                compare(self._source.rows, rows, self._report.tables, self._wanted.progress)
                self._report.log = verify_log(rows, self._wanted.witnesses, "copy", self._wanted.progress)
            self._require_still_source()
            self._finish(target)
            return self._report
        finally:
            target.close()

    # --- the target ---

    def _open_target(self) -> Database:
        wanted = self._wanted
        if wanted.owner_url is not None and missing_tables(wanted.target):
            with named("--owner-url"):
                init_store(wanted.target, wanted.owner_url)
        target = open_end(wanted.target, "--to")
        try:
            refuse_held_here(target, wanted.target, self._source.session())
            with named("--to"):
                with target.reader.connect() as connection:
                    marked = found_schema(connection) is not None and find_mark(connection) is not None
                if not marked:
                    create_schema(target, wanted.target.node)
        except BaseException:
            target.close()
            raise
        return target

    def _look(self, target: Database) -> tuple[bool, bool]:
        """``(a copy of this source was begun, it is complete)``.

        Raises:
            ConfigurationError: it holds something else.
        """
        with named("--to"), target.reader.connect() as rows:
            found = found_schema(rows)
            if found is None:
                return False, False
            refuse_other(found)
            mark = find_mark(rows)
            if mark is not None:
                self._require_same_source(mark.heads)
                return True, False
            filled = _first_filled(rows)
            if filled is None:
                return False, False
            if was_copied(rows, self._heads):
                return True, True
            raise ConfigurationError(
                f"{place_of(self._wanted.target)} is in use (its table {filled} has rows) and is no unfinished copy of "
                f"this source: name an empty one"
            )

    def _require_same_source(self, heads: Heads) -> None:
        if missing := missing_event(self._source.rows, heads):
            raise ConfigurationError(
                f"{place_of(self._wanted.target)} is an unfinished copy of another store: event {missing} is not in "
                f"the audit log of the source; name an empty one"
            )

    def _begin(self, target: Database) -> bool:
        """Set the mark; return whether what is there is the beginning of each append-only table of the source."""
        with transaction(target) as connection:
            before = find_mark(connection)
            grown = before is not None and (before.grown or dict(before.heads) != dict(self._heads))
            if before is None and (filled := _first_filled(connection)):
                raise ConfigurationError(f"--to: somebody wrote to it at this moment (table {filled})")
            set_mark(connection, Mark(self._heads, grown))
        try:
            # After the mark: whoever started before it was there is seen now, and whoever starts now sees it.
            refuse_gateways_on_target(target, self._wanted.target)
        except ConfigurationError:
            if before is None:
                with transaction(target) as connection:
                    remove_mark(connection)
            raise
        return not grown

    # --- rows ---

    def _count(self) -> None:
        rows = self._source.rows
        self._report.tables = [TableCopy(table.name, count_rows(rows, table)) for table in copied_tables()]
        self._report.bodies_in_bucket = count_rows(rows, body_object)

    def _copy(self, target: Database, *, fast: bool) -> None:
        if self._report.resumed:
            for table in reversed(copied_tables()):
                if is_mutable(table):
                    self._align(target, table)
        done, total = 0, self._report.rows
        for table, told in zip(copied_tables(), self._report.tables, strict=True):

            def progress(count: int, told: TableCopy = told) -> None:
                nonlocal done
                done += count
                self._wanted.progress("copied", told.name, done, total)

            if fast and not is_mutable(table):
                with target.reader.connect() as connection:
                    after = last_key(connection, table)
                    done += count_rows(connection, table) if after is not None else 0
                with closing(rows_of_store(self._source.rows, table, after)) as rows:
                    told.added = add(target, table, rows, progress)
            else:
                told.added = self._add_missing(target, table, progress)
            self._wanted.progress("copied", told.name, done, total)

    def _align(self, target: Database, table: Table) -> None:
        with closing(snapshot(target)) as rows:
            align(target, table, lambda: rows_of_store(self._source.rows, table), lambda: rows_of_store(rows, table))

    def _add_missing(self, target: Database, table: Table, progress: Callable[[int], None]) -> int:
        if not self._report.resumed:
            # Nothing is there to be compared with, and a snapshot would keep SQLite from emptying its log.
            with closing(rows_of_store(self._source.rows, table)) as everything:
                return add(target, table, everything, progress)
        with (
            closing(snapshot(target)) as rows,
            closing(
                what_is_missing(table, rows_of_store(self._source.rows, table), rows_of_store(rows, table))
            ) as missing,
        ):
            return add(target, table, missing, progress)

    # --- proof ---

    def _verify_source(self) -> LogReport:
        return verify_log(self._source.rows, self._wanted.witnesses, "source", self._wanted.progress)

    def _require_still_source(self) -> None:
        """Raises ConfigurationError when somebody may have written to the source meanwhile."""
        held = self._source.still_held()
        with closing(snapshot(self._source.database)) as rows:
            same = newest_events(rows) == self._heads
        if not held or not same:
            raise ConfigurationError(
                "--from: the source was written to while it was copied, or its database was restarted: see that "
                "nothing runs on it, and run copy-store again"
            )

    def _finish(self, target: Database) -> None:
        """The last event, and the mark is gone: one transaction."""
        whole = hashlib.sha256()
        for table in self._report.tables:
            whole.update(f"{table.name} {table.rows} {table.sha256}\n".encode("ascii"))
        detail: dict[str, Any] = {
            "from": kind_of(self._wanted.source),
            "to": kind_of(self._wanted.target),
            "rows": self._report.rows,
            "tables": {table.name: table.rows for table in self._report.tables if table.rows},
            "rows_sha256": whole.hexdigest(),
            "heads_sha256": heads_digest(self._heads),
        }
        with transaction(target) as connection:
            log = AuditLog(connection, self._wanted.target.node)
            log.add(SystemClock().now(), self._wanted.actor, COPIED, "", detail)
            remove_mark(connection)


def carry_counters(target: Database, wanted: Mapping[str, int]) -> None:
    """Let the target give out no id again. Raises StoreError."""
    with named("--to"), transaction(target) as connection:
        raise_counters(connection, wanted)


def _first_filled(rows: Connection) -> str | None:
    """The name of a table that has a row, or None."""
    for table in copied_tables():
        if rows.execute(select(*table.primary_key).limit(1)).first() is not None:
            return table.name
    return None
