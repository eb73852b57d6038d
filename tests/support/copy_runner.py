"""Copies one store again and again, with ``kill -9`` at the boundaries that it is told, and looks at what is left.

The parent has one thread and imports everything once; each run of the copy is a forked child that kills itself at its
Nth boundary: before and after each COMMIT on the target, and wherever progress is told. ``python -m
tests.support.copy_runner KIND FOLDER STRIDE PAIRS BUG`` prints JSON. ``BUG`` seeds one of :data:`BUGS`.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.core.errors import ConfigurationError, GatewayError
from gateway.settings import StoreSettings
from gateway.store import copying, copying_heads, copying_marker, copying_rows
from gateway.store.audit_verify import verify_store
from gateway.store.copying_rows import copied_tables
from gateway.store.opening import missing_tables
from gateway.store.postgresql_engine import PostgreSQLDatabase
from gateway.store.sqlite_engine import SQLiteDatabase
from gateway.store.tables import audit_event
from tests.support.copies import contents, copy, opened
from tests.support.odd_rows import WITNESSES

BATCH_ROWS = 12
_NEVER = 1_000_000
Contents = Mapping[str, Sequence[Any]]


class Boundaries:
    """Counts the boundaries of this life and ends it at one of them."""

    def __init__(self, die_at: int, tell: int) -> None:
        self._die_at = die_at
        self._tell = tell
        self._passed = 0

    def one(self, *_: Any) -> None:
        self._passed += 1
        if self._passed == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def end(self) -> None:
        os.write(self._tell, str(self._passed).encode())


# --- seeded bugs ---


def _mark_goes_too_early() -> None:
    real = copying._Run._begin

    def begin(run: Any, target: Any) -> bool:
        fast = real(run, target)
        with copying_rows.transaction(target) as connection:
            copying_marker.remove_mark(connection)
        return fast

    copying._Run._begin = begin  # type: ignore[method-assign, assignment]


def _nothing_is_compared() -> None:
    copying.compare = lambda *_: None  # type: ignore[attr-defined]


def _a_table_is_left_out() -> None:
    _nothing_is_compared()
    real = copying_rows.add
    left_out = "fetch_item"

    def add(database: Any, table: Any, rows: Any, told: Any) -> int:
        return 0 if table.name == left_out else real(database, table, rows, told)

    copying.add = add  # type: ignore[attr-defined]


def _a_row_is_stepped_over_when_it_goes_on() -> None:
    _nothing_is_compared()

    def after_the_next(connection: Any, table: Any) -> Any:
        last = copying_rows.last_key(connection, table)
        return (*last[:-1], last[-1] + 1) if last and isinstance(last[-1], int) else last

    copying.last_key = after_the_next  # type: ignore[attr-defined]


def _the_last_event_and_the_mark_are_two_transactions() -> None:
    real = copying._Run._finish

    def finish(run: Any, target: Any) -> None:
        with copying_rows.transaction(target) as connection:
            copying_marker.remove_mark(connection)
        real(run, target)

    copying._Run._finish = finish  # type: ignore[method-assign, assignment]


BUGS: Mapping[str, Callable[[], None]] = {
    "mark too early": _mark_goes_too_early,
    "table left out": _a_table_is_left_out,
    "row stepped over": _a_row_is_stepped_over_when_it_goes_on,
    "end in two steps": _the_last_event_and_the_mark_are_two_transactions,
}


# --- lives ---


def life(source: StoreSettings, target: StoreSettings, die_at: int, bug: str) -> tuple[int, int]:
    """One run of the copy in a child; returns its status (-9: it was killed) and the boundaries that it passed."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        status = 3
        try:
            os.close(reads)
            boundaries = Boundaries(die_at, writes)
            copying_rows.BATCH_ROWS = BATCH_ROWS  # type: ignore[misc]
            if bug:
                BUGS[bug]()
            for kind in (SQLiteDatabase, PostgreSQLDatabase):
                _watch(kind, boundaries)
            copy(source, target, progress=boundaries.one)
            boundaries.end()
            status = 0
        except GatewayError as exc:
            print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writes)
    told = b"".join(iter(lambda: os.read(reads, 100), b""))
    os.close(reads)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(told or 0)


