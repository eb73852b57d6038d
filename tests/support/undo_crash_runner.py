"""Undoes a link again and again, ending the process before one statement after the other of the transaction.

Every life is a forked child that opens the store, undoes the link and ends with ``os._exit(137)`` when the database is
about to run its Nth statement since then, COMMIT among them: each STRIDEth, and the last five.
``python -m tests.support.undo_crash_runner FOLDER STRIDE`` prints JSON: how many statements there were, and what was
found after each death, and after the next life has undone it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.charts.service import Charts
from gateway.core.lifecycle import State
from gateway.core.standing import Standing
from gateway.ports import UnitOfWork
from tests.support.store_samples import ALICE, NOW, SteadyClock, accepted, inbound, indexed, open_store, patient

DIED = 137
MESSAGE = "M" * 26
_NEVER = 10_000


def prepare(folder: Path) -> int:
    """A message on a chart, which one target has and another one was asked to take."""

    def fill(tx: UnitOfWork) -> None:
        tx.patients.upsert([patient()], "test", NOW)
        mailbox_id = tx.mailboxes.create("desk", NOW, [ALICE])
        judgement = accepted(ALICE)
        tx.messages.add_raw(MESSAGE, NOW, inbound())
        tx.messages.set_state(MESSAGE, State.RECEIVED, NOW)
        tx.messages.add_content(MESSAGE, judgement)
        tx.messages.set_state(MESSAGE, State.UNWRAPPED, NOW)
        standing = Standing(decided=True)
        tx.mailboxes.add(mailbox_id, MESSAGE, judgement.content_sha256, indexed(), NOW, standing=standing)
        tx.messages.set_state(MESSAGE, State.FILED, NOW)

    with open_store(folder) as store:
        store.write_blocking(fill)
        asyncio.run(Charts(store, SteadyClock(), lambda: "LINK").link(MESSAGE, "P1", actor="olga"))

        def asked(tx: UnitOfWork) -> None:
            tx.deliveries.order("LINK", ["has", "waits"])
            [held] = tx.deliveries.claim("has", 60, 1)
            tx.links.add_receipt("LINK", "has", "there", NOW)
            tx.deliveries.finish(held)

        store.write_blocking(asked)
    return 0


def undo(folder: Path, die_at: int) -> int:
    """Undo the link; returns how many statements that took."""
    counter = itertools.count(1)
    passed = 0

    def before(_statement: str) -> None:
        nonlocal passed
        passed = next(counter)
        if passed == die_at:
            os._exit(DIED)

    with open_store(folder) as store:
        engine = store._database.writer
        with engine.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
        driver.set_trace_callback(before)
        asyncio.run(Charts(store, SteadyClock(), lambda: "NEW").unlink("LINK", actor="paul", reason="wrong"))
        driver.set_trace_callback(None)
    return passed


def in_a_child(work: Callable[[], int]) -> tuple[int, int]:
    """Fork; returns the exit status and what the work returned."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            os.write(writing, str(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(told or 0)


def found(folder: Path) -> dict[str, Any]:
    """Everything that an undo writes."""
    with contextlib.closing(sqlite3.connect(folder / "gateway.db")) as database:

        def ask(query: str) -> list[Any]:
            return [list(row) for row in database.execute(query)]

        return {
            "integrity": ask("PRAGMA integrity_check"),
            "undo": ask("SELECT link_id, actor, reason FROM link_undo"),
            "states": ask("SELECT state FROM message_state ORDER BY seq"),
            "deliveries": ask("SELECT target, action, actor, reason FROM import_delivery ORDER BY target"),
            "jobs": ask("SELECT kind, subject FROM job"),
            "flags": ask("SELECT flags, modseq FROM mailbox_flag"),
            "views": ask("SELECT view, uid, modseq FROM view_entry ORDER BY view, uid"),
            "left": ask("SELECT view, uid, modseq FROM view_exit ORDER BY view, uid"),
            "counter": ask("SELECT highest_modseq FROM mailbox_counter"),
            "audit": ask("SELECT action FROM audit_event ORDER BY node, seq"),
        }


def main(base: Path, stride: int) -> None:
    """Print what was found."""
    prepared, folder = base / "prepared", base / "run"
    prepared.mkdir()
    assert in_a_child(lambda: prepare(prepared))[0] == 0
    before = found(prepared)

    def afresh() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(prepared, folder)

    afresh()
    status, statements = in_a_child(lambda: undo(folder, _NEVER))
    assert status == 0
    after = found(folder)
    lives = []
    for die_at in sorted({*range(1, statements, stride), *range(statements - 4, statements + 1)}):
        afresh()
        status, _ = in_a_child(lambda at=die_at: undo(folder, at))  # type: ignore[misc]
        dead = found(folder)
        again, _ = in_a_child(lambda: undo(folder, _NEVER))
        lives.append({"at": die_at, "status": status, "dead": dead, "again": again, "whole": found(folder)})
    print(json.dumps({"statements": statements, "before": before, "after": after, "lives": lives}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
