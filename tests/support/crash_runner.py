"""Runs one message through the whole pipeline again and again, ending the process where it is told to (F06).

The parent is single-threaded and imports everything once; every life of the gateway is a forked child, which ends with
``os._exit(137)`` at the Nth boundary: before and after each call of the store, which is what separates the steps and
their effects. ``python -m tests.support.crash_runner PRACTICE RAW SENDER RECIPIENT STRIDE PAIRS WAY [BUG]`` prints
JSON. One life ends at every STRIDEth boundary, and as many more at PAIRS pairs of them. WAY
is ``at-once`` (what is accepted is filed and linked within one transaction, as in the daemon) or ``step-by-step`` (each
step has a transaction of its own, as for what was met half done). With ``job-apart`` as BUG the jobs that a step asks
for are committed after its other effects: what the experiment must find.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from gateway.agents import IsolatedAgent, build_agent
from gateway.core.lifecycle import JobKind
from gateway.core.link_policy import LinkPolicy
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.importers.folder import FolderImporter
from gateway.inbox.change_hub import ChangeHub
from gateway.inbox.indexer import Indexer
from gateway.observability.clock import SystemClock
from gateway.pipeline.accept import Accept
from gateway.pipeline.deliver import Deliveries, Target
from gateway.pipeline.file import FileMessage
from gateway.pipeline.hand_over import HandOver
from gateway.pipeline.import_hook import OrderImports
from gateway.pipeline.link import LinkMessage
from gateway.pipeline.message_view import view_message
from gateway.pipeline.onward import Onward
from gateway.pipeline.unwrap import Unwrap
from gateway.ports import Patient
from gateway.settings import JobSettings, Settings, load
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from gateway.weighing import Weighing
from gateway.workers.pool import WorkerPool
from tests.support.store_samples import open_store

DIED = 137
_NEVER = 10_000


class Boundaries:
    """Counts the boundaries of this life and ends it at one of them."""

    def __init__(self, die_at: int) -> None:
        self.passed = 0
        self._die_at = die_at

    def one(self) -> None:
        self.passed += 1
        if self.passed == self._die_at:
            os._exit(DIED)


class Watched:
    """The store, with a boundary on both sides of every call."""

    def __init__(self, store: SQLStore, boundaries: Boundaries, *, jobs_apart: bool = False) -> None:
        self._store = store
        self._boundaries = boundaries
        self._jobs_apart = jobs_apart

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, work: Callable[[Any], Any], **options: Any) -> Any:
        if not self._jobs_apart:
            return await self._bounded(self._store.write, work, options)
        late: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        result = await self._bounded(self._store.write, lambda rows: work(Apart(rows, late)), options)
        if late:
            await self._bounded(self._store.write, lambda rows: [rows.jobs.enqueue(*w, **n) for w, n in late], options)
        return result

    async def read(self, work: Callable[[Any], Any], **options: Any) -> Any:
        return await self._bounded(self._store.read, work, options)

    async def _bounded(self, call: Callable[..., Any], work: Callable[[Any], Any], options: dict[str, Any]) -> Any:
        self._boundaries.one()
        result = await call(work, **options)
        self._boundaries.one()
        return result


class LateJobs:
    """The jobs of a transaction, of which new ones are put off."""

    def __init__(self, jobs: Any, late: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> None:
        self._jobs = jobs
        self._late = late

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jobs, name)

    def enqueue(self, *words: Any, **named: Any) -> None:
        self._late.append((words, named))


class Apart:
    """The rows of a transaction, whose new jobs are put off."""

    def __init__(self, rows: Any, late: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> None:
        self._rows = rows
        self.jobs = LateJobs(rows.jobs, late)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)


class Life:
    """What every life of the gateway is made of."""

    def __init__(self, settings: Settings, raw: bytes, sender: str, recipient: str, *, at_once: bool) -> None:
        self.settings = settings
        self.at_once = at_once
        self.jobs_apart = False
        self.inbound = Inbound(MemoryBody(raw), Envelope(sender, (recipient,)), Source.SMTP, "192.0.2.1")
        self.sender = sender
        self.recipient = recipient
        self.agent = build_agent(settings.trust)

    def prepare(self, folder: Path) -> None:
        """A mailbox, and a patient whose chart the sender's mail belongs on."""
        at = datetime(2026, 1, 1, tzinfo=UTC)
        patient = Patient(
            id="p1", family="Doe", given="Jo", birth_date=date(1980, 1, 1), direct_addresses=(self.sender,)
        )
        with open_store(folder) as store:

            def work(rows: Any) -> None:
                rows.mailboxes.create("INBOX", at, [self.recipient])
                rows.patients.upsert([patient], "test", at)

            store.write_blocking(work)

    async def live(self, folder: Path, die_at: int, *, send: bool) -> int:
        """Accept and work until nothing is due; returns how many boundaries there were."""
        boundaries, clock = Boundaries(die_at), SystemClock()
        ids = lambda: new_id(clock.now())  # noqa: E731
        with open_store(folder, daemon=True) as real, ThreadPoolExecutor(1) as executor:
            store: Any = Watched(real, boundaries, jobs_apart=self.jobs_apart)
            isolated, hub, indexer = IsolatedAgent(self.settings.trust), ChangeHub(store), Indexer()
            link = LinkMessage(store, clock, ids, hub, Weighing(real.read_blocking), policy=LinkPolicy())
            onward, hand_over = (Onward(indexer, link, hub), HandOver()) if self.at_once else (None, None)
            steps: dict[JobKind, Any] = {
                JobKind.UNWRAP: Unwrap(
                    store, self.agent, clock, executor, isolated, hand_over=hand_over, onward=onward
                ),
                JobKind.FILE: FileMessage(store, indexer, clock, hub),
                JobKind.LINK: link,
                JobKind.IMPORT: OrderImports(store, ["folder"]),
            }
            if send:
                await Accept(store, clock, ids, lambda: None, hand_over=hand_over)(self.inbound)
            # A job that was lost waits until the process has lived a while; here that is no time at all.
            pool = WorkerPool(store, clock, steps, JobSettings(), lambda: 1.0)
            await pool.drain()
            target = Target(FolderImporter(folder / "charts"))
            await Deliveries(store, clock, [target], view_message).drain()
            # The last thing that a life does is to have nothing more to do.
        return boundaries.passed


