"""The ``link`` step: puts a filed message on a chart when the rule is certain, or leaves it in the unlinked queue.

What the message says of its patient is read before the transaction, from the verified bytes alone; within it, it is
held against every patient who may be meant, and against those whom the address book names. A document of somebody else
in a message from a patient's own address is a conflict, and waits for a person (matching policy 2 and 3). Every
decision is in the audit log with what it was made on, also the one not to link (matching policy 8).

One transaction: the decision is made on the same snapshot that it is written to, so that no import of patients
and no person's link can come between. It writes either the link, the state ``linked``, an ``import`` job and the
audit row, or the audited decision not to link; the keywords and the view that tell mail clients of it
(:mod:`gateway.core.standing`); and it removes its own job. After the commit the change feed gets its hint.

Guarantees: a message that has, or ever had, a link (a person was faster, or an earlier run), or a copy of which has, is
left alone: what a person has undone is never linked again by itself. A message that is not filed is never linked.
Failure modes: ``StoreError`` when the lease was lost to a later attempt or the commit failed, ``ConflictError`` when
the message is not filed; nothing is written then and the worker tries again. After the last attempt ``set_aside``
leaves the message to a person, with the reason: it waits in the unlinked queue as every other one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from gateway.core.claims import Evidence
from gateway.core.document_marks import marks_of
from gateway.core.errors import ConflictError, StoreError
from gateway.core.findings import Agreement, Comparison, Findings
from gateway.core.lifecycle import JobKind, State
from gateway.core.link_policy import LinkPolicy
from gateway.core.matching import EVIDENCE_RULE_VERSION, Decision, DecisionKind, Ground, decide
from gateway.core.standing import Standing
from gateway.pipeline.byte_gate import ByteGate
from gateway.ports import AddressBookEntry, ChangeFeed, Clock, EvidenceReader, Job, Link, Patient, Store, UnitOfWork

ACTOR = "gateway"
"""Who links when nobody does."""
MOST_KEPT = 5
"""Of the patients who were compared, how many a decision keeps, the likeliest first."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided of a message, before anything is written."""

    decision: Decision
    entries: int
    """How many times the address book names the sender."""
    evidence: Evidence
    findings: Findings | None
    """How the patients stand to the evidence; None for a message that says nothing but who sent it."""
    automatic: bool
    """Whether the settings let anything link by itself in the mailboxes that got it."""

    @property
    def standing(self) -> Standing:
        """How the message stands by it."""
        return Standing(linked=self.decision.patient_id is not None, decided=True)

    @property
    def inputs(self) -> dict[str, object]:
        """What was decided, and on what, for the audit log: ids, counts and fixed words, nothing that anybody said."""
        found: dict[str, object] = {
            "decision": str(self.decision.kind),
            "rule": self.decision.rule,
            "entries": self.entries,
            "automatic": self.automatic,
        }
        if self.findings is not None:
            found["claims"] = dict(Counter(claim.source.value for claim in self.evidence.claims))
            found["problems"] = sorted({problem.code for problem in self.evidence.problems})
            found["contradictions"] = sorted({one.field.value for one in self.findings.contradictions})
            found["between"] = sorted(
                {f"{c.field}: {c.left.source}, {c.right.source}" for c in self.findings.contradictions}
            )
            found["points"] = self.decision.points
            found["compared"] = len(self.findings.comparisons)
            found["candidates"] = [_kept(one) for one in self.findings.comparisons[:MOST_KEPT]]
        return found


