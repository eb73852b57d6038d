"""The workers: what they run, what they do with what fails, and how they stop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import KeyUnavailableError, StoreError, StoreUnavailableError
from gateway.core.lifecycle import JobKind
from gateway.core.retry import INTERNAL_SCHEDULE_SECONDS, WAITING_SCHEDULE_SECONDS
from gateway.ports import Job, UnitOfWork
from gateway.settings import JobSettings
from gateway.store.sql_store import SQLStore
from gateway.workers.pool import MAX_LOST, WorkerPool, describe
from tests.support.store_samples import SteadyClock, open_store

Step = Callable[[Job], Awaitable[None]]

# What the fixtures write without an event of their own gets one from the store.
_ACTIONS = "SELECT action FROM audit_event WHERE action <> 'rows.written' ORDER BY seq"


class Bench:
    """A store, a clock and a pool whose FILE step is the test's."""

    def __init__(self, store: SQLStore, clock: SteadyClock) -> None:
        """``clock`` is that of the store as well."""
        self.store = store
        self.clock = clock
        self.done: list[str] = []

    def pool(self, step: Any = None, *, concurrency: int = 4, lease: int = 300, stop_seconds: float = 5) -> WorkerPool:
        settings = JobSettings(poll_interval_ms=20, lease_seconds=lease)
        return WorkerPool(
            self.store,
            self.clock,
            {JobKind.FILE: step or self.finish},
            settings,
            lambda: 1.0,
            concurrency=concurrency,
            stop_seconds=stop_seconds,
        )

    def enqueue(self, *subjects: str, kind: JobKind = JobKind.FILE) -> None:
        def work(tx: UnitOfWork) -> None:
            for subject in subjects:
                tx.jobs.enqueue(kind, subject)

        self.store.write_blocking(work)

    async def finish(self, job: Job) -> None:
        """A step that does its work and finishes its job in one transaction, as real ones do."""

        def work(tx: UnitOfWork) -> None:
            if not tx.jobs.finish(job):
                raise StoreError("the lease was lost")

        await self.store.write(work)
        self.done.append(job.subject)

    def rows(self) -> list[tuple[str, str, int, str]]:
        with sqlite3.connect(self.store.path) as other:
            found = other.execute("SELECT subject, state, attempt, last_error FROM job ORDER BY id").fetchall()
        other.close()
        return found

    def audit(self) -> list[str]:
        with sqlite3.connect(self.store.path) as other:
            found = [row[0] for row in other.execute(_ACTIONS)]
        other.close()
        return found

    def lose(self, times: int) -> None:
        """Claim what is due and die, that often."""
        for _ in range(times):
            self.store.write_blocking(lambda tx: tx.jobs.claim(1, 1))
            self.clock.advance(2)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    clock = SteadyClock()
    with open_store(tmp_path, clock=clock) as store:
        yield Bench(store, clock)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_drain_runs_everything_that_is_due(bench: Bench) -> None:
    names = [f"m{n}" for n in range(30)]
    bench.enqueue(*names)
    assert await bench.pool().drain() == 30
    assert sorted(bench.done) == sorted(names)
    assert bench.rows() == []


async def test_drain_follows_the_jobs_that_steps_ask_for(bench: Bench) -> None:
    async def chain(job: Job) -> None:
        await bench.finish(job)
        if len(job.subject) < 5:
            bench.enqueue(job.subject + "x")

    bench.enqueue("x")
    assert await bench.pool(chain).drain() == 5


async def test_no_more_steps_run_at_once_than_allowed_and_no_more_are_claimed(bench: Bench) -> None:
    running = most = claimed = 0
    go = asyncio.Event()

    async def step(job: Job) -> None:
        nonlocal running, most, claimed
        running += 1
        most = max(most, running)
        claimed = max(claimed, sum(row[1] == "leased" for row in bench.rows()))
        if running == 3:
            go.set()
        await go.wait()
        await bench.finish(job)
        running -= 1

    bench.enqueue(*(f"m{n}" for n in range(12)))
    await bench.pool(step, concurrency=3).drain()
    assert (most, claimed) == (3, 3)


