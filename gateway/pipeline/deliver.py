"""Hands linked messages to the targets of the import hook, each at its own pace.

Every target has a queue in the store (:mod:`gateway.store.deliveries`), slots, a schedule of retries and a memory bound
of its own. One that is down, slow or hanging fills its own slots only; mail does not pass here at all.

Guarantees

* At least once, with the link id as the idempotency key: a delivery leaves its queue in the transaction that writes
  the receipt. A crash between the target's work and that commit asks the target again with the same id.
* A nack for now is tried again by the schedule of the target, with jitter, and not before the target's
  ``retry_after``; while it asks for patience, or has failed ``_PAUSE_AFTER`` times in a row, the whole target rests for
  a while. A nack for good, and the last failure of the schedule, set the delivery aside (the dead letter): visible,
  audited, and repaired by ``import retry``. A target that is gone is stopped, and its links wait.
* The audit log holds every receipt, dead letter and stop, and never the words of the other side: a reason code only.

Failure modes: a store that does not answer is asked again at the next look; what was claimed comes back when its lease
ends. ``run`` never ends by itself, and raises nothing that an importer does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from gateway.core.errors import (
    ImporterGoneError,
    ImportFailedError,
    ImportRefusedError,
    KeyUnavailableError,
    StoreError,
    StoreUnavailableError,
)
from gateway.core.retry import IMPORT_SCHEDULE_SECONDS, MAX_RETRY_SECONDS
from gateway.observability.log import get_log
from gateway.pipeline.byte_gate import ByteGate
from gateway.pipeline.import_request import MessageView, completed, request_for
from gateway.ports import (
    MAX_RECEIPT_CHARS,
    Clock,
    Delivery,
    DeliveryAction,
    ImportRequest,
    PatientImporter,
    Retraction,
    Store,
    UnitOfWork,
)

ACTOR = "gateway"
TIMEOUT_SECONDS = 120.0
LEASE_SECONDS = 60.0
"""Beyond the timeout of the target: reading the message and writing the receipt."""
GATE_SECONDS = 20.0
"""The most that a large message waits for those before it; what is left of the lease must do for the target."""
POLL_SECONDS = 0.5
STOP_SECONDS = 3.0
_PAUSE_AFTER = 3
_PAUSES_SECONDS = (1.0, 5.0, 15.0, 30.0, 60.0)
_CLOSE_SECONDS = 8.0
_THREADS = 2
_FAULT = "fault_here"
_REASON = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}\Z")

log = get_log("imports")


@dataclass(frozen=True, slots=True)
class Target:
    """An importer, and how it is to be asked."""

    importer: PatientImporter
    schedule: tuple[float, ...] = IMPORT_SCHEDULE_SECONDS
    """Seconds to wait after each failure; after the last one it is set aside."""
    timeout_seconds: float = TIMEOUT_SECONDS
    at_once: int = 2


@dataclass(slots=True)
class _Lane:
    """A target at work."""

    target: Target
    gate: ByteGate = field(default_factory=ByteGate)
    running: set[asyncio.Task[None]] = field(default_factory=set)
    failures: int = 0
    """In a row."""
    rests_until: float = 0.0

    @property
    def name(self) -> str:
        return self.target.importer.name

    @property
    def room(self) -> int:
        return max(0, self.target.at_once - len(self.running))


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of an attempt: a receipt, or a reason."""

    receipt: str = ""
    reason: str = ""
    retry_after: float | None = None
    final: bool = False
    gone: bool = False


class _CrowdedError(Exception):
    """Large messages before this one take so long that its lease would end meanwhile."""


