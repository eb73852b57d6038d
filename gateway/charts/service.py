"""Charts: the patient index, the address book, and the links that people make.

Guarantees

* Every change and its audit row are one commit; whether a link may be made is checked inside that commit, so that
  of any number of parallel requests for one message one makes the link (S46, S47, S49).
* An import of patients never makes the address book say less than the file: patients that share an address are
  written in one commit. Otherwise mail that arrives between two commits could be linked to the first of them.
* A file that says nothing of Direct addresses takes none away; one that does says all of them for its patients.
* Reasons and errors name ids, never a name or an address of a patient.

Failure modes: ``InputError`` for a file that cannot be used as a whole, ``NotFoundError``, ``RefusedError``,
``ConflictError`` as each method says; ``StoreError`` when nothing could be committed. An import that fails midway
has written whole batches; to repeat it is harmless.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from gateway.charts.batches import batches
from gateway.charts.bulk import BulkLinks, BulkReport, BulkWish, ReadEvidence
from gateway.charts.linking import (
    LinkOutcome,
    UndoOutcome,
    Wish,
    links_to_undo,
    make_link,
    one_line,
    refuse_unfiled,
    undo_link,
)
from gateway.charts.patient_files import RowProblem, kind_of, read_contents
from gateway.core.claims import Evidence
from gateway.core.document_marks import DocumentMark, marks_of
from gateway.core.errors import NotFoundError, RefusedError
from gateway.core.mime.parts import leaf_parts
from gateway.core.mime.structure import parse_structure
from gateway.ports import Clock, Link, LinkRecord, Patient, SeenDocument, Store, StoredContent, UnitOfWork

BATCH_PATIENTS = 500
PAGE_PATIENTS = 20_000
MAX_PATIENTS = 1_000_000
MAX_PARTS_NAMED = 30


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import of patients did."""

    read: int
    """Different patients that the file holds."""
    changed: int
    unchanged: int
    rejected: tuple[RowProblem, ...]
    """Lines that were not imported, and why."""
    notices: tuple[RowProblem, ...]
    """Lines that were imported, with something that the operator should know."""
    addresses: int
    """Different Direct addresses that the file documents."""
    shared_addresses: int
    """How many of them are documented for two or more patients now: they never link automatically."""
    addresses_removed: int
    """Addresses that were documented for a patient of the file and are not any more, counted for each patient."""


@dataclass(frozen=True, slots=True)
class FoundPatient:
    """A patient of a search."""

    patient: Patient
    shared_addresses: tuple[str, ...]
    """Those of his Direct addresses that another patient documents as well: they never link automatically."""


