"""The ``unwrap`` step: the Security/Trust Agent judges the raw message, and its judgement is kept.

The agent runs first, outside any transaction, in a bounded pool of threads: it takes CPU. Judging is a pure
function of the raw bytes, the envelope, keys, anchors and the time, so a crash here costs nothing but the time.
Then one transaction: the verdict with its evidence; and for an accepted message the content, the state
``unwrapped`` and the ``file`` job, for a rejected one the state ``refused``, which is the quarantine; the audit row;
and the end of this job.

Guarantees: no content is kept of a message that the agent did not accept for at least one of its own recipients;
a judgement that contradicts itself is a fault and delivers nothing. What a worker does whose lease was lost in the
meantime is rolled back.

A message that was lost with its process ``ISOLATE_AFTER`` times is judged by the isolated agent, in a process of its
own: it may be what kills the process, or somebody may have killed the process from outside while it was there.

Failure modes: an exception of the agent is a fault of ours, never a rejection: the worker tries again by its
schedule, and after the last attempt ``set_aside`` puts the message into quarantine by name. It is never lost: an
operator may run it again with ``requeue_refused``.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from datetime import datetime

from gateway.core.errors import ConflictError, StoreError
from gateway.core.lifecycle import JobKind, State
from gateway.core.message import Envelope
from gateway.core.verdict import Check, Judgement, Reason
from gateway.ports import Clock, Job, RawMessage, SecurityAgent, Store, UnitOfWork

ACTOR = "gateway"
ISOLATE_AFTER = 2
"""Attempts that ended with the process before the message is judged in a process of its own."""
QUARANTINE = "quarantine"
"""First word of the detail of a message that could not be judged."""


IsolatedJudge = Callable[[bytes, Envelope, datetime], Awaitable[Judgement]]


class Unwrap:
    """Runs ``unwrap`` jobs, whose subject is the message id."""

    survives_losses = True
    """Losses prove nothing against a job of this step: see :class:`gateway.workers.pool.SurvivesLosses`."""

    def __init__(
        self, store: Store, agent: SecurityAgent, clock: Clock, executor: Executor, isolated: IsolatedJudge
    ) -> None:
        """``executor`` bounds how many messages are judged at the same time; ``isolated`` judges in another process."""
        self._store = store
        self._agent = agent
        self._clock = clock
        self._executor = executor
        self._isolated = isolated

    async def __call__(self, job: Job) -> None:
        """Run one job.

        Raises:
            StoreError: the lease was lost, or the commit failed, or the stored bytes are damaged.
            NotFoundError: there is no such message.
            ConflictError: the agent's judgement contradicts itself.
        """
        raw = await self._store.read(lambda rows: _due(rows, job.subject))
        if raw is None:
            await self._store.write(lambda rows: _finish(rows, job))
            return
        at = self._clock.now()
        envelope = Envelope(raw.mail_from, raw.recipients)
        if job.lost >= ISOLATE_AFTER:
            judgement = await self._isolated(raw.body, envelope, at)
        else:
            loop = asyncio.get_running_loop()
            judgement = await loop.run_in_executor(self._executor, self._agent.judge, raw.body, envelope, at)
        check_judgement(judgement, raw.recipients)
        await self._store.write(lambda rows: _keep(rows, job, judgement, at))

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
        rows.messages.set_state(message_id, State.RECEIVED, at, "judged again by an operator")
        rows.jobs.enqueue(JobKind.UNWRAP, message_id, at)
        rows.audit.add(at, actor, "message.retry", message_id)

    await store.write(again)


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


def _due(rows: UnitOfWork, message_id: str) -> RawMessage | None:
    """The message, when it still waits to be judged."""
    return rows.messages.raw(message_id) if rows.messages.state(message_id) is State.RECEIVED else None


def _finish(rows: UnitOfWork, job: Job) -> None:
    if not rows.jobs.finish(job):
        raise StoreError("the lease of the unwrap job was lost")


def _keep(rows: UnitOfWork, job: Job, judgement: Judgement, at: datetime) -> None:
    # Fencing first: what follows belongs to whoever holds the job now.
    _finish(rows, job)
    message_id = job.subject
    rows.messages.add_verdict(message_id, at, judgement)
    if judgement.content is not None:
        rows.messages.add_content(message_id, judgement)
        rows.messages.set_state(message_id, State.UNWRAPPED, at)
        rows.jobs.enqueue(JobKind.FILE, message_id, at)
        detail = {
            "recipients": len(judgement.delivered_to),
            "content_sha256": hashlib.sha256(judgement.content).hexdigest(),
            "policy": judgement.policy_version,
        }
        rows.audit.add(at, ACTOR, "message.accepted", message_id, detail)
    else:
        rows.messages.set_state(message_id, State.REFUSED, at, judgement.reason.value)
        detail = {"reason": judgement.reason.value, "policy": judgement.policy_version}
        rows.audit.add(at, ACTOR, "message.refused", message_id, detail)