def _watch(kind: Any, boundaries: Boundaries) -> None:
    before, after = kind.before_commit, kind.after_commit

    def before_commit(database: Any, connection: Any) -> None:
        before(database, connection)
        boundaries.one()

    def after_commit(database: Any, connection: Any) -> None:
        boundaries.one()
        after(database, connection)

    kind.before_commit, kind.after_commit = before_commit, after_commit


# --- looking ---


def half_done(wanted: Contents, target: StoreSettings, folder: Path) -> list[str]:
    """What a gateway that starts now would take for a whole store, and is none."""
    if missing_tables(target):
        return []
    try:
        opened(target, folder).close()
    except ConfigurationError as exc:
        return [] if "unfinished copy" in str(exc) else [f"refused, but as: {exc}"]
    found = contents(target)
    empty = not any(rows for name, rows in found.items() if name != "schema_version")
    return [] if empty else [f"opened half done: {what}" for what in differences(wanted, found)]


def differences(wanted: Contents, found: Contents) -> list[str]:
    """What a complete copy must be and this is not."""
    wrong = []
    for table in copied_tables():
        rows = [row for row in found[table.name] if table is not audit_event or row[4] != copying_heads.COPIED]
        if rows != wanted[table.name]:
            wrong.append(f"{table.name} has {len(rows)} rows of {len(wanted[table.name])}, or others")
    ends = sum(row[4] == copying_heads.COPIED for row in found[audit_event.name])
    return wrong if ends == 1 else [*wrong, f"{ends} events of the end"]


@dataclass(frozen=True)
class Killing:
    """What is copied, to where, and which seeded bug the copy has ('' for none)."""

    source: StoreSettings
    kind: str
    place: str
    folder: Path
    bug: str = ""

    def run(self, stride: int, pairs: int) -> dict[str, Any]:
        """Kill at every ``stride``-th boundary, and at as many pairs of boundaries; tell what was wrong.

        With a bug it goes from both ends to the middle, and is done when it has found something.
        """
        wanted = contents(self.source)
        numbers = itertools.count()
        status, boundaries = life(self.source, self._new_target(next(numbers)), _NEVER, "")
        assert status == 0, "a copy that nobody kills must end"
        singles = [(one,) for one in range(1, boundaries + 1, stride)]
        if self.bug:
            singles = [singles[-1 - number // 2 if number % 2 else number // 2] for number in range(len(singles))]
        both = random.Random(5)
        plans: list[tuple[int, ...]] = [
            *singles,
            *((both.randrange(1, boundaries), both.randrange(1, boundaries)) for _ in range(pairs)),
        ]
        wrong = []
        for plan in plans:
            found = self._attempt(self._new_target(next(numbers)), wanted, plan)
            if found:
                wrong.append({"killed at": plan, "found": found[:3]})
                if self.bug:
                    break
        return {"boundaries": boundaries, "points": len(plans), "wrong": wrong, "rows": sum(map(len, wanted.values()))}

    def _attempt(self, target: StoreSettings, wanted: Contents, deaths: Sequence[int]) -> list[str]:
        """Die at each of the boundaries in turn, look each time, and then run to the end."""
        wrong = []
        for die_at in deaths:
            status, _ = life(self.source, target, die_at, self.bug)
            if status not in {0, -signal.SIGKILL}:
                wrong.append(f"a life that was to die at {die_at} ended with {status}")
            wrong += half_done(wanted, target, self.folder)
        status, _ = life(self.source, target, _NEVER, self.bug)
        if status != 0:
            return [*wrong, f"the last life ended with {status}"]
        wrong += differences(wanted, contents(target))
        return wrong + [str(finding) for finding in verify_store(target, WITNESSES).findings]

    def _new_target(self, number: int) -> StoreSettings:
        """An own file or schema for each attempt."""
        if self.kind == "sqlite":
            return StoreSettings(url=f"sqlite:///{self.folder}/target{number}.db")
        return StoreSettings(url=self.place, schema=f"killed_{os.getpid()}_{number}", frozen_after_seconds=5)


if __name__ == "__main__":
    from tests.support.copies import filled

    _kind, _place, _folder, _stride, _pairs, _bug = sys.argv[1:]
    _killing = Killing(filled("sqlite", Path(_folder)), _kind, _place, Path(_folder), _bug)
    print(json.dumps(_killing.run(int(_stride), int(_pairs))))
