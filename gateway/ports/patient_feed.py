"""What a feed of patients sent, what became of it, and which records it merged."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from gateway.core.claims import Identifier, PersonName, PostalAddress


class FeedOutcome(StrEnum):
    """What became of a message of a feed. All but the last were acknowledged (AA)."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    """The index says all of it already."""
    OLDER = "older"
    """Something newer of the same feed is known of the patient: nothing was overwritten."""
    REFUSED = "refused"
    """It can never be applied as it is (AR)."""


ACKNOWLEDGED = frozenset({FeedOutcome.APPLIED, FeedOutcome.UNCHANGED, FeedOutcome.OLDER})


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """One message of a feed. ``sender``, ``control_id`` and ``sha256`` (of its bytes) say which."""

    sender: str
    """MSH-3 and MSH-4."""
    control_id: str
    """MSH-10."""
    sha256: str
    outcome: FeedOutcome
    at: datetime
    event: str
    """``A08``; empty when it could not be read."""
    patient_id: str
    """Of the (surviving) patient; empty when none could be told."""
    reason: str
    """Why it was refused, with the place in the message and without any value; else empty."""


@dataclass(frozen=True, slots=True)
class PatientDetail:
    """What is known of a patient besides the one name, number, phone and address of his row; the row's come first."""

    names: tuple[PersonName, ...] = ()
    identifiers: tuple[Identifier, ...] = ()
    phones: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    addresses: tuple[PostalAddress, ...] = ()


class PatientFeedRows(Protocol):
    """Feeds of patients, and merges of records. Append-only."""

    def settled(self, sender: str, control_id: str, sha256: str) -> FeedOutcome | None:
        """What became of that very message when it was acknowledged; None when it never was."""
        ...

    def record(self, entry: FeedEntry) -> bool:
        """Keep what became of a message; False, and nothing done, when that is kept already."""
        ...

    def entries(self, *, unapplied: bool, limit: int) -> list[FeedEntry]:
        """The newest messages first; with ``unapplied`` only those that were refused or older."""
        ...

    def newest_event(self, patient_id: str) -> datetime | None:
        """When the newest event happened that was applied to the patient."""
        ...

    def add_event(self, patient_id: str, event_at: datetime, at: datetime, source: str) -> None:
        """Remember that an event of that time was applied to the patient."""
        ...

    def merge(self, patient_id: str, into_id: str | None, event_at: datetime, at: datetime, source: str) -> bool:
        """Say that the record is part of another since then, or (None) that it stands for itself.

        False, and nothing done, when that is known already, or something newer than ``event_at``.
        """
        ...

    def merge_event(self, patient_id: str) -> datetime | None:
        """When the newest event happened that made the record part of another, or another part of it."""
        ...

    def merged_into(self, patient_ids: Collection[str]) -> dict[str, str]:
        """Of those of the records that are part of another one now: of which."""
        ...

    def set_detail(self, patient_id: str, detail: PatientDetail, at: datetime, source: str) -> bool:
        """Keep what is known of a patient from now on; False, and nothing done, when it is that already."""
        ...

    def details(self, patient_ids: Collection[str]) -> dict[str, PatientDetail]:
        """What is known of those of the patients of whom anything is."""
        ...