async def test_a_failing_step_is_tried_again_by_the_schedule_and_then_poison(bench: Bench) -> None:
    attempts: list[datetime] = []

    async def step(job: Job) -> None:
        attempts.append(bench.clock.now())
        raise LookupError("Jane Doe")

    bench.enqueue("bad")
    pool = bench.pool(step)
    await pool.drain()
    for delay in INTERNAL_SCHEDULE_SECONDS:
        bench.clock.advance(delay - 0.5)
        assert await pool.drain() == 0
        bench.clock.advance(0.5)
        assert await pool.drain() == 1
    bench.clock.advance(10**7)
    assert await pool.drain() == 0
    assert len(attempts) == len(INTERNAL_SCHEDULE_SECONDS) + 1
    [(subject, state, attempt, error)] = bench.rows()
    assert (subject, state, attempt) == ("bad", "poison", 8)
    assert error.startswith("LookupError at test_pool.py:")
    assert "Jane" not in error
    assert bench.audit() == ["job.poisoned"]
    [poisoned] = bench.store.read_blocking(lambda tx: tx.jobs.troubled())
    assert (poisoned.subject, poisoned.kind, poisoned.error) == ("bad", JobKind.FILE, error)


async def test_a_step_that_waits_for_a_token_is_never_poison(bench: Bench) -> None:
    back = False

    async def step(job: Job) -> None:
        if not back:
            raise KeyUnavailableError("the token does not answer")
        await bench.finish(job)

    bench.enqueue("sealed")
    pool = bench.pool(step)
    for _ in range(4 * len(INTERNAL_SCHEDULE_SECONDS)):
        assert await pool.drain() == 1
        bench.clock.advance(WAITING_SCHEDULE_SECONDS[-1])
    [(_, state, _, error)] = bench.rows()
    assert state != "poison"
    assert error.startswith("KeyUnavailableError")
    back = True
    assert await pool.drain() == 1
    assert bench.done == ["sealed"]


async def test_a_failing_job_does_not_hold_up_the_others(bench: Bench) -> None:
    async def step(job: Job) -> None:
        if job.subject == "bad":
            raise ValueError
        await bench.finish(job)

    bench.enqueue("m1", "bad", "m2")
    await bench.pool(step).drain()
    assert sorted(bench.done) == ["m1", "m2"]
    assert [row[:2] for row in bench.rows()] == [("bad", "ready")]