class Charts:
    """What servers and the command line do with patients and links."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        new_link_id: Callable[[], str],
        read: ReadEvidence = lambda _content, _sender: Evidence(),
    ) -> None:
        """``read``: what a message says of its patient, and which documents it holds."""
        self._store = store
        self._read = read
        self._clock = clock
        self._new_link_id = new_link_id

    async def import_patients(
        self, path: Path, *, actor: str = "operator", progress: Callable[[int], None] | None = None
    ) -> ImportReport:
        """Add or replace the patients of a file and what it documents as their Direct addresses.

        An address that an earlier import documented for one of these patients, and this one does not, is no
        longer documented; the report says how many. A file that names no Direct address at all (no column for it,
        an export without telecoms) says nothing of them: what is documented is kept. Patients that are not in the
        file stay as they are. The entries count as confirmed: the operator vouches for the file of the EHR.

        Args:
            path: FHIR NDJSON, JSON or CSV. The patients of the file are held in memory (about 1 kB each).
            actor: who imports, for the audit log.
            progress: called with the number of patients written so far, after each commit.

        Raises:
            InputError: the file as a whole cannot be used, or holds no row at all.
            StoreError: a commit failed.
        """
        at = self._clock.now()
        contents = await asyncio.to_thread(read_contents, path, at.date(), MAX_PATIENTS)
        source = kind_of(path)
        before = await self._store.read(_documented)
        upsert = partial(_upsert, source=source, actor=actor, at=at, keep=not contents.names_addresses)
        changed = written = 0
        for batch in batches(list(contents.patients.values()), BATCH_PATIENTS, before):
            changed += await self._store.write(partial(upsert, patients=batch))
            written += len(batch)
            if progress is not None:
                progress(written)
        addresses = {address for patient in contents.patients.values() for address in patient.direct_addresses}
        gone = _gone(before, contents.patients)
        return ImportReport(
            read=len(contents.patients),
            changed=changed,
            unchanged=len(contents.patients) - changed,
            rejected=contents.rejected,
            notices=contents.notices if contents.names_addresses else (*_kept(gone), *contents.notices),
            addresses=len(addresses),
            shared_addresses=len(addresses & _shared(before, contents.patients)),
            addresses_removed=gone if contents.names_addresses else 0,
        )

    async def find_patients(self, text: str = "", limit: int = 50, offset: int = 0) -> list[FoundPatient]:
        """Patients whose demographics hold every word of the text (all of them for an empty one).

        With each stands which of its addresses are shared, as of one moment.
        """

        def work(tx: UnitOfWork) -> list[FoundPatient]:
            patients = tx.patients.search(text=text, limit=limit, offset=offset)
            shared = tx.patients.shared({address for patient in patients for address in patient.direct_addresses})
            return [FoundPatient(p, tuple(a for a in p.direct_addresses if a in shared)) for p in patients]

        return await self._store.read(work)

    async def link(
        self,
        message_id: str,
        patient_id: str,
        *,
        actor: str,
        part: str = "",
        override: bool = False,
        reason: str = "",
    ) -> LinkOutcome:
        """Put a message, or one ``part`` of it, on a patient's chart by a person's decision, and order its import.

        The same patient again changes nothing (S49). What is on another patient's chart already is a conflict, unless
        ``override`` is given with a ``reason``; then it is on both charts and both links stay on record (S47, S48).
        Different parts may be on different charts; a part, and the message that holds it, are the same content.

        The ``reason`` is kept in the audit log, so it should hold no clinical detail.

        Args:
            message_id: of a filed message.
            patient_id: of the index.
            actor: who decides.
            part: IMAP part number (``2.1``) of a part without parts of its own.
            override: on another chart as well.
            reason: why.

        Raises:
            NotFoundError: no such message, part or patient.
            RefusedError: the message was not accepted or is not filed yet; or an override without a reason.
            ConflictError: it is on another chart; the text says whose, since when and by whom.
            StoreError: the commit failed.
        """
        if override and not one_line(reason):
            raise RefusedError("an override needs a reason")
        marks = await self._marks(message_id, part)
        wish = Wish(message_id, patient_id, actor, part, override, one_line(reason), marks=marks)
        at, link_id = self._clock.now(), self._new_link_id()
        return await self._store.write(lambda tx: make_link(tx, wish, link_id, at))

    async def seen_elsewhere(self, message_id: str) -> list[SeenDocument]:
        """Where this message, or a document in it, is on a chart already by another message (S47).

        Raises:
            NotFoundError: no such message. RefusedError: it is not filed, so it has no verified content.
        """
        marks = await self._marks(message_id, "")
        return await self._store.read(lambda tx: tx.links.seen(message_id, marks))

    async def _marks(self, message_id: str, part: str) -> tuple[DocumentMark, ...]:
        """By what the message, or its part, is known again. Content never changes: this needs no place in the commit.

        Raises:
            NotFoundError: no such message or part. RefusedError: it is not filed.
        """

        def work(tx: UnitOfWork) -> StoredContent:
            refuse_unfiled(tx.messages.state(message_id))
            return tx.messages.content(message_id)

        stored = await self._store.read(work)
        if part:
            _require(part, await asyncio.to_thread(_part_numbers, stored.content))
        evidence = await asyncio.to_thread(self._read, stored.content, stored.sender)
        marks = marks_of(stored.sender, stored.rfc822_message_id, evidence.documents)
        return tuple(mark for mark in marks if not part or mark.path.partition("/")[0] == part)

    async def unlink(self, link_id: str, *, actor: str, reason: str) -> UndoOutcome:
        """Take a link back: it stays on record with who, when and why, and whoever imported it is told to take it back.

        The message is unlinked again when no other link of it is in force; the gateway never links it by itself again.
        A later link is a new one. Undoing twice changes nothing.

        The ``reason`` is kept in the audit log and given to the importers, so it should hold no clinical detail.

        Raises:
            RefusedError: without a reason. NotFoundError: no such link. StoreError: the commit failed.
        """
        why, at = _required(reason), self._clock.now()
        return await self._store.write(lambda tx: undo_link(tx, link_id, actor, why, at))

    async def unlink_message(
        self, message_id: str, patient_id: str, *, actor: str, reason: str, part: str | None = None
    ) -> list[UndoOutcome]:
        """The same for every link of a message, or of a copy of it, to a patient; ``part``: of that part only.

        Raises:
            RefusedError: without a reason. NotFoundError: no such message, or it never was on that chart.
            StoreError: the commit failed.
        """
        why, at = _required(reason), self._clock.now()

        def work(tx: UnitOfWork) -> list[UndoOutcome]:
            tx.messages.state(message_id)
            ids = links_to_undo(tx.links.history(message_id), patient_id, part)
            return [undo_link(tx, link_id, actor, why, at) for link_id in ids]

        return await self._store.write(work)

    async def history_of_message(self, message_id: str) -> list[LinkRecord]:
        """Every link that the message, or a copy of it, ever had. Raises NotFoundError."""

        def work(tx: UnitOfWork) -> list[LinkRecord]:
            tx.messages.state(message_id)
            return tx.links.history(message_id)

        return await self._store.read(work)

    async def history_of_patient(self, patient_id: str) -> list[LinkRecord]:
        """Every link that the chart ever had. Raises NotFoundError."""
        return await self._store.read(lambda tx: tx.links.patient_history(tx.patients.get(patient_id).id))

    async def link_sender(
        self, wish: BulkWish, progress: Callable[[BulkReport], None] = lambda _report: None
    ) -> BulkReport:
        """Link every message of a sender to a patient; what is in doubt is left and named (:mod:`gateway.charts.bulk`).

        Raises:
            NotFoundError: no such patient. StoreError: a commit failed; what was linked before stays.
        """
        return await BulkLinks(self._store, self._clock, self._new_link_id, self._read).run(wish, progress)

    async def links_of_patient(self, patient_id: str) -> list[Link]:
        """The links of a patient's chart that are in force.

        Raises:
            NotFoundError: no such patient.
        """

        def work(tx: UnitOfWork) -> list[Link]:
            return tx.links.for_patient(tx.patients.get(patient_id).id)

        return await self._store.read(work)

    async def links_of_message(self, message_id: str) -> list[Link]:
        """The links of a message that are in force.

        Raises:
            NotFoundError: no such message.
        """

        def work(tx: UnitOfWork) -> list[Link]:
            tx.messages.state(message_id)
            return tx.links.for_message(message_id)

        return await self._store.read(work)


def _upsert(tx: UnitOfWork, patients: Sequence[Patient], source: str, actor: str, at: datetime, *, keep: bool) -> int:
    changed = tx.patients.upsert(patients, source, at, keep_addresses=keep)
    tx.audit.add(at, actor, "patients.imported", source, {"patients": len(patients), "changed": changed})
    return changed


def _documented(tx: UnitOfWork) -> dict[str, tuple[str, ...]]:
    """Every documented address by patient id, read page by page within one snapshot."""
    found: dict[str, tuple[str, ...]] = {}
    offset = 0
    while page := tx.patients.search(limit=PAGE_PATIENTS, offset=offset):
        found.update((patient.id, patient.direct_addresses) for patient in page if patient.direct_addresses)
        offset += len(page)
    return found


def _gone(before: Mapping[str, Sequence[str]], patients: Mapping[str, Patient]) -> int:
    """How many addresses were documented for the patients of the file that the file does not have for them."""
    return sum(len(set(before.get(patient.id, ())) - set(patient.direct_addresses)) for patient in patients.values())


def _kept(count: int) -> tuple[RowProblem, ...]:
    if not count:
        return ()
    text = "the file documents no Direct address at all: those documented before for its patients are kept"
    return (RowProblem(0, f"{text} ({count})"),)


def _shared(before: Mapping[str, Sequence[str]], patients: Mapping[str, Patient]) -> set[str]:
    """The addresses that two or more patients document, now that the file is imported."""
    owners: Counter[str] = Counter()
    for patient in patients.values():
        owners.update(patient.direct_addresses)
    for patient_id, addresses in before.items():
        if patient_id not in patients:
            owners.update(set(addresses))
    return {address for address, count in owners.items() if count > 1}


def _part_numbers(content: bytes) -> list[str]:
    return [leaf.path for leaf in leaf_parts(content, parse_structure(content))]


def _require(part: str, numbers: Sequence[str]) -> None:
    """Raises NotFoundError for a part that is not among these."""
    if part not in numbers:
        known = ", ".join(numbers[:MAX_PARTS_NAMED]) + (", ..." if len(numbers) > MAX_PARTS_NAMED else "")
        raise NotFoundError(f"the message has no part {part[:20]}; it has: {known}")


def _required(reason: str) -> str:
    """The reason as it is kept. Raises RefusedError when there is none."""
    kept = one_line(reason)
    if not kept:
        raise RefusedError("taking a link back needs a reason: it is kept with the link for whoever asks later")
    return kept