def life(factory: Life, folder: Path, die_at: int, *, send: bool) -> tuple[int, int]:
    """Fork a life; returns its exit status and the boundaries it passed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            passed = asyncio.run(factory.live(folder, die_at, send=send))
            os.write(writing, str(passed).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(told or 0)


def state(folder: Path) -> dict[str, Any]:
    """Everything that the message became, without what differs from run to run."""
    with contextlib.closing(sqlite3.connect(folder / "gateway.db")) as database:

        def ask(query: str) -> list[Any]:
            return [list(row) for row in database.execute(query)]

        found: dict[str, Any] = {
            "integrity": ask("PRAGMA integrity_check"),
            "messages": ask("SELECT sha256, size_bytes FROM raw_message"),
            "states": ask("SELECT state FROM message_state ORDER BY message_id, seq"),
            "verdicts": ask("SELECT reason, sender FROM verdict"),
            "contents": ask("SELECT content_sha256 FROM message_content"),
            "links": ask("SELECT patient_id, rule FROM link"),
            "jobs": ask("SELECT kind, state FROM job"),
            "deliveries": ask("SELECT target, state FROM import_delivery"),
            "uids": ask("SELECT mailbox_id, uid FROM mailbox_message ORDER BY uid"),
            # What mail clients are told of it, and where it stands: in one view, whatever it passed through.
            "keywords": ask("SELECT uid, flags FROM mailbox_flag"),
            "views": ask(
                "SELECT e.of_uid, e.view FROM view_entry e WHERE NOT EXISTS (SELECT 1 FROM view_exit x "
                "WHERE x.mailbox_id = e.mailbox_id AND x.view = e.view AND x.uid = e.uid)"
            ),
        }
    charts = folder / "charts"
    found["charts"] = sorted(
        # Ids are made anew in each run; names keep their form.
        str(len(path.relative_to(charts).parts)) + path.suffix
        for path in charts.rglob("*")
        if path.is_file()
    )
    return found


def attempt(factory: Life, base: Path, folder: Path, crashes: Sequence[int]) -> dict[str, Any]:
    """Live, die at each of the boundaries in turn, and at last live to the end."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    for die_at in crashes:
        status, _ = life(factory, folder, die_at, send=True)
        assert status in {DIED, 0}, f"a life that was to die at {die_at} ended with {status}"
    # The sender, who may have seen no answer, comes once more: that must change nothing.
    status, _ = life(factory, folder, _NEVER, send=True)
    assert status == 0, f"the last life ended with {status}"
    return state(folder)


def main(arguments: Sequence[str]) -> None:
    practice, raw, sender, recipient = Path(arguments[0]), Path(arguments[1]), arguments[2], arguments[3]
    stride, pairs = int(arguments[4]), int(arguments[5])
    at_once = {"at-once": True, "step-by-step": False}[arguments[6]]
    factory = Life(load(practice / "gateway.toml"), raw.read_bytes(), sender, recipient, at_once=at_once)
    factory.jobs_apart = arguments[7:] == ["job-apart"]
    base, folder = practice / "base", practice / "run"
    base.mkdir()
    factory.prepare(base)
    shutil.copytree(base, folder)
    status, boundaries = life(factory, folder, _NEVER, send=True)
    assert status == 0
    wanted = attempt(factory, base, folder, ())
    singles = [(one,) for one in range(1, boundaries + 1, stride)]
    both = list(itertools.product(range(1, boundaries + 1), repeat=2))
    random.Random(6).shuffle(both)
    wrong = []
    plans: list[tuple[int, ...]] = [*singles, *both[:pairs]]
    for plan in plans:
        found = attempt(factory, base, folder, plan)
        if found != wanted:
            wrong.append({"crashes": plan, "differs": [key for key in wanted if wanted[key] != found[key]]})
    print(json.dumps({"boundaries": boundaries, "points": len(plans), "wrong": wrong, "wanted": wanted}))


if __name__ == "__main__":
    main(sys.argv[1:])
