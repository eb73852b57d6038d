"""The rules of links that people make and undo, each to be called within the transaction that writes it.

A link puts a message, or one part of it, on a patient's chart. Two links *meet* when they are of the same content: the
same part, or one of them is of the whole message. Links of different parts never meet, so a message with documents of
two patients can be on both charts, each document on its own.

Crash story: link or undo, the state of the message, its keywords and view, the order to the importers and the audit row
are one transaction. Who runs it again after a crash finds it done, and is told so.

Failure modes: NotFoundError, RefusedError and ConflictError as each function says. Reasons and errors name ids, never a
name or an address of a patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from unicodedata import category

from gateway.core.document_marks import DocumentMark, MarkKind
from gateway.core.errors import ConflictError, NotFoundError, RefusedError
from gateway.core.lifecycle import JobKind, State
from gateway.ports import Link, LinkRecord, LinkUndo, Patient, SeenDocument, UnitOfWork

MANUAL_RULE: Final = "manual"
OVERRIDE_RULE: Final = "manual-override"
UNDONE: Final = "message.link_undone"
"""The event of the audit log: ``message.unlinked`` is what the gateway leaves to a person."""
MAX_REASON_CHARS: Final = 500
_NO_TEXT: Final = frozenset({"Cc", "Cs"})
"""Control characters, and the surrogates that stand for bytes of the command line which are not UTF-8."""
_SAME: Final = {
    MarkKind.MESSAGE: "A message of this sender with the same Message-ID",
    MarkKind.DOCUMENT: "The same document",
    MarkKind.DOCUMENT_ID: "A document with the same id",
}


@dataclass(frozen=True, slots=True)
class LinkOutcome:
    """The link that holds now. ``created`` is False when it was there before."""

    link: Link
    created: bool
    notice: str = ""


@dataclass(frozen=True, slots=True)
class UndoOutcome:
    """The link that is in force no more. ``changed`` is False when somebody had undone it before."""

    link: Link
    undone: LinkUndo
    changed: bool
    importers: tuple[str, ...] = ()
    """The targets of the import hook that are asked to take it back."""
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """A person's wish to link."""

    message_id: str
    patient_id: str
    actor: str
    part: str = ""
    """The IMAP part number of the part that is meant; empty: the whole message."""
    override: bool = False
    reason: str = ""
    rule: str = MANUAL_RULE
    marks: tuple[DocumentMark, ...] = ()
    """By what the message and its documents are known when they come again."""


def one_line(reason: str) -> str:
    """A reason as it is kept: what importers, HL7 and FHIR among them, take as text."""
    plain = "".join(" " if category(char) in _NO_TEXT else char for char in reason)
    return " ".join(plain.split())[:MAX_REASON_CHARS]


# --- linking ---


def make_link(tx: UnitOfWork, wish: Wish, link_id: str, at: datetime) -> LinkOutcome:
    """Put the message, or its part, on the patient's chart; a no-op with notice when it is there.

    Raises:
        NotFoundError: no such message or patient.
        RefusedError: the message was not accepted, or is not filed yet.
        ConflictError: what is meant is on another chart, and there is no override.
    """
    refuse_unfiled(tx.messages.state(wish.message_id))
    patient = tx.patients.get(wish.patient_id)
    # Content exists for accepted messages only: a second lock on the same door.
    tx.messages.content(wish.message_id, with_bytes=False)
    # The same message may have come once for each recipient: what its copies are linked to counts as well.
    existing = [record.link for record in tx.links.history(wish.message_id) if record.undone is None]
    here = [link for link in existing if link.patient_id == patient.id]
    for link in here:
        if link.part in {"", wish.part}:
            what = "The message is" if link.part == wish.part == "" else f"{_what(link)} is".capitalize()
            return LinkOutcome(link, created=False, notice=f"{what} on this chart already ({who(link)}).")
    others = [link for link in existing if link.patient_id != patient.id and _meet(link.part, wish.part)]
    if others and not wish.override:
        raise ConflictError(_conflict(others))
    rule = OVERRIDE_RULE if others else wish.rule
    link = Link(link_id, wish.message_id, patient.id, "manual", wish.actor, rule, at, wish.part)
    seen = tx.links.seen(wish.message_id, wish.marks)
    _record(tx, link, wish, others)
    return LinkOutcome(link, created=True, notice=_notice(patient, here, others, seen))


def refuse_unfiled(state: State) -> None:
    """Raises RefusedError for a message that is not for a chart, or not yet."""
    if state is State.REFUSED:
        raise RefusedError("the message was refused and is in quarantine; it cannot go onto a chart")
    if state is State.KEPT:
        raise RefusedError("the message is somebody's own copy of what was sent; it cannot go onto a chart")
    if state not in {State.FILED, State.LINKED}:
        raise RefusedError("the message has not been verified and filed yet; try again in a moment")


def _meet(one: str, two: str) -> bool:
    """Whether two links of a message are of the same content."""
    return one == two or "" in {one, two}