class AsideStep:
    """A step that always fails and writes when it is set aside."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken

    async def __call__(self, job: Job) -> None:
        raise ValueError

    def set_aside(self, rows: UnitOfWork, job: Job, at: datetime, error: str) -> None:
        rows.audit.add(at, "step", "step.aside", job.subject, {"error": error})
        if self.broken:
            raise KeyError(job.subject)


@pytest.mark.parametrize(("broken", "audit"), [(False, ["job.poisoned", "step.aside"]), (True, [])])
async def test_the_step_says_what_becomes_of_the_message_of_a_poisoned_job(
    bench: Bench, broken: bool, audit: list[str]
) -> None:
    bench.enqueue("bad")
    pool = bench.pool(AsideStep(broken=broken))
    for delay in (0.0, *INTERNAL_SCHEDULE_SECONDS):
        bench.clock.advance(delay)
        await pool.drain()
    assert [row[1] for row in bench.rows()] == ["poison"]
    assert bench.audit() == audit


async def test_a_kind_without_a_step_is_a_failure_and_not_lost(bench: Bench) -> None:
    bench.enqueue("m", kind=JobKind.IMPORT)
    await bench.pool().drain()
    [(_, state, _, error)] = bench.rows()
    assert state == "ready"
    assert error.startswith("ConfigurationError")


# --- crashes and leases ---


async def test_a_job_that_seems_to_kill_the_process_is_poison_unrun(bench: Bench) -> None:
    """F30: after MAX_LOST attempts it is set aside, and the queue flows."""
    bench.enqueue("killer")
    bench.lose(MAX_LOST)
    bench.enqueue("innocent")
    await bench.pool().drain()
    assert bench.done == ["innocent"]
    assert [(row[0], row[1]) for row in bench.rows()] == [("killer", "poison")]


async def test_losses_prove_nothing_against_a_step_that_survives_them(bench: Bench) -> None:
    """A process that is killed from outside, however often, must not put the mail that was there into quarantine."""

    class Isolating:
        survives_losses = True

        async def __call__(self, job: Job) -> None:
            await bench.finish(job)

    bench.enqueue("mail")
    bench.lose(MAX_LOST + 5)
    await bench.pool(Isolating()).drain()
    assert bench.done == ["mail"]


async def test_lost_attempts_are_no_failures_of_the_step(bench: Bench) -> None:
    """After many losses the first real failure is tried again, like any first failure."""

    async def broken(_job: Job) -> None:
        raise LookupError

    bench.enqueue("m")
    bench.lose(10)
    await bench.pool(broken).drain()
    assert [row[1] for row in bench.rows()] == ["ready"]


async def test_a_suspect_runs_alone(bench: Bench) -> None:
    """Otherwise it would take innocent jobs with it, and they would be blamed."""
    beside: dict[str, set[str]] = {}
    running: set[str] = set()

    async def step(job: Job) -> None:
        running.add(job.subject)
        for name in running:
            beside.setdefault(name, set()).update(running - {name})
        await asyncio.sleep(0.01)
        running.discard(job.subject)
        await bench.finish(job)

    bench.enqueue("s1", "s2")
    bench.store.write_blocking(lambda tx: tx.jobs.claim(1, 10))
    bench.clock.advance(2)
    bench.enqueue(*(f"m{n}" for n in range(8)))
    await bench.pool(step).drain()
    assert len(bench.done) == 10
    assert beside["s1"] == beside["s2"] == set()
    assert any(beside[f"m{n}"] for n in range(8))


async def test_a_suspect_waits_for_what_runs_already(bench: Bench) -> None:
    go = asyncio.Event()
    order: list[str] = []

    async def step(job: Job) -> None:
        order.append(f"begin {job.subject}")
        if job.subject == "long":
            await go.wait()
        await bench.finish(job)
        order.append(f"end {job.subject}")

    bench.enqueue("long")
    pool = bench.pool(step)
    running = asyncio.create_task(pool.run())
    await until(lambda: bool(order))
    bench.enqueue("suspect")
    # Claimed here by a worker that dies, before the pool sees it again.
    with sqlite3.connect(bench.store.path) as other:
        other.execute("UPDATE job SET lost = 1 WHERE subject = 'suspect'")
    other.close()
    pool.wake()
    await until(lambda: pool._suspect is not None)
    assert order == ["begin long"]
    go.set()
    await until(lambda: len(order) == 4)
    assert order == ["begin long", "end long", "begin suspect", "end suspect"]
    pool.stop()
    await running


async def test_a_long_step_keeps_its_lease(bench: Bench) -> None:
    renewed = asyncio.Event()
    real = bench.store.write
    leases: list[str] = []

    async def watched(work: Any) -> Any:
        result = await real(work)
        with sqlite3.connect(bench.store.path) as other:
            leases.extend(row[0] for row in other.execute("SELECT lease_until FROM job WHERE lease_until NOT NULL"))
        other.close()
        if len(set(leases)) > 1:
            renewed.set()
        return result

    async def step(job: Job) -> None:
        bench.clock.advance(0.5)
        await renewed.wait()
        await bench.finish(job)

    bench.store.write = watched  # type: ignore[method-assign, assignment]
    bench.enqueue("long")
    async with asyncio.timeout(10):
        assert await bench.pool(step, lease=1).drain() == 1
    assert bench.done == ["long"]


async def test_a_step_that_lost_its_lease_changes_nothing(bench: Bench) -> None:
    """F10: the machine was frozen, and another worker has the job now."""
    taken = asyncio.Event()

    async def step(job: Job) -> None:
        await taken.wait()
        await bench.finish(job)

    bench.enqueue("m")
    # One slot, and it is taken: this pool cannot claim the job again before the other worker does.
    pool = bench.pool(step, concurrency=1)
    running = asyncio.create_task(pool.run())
    await until(lambda: pool.running == 1)
    bench.clock.advance(301)
    [other] = await bench.store.write(lambda tx: tx.jobs.claim(300, 1))
    taken.set()
    await until(lambda: pool.running == 0)
    assert bench.done == []
    assert [(row[1], row[2], row[3]) for row in bench.rows()] == [("leased", 2, "")]
    assert await bench.store.write(lambda tx: tx.jobs.finish(other))
    pool.stop()
    await running


# --- running and stopping ---


async def test_waking_is_a_hint_and_polling_finds_the_rest(bench: Bench) -> None:
    pool = bench.pool()
    running = asyncio.create_task(pool.run())
    bench.enqueue("polled")  # Nobody wakes the pool, as when another process writes.
    await until(lambda: bench.done == ["polled"])
    bench.enqueue("woken")
    pool.wake()
    await until(lambda: bench.done == ["polled", "woken"])
    pool.stop()
    await asyncio.wait_for(running, 10)


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_stopping_lets_what_runs_end_and_begins_nothing(bench: Bench, how: str) -> None:
    """F39."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def step(job: Job) -> None:
        begun.set()
        await go.wait()
        await bench.finish(job)

    bench.enqueue("m1", "m2")
    pool = bench.pool(step, concurrency=1)
    running = asyncio.create_task(pool.run())
    await begun.wait()
    if how == "stop":
        pool.stop()
    else:
        running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    go.set()
    await asyncio.wait({running}, timeout=10)
    assert running.done()
    assert running.cancelled() is (how == "cancel")
    assert bench.done == ["m1"]
    assert [(row[0], row[1], row[2]) for row in bench.rows()] == [("m2", "ready", 0)]


