"""The workers: claim a job, run its step, and deal with failure.

A step finishes its own job within its own transaction. What is left to the pool is everything that goes wrong:

* A step that raises is tried again by the schedule of its kind (:mod:`gateway.core.retry`), with jitter. After the
  last attempt the job is *poison*: it is set aside, audited and logged, its step may say what becomes of the message
  (``set_aside``), and the rest goes on.
* A job whose attempts ended without a word is suspected of killing the process. It runs alone, so that no innocent
  job is blamed with it, and from the second time on it waits until the process has lived for ``SETTLE_SECONDS``. It
  is poison after ``MAX_LOST`` of them (F30), unless its step survives losses: a process that is killed from outside,
  again and again, while mail is there must not put that mail into quarantine.
* Imports come after mail: they have half of the room at most, and not more than ``SLOW_AT_ONCE``, and one is never
  waited for before mail goes on. What they order is delivered elsewhere (:mod:`gateway.pipeline.deliver`).
* A lease is renewed after each third of its time while the step runs. A worker that lost it (it was frozen) can
  commit nothing: finishing and failing are fenced by the attempt number (F10).

Waking is a hint, polling is the rule. The end of a step is no reason to look for jobs when the last look found no more
than it could start and the step says that no job follows from it. No more jobs are claimed than can start at once,
because a lease that only waits is counted as lost in a crash; the exception are large messages, which wait for one
another while small ones pass. When the store fails, the pool waits for the next poll and tries again.

``stop``, or cancelling ``run``, lets what runs end for a bounded time; what is still running then is cancelled and
handed back. ``run`` never ends by itself.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, runtime_checkable

from gateway.core.errors import (
    ConfigurationError,
    KeyUnavailableError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from gateway.core.lifecycle import JobKind
from gateway.core.retry import delay_after, waiting_delay
from gateway.observability.log import get_log
from gateway.ports import Clock, Job, Store, UnitOfWork
from gateway.settings import JobSettings

ACTOR = "gateway"
CONCURRENCY = 16
"""Steps at the same time. Most of that time they wait for a commit that they share, and for each other's CPU; what they
hold in memory is bounded by the gate that they pass (:mod:`gateway.pipeline.byte_gate`)."""
MAX_LOST = 20
"""Attempts of one job that may end without a word, before it is taken for the cause. So many because a kill from
outside looks the same, and to put acknowledged mail into quarantine for it is worse than some more restarts."""
SETTLE_SECONDS = 3.0
"""How long a process must have lived before it hands out a job that was lost ``_UNLUCKY`` times: the rest of the
queue flows first, also when the job does kill the process."""
_UNLUCKY = 2
MAX_PARKED = 64
"""Steps that may wait for memory beside those that work, so that small messages pass the large ones."""
SLOW_KINDS = frozenset({JobKind.IMPORT})
SLOW_AT_ONCE = 4
"""Not more, however many steps run: a person who links a thousand messages must not keep new mail waiting."""
_PROMPT_KINDS = frozenset(JobKind) - SLOW_KINDS
CLOCK_STEP = timedelta(seconds=1)
"""A clock that goes back by less is being trimmed, and puts nothing off that anybody would notice."""
STOP_SECONDS = 20.0
STOPPED = "stopped"
"""Error of a job that was handed back at a stop."""

log = get_log("workers")

Step = Callable[[Job], Awaitable[bool | None]]
"""Returns False when it is certain that no other job follows from this one; it saves a look for one."""


@runtime_checkable
class SetsAside(Protocol):
    """A step that has something to write when its job is set aside."""

    def set_aside(self, rows: UnitOfWork, job: Job, at: datetime, error: str) -> None:
        """Called within the transaction that poisons the job. ``error`` holds no PHI."""
        ...


@runtime_checkable
class SurvivesLosses(Protocol):
    """A step that examines a suspect in a process of its own, so that losses prove nothing against the job."""

    @property
    def survives_losses(self) -> bool: ...


class WorkerPool:
    """Runs jobs until it is stopped. One per process."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        steps: Mapping[JobKind, Step],
        settings: JobSettings,
        jitter: Callable[[], float],
        *,
        concurrency: int = CONCURRENCY,
        stop_seconds: float = STOP_SECONDS,
        parked: Callable[[], int] = lambda: 0,
    ) -> None:
        """``jitter`` returns the factor of the next delay (1.0 to 1.2, say); ``concurrency`` bounds running steps.

        ``parked`` tells how many of them only wait for one another's memory: up to ``MAX_PARKED`` do not count.
        """
        self._store = store
        self._clock = clock
        self._steps = steps
        self._settings = settings
        self._jitter = jitter
        self._concurrency = max(1, min(concurrency, settings.batch))
        self._stop_seconds = stop_seconds
        self._parked = parked
        self._running: set[asyncio.Task[bool]] = set()
        self._slow: set[asyncio.Task[bool]] = set()
        """Those of the running tasks that are of a slow kind."""
        self._settled_at = 0.0
        self._suspect: Job | None = None
        """Claimed, and waits until nothing else runs."""
        self._alone: asyncio.Task[bool] | None = None
        self._held: dict[asyncio.Task[bool], int] = {}
        """Ids of the jobs that are run now."""
        self._claim_unknown = False
        """The last claim was not answered."""
        self._more_due = False
        """The last claim left something behind that may be due: there was no room for it, or it was to come alone."""
        self._seen: tuple[datetime, float] | None = None
        """The clock, and the time that does not jump, at the last look."""
        self._went_back = timedelta(0)
        """By how much the clock was set back, while the jobs do not know of it."""
        self._woken = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """There may be work. A hint; to be called on the event loop of ``run``."""
        self._woken.set()

    def stop(self) -> None:
        """Ask ``run`` to end after what runs now. To be called on the event loop of ``run``."""
        self._stopping = True
        self._woken.set()

    @property
    def running(self) -> int:
        """How many steps run now."""
        return len(self._running)

    @property
    def full(self) -> bool:
        """Whether more work would have to wait here."""
        working = len(self._running) - min(self._parked(), MAX_PARKED)
        return working >= self._concurrency or self._alone in self._running

    async def run(self) -> None:
        """Work until stopped or cancelled. Every step that was begun has ended or is handed back on return."""
        self._settled_at = asyncio.get_running_loop().time() + SETTLE_SECONDS
        try:
            while not self._stopping:
                self._woken.clear()
                begun = await self._start_due()
                if not begun or not self._more_due:
                    await self._pause()
        finally:
            await self._end_running()

    async def drain(self) -> int:
        """Run jobs until none is due and none runs; return how many were begun. For tests and tools."""
        begun = 0
        try:
            while True:
                begun += (started := await self._start_due(patient=False))
                if self._running:
                    await asyncio.wait(set(self._running), return_when=asyncio.FIRST_COMPLETED)
                elif not started:
                    return begun
        finally:
            await self._end_running()

    # --- claiming ---

    async def _start_due(self, *, patient: bool = True) -> int:
        """Claim and start what is due and has room; return how many. ``patient``: a failing store is waited for."""
        if self._suspect is not None:
            return self._start_suspect()
        working = len(self._running) - min(self._parked(), MAX_PARKED)
        room = 0 if self._alone in self._running else self._concurrency - working
        if room <= 0:
            # Whoever woke us came for something, and is not asked again.
            self._more_due = True
            return 0
        try:
            settled = asyncio.get_running_loop().time() >= self._settled_at
            # What was claimed without our knowing is taken back; nothing is claimed while this is on its way.
            held = {*self._held.values()} if self._claim_unknown else None
            slow_room = max(0, min(room, min(max(1, self._concurrency // 2), SLOW_AT_ONCE) - len(self._slow)))
            back = self._watch_clock()

            def claim(rows: UnitOfWork) -> list[Job]:
                if back:
                    # What was to be done at once would wait until the clock has caught up, for hours perhaps (F11).
                    rows.jobs.clock_went_back(back)
                    rows.deliveries.clock_went_back(back)
                return self._claim(rows, room, slow_room, None if settled else _UNLUCKY, held)

            jobs = await self._store.write(claim)
            self._went_back -= back
        except StoreError as exc:
            # It may have been done all the same; then nobody here knows of those jobs (F08).
            self._claim_unknown = True
            if not patient:
                raise
            log.fault("claim_failed", exc)
            return 0
        self._claim_unknown = False
        slow = sum(job.kind in SLOW_KINDS for job in jobs)
        self._more_due = len(jobs) >= room or slow >= slow_room or any(job.lost for job in jobs)
        for job in jobs:
            if job.lost and job.kind not in SLOW_KINDS:
                # The store hands out such a job by itself, but earlier ones may still run.
                self._suspect = job
                self._start_suspect()
            else:
                self._start(job)
        return len(jobs)

    def _watch_clock(self) -> timedelta:
        """By how much the clock was set back since the jobs last heard of it."""
        now, ticks = self._clock.now(), asyncio.get_running_loop().time()
        if self._seen is not None:
            back = timedelta(seconds=ticks - self._seen[1]) - (now - self._seen[0])
            if back > CLOCK_STEP:
                self._went_back += back
        self._seen = now, ticks
        return self._went_back

    def _claim(
        self, rows: UnitOfWork, room: int, slow_room: int, lost_below: int | None, held: set[int] | None
    ) -> list[Job]:
        lease = self._settings.lease_seconds
        if held is not None:
            rows.jobs.take_back(held)
        apart = SLOW_KINDS, slow_room
        return rows.jobs.claim(lease, room, kinds=_PROMPT_KINDS, apart=apart, lost_below=lost_below)

    def _start_suspect(self) -> int:
        """Start the job that may be the one that kills the process, when nothing else runs; return 1 if it did."""
        job = self._suspect
        if job is None or self._running - self._slow:
            return 0
        log.warning("job_runs_alone", job_id=job.id, kind=job.kind, attempt=job.attempt, count=job.lost)
        self._suspect = None
        self._alone = self._start(job)
        return 1

    def _start(self, job: Job) -> asyncio.Task[bool]:
        task = asyncio.create_task(self._attempt(job), name=f"{job.kind.value}-{job.id}")
        self._running.add(task)
        self._held[task] = job.id
        if job.kind in SLOW_KINDS:
            self._slow.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[bool]) -> None:
        self._running.discard(task)
        self._held.pop(task, None)
        self._slow.discard(task)
        follows = task.cancelled() or task.exception() is not None or task.result()
        # Room is of no use when nothing waits for it.
        if follows or self._more_due or self._suspect is not None:
            self._woken.set()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.poll_interval_ms / 1000):
                await self._woken.wait()

    async def _end_running(self) -> None:
        """Let what runs end, for a bounded time; cancel the rest, which hands its jobs back."""
        waiting, self._suspect = self._suspect, None
        if waiting is not None:
            await self._settle(waiting, STOPPED, timedelta(0))
        try:
            if self._running:
                await asyncio.wait(set(self._running), timeout=self._stop_seconds)
        finally:
            left = set(self._running)
            for task in left:
                task.cancel()
        if left:
            await asyncio.wait(left)

    # --- one attempt ---

    async def _attempt(self, job: Job) -> bool:
        """Run the job's step; returns whether another job may follow from it.

        Raises nothing: whatever goes wrong is written down, or left to the lease.
        """
        follows = True
        try:
            follows = await self._step(job)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                await self._settle(job, STOPPED, timedelta(0))
            else:
                # Nobody stopped us: something inside the step was cancelled, which is a failure like any other.
                await self._failed(job, exc)
        except Exception as exc:  # noqa: BLE001 - the pool is the owner of every failure of a step
            await self._failed(job, exc)
        else:
            log.debug("job_done", job_id=job.id, kind=job.kind, attempt=job.attempt)
        return follows

    async def _step(self, job: Job) -> bool:
        step = self._steps.get(job.kind)
        if step is None:
            raise ConfigurationError(f"no step is configured for jobs of kind {job.kind.value}")
        if job.lost >= MAX_LOST and not _survives_losses(step):
            raise _CrashedTooOftenError
        task = asyncio.ensure_future(step(job))
        try:
            while not task.done():
                done, _ = await asyncio.wait({task}, timeout=self._settings.lease_seconds / 3)
                if not done and not await self._renew(job):
                    log.warning("job_lease_lost", job_id=job.id, kind=job.kind, attempt=job.attempt)
                    break
            return await task is not False
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def _renew(self, job: Job) -> bool:
        """Extend the lease; False when somebody else has the job. A store that fails now may be well in time."""
        try:
            return await self._store.write(lambda rows: rows.jobs.renew(job, self._settings.lease_seconds))
        except StoreError:
            return True

    async def _failed(self, job: Job, exc: BaseException) -> None:
        error = describe(exc)
        # Attempts that were lost with their process are no failures of the step.
        failures = max(1, job.attempt - job.lost)
        if isinstance(exc, KeyUnavailableError | StoreUnavailableError | StoreFullError):
            # It says nothing about the message, however long the token or the database is away, or the disk full.
            delay: float | None = waiting_delay(failures)
        else:
            delay = None if isinstance(exc, _CrashedTooOftenError) else delay_after(job.kind, failures)
        if delay is None:
            log.fault("job_poisoned", exc, job_id=job.id, kind=job.kind, attempt=job.attempt, message_id=job.subject)
            await self._settle(job, error, None)
        else:
            delay *= self._jitter()
            log.warning(
                "job_failed", exc=exc, job_id=job.id, kind=job.kind, attempt=job.attempt, retry_seconds=round(delay, 3)
            )
            await self._settle(job, error, timedelta(seconds=delay))

    async def _settle(self, job: Job, error: str, retry_in: timedelta | None) -> None:
        at = self._clock.now()
        try:
            try:
                await self._store.write(lambda rows: self._write_failure(rows, job, at, error, retry_in))
            except StoreError:
                raise
            except Exception as exc:  # noqa: BLE001 - a step that cannot set its message aside must not keep the job alive
                log.fault("set_aside_failed", exc, job_id=job.id, kind=job.kind)
                await self._store.write(lambda rows: rows.jobs.fail(job, error, retry_in))
        except StoreError as exc:
            # The lease runs out by itself, and the job is claimed again.
            log.fault("job_not_settled", exc, job_id=job.id, kind=job.kind)

    def _write_failure(self, rows: UnitOfWork, job: Job, at: datetime, error: str, retry_in: timedelta | None) -> None:
        if not rows.jobs.fail(job, error, retry_in) or retry_in is not None:
            return
        detail = {"job": job.id, "kind": job.kind.value, "attempts": job.attempt, "lost": job.lost, "error": error}
        rows.audit.add(at, ACTOR, "job.poisoned", job.subject, detail)
        step: object = self._steps.get(job.kind)
        if isinstance(step, SetsAside):
            step.set_aside(rows, job, at, error)


class _CrashedTooOftenError(Exception):
    """Every attempt at the job so far took the process with it, or seemed to."""


def _survives_losses(step: object) -> bool:
    return isinstance(step, SurvivesLosses) and step.survives_losses


def describe(error: BaseException) -> str:
    """Return the class of an error and where in the program it was raised: never its text, which may hold PHI."""
    name = type(error).__name__.strip("_")
    frames = traceback.extract_tb(error.__traceback__)
    return f"{name} at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else name
