"""The ``link`` step: puts a filed message on a chart when the rule is certain, or leaves it in the unlinked queue.

What the message says of its patient is read before the transaction, from the verified bytes alone; it is held against
the patients whom the address book names within it. A document of somebody else in a message from a patient's own
address is a conflict, and waits for a person (matching policy 2 and 3).

One transaction: the decision is made on the same snapshot that it is written to, so that no import of patients
and no person's link can come between. It writes either the link, the state ``linked``, an ``import`` job and the
audit row, or the audited decision not to link; the keywords and the view that tell mail clients of it
(:mod:`gateway.core.standing`); and it removes its own job. After the commit the change feed gets its hint.

Guarantees: a message that has a link already (a person was faster, or an earlier run) is left alone; a message
that is not filed is never linked. Failure modes: ``StoreError`` when the lease was lost to a later attempt or the
commit failed, ``ConflictError`` when the message is not filed; nothing is written then and the worker tries again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from gateway.core.claims import Evidence, Source
from gateway.core.errors import ConflictError, NotFoundError, StoreError
from gateway.core.findings import Findings
from gateway.core.lifecycle import JobKind, State
from gateway.core.matching import Decision, decide
from gateway.core.standing import Standing
from gateway.pipeline.byte_gate import ByteGate
from gateway.ports import ChangeFeed, Clock, EvidenceReader, Job, Link, Patient, Store, UnitOfWork

ACTOR = "gateway"
"""Who links when nobody does."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided of a message, before anything is written."""

    decision: Decision
    entries: int
    """How many times the address book names the sender."""
    evidence: Evidence
    findings: Findings | None
    """How the documented patients stand to the evidence; None for a message that says nothing but who sent it."""

    @property
    def standing(self) -> Standing:
        """How the message stands by it."""
        return Standing(linked=self.decision.patient_id is not None, decided=True)

    @property
    def inputs(self) -> dict[str, object]:
        """What was decided on, for the audit log: counts and fixed words, nothing that the message says."""
        found: dict[str, object] = {"rule": self.decision.rule, "entries": self.entries}
        if self.findings is not None:
            found["claims"] = dict(Counter(claim.source.value for claim in self.evidence.claims))
            found["problems"] = sorted({problem.code for problem in self.evidence.problems})
            found["contradictions"] = sorted({one.field.value for one in self.findings.contradictions})
            found["points"] = self.decision.points
        return found


class LinkMessage:
    """Runs ``link`` jobs, whose subject is the message id."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        new_link_id: Callable[[], str],
        feed: ChangeFeed,
        evidence: EvidenceReader,
        *,
        automatic: bool,
        gate: ByteGate | None = None,
    ) -> None:
        """``automatic`` False: even an exact match waits for a person.

        ``gate`` bounds the memory of all steps that share it.
        """
        self._store = store
        self._clock = clock
        self._new_link_id = new_link_id
        self._feed = feed
        self._evidence = evidence
        self._gate = gate or ByteGate()
        self._automatic = automatic

    async def __call__(self, job: Job) -> bool:
        """Run one job; returns whether another one may follow.

        Raises:
            StoreError: the lease was lost, or the commit failed.
            ConflictError: the message is not filed.
            NotFoundError: there is no such message, or it was not accepted.
        """
        evidence = await self._read_stored(job.subject)
        at, link_id = self._clock.now(), self._new_link_id()

        def work(tx: UnitOfWork) -> tuple[bool, list[int]]:
            linked = not tx.links.for_message(job.subject) and self._link_filed(tx, job.subject, evidence, link_id, at)
            if not tx.jobs.finish(job):
                raise StoreError("the lease of the link job was lost")
            return linked, tx.standings.settle([job.subject])

        linked, mailboxes = await self._store.write(work)
        for mailbox_id in mailboxes:
            self._feed.changed(mailbox_id)
        return linked

    def new_id(self) -> str:
        """An id for a link that may be made."""
        return self._new_link_id()

    def read(self, content: bytes, sender: str) -> Evidence:
        """What the message says of its patient. It takes CPU: to be called in a thread, before the transaction."""
        return self._evidence.read(content, sender)

    async def _read_stored(self, message_id: str) -> Evidence:
        """The same of a stored message; nothing of one that is not to be decided any more, or was never accepted."""
        linked, facts = await self._store.read(
            lambda tx: (tx.links.for_message(message_id), tx.messages.facts(message_id))
        )
        sender = facts.sender
        if linked or sender is None:
            return Evidence()
        async with self._gate.hold(facts.size_bytes):
            content = (await self._store.read(lambda tx: tx.messages.content(message_id))).content
            return await asyncio.to_thread(self.read, content, sender)

    def rule(self, tx: UnitOfWork, sender: str, evidence: Evidence) -> Ruling:
        """Decide of a message within the transaction that files it; ``sender`` is who the signature was bound to."""
        entries = tx.patients.address_book(sender) if sender else []
        patients: dict[str, Patient] = {}
        for patient_id in {entry.patient_id for entry in entries}:
            with suppress(NotFoundError):
                patients[patient_id] = tx.patients.get(patient_id)
        findings = self._evidence.weigh(evidence, list(patients.values())) if _says_more(evidence) else None
        # Only the documented patients were compared: whether somebody else is as likely is not known, so that
        # demographics cannot link.
        decision = decide(sender, entries, patients, automatic=self._automatic, demographics=False, findings=findings)
        return Ruling(decision, len(entries), evidence, findings)

    def carry_out(self, tx: UnitOfWork, message_id: str, ruling: Ruling, link_id: str, at: datetime) -> bool:
        """Link the filed message, or audit why not; returns whether it was linked.

        Its keywords and its view are the caller's.
        """
        decision = ruling.decision
        detail = {**ruling.inputs, "automatic": self._automatic}
        if decision.patient_id is None:
            tx.audit.add(at, ACTOR, "message.unlinked", message_id, detail)
            return False
        self._link(tx, message_id, decision, link_id, at)
        tx.audit.add(
            at, ACTOR, "message.linked", message_id, {**detail, "link": link_id, "patient": decision.patient_id}
        )
        return True

    def _link_filed(self, tx: UnitOfWork, message_id: str, evidence: Evidence, link_id: str, at: datetime) -> bool:
        state = tx.messages.state(message_id)
        if state is not State.FILED:
            raise ConflictError(f"a message that is {state} cannot be linked")
        # Content exists for accepted messages only, and its sender is the one that the signature was bound to.
        sender = tx.messages.facts(message_id).sender
        if sender is None:
            raise NotFoundError("there is no accepted message with that id")
        return self.carry_out(tx, message_id, self.rule(tx, sender, evidence), link_id, at)

    def _link(self, tx: UnitOfWork, message_id: str, decision: Decision, link_id: str, at: datetime) -> None:
        assert decision.patient_id is not None  # noqa: S101 - the caller asked
        tx.links.add(Link(link_id, message_id, decision.patient_id, "automatic", ACTOR, decision.rule, at))
        tx.messages.set_state(message_id, State.LINKED, at, decision.rule)
        tx.jobs.enqueue(JobKind.IMPORT, link_id)


def _says_more(evidence: Evidence) -> bool:
    """Whether the message says anything of a patient besides who sent it."""
    return bool(evidence.problems) or any(claim.source is not Source.SIGNED_FROM for claim in evidence.claims)