async def test_what_does_not_end_in_time_is_cancelled_and_handed_back(bench: Bench) -> None:
    async def step(_: Job) -> None:
        await asyncio.Event().wait()

    bench.enqueue("m")
    pool = bench.pool(step, stop_seconds=0.05)
    running = asyncio.create_task(pool.run())
    await until(lambda: pool.running == 1)
    pool.stop()
    await asyncio.wait_for(running, 10)
    assert [row[1] for row in bench.rows()] == ["ready"]
    [again] = await bench.store.write(lambda tx: tx.jobs.claim(300, 1))
    assert (again.attempt, again.lost) == (2, 0)


async def test_a_step_that_cancels_itself_is_a_failure_like_any_other(bench: Bench) -> None:
    async def step(_: Job) -> None:
        raise asyncio.CancelledError

    bench.enqueue("m")
    assert await bench.pool(step).drain() == 1
    [(_, state, _, error)] = bench.rows()
    assert state == "ready"
    assert error.startswith("CancelledError")


async def test_a_store_that_fails_for_a_while_does_not_end_the_pool(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.enqueue("m")
    failures = 0

    async def failing(_: Any) -> Any:
        nonlocal failures
        failures += 1
        raise StoreError("no")

    with monkeypatch.context() as broken:
        broken.setattr(bench.store, "write", failing)
        pool = bench.pool()
        running = asyncio.create_task(pool.run())
        await until(lambda: failures >= 2)
    await until(lambda: bench.done == ["m"])
    pool.stop()
    await running


async def test_jitter_stretches_the_delay(bench: Bench) -> None:
    async def step(_: Job) -> None:
        raise ValueError

    pool = WorkerPool(bench.store, bench.clock, {JobKind.FILE: step}, JobSettings(), lambda: 1.5)
    bench.enqueue("m")
    await pool.drain()
    with sqlite3.connect(bench.store.path) as other:
        [(run_at,)] = other.execute("SELECT run_at FROM job").fetchall()
    other.close()
    assert datetime.fromisoformat(run_at) == bench.clock.now() + timedelta(seconds=1.5 * INTERNAL_SCHEDULE_SECONDS[0])


def test_an_error_is_described_without_its_text() -> None:
    assert describe(ValueError("Jane Doe")) == "ValueError"


async def test_jobs_of_a_claim_that_was_never_answered_are_taken_back_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F08: the commit was done, and the connection went before its answer. Nobody else may wait for that lease."""
    write = bench.store.write
    unanswered = 1

    async def cut(work: Any) -> Any:
        nonlocal unanswered
        result = await write(work)
        if unanswered and result and isinstance(result, list):
            unanswered -= 1
            raise StoreUnavailableError("lost")
        return result

    monkeypatch.setattr(bench.store, "write", cut)
    entered, go = asyncio.Event(), asyncio.Event()

    async def step(job: Job) -> None:
        entered.set()
        if job.subject == "held":
            await go.wait()
        await bench.finish(job)

    unanswered = 0
    pool = bench.pool(step)
    bench.enqueue("held")
    running = asyncio.create_task(pool.run())
    await asyncio.wait_for(entered.wait(), 10)
    unanswered = 1
    bench.enqueue("m")
    pool.wake()
    # Within a lease of many minutes, and without a touch at the job that is run.
    await until(lambda: bench.done == ["m"])
    go.set()
    await until(lambda: bench.done == ["m", "held"])
    assert bench.rows() == []
    pool.stop()
    await running


async def test_a_database_that_is_away_is_no_fault_of_the_job(bench: Bench) -> None:
    async def step(_: Job) -> None:
        raise StoreUnavailableError("away")

    bench.enqueue("m")
    for _ in range(20):
        await bench.pool(step).drain()
        bench.clock.advance(400)
    [(_, state, attempt, _)] = bench.rows()
    assert (state, attempt) == ("ready", 20), "it is never set aside for that"
