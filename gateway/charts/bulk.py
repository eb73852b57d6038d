"""Puts all messages of one sender on one patient's chart, by one decision of a person (S36).

Every message becomes a link of its own, with its own audit row and its own transaction, so the command may be stopped
and begun again: what is linked already is counted, and nothing is linked twice. Left to a person, and named, is each
message that

* is on another patient's chart, as a whole or in part;
* was taken off this patient's chart by somebody;
* says of its patient what contradicts this one, or itself: another birth date, family name, given name or sex, several
  patients, or a document that is not what its package describes; or could not be read to the end;
* cannot be read, because what is stored of it is damaged.

Failure modes: NotFoundError for an unknown patient; StoreError when a commit failed: what was linked before stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from gateway.charts.linking import Wish, make_link, who
from gateway.core.claims import (
    Claim,
    Evidence,
    Identifier,
    PersonName,
    Source,
    Strength,
    contradictions,
    given_names_differ,
)
from gateway.core.document_marks import marks_of
from gateway.core.errors import ConflictError, StoreError, StoreUnavailableError
from gateway.core.lifecycle import State
from gateway.ports import Clock, Link, Patient, Store, StoredContent, UnitOfWork

BULK_RULE: Final = "manual-bulk"
PAGE: Final = 500
"""Ids of messages that are read at a time."""

ReadEvidence = Callable[[bytes, str], Evidence]
"""What a message, given by its bytes and its verified sender, says of its patient."""


@dataclass(frozen=True, slots=True)
class LeftMessage:
    """A message that a person has to look at."""

    message_id: str
    why: str


@dataclass(frozen=True, slots=True)
class BulkReport:
    """What was done, or would be."""

    linked: tuple[str, ...] = ()
    """Ids of the messages that were linked, or would be."""
    already: int = 0
    """Messages that were on the chart before."""
    left: tuple[LeftMessage, ...] = ()


@dataclass(frozen=True, slots=True)
class BulkWish:
    """Which messages onto which chart."""

    sender: str
    """Normalised."""
    patient_id: str
    actor: str
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class _Looked:
    """How a message stands. All empty: it may be linked."""

    already: bool = False
    why: str = ""
    content_sha256: str = ""


class BulkLinks:
    """Links the messages of one sender."""

    def __init__(self, store: Store, clock: Clock, new_link_id: Callable[[], str], read: ReadEvidence) -> None:
        self._store = store
        self._clock = clock
        self._new_link_id = new_link_id
        self._read = read

    async def run(self, wish: BulkWish, progress: Callable[[BulkReport], None] = lambda _report: None) -> BulkReport:
        """Link what may be linked; ``progress`` is told after each message.

        Raises:
            NotFoundError: no such patient. StoreError: a commit failed.
        """
        patient = await self._store.read(lambda tx: tx.patients.get(wish.patient_id))
        report, seen = BulkReport(), set[str]()
        async for message_id in self._messages(wish.sender):
            found = await self._one(wish, patient, message_id)
            if found.content_sha256 in seen:
                # A copy for another recipient. When it is linked for real, the history of the first one tells.
                found = _Looked(already=True)
            elif wish.dry_run and not (found.already or found.why):
                seen.add(found.content_sha256)
            report = _with(report, message_id, found)
            progress(report)
        return report

    async def _messages(self, sender: str) -> AsyncIterator[str]:
        after = ""
        while page := await self._store.read(partial(_page, sender=sender, after=after)):
            for message_id in page:
                yield message_id
            after = page[-1]

    async def _one(self, wish: BulkWish, patient: Patient, message_id: str) -> _Looked:
        """What became of a message."""
        found = await self._store.read(lambda tx: _look(tx, message_id, patient.id))
        if found.already or found.why:
            return found
        stored = await self._content(message_id)
        if stored is None:
            return _Looked(why="what is stored of it is damaged and cannot be read")
        evidence = await asyncio.to_thread(self._read, stored.content, wish.sender)
        found = _Looked(why=contradicted(evidence, patient), content_sha256=stored.content_sha256)
        if found.why or wish.dry_run:
            return found
        marks = marks_of(wish.sender, stored.rfc822_message_id, evidence.documents)
        one = Wish(message_id, wish.patient_id, wish.actor, rule=BULK_RULE, marks=marks)
        at, link_id = self._clock.now(), self._new_link_id()
        return await self._store.write(lambda tx: _link(tx, one, link_id, at))

    async def _content(self, message_id: str) -> StoredContent | None:
        """What is stored of a message; None when it is damaged. Raises StoreUnavailableError."""
        try:
            return await self._store.read(lambda tx: tx.messages.content(message_id))
        except StoreUnavailableError:
            raise
        except StoreError:
            return None


def _page(tx: UnitOfWork, sender: str, after: str) -> list[str]:
    return tx.messages.accepted_from(sender, after=after, limit=PAGE)


def _with(report: BulkReport, message_id: str, found: _Looked) -> BulkReport:
    if found.already:
        return replace(report, already=report.already + 1)
    if found.why:
        return replace(report, left=(*report.left, LeftMessage(message_id, found.why)))
    return replace(report, linked=(*report.linked, message_id))


def _look(tx: UnitOfWork, message_id: str, patient_id: str) -> _Looked:
    if tx.messages.state(message_id) not in {State.FILED, State.LINKED}:
        return _Looked(why="it is not filed yet")
    history = tx.links.history(message_id)
    in_force = [one.link for one in history if one.undone is None]
    if any(link.patient_id == patient_id and not link.part for link in in_force):
        return _Looked(already=True)
    if in_force:
        return _Looked(why=f"it is on {', '.join(_chart(link) for link in in_force)}")
    for one in reversed(history):
        if one.link.patient_id == patient_id and one.undone is not None:
            when = one.undone.at.isoformat(timespec="seconds")
            return _Looked(why=f"it was taken off this chart {when} by {one.undone.actor}")
    return _Looked()


def _chart(link: Link) -> str:
    part = f"part {link.part}, " if link.part else ""
    return f"the chart of patient {link.patient_id} ({part}{who(link)})"


def _link(tx: UnitOfWork, wish: Wish, link_id: str, at: datetime) -> _Looked:
    """Link it, unless somebody was faster."""
    found = _look(tx, wish.message_id, wish.patient_id)
    if found.already or found.why:
        return found
    try:
        made = make_link(tx, wish, link_id, at)
    except ConflictError as exc:
        return _Looked(why=str(exc))
    return _Looked(already=not made.created)


def contradicted(evidence: Evidence, patient: Patient) -> str:
    """Why what a message says forbids this patient, in words without a value; empty when nothing does."""
    said = [claim for claim in evidence.claims if claim.source is not Source.SIGNED_FROM]
    claims = [*said, _as_claim(patient)]
    fields = sorted({one.field.value.replace("_", " ") for one in contradictions(claims)})
    if given_names_differ(claims):
        fields.append("given name")
    if fields:
        return f"what it says of its patient contradicts: {', '.join(fields)}"
    return "" if evidence.is_complete else "what it says of its patient could not be read to the end"


def _as_claim(patient: Patient) -> Claim:
    return Claim(
        Source.FHIR_PATIENT,
        Strength.AUTHOR,
        names=(PersonName(patient.family, tuple(patient.given.split())),),
        birth_date=patient.birth_date,
        sex=patient.sex if patient.sex in {"male", "female"} else "",
        identifiers=(Identifier(patient.mrn),) if patient.mrn else (),
    )