def _record(tx: UnitOfWork, link: Link, wish: Wish, others: Sequence[Link]) -> None:
    tx.links.add(link, wish.marks)
    if tx.messages.state(link.message_id) is State.FILED:
        tx.messages.set_state(link.message_id, State.LINKED, link.linked_at, link.rule)
    tx.jobs.enqueue(JobKind.IMPORT, link.id)
    # Mail clients see it in the same moment; the daemon finds the new MODSEQ when this is another process.
    tx.standings.settle([link.message_id])
    detail: dict[str, object] = {"link": link.id, "patient": link.patient_id, "rule": link.rule}
    if link.part:
        detail["part"] = link.part
    if others:
        # The one free text in the audit log: without it an override could not be explained later (S48).
        detail |= {"also_on": [other.patient_id for other in others], "reason": wish.reason}
    tx.audit.add(link.linked_at, link.actor, "message.linked", link.message_id, detail)


def _conflict(others: Sequence[Link]) -> str:
    charts = ", ".join(
        f"patient {link.patient_id} ({f'part {link.part}, ' if link.part else ''}{who(link)})" for link in others
    )
    return f"the message is on another chart already: {charts}"


def who(link: Link) -> str:
    """When and by whom, for people."""
    return f"linked {link.linked_at.isoformat(timespec='seconds')} by {link.actor}"


def _what(link: Link) -> str:
    return f"part {link.part} of the message" if link.part else "the whole message"


def seen_again(seen: Sequence[SeenDocument]) -> list[str]:
    """Where the same is on a chart already, for people: one sentence for each other link."""
    kinds: dict[Link, SeenDocument] = {}
    for one in seen:
        kinds.setdefault(one.link, one)
    return [
        f"{_SAME[one.mark.kind]}{f' (part {one.mark.path})' if one.mark.path else ''} is on the chart of patient "
        f"{link.patient_id} already, by message {link.message_id} ({who(link)})."
        for link, one in kinds.items()
    ]


def _notice(patient: Patient, here: Sequence[Link], others: Sequence[Link], seen: Sequence[SeenDocument]) -> str:
    notices = seen_again(seen)
    if others:
        notices.append(f"The message is now on the charts of {len({link.patient_id for link in others}) + 1} patients.")
    if here:
        parts = ", ".join(link.part for link in here)
        notices.append(f"Of this message the chart had already: part {parts}.")
    return " ".join([*notices, *about_chart(patient)])


def about_chart(patient: Patient) -> list[str]:
    """What whoever puts something on the chart should know of it, in sentences."""
    deceased = ["The patient is recorded as deceased."] if patient.deceased else []
    return deceased if patient.active else [*deceased, "The patient's record is not active."]


# --- undoing ---


def undo_link(tx: UnitOfWork, link_id: str, actor: str, reason: str, at: datetime) -> UndoOutcome:
    """Take a link back, and order that whoever imported it takes it back; a no-op with notice when somebody has.

    Raises:
        NotFoundError: no such link.
    """
    link = tx.links.get(link_id)
    before = tx.links.undone(link_id)
    if before is not None:
        when = f"{before.at.isoformat(timespec='seconds')} by {before.actor}"
        return UndoOutcome(link, before, changed=False, notice=f"This link was undone already ({when}).")
    undone = LinkUndo(link_id, at, actor, reason)
    tx.links.undo(undone)
    importers = tx.deliveries.order_retraction(link_id, actor, reason, at)
    if tx.messages.state(link.message_id) is State.LINKED and not tx.links.for_message(link.message_id):
        tx.messages.set_state(link.message_id, State.FILED, at, "undone")
    tx.standings.settle([link.message_id])
    detail: dict[str, object] = {"link": link.id, "patient": link.patient_id, "reason": reason, "importers": importers}
    if link.part:
        detail["part"] = link.part
    tx.audit.add(at, actor, UNDONE, link.message_id, detail)
    return UndoOutcome(link, undone, changed=True, importers=tuple(importers), notice=_again(link))


def links_to_undo(history: Sequence[LinkRecord], patient_id: str, part: str | None) -> list[str]:
    """Ids of the links of a message to a patient that are meant: those in force, else those that were undone.

    ``part`` None: of the message and of any part of it.

    Raises:
        NotFoundError: there never was one.
    """
    meant = [one for one in history if one.link.patient_id == patient_id and part in {None, one.link.part}]
    if not meant:
        what = f"part {part} of the message" if part else "the message"
        raise NotFoundError(f"{what} is not on the chart of patient {patient_id}")
    in_force = [one.link.id for one in meant if one.undone is None]
    # The newest of those that were undone says who was faster.
    return in_force or [meant[-1].link.id]


def _again(link: Link) -> str:
    if link.mode != "automatic":
        return ""
    return (
        f"The gateway had made this link by itself ({link.rule}). It leaves this message to you from now on, but links "
        f"the next one like it, until the address book or the patient's record is corrected."
    )