class Deliveries:
    """Delivers until it is cancelled. One per process."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        targets: Sequence[Target],
        take_apart: Callable[[bytes], MessageView],
        jitter: Callable[[], float] = lambda: 1.0,
        *,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """``take_apart`` is called in a thread of this class's own; ``jitter`` is the factor of the next delay.

        Raises:
            ValueError: two targets have the same name, so that their receipts could not be told apart.
        """
        if len({target.importer.name for target in targets}) != len(targets):
            raise ValueError("importers need different names")
        self._store = store
        self._clock = clock
        self._lanes = {target.importer.name: _Lane(target) for target in targets}
        self._take_apart = take_apart
        self._jitter = jitter
        self._poll_seconds = poll_seconds
        self._woken = asyncio.Event()
        # The threads of asyncio.to_thread are shared with the acceptance of mail, which must never wait for these.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="imports")

    def wake(self) -> None:
        """There may be something to deliver. A hint; to be called on the event loop of ``run``."""
        self._woken.set()

    async def run(self) -> None:
        """Deliver until cancelled; what runs then may end for a moment, and the rest is handed back."""
        try:
            while True:
                self._woken.clear()
                try:
                    await self._start_due()
                except StoreError as exc:
                    log.fault("deliveries_not_claimed", exc)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await self._woken.wait()
        finally:
            await self._end()

    async def drain(self) -> int:
        """Deliver until nothing is due and nothing runs; return how many attempts were made. For tests and tools."""
        attempts = 0
        while True:
            attempts += (started := await self._start_due())
            running = self._running()
            if running:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            elif not started:
                return attempts

    def _running(self) -> set[asyncio.Task[None]]:
        return {task for lane in self._lanes.values() for task in lane.running}

    async def _start_due(self) -> int:
        now = asyncio.get_running_loop().time()
        free = {name: lane for name, lane in self._lanes.items() if lane.room and lane.rests_until <= now}
        if not free:
            return 0
        due = await self._store.read(lambda rows: rows.deliveries.due(list(free)))
        started = 0
        for name in sorted(due):
            lane = free[name]
            # After failures one attempt feels its way; the others wait for how it goes.
            room = lane.room if not lane.failures else min(lane.room, 1)
            started += await self._claim(lane, room)
        return started

    async def _claim(self, lane: _Lane, room: int) -> int:
        lease = lane.target.timeout_seconds + LEASE_SECONDS
        held = await self._store.write(lambda rows: rows.deliveries.claim(lane.name, lease, room))
        for delivery in held:
            task = asyncio.create_task(self._attempt(lane, delivery), name=f"import-{lane.name}-{delivery.id}")
            lane.running.add(task)
            task.add_done_callback(partial(self._ended, lane))
        return len(held)

    def _ended(self, lane: _Lane, task: asyncio.Task[None]) -> None:
        lane.running.discard(task)
        self._woken.set()

    async def _end(self) -> None:
        running = self._running()
        if running:
            await asyncio.wait(running, timeout=STOP_SECONDS)
        for task in (left := self._running()):
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=STOP_SECONDS)
        for lane in self._lanes.values():
            with suppress(Exception):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await lane.target.importer.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- one attempt ---

    async def _attempt(self, lane: _Lane, held: Delivery) -> None:
        """Raises nothing: whatever goes wrong is written down, or left to the lease."""
        try:
            answer = await self._ask(lane, held)
            await self._settle(lane, held, answer)
        except (asyncio.CancelledError, _CrowdedError):
            # The target may have it by now; it is asked again with the same id.
            await self._write(held, lambda rows: rows.deliveries.hand_back(held))
        except Exception as exc:  # noqa: BLE001 - the owner of every failure of a delivery
            log.fault("delivery_failed_here", exc, importer=lane.name, link_id=held.link_id)
            if isinstance(exc, StoreUnavailableError | KeyUnavailableError):
                # It says nothing against the link, but it would be the same again at once.
                self._rest(lane, _Answer(reason=_FAULT))
                await self._write(held, lambda rows: rows.deliveries.hand_back(held))
            else:
                delay = self._delay(lane, held, _Answer(reason=_FAULT))
                await self._write(held, lambda rows: self._fail(rows, held, _FAULT, delay))

    async def _ask(self, lane: _Lane, held: Delivery) -> _Answer:
        wants = lane.target.importer.capabilities
        if held.action is DeliveryAction.RETRACT and not wants.retract:
            return _Answer(reason="cannot_retract", final=True)
        size = await self._store.read(
            lambda rows: rows.messages.facts(rows.links.get(held.link_id).message_id).size_bytes
        )
        async with AsyncExitStack() as inside:
            try:
                async with asyncio.timeout(GATE_SECONDS):
                    await inside.enter_async_context(lane.gate.hold(size if wants.content else 0))
            except TimeoutError:
                raise _CrowdedError from None
            request = await self._store.read(lambda rows: request_for(rows, held.link_id, with_bytes=wants.content))
            if wants.content:
                loop = asyncio.get_running_loop()
                request = await loop.run_in_executor(self._threads, completed, request, self._take_apart)
            return await self._call(lane, held, request)

    async def _call(self, lane: _Lane, held: Delivery, request: ImportRequest) -> _Answer:
        importer, receipts = lane.target.importer, {}
        if held.action is DeliveryAction.RETRACT:
            receipts = await self._store.read(lambda rows: rows.links.receipts(held.link_id))
        try:
            async with asyncio.timeout(lane.target.timeout_seconds):
                if held.action is DeliveryAction.RETRACT:
                    given = receipts.get(lane.name, "")
                    retraction = Retraction(request, given, held.reason, held.actor, held.asked_at)
                    receipt: object = await importer.retract(retraction)
                else:
                    receipt = await importer.import_message(request)
        except ImportRefusedError as exc:
            gone = isinstance(exc, ImporterGoneError)
            return _Answer(reason=_code(exc.reason), final=not gone, gone=gone)
        except ImportFailedError as exc:
            return _Answer(reason=_code(exc.reason), retry_after=exc.retry_after_seconds)
        except TimeoutError:
            return _Answer(reason="timeout")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody stops us: it is the importer's own, and a failure as any other.
            return _Answer(reason="raised_cancellederror")
        except Exception as exc:  # noqa: BLE001 - whatever a plug-in raises means: not imported, try again
            # Its text may hold PHI, and even the name of its class is the plug-in's: only ours are told.
            log.warning("importer_raised", exc=exc, importer=lane.name, link_id=held.link_id)
            return _Answer(reason=_code(f"raised_{type(exc).__name__}".lower()))
        return _checked(receipt)

    async def _settle(self, lane: _Lane, held: Delivery, answer: _Answer) -> None:
        if answer.receipt:
            lane.failures, lane.rests_until = 0, 0.0
            await self._write(held, lambda rows: self._acknowledge(rows, held, answer.receipt))
            log.info("imported", importer=lane.name, link_id=held.link_id, action=held.action, attempt=held.attempt)
            return
        self._rest(lane, answer)
        if answer.gone:
            await self._write(held, lambda rows: self._stop(rows, held, answer.reason))
            log.error("import_target_stopped", importer=lane.name, reason=answer.reason)
            return
        delay = None if answer.final else self._delay(lane, held, answer)
        await self._write(held, lambda rows: self._fail(rows, held, answer.reason, delay))
        if delay is None:
            log.error("import_set_aside", importer=lane.name, link_id=held.link_id, reason=answer.reason)
        else:
            log.warning(
                "import_failed",
                importer=lane.name,
                link_id=held.link_id,
                action=held.action,
                reason=answer.reason,
                attempt=held.attempt,
                retry_seconds=round(delay, 3),
            )

    def _delay(self, lane: _Lane, held: Delivery, answer: _Answer) -> float | None:
        schedule = lane.target.schedule
        if held.failures >= len(schedule):
            return None
        return min(max(schedule[held.failures] * self._jitter(), answer.retry_after or 0.0), MAX_RETRY_SECONDS)

    def _rest(self, lane: _Lane, answer: _Answer) -> None:
        """Let the whole target rest when it asks for that, or does nothing but fail."""
        if answer.final:
            return
        lane.failures += 1
        rest = min(answer.retry_after or 0.0, _PAUSES_SECONDS[-1])
        if lane.failures >= _PAUSE_AFTER:
            rest = max(rest, _PAUSES_SECONDS[min(lane.failures - _PAUSE_AFTER, len(_PAUSES_SECONDS) - 1)])
        lane.rests_until = asyncio.get_running_loop().time() + rest

    # --- what is written ---

    async def _write(self, held: Delivery, work: Callable[[UnitOfWork], object]) -> None:
        try:
            # A stop must not leave an answer unwritten that has already come.
            await asyncio.shield(self._store.write(work))
        except StoreError as exc:
            # The lease ends by itself, and the target is asked again with the same id.
            log.fault("delivery_not_settled", exc, importer=held.target, link_id=held.link_id)

    def _acknowledge(self, rows: UnitOfWork, held: Delivery, receipt: str) -> None:
        at = self._clock.now()
        mine = rows.deliveries.finish(held)
        detail = {"link": held.link_id, "importer": held.target}
        message = rows.links.get(held.link_id).message_id
        if held.action is DeliveryAction.RETRACT:
            if mine:
                rows.deliveries.add_retraction(held, receipt, at)
                rows.audit.add(at, ACTOR, "message.retracted", message, detail)
        elif held.target not in rows.links.receipts(held.link_id):
            # Also when the lease was lost meanwhile: it is true that the target has it.
            rows.links.add_receipt(held.link_id, held.target, receipt, at)
            rows.audit.add(at, ACTOR, "message.imported", message, detail)

    def _fail(self, rows: UnitOfWork, held: Delivery, reason: str, delay: float | None) -> None:
        retry_in = None if delay is None else timedelta(seconds=delay)
        if rows.deliveries.fail(held, reason, retry_in) and delay is None:
            detail = {"importer": held.target, "action": held.action.value, "reason": reason}
            rows.audit.add(self._clock.now(), ACTOR, "import.set_aside", held.link_id, detail)

    def _stop(self, rows: UnitOfWork, held: Delivery, reason: str) -> None:
        at = self._clock.now()
        rows.deliveries.hand_back(held)
        rows.deliveries.stop(held.target, reason, at)
        rows.audit.add(at, ACTOR, "import.target_stopped", held.target, {"reason": reason})


def _code(reason: object) -> str:
    """A reason as it may be kept and shown: a code, or that it was none."""
    return reason if isinstance(reason, str) and _REASON.match(reason) else "unusable_reason"


def _checked(receipt: object) -> _Answer:
    """A receipt that is none is a nack: nobody could find the record by it."""
    if not isinstance(receipt, str) or not receipt.strip() or len(receipt) > MAX_RECEIPT_CHARS:
        return _Answer(reason="unusable_receipt")
    return _Answer(receipt=receipt) if receipt.isprintable() else _Answer(reason="unusable_receipt")
