"""What reads the claims of a message and holds them against the patients, put together for the pipeline.

Who may be meant is found by a table of exact traits in memory (:mod:`gateway.matching.blocking`); their records are
read in the transaction that decides, so that the decision is made on what holds then. What an import or a feed writes
between the last look at the table and that transaction is asked of the audit log within it
(:mod:`gateway.store.patient_changes`): no patient is overlooked, whoever wrote him, on whichever node.

The table is made at the start, beside everything else, some 100 microseconds for each patient. Only a message that says
something of a patient waits for it. Nothing is written here: a crash leaves nothing behind, and the next process makes
the table anew.

Failure modes: StoreError and whatever else a read of the store raises; the step is tried again by the worker.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol, TypeVar

from gateway.core.claims import Evidence, Source
from gateway.core.findings import Findings
from gateway.core.link_policy import LinkPolicy
from gateway.evidence.message import read_evidence
from gateway.matching.blocking import BlockingTable, asked, shares
from gateway.matching.index import PatientIndex
from gateway.matching.judge import MOST_CLAIMS, findings, merged
from gateway.matching.profile import Profile, of_claim, of_record
from gateway.matching.records import PatientRecord
from gateway.matching.stored import record_of
from gateway.ports import Patient, PatientMark, UnitOfWork
from gateway.settings.sections import ChartSettings

T = TypeVar("T")
MOST_CANDIDATES = 300
"""Patients whose records are read for one message. Where more share a trait with it, the likeliest are, and neither
number nor demographics link."""
PAGE_PATIENTS = 1_000


class Read(Protocol):
    """Runs a unit on a read snapshot, in the thread that asks."""

    def __call__(self, work: Callable[[UnitOfWork], T]) -> T: ...


class Weighing:
    """An :class:`gateway.ports.EvidenceReader`."""

    def __init__(self, read: Read, assigners: Sequence[str] = ()) -> None:
        """``assigners``: as who others name the practice as the assigner of its record numbers (OIDs, namespaces)."""
        self._read = read
        self._assigners = tuple(assigners)
        self._following = threading.Lock()
        """Held while the table is brought up to date, which may take seconds at the first time."""
        self._lock = threading.Lock()
        """Held for a moment, around the table itself: the writer of the store asks it too."""
        self._table = BlockingTable()
        self._mark: PatientMark | None = None

    async def prepare(self) -> None:
        """Make the table, so that the first message need not wait for it. What fails here, that message meets again."""
        with suppress(Exception):
            await asyncio.to_thread(self.follow)

    def read(self, content: bytes, sender: str) -> Evidence:
        """All that the verified bytes say of a patient; the table is brought up to date where they say anything."""
        evidence = read_evidence(content, sender)
        if says_more(evidence):
            self.follow()
        return evidence

    def weigh(self, tx: UnitOfWork, evidence: Evidence, documented: Collection[str]) -> Findings | None:
        """How the patients stand to it as of the transaction; None for a message that says only who sent it."""
        if not says_more(evidence):
            return None
        ids, complete = self._candidates(tx, _profile(evidence))
        index = PatientIndex(records(tx, {*ids, *documented}, self._assigners))
        found = findings(index, evidence, documented)
        return replace(found, all_compared=found.all_compared and complete)

    def _candidates(self, tx: UnitOfWork, profile: Profile) -> tuple[set[str], bool]:
        with self._lock:
            mark = self._mark
            found, complete = self._table.sharing(profile, MOST_CANDIDATES)
        # The table is left as it is: what this transaction sees may yet be undone.
        changed = tx.patients.changed(mark or {})[0]
        wanted = asked(profile).keys()
        late = {one.id for one in records(tx, changed, self._assigners) if shares(of_record(one), wanted)}
        return {*found, *late}, complete

    def follow(self) -> None:
        """Bring the table up to date with what is committed. To be called in a thread. Raises StoreError."""
        with self._following:
            self._follow()

    def _follow(self) -> None:
        if self._mark is None:
            # Marked first: what is written while the patients are read is read once more.
            mark = self._read(lambda tx: tx.patients.mark())
            table = BlockingTable()
            for record in every_record(self._read, self._assigners):
                table.add(record.id, of_record(record))
            table.settle()
            with self._lock:
                self._table, self._mark = table, mark
            return
        known = self._mark

        def since(tx: UnitOfWork) -> tuple[list[PatientRecord], PatientMark]:
            changed, mark = tx.patients.changed(known)
            return records(tx, changed, self._assigners), mark

        changed, mark = self._read(since)
        profiles = [(record.id, of_record(record)) for record in changed]
        with self._lock:
            for patient_id, profile in profiles:
                self._table.add(patient_id, profile)
            self._mark = mark


def link_policy(charts: ChartSettings) -> LinkPolicy:
    """What the settings let link by itself."""
    return LinkPolicy(charts.automatic_links, charts.automatic_by, frozenset(charts.automatic_for))


def says_more(evidence: Evidence) -> bool:
    """Whether a message says anything of a patient besides who sent it."""
    return bool(evidence.problems) or any(claim.source is not Source.SIGNED_FROM for claim in evidence.claims)


def records(tx: UnitOfWork, patient_ids: Collection[str], assigners: Sequence[str]) -> list[PatientRecord]:
    """Those of the patients that there are, with their previous names and further numbers, and what was merged."""
    if not patient_ids:
        return []
    return _with_details(tx, tx.patients.several(patient_ids), assigners)


def _with_details(tx: UnitOfWork, patients: Sequence[Patient], assigners: Sequence[str]) -> list[PatientRecord]:
    ids = [patient.id for patient in patients]
    details, into = tx.patient_feed.details(ids), tx.patient_feed.merged_into(ids)
    return [record_of(patient, assigners, into.get(patient.id, ""), details.get(patient.id)) for patient in patients]


def every_record(read: Read, assigners: Sequence[str]) -> Iterator[PatientRecord]:
    """All patients, page by page; each page as of its own moment."""
    after: str | None = ""
    while after is not None:
        found = read(lambda tx, after=after: _page(tx, after, assigners))  # type: ignore[misc]
        yield from found
        after = found[-1].id if found else None


def _page(tx: UnitOfWork, after: str, assigners: Sequence[str]) -> list[PatientRecord]:
    return _with_details(tx, tx.patients.page(after, PAGE_PATIENTS), assigners)


def _profile(evidence: Evidence) -> Profile:
    profiles: Iterable[Profile] = dict.fromkeys(of_claim(claim) for claim in evidence.claims)
    return merged(tuple(profiles)[:MOST_CLAIMS])
