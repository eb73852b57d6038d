"""The ``unwrap`` step: the Security/Trust Agent judges the raw message, and its judgement is kept.

The agent runs first, outside any transaction, in a bounded pool of threads: it takes CPU. Judging is a pure
function of the raw bytes, the envelope, keys, anchors and the time, so a crash here costs nothing but the time.
Where bodies are placed outside the database, the content of an accepted message is placed next.
Then one transaction: the verdict with its evidence; and for an accepted message the content, the state
``unwrapped`` and the ``file`` job, for a rejected one the state ``refused``, which is the quarantine; the audit row;
and the end of this job. At its first attempt an accepted message goes on to its inbox within that transaction, and no
``file`` job is asked for (:mod:`gateway.pipeline.onward`).

A message that has just been accepted is taken from memory when it is there (:mod:`gateway.pipeline.hand_over`). That it
still waits to be judged is then seen by the transaction, which refuses any other move.

Guarantees: no content is kept of a message that the agent did not accept for at least one of its own recipients;
a judgement that contradicts itself is a fault and delivers nothing. What a worker does whose lease was lost in the
meantime is rolled back.

A message that was lost with its process ``ISOLATE_AFTER`` times is judged by the isolated agent, in a process of its
own: it may be what kills the process, or somebody may have killed the process from outside while it was there.

Failure modes: an exception of the agent is a fault of ours, never a rejection: the worker tries again by its
schedule, and after the last attempt ``set_aside`` puts the message into quarantine by name. It is never lost: an
operator may run it again with ``requeue_refused`` or, after the mend, many of them with ``requeue_all_refused``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime

from gateway.core.errors import ConflictError, StoreError
from gateway.core.lifecycle import JobKind, State
from gateway.core.message import Envelope
from gateway.core.verdict import Check, Judgement, Reason
from gateway.observability.log import get_log
from gateway.pipeline.byte_gate import ByteGate
from gateway.pipeline.hand_over import HandOver
from gateway.pipeline.onward import Onward, Outcome, Prepared
from gateway.ports import (
    BodyStore,
    Clock,
    Job,
    PlacedBody,
    RawMessage,
    SecurityAgent,
    Store,
    UnitOfWork,
)

ACTOR = "gateway"
log = get_log("pipeline")
ISOLATE_AFTER = 2
"""Attempts that ended with the process before the message is judged in a process of its own."""
QUARANTINE = "quarantine"
"""First word of the detail of a message that could not be judged."""


IsolatedJudge = Callable[[bytes, Envelope, datetime], Awaitable[Judgement]]


@dataclass(frozen=True, slots=True)
class _Judged:
    """What came of the examination."""

    judgement: Judgement
    at: datetime
    prepared: Prepared | None = None
    """When the message may go on at once."""


class Unwrap:
    """Runs ``unwrap`` jobs, whose subject is the message id."""

    survives_losses = True
    """Losses prove nothing against a job of this step: see :class:`gateway.workers.pool.SurvivesLosses`."""

    def __init__(
        self,
        store: BodyStore,
        agent: SecurityAgent,
        clock: Clock,
        executor: Executor,
        isolated: IsolatedJudge,
        *,
        gate: ByteGate | None = None,
        hand_over: HandOver | None = None,
        onward: Onward | None = None,
    ) -> None:
        """``executor`` bounds how many messages are judged at the same time; ``isolated`` judges in another process.

        ``gate`` bounds the memory of all steps that share it. ``hand_over`` has what was accepted a moment ago.
        ``onward`` files at once what is accepted; without it every step has a job of its own.
        """
        self._store = store
        self._agent = agent
        self._clock = clock
        self._executor = executor
        self._isolated = isolated
        self._gate = gate or ByteGate()
        self._hand_over = hand_over
        self._onward = onward

    async def __call__(self, job: Job) -> bool:
        """Run one job; returns whether another one may follow.

        Raises:
            StoreError: the lease was lost, or the commit failed, or the stored bytes are damaged.
            NotFoundError: there is no such message.
            ConflictError: the agent's judgement contradicts itself.
        """
        handed = None if self._hand_over is None else self._hand_over.take(job.subject)
        if handed is not None:
            async with self._gate.hold(len(handed.body)):
                return await self._run(job, handed)
        size, raw = await self._store.read(lambda rows: _look(rows, job.subject, self._gate))
        async with self._gate.hold(size):
            if raw is None:
                raw = await self._store.read(lambda rows: _due(rows, job.subject))
            if raw is None:
                await self._store.write(lambda rows: _finish(rows, job))
                return False
            waiting = [raw]
            del raw
            # The bytes are let go as soon as they were judged.
            return await self._run(job, waiting.pop())

    async def _run(self, job: Job, raw: RawMessage) -> bool:
        judged = await self._judge(job, raw)
        del raw
        content = judged.judgement.content
        placed = None if content is None else await self._store.place_content(job.subject, content)
        outcome = await self._keep(job, judged, placed)
        judgement = judged.judgement
        log.info("message_judged", message_id=job.subject, verdict=judgement.verdict, reason=judgement.reason.value)
        return outcome.follows

    async def _judge(self, job: Job, raw: RawMessage) -> _Judged:
        envelope, at = Envelope(raw.mail_from, raw.recipients), self._clock.now()
        if job.lost >= ISOLATE_AFTER:
            judgement = await self._isolated(raw.body, envelope, at)
            check_judgement(judgement, raw.recipients)
            return _Judged(judgement, at)
        onward = self._onward
        # Once only: whatever goes wrong on the way further must not keep the content from being kept.
        first = job.attempt == 1 and not job.lost
        if onward is not None and not (first and onward.takes(len(raw.body))):
            onward = None

        def examine() -> _Judged:
            judgement = self._agent.judge(raw.body, envelope, at)
            check_judgement(judgement, raw.recipients)
            content = judgement.content
            if onward is None or content is None:
                return _Judged(judgement, at)
            return _Judged(judgement, at, onward.prepare(content, judgement.sender))

        return await asyncio.get_running_loop().run_in_executor(self._executor, examine)

    async def _keep(self, job: Job, judged: _Judged, placed: PlacedBody | None) -> Outcome:
        onward, prepared = self._onward, judged.prepared
        if onward is None or prepared is None:
            return await self._store.write(lambda rows: _keep(rows, job, judged, placed))
        filed_at, link_id = self._clock.now(), onward.link_id()

        def keep_and_file(rows: UnitOfWork) -> Outcome:
            _keep_judgement(rows, job, judged, placed)
            return onward.write(rows, job.subject, judged.judgement, prepared, link_id=link_id, at=filed_at)

        outcome = await self._store.write(keep_and_file)
        onward.tell(outcome)
        return outcome

    def set_aside(self, rows: UnitOfWork, job: Job, at: datetime, error: str) -> None:
        """Put the message of a poisoned job into quarantine, within the transaction that sets the job aside.

        ``error`` is a class name and a place in the program.
        """
        if rows.messages.state(job.subject) is not State.RECEIVED:
            return
        detail = f"{QUARANTINE}: the examination failed {job.attempt} times ({error})"
        failed = Judgement(
            reason=Reason.RESOURCE_LIMIT,
            detail=detail,
            checks=(Check("examination", "failed", detail),),
        )
        rows.messages.add_verdict(job.subject, at, failed)
        rows.messages.set_state(job.subject, State.REFUSED, at, detail)
        rows.audit.add(at, ACTOR, "message.quarantined", job.subject, {"attempts": job.attempt, "error": error})


async def requeue_refused(store: Store, clock: Clock, message_id: str, actor: str) -> None:
    """Judge a refused message again, after a repair (a key, an anchor): ``refused`` to ``received``.

    Raises:
        ConflictError: the message is not refused. NotFoundError: there is none. StoreError: the commit failed.
    """
    at = clock.now()

    def again(rows: UnitOfWork) -> None:
        state = rows.messages.state(message_id)
        if state is not State.REFUSED:
            raise ConflictError(f"only a refused message can be judged again; this one is {state.value}")
        _requeue(rows, message_id, at, actor)

    await store.write(again)


async def requeue_all_refused(store: Store, clock: Clock, message_ids: Sequence[str], actor: str) -> list[str]:
    """Judge those of the messages again that are refused now, in one transaction; returns their ids.

    What somebody else has put back in the meantime is left alone. Give a bounded number: the store writes nothing else
    while this runs.

    Raises:
        NotFoundError: there is no such message. StoreError: the commit failed; all of them are as they were.
    """
    at = clock.now()

    def again(rows: UnitOfWork) -> list[str]:
        refused = [one for one in message_ids if rows.messages.state(one) is State.REFUSED]
        for message_id in refused:
            _requeue(rows, message_id, at, actor)
        return refused

    return await store.write(again)


def _requeue(rows: UnitOfWork, message_id: str, at: datetime, actor: str) -> None:
    rows.messages.set_state(message_id, State.RECEIVED, at, "judged again by an operator")
    rows.jobs.enqueue(JobKind.UNWRAP, message_id)
    rows.audit.add(at, actor, "message.retry", message_id)


def check_judgement(judgement: Judgement, recipients: tuple[str, ...]) -> None:
    """Refuse to act on a judgement that does not hold together: the last gate before content is kept.

    Raises:
        ConflictError: accepted without content, or for nobody, or for somebody who was not asked for; or rejected
            with something to deliver.
    """
    delivered = set(judgement.delivered_to)
    if judgement.accepted:
        trusting = {trust.recipient for trust in judgement.trust if trust.reason is Reason.OK}
        sound = bool(judgement.content) and bool(delivered) and delivered <= set(recipients) and delivered <= trusting
    else:
        sound = judgement.content is None and not delivered
    if not sound:
        raise ConflictError("the judgement contradicts itself; nothing is delivered")


def _look(rows: UnitOfWork, message_id: str, gate: ByteGate) -> tuple[int, RawMessage | None]:
    """The size of the message; and the message itself, when it waits to be judged and need not wait at the gate."""
    size = rows.messages.facts(message_id).size_bytes
    return size, _due(rows, message_id) if gate.passes(size) else None


def _due(rows: UnitOfWork, message_id: str) -> RawMessage | None:
    """The message, when it still waits to be judged."""
    return rows.messages.raw(message_id) if rows.messages.state(message_id) is State.RECEIVED else None


def _finish(rows: UnitOfWork, job: Job) -> None:
    if not rows.jobs.finish(job):
        raise StoreError("the lease of the unwrap job was lost")


def _keep(rows: UnitOfWork, job: Job, judged: _Judged, placed: PlacedBody | None) -> Outcome:
    _keep_judgement(rows, job, judged, placed)
    if judged.judgement.content is None:
        return Outcome(follows=False)
    rows.jobs.enqueue(JobKind.FILE, job.subject)
    return Outcome()


def _keep_judgement(rows: UnitOfWork, job: Job, judged: _Judged, placed: PlacedBody | None) -> None:
    # Fencing first: what follows belongs to whoever holds the job now.
    _finish(rows, job)
    message_id, judgement, at = job.subject, judged.judgement, judged.at
    rows.messages.add_verdict(message_id, at, judgement)
    if judgement.content is not None:
        rows.messages.add_content(message_id, judgement, placed)
        rows.messages.set_state(message_id, State.UNWRAPPED, at)
        detail = {
            "recipients": len(judgement.delivered_to),
            "content_sha256": judgement.content_sha256,
            "policy": judgement.policy_version,
        }
        rows.audit.add(at, ACTOR, "message.accepted", message_id, detail)
    else:
        rows.messages.set_state(message_id, State.REFUSED, at, judgement.reason.value)
        detail = {"reason": judgement.reason.value, "policy": judgement.policy_version}
        rows.audit.add(at, ACTOR, "message.refused", message_id, detail)