def _kept(one: Comparison) -> dict[str, object]:
    """How a patient stood to the message; what says nothing is left out."""
    agreements = {"family": one.family, "given": one.given, "birth_date": one.birth_date, "sex": one.sex}
    marks = {
        "contact": one.contact,
        "identifier": one.identifier,
        "direct": one.direct,
        "other_identifier": one.other_identifier,
        "inactive": not one.active,
        "deceased": one.deceased,
        "merged": one.merged,
    }
    return {
        "patient": one.patient_id,
        "points": one.points,
        **{name: str(agreement) for name, agreement in agreements.items() if agreement is not Agreement.UNKNOWN},
        **{name: True for name, is_so in marks.items() if is_so},
    }


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
        policy: LinkPolicy,
        gate: ByteGate | None = None,
    ) -> None:
        """``gate`` bounds the memory of all steps that share it."""
        self._store = store
        self._clock = clock
        self._new_link_id = new_link_id
        self._feed = feed
        self._evidence = evidence
        self._gate = gate or ByteGate()
        self._policy = policy

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
            linked = not tx.links.history(job.subject) and self._link_filed(tx, job.subject, evidence, link_id, at)
            if not tx.jobs.finish(job):
                raise StoreError("the lease of the link job was lost")
            return linked, tx.standings.settle([job.subject])

        linked, mailboxes = await self._store.write(work)
        for mailbox_id in mailboxes:
            self._feed.changed(mailbox_id)
        return linked

    def set_aside(self, rows: UnitOfWork, job: Job, at: datetime, error: str) -> None:
        """Leave the message of a poisoned job to a person, within the transaction that sets the job aside.

        ``error`` is a class name and a place in the program.
        """
        if rows.messages.state(job.subject) is not State.FILED or rows.links.history(job.subject):
            return
        rule = f"{EVIDENCE_RULE_VERSION}:{Ground.NOT_ALL_READ}"
        detail = {"decision": str(DecisionKind.UNLINKED), "rule": rule, "attempts": job.attempt, "error": error}
        rows.audit.add(at, ACTOR, "message.unlinked", job.subject, detail)
        # Watchers of the mailboxes are not told at once: nothing is known after this commit. They look by themselves.
        rows.standings.settle([job.subject])

    def new_id(self) -> str:
        """An id for a link that may be made."""
        return self._new_link_id()

    def read(self, content: bytes, sender: str) -> Evidence:
        """What the message says of its patient. It takes CPU: to be called in a thread, before the transaction."""
        return self._evidence.read(content, sender)

    async def _read_stored(self, message_id: str) -> Evidence:
        """The same of a stored message; nothing of one that is not to be decided any more, or was never accepted."""
        linked, facts = await self._store.read(lambda tx: (tx.links.history(message_id), tx.messages.facts(message_id)))
        sender = facts.sender
        if linked or sender is None:
            return Evidence()
        async with self._gate.hold(facts.size_bytes):
            content = (await self._store.read(lambda tx: tx.messages.content(message_id))).content
            return await asyncio.to_thread(self.read, content, sender)

    def rule(self, tx: UnitOfWork, sender: str, evidence: Evidence, delivered_to: Collection[str]) -> Ruling:
        """Decide of a message within the transaction that files it; ``sender`` is who the signature was bound to."""
        policy, automatic = self._policy, self._policy.allows(delivered_to)
        entries, patients = documented(tx, sender)
        findings = self._evidence.weigh(tx, evidence, patients.keys())
        decision = decide(
            sender,
            entries,
            patients,
            automatic=automatic,
            numbers=policy.numbers,
            demographics=policy.demographics,
            findings=findings,
        )
        return Ruling(decision, len(entries), evidence, findings, automatic)

    def carry_out(self, tx: UnitOfWork, message_id: str, ruling: Ruling, link_id: str, at: datetime) -> bool:
        """Link the filed message, or audit why not; returns whether it was linked.

        Its keywords and its view are the caller's.
        """
        decision = ruling.decision
        detail = ruling.inputs
        if decision.patient_id is None:
            tx.audit.add(at, ACTOR, "message.unlinked", message_id, detail)
            return False
        self._link(tx, message_id, ruling, link_id, at)
        tx.audit.add(
            at, ACTOR, "message.linked", message_id, {**detail, "link": link_id, "patient": decision.patient_id}
        )
        return True

    def _link_filed(self, tx: UnitOfWork, message_id: str, evidence: Evidence, link_id: str, at: datetime) -> bool:
        state = tx.messages.state(message_id)
        if state is not State.FILED:
            raise ConflictError(f"a message that is {state} cannot be linked")
        # Content exists for accepted messages only, and its sender is the one that the signature was bound to.
        content = tx.messages.content(message_id, with_bytes=False)
        ruling = self.rule(tx, content.sender, evidence, content.delivered_to)
        return self.carry_out(tx, message_id, ruling, link_id, at)

    def _link(self, tx: UnitOfWork, message_id: str, ruling: Ruling, link_id: str, at: datetime) -> None:
        decision = ruling.decision
        assert decision.patient_id is not None  # noqa: S101 - the caller asked
        stored = tx.messages.content(message_id, with_bytes=False)
        marks = marks_of(stored.sender, stored.rfc822_message_id, ruling.evidence.documents)
        tx.links.add(Link(link_id, message_id, decision.patient_id, "automatic", ACTOR, decision.rule, at), marks)
        tx.messages.set_state(message_id, State.LINKED, at, decision.rule)
        tx.jobs.enqueue(JobKind.IMPORT, link_id)


def documented(tx: UnitOfWork, sender: str) -> tuple[list[AddressBookEntry], dict[str, Patient]]:
    """What the address book holds for a verified sender, and those of its patients whom the index has, by id."""
    entries = tx.patients.address_book(sender) if sender else []
    return entries, {patient.id: patient for patient in tx.patients.several({entry.patient_id for entry in entries})}
