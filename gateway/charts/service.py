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
from gateway.charts.patient_files import RowProblem, kind_of, read_contents
from gateway.core.errors import ConflictError, RefusedError
from gateway.core.lifecycle import JobKind, State
from gateway.ports import Clock, Link, Patient, Store, UnitOfWork

BATCH_PATIENTS = 500
PAGE_PATIENTS = 20_000
MAX_PATIENTS = 1_000_000
MAX_REASON_CHARS = 500
MANUAL_RULE = "manual"
OVERRIDE_RULE = "manual-override"


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
class LinkOutcome:
    """The link that holds now. ``created`` is False when it was there before."""

    link: Link
    created: bool
    notice: str = ""


@dataclass(frozen=True, slots=True)
class _Request:
    """A person's wish to link."""

    message_id: str
    patient_id: str
    actor: str
    override: bool
    reason: str


@dataclass(frozen=True, slots=True)
class FoundPatient:
    """A patient of a search."""

    patient: Patient
    shared_addresses: tuple[str, ...]
    """Those of his Direct addresses that another patient documents as well: they never link automatically."""


class Charts:
    """What servers and the command line do with patients and links."""

    def __init__(self, store: Store, clock: Clock, new_link_id: Callable[[], str]) -> None:
        self._store = store
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

    async def every_patient(self) -> list[Patient]:
        """All patients as of one moment, in memory (about 1 kB each)."""

        def work(tx: UnitOfWork) -> list[Patient]:
            found: list[Patient] = []
            while page := tx.patients.search(limit=PAGE_PATIENTS, offset=len(found)):
                found += page
            return found

        return await self._store.read(work)

    async def link(
        self, message_id: str, patient_id: str, *, actor: str, override: bool = False, reason: str = ""
    ) -> LinkOutcome:
        """Put a message on a patient's chart by a person's decision, and order its import.

        The same patient again changes nothing (S49). Another patient than the one whose chart has the message
        already is a conflict, unless ``override`` is given with a ``reason``; then the message is on both charts
        and both links stay on record (S47, S48).

        The ``reason`` is kept in the audit log, so it should hold no clinical detail.

        Raises:
            NotFoundError: no such message or patient.
            RefusedError: the message was not accepted or is not filed yet; or an override without a reason.
            ConflictError: it is on another chart; the text says whose, since when and by whom.
            StoreError: the commit failed.
        """
        if override and not reason.strip():
            raise RefusedError("an override needs a reason")
        request = _Request(message_id, patient_id, actor, override, " ".join(reason.split())[:MAX_REASON_CHARS])
        at, link_id = self._clock.now(), self._new_link_id()
        return await self._store.write(lambda tx: _link(tx, request, link_id, at))

    async def links_of_patient(self, patient_id: str) -> list[Link]:
        """The links of a patient's chart.

        Raises:
            NotFoundError: no such patient.
        """

        def work(tx: UnitOfWork) -> list[Link]:
            return tx.links.for_patient(tx.patients.get(patient_id).id)

        return await self._store.read(work)

    async def links_of_message(self, message_id: str) -> list[Link]:
        """The links of a message.

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


def _link(tx: UnitOfWork, request: _Request, link_id: str, at: datetime) -> LinkOutcome:
    state = tx.messages.state(request.message_id)
    patient = tx.patients.get(request.patient_id)
    if state is State.REFUSED:
        raise RefusedError("the message was refused and is in quarantine; it cannot go onto a chart")
    if state not in {State.FILED, State.LINKED}:
        raise RefusedError("the message has not been verified and filed yet; try again in a moment")
    # Content exists for accepted messages only: a second lock on the same door.
    content = tx.messages.content(request.message_id, with_bytes=False)
    # The same message may have come once for each recipient: what its copies are linked to counts as well.
    copies = tx.messages.filed_copies(request.message_id, content.content_sha256)
    existing = [link for one in (request.message_id, *copies) for link in tx.links.for_message(one)]
    for link in existing:
        if link.patient_id == patient.id:
            return LinkOutcome(link, created=False, notice=f"The message is on this chart already ({_who(link)}).")
    if existing and not request.override:
        charts = ", ".join(f"patient {link.patient_id} ({_who(link)})" for link in existing)
        raise ConflictError(f"the message is on another chart already: {charts}")
    rule = OVERRIDE_RULE if existing else MANUAL_RULE
    link = Link(link_id, request.message_id, patient.id, "manual", request.actor, rule, at)
    _record(tx, link, existing, request.reason)
    return LinkOutcome(link, created=True, notice=_notice(patient, existing))


def _record(tx: UnitOfWork, link: Link, existing: Sequence[Link], reason: str) -> None:
    tx.links.add(link)
    if tx.messages.state(link.message_id) is State.FILED:
        tx.messages.set_state(link.message_id, State.LINKED, link.linked_at, link.rule)
    tx.jobs.enqueue(JobKind.IMPORT, link.id)
    # Mail clients see it in the same moment; the daemon finds the new MODSEQ when this is another process.
    tx.standings.settle([link.message_id])
    detail: dict[str, object] = {"link": link.id, "patient": link.patient_id, "rule": link.rule}
    if existing:
        # The one free text in the audit log: without it an override could not be explained later (S48).
        detail |= {"also_on": [other.patient_id for other in existing], "reason": reason}
    tx.audit.add(link.linked_at, link.actor, "message.linked", link.message_id, detail)


def _who(link: Link) -> str:
    return f"linked {link.linked_at.isoformat(timespec='seconds')} by {link.actor}"


def _notice(patient: Patient, existing: Sequence[Link]) -> str:
    notices = [f"The message is now on the charts of {len(existing) + 1} patients."] if existing else []
    if patient.deceased:
        notices.append("The patient is recorded as deceased.")
    if not patient.active:
        notices.append("The patient's record is not active.")
    return " ".join(notices)
