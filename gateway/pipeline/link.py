"""The ``link`` step: puts a filed message on a chart when the rule is certain, or leaves it in the unlinked queue.

One transaction: the decision is made on the same snapshot that it is written to, so that no import of patients
and no person's link can come between. It writes either the link, the state ``linked``, an ``import`` job and the
audit row, or the audited decision not to link; and it removes its own job.

Guarantees: a message that has a link already (a person was faster, or an earlier run) is left alone; a message
that is not filed is never linked. Failure modes: ``StoreError`` when the lease was lost to a later attempt or the
commit failed, ``ConflictError`` when the message is not filed; nothing is written then and the worker tries again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from gateway.core.errors import ConflictError, NotFoundError, StoreError
from gateway.core.lifecycle import JobKind, State
from gateway.core.matching import Decision, decide
from gateway.ports import Clock, Job, Link, Patient, Store, UnitOfWork

ACTOR = "gateway"
"""Who links when nobody does."""


class LinkMessage:
    """Runs ``link`` jobs, whose subject is the message id."""

    def __init__(self, store: Store, clock: Clock, new_link_id: Callable[[], str], *, automatic: bool) -> None:
        """``automatic`` False: even an exact match waits for a person."""
        self._store = store
        self._clock = clock
        self._new_link_id = new_link_id
        self._automatic = automatic

    async def __call__(self, job: Job) -> None:
        """Run one job.

        Raises:
            StoreError: the lease was lost, or the commit failed.
            ConflictError: the message is not filed.
            NotFoundError: there is no such message, or it was not accepted.
        """
        at, link_id = self._clock.now(), self._new_link_id()

        def work(tx: UnitOfWork) -> None:
            if not tx.links.for_message(job.subject):
                self._decide(tx, job.subject, link_id, at)
            if not tx.jobs.finish(job):
                raise StoreError("the lease of the link job was lost")

        await self._store.write(work)

    def _decide(self, tx: UnitOfWork, message_id: str, link_id: str, at: datetime) -> None:
        state = tx.messages.state(message_id)
        if state is not State.FILED:
            raise ConflictError(f"a message that is {state} cannot be linked")
        # Content exists for accepted messages only, and its sender is the one that the signature was bound to.
        sender = tx.messages.content(message_id).sender
        entries = tx.patients.address_book(sender) if sender else []
        patients: dict[str, Patient] = {}
        for patient_id in {entry.patient_id for entry in entries}:
            with suppress(NotFoundError):
                patients[patient_id] = tx.patients.get(patient_id)
        decision = decide(sender, entries, patients, automatic=self._automatic)
        detail = {"rule": decision.rule, "entries": len(entries), "automatic": self._automatic}
        if decision.patient_id is None:
            tx.audit.add(at, ACTOR, "message.unlinked", message_id, detail)
            return
        self._link(tx, message_id, decision, link_id, at)
        tx.audit.add(
            at, ACTOR, "message.linked", message_id, {**detail, "link": link_id, "patient": decision.patient_id}
        )

    def _link(self, tx: UnitOfWork, message_id: str, decision: Decision, link_id: str, at: datetime) -> None:
        assert decision.patient_id is not None  # noqa: S101 - the caller asked
        tx.links.add(Link(link_id, message_id, decision.patient_id, "automatic", ACTOR, decision.rule, at))
        tx.messages.set_state(message_id, State.LINKED, at, decision.rule)
        tx.jobs.enqueue(JobKind.IMPORT, link_id, at)
