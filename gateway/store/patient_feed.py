"""Feeds of patients: which messages came, which record was merged into which. Append-only; the newest ``seq`` counts.

Crash story: every row is part of the transaction that changes the patient, with its event of the audit log. What was
acknowledged is therefore here, and what is not here is sent again by the feed.

Failure modes: those of the statements. Two nodes that work on one patient at the same moment collide on a key; one of
them fails as a whole and its message is sent again.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, Row, Table, func, insert, select

from gateway.core.claims import Identifier, NameKind, PersonName, PostalAddress
from gateway.ports.patient_feed import ACKNOWLEDGED, FeedEntry, FeedOutcome, PatientDetail
from gateway.store.prepared_lists import PreparedList
from gateway.store.tables import clean, patient_detail, patient_event, patient_feed, patient_merge


def _newest_of(table: Table, column: Column[Any]) -> PreparedList:
    """Of each listed patient, the column of the row that counts."""
    other = table.alias()
    newest = select(func.max(other.c.seq)).where(other.c.patient_id == table.c.patient_id).scalar_subquery()
    return PreparedList(
        lambda listed: select(table.c.patient_id, column).where(table.c.patient_id.in_(listed), table.c.seq == newest)
    )


_MERGES = _newest_of(patient_merge, patient_merge.c.into_id)
_DETAILS = _newest_of(patient_detail, patient_detail.c.detail)
_UNAPPLIED = (FeedOutcome.OLDER.value, FeedOutcome.REFUSED.value)


class PatientFeed:
    """See :class:`gateway.ports.patient_feed.PatientFeedRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def settled(self, sender: str, control_id: str, sha256: str) -> FeedOutcome | None:
        """What became of that very message when it was acknowledged; None when it never was."""
        table = patient_feed.c
        found = self._connection.execute(
            select(table.outcome).where(
                table.sender == clean(sender),
                table.control_id == clean(control_id),
                table.sha256 == sha256,
                table.outcome.in_(sorted(outcome.value for outcome in ACKNOWLEDGED)),
            )
        ).scalar()
        return None if found is None else FeedOutcome(found)

    def record(self, entry: FeedEntry) -> bool:
        """Keep what became of a message; False, and nothing done, when that is kept already."""
        table = patient_feed.c
        key = {
            "sender": clean(entry.sender),
            "control_id": clean(entry.control_id),
            "sha256": entry.sha256,
            "outcome": entry.outcome.value,
        }
        there = select(table.at).where(*(table[name] == value for name, value in key.items()))
        if self._connection.execute(there).first() is not None:
            return False
        rest = {"at": entry.at, "event": entry.event, "patient_id": entry.patient_id, "reason": entry.reason}
        self._connection.execute(insert(patient_feed), key | rest)
        return True

    def entries(self, *, unapplied: bool, limit: int) -> list[FeedEntry]:
        """The newest messages first; with ``unapplied`` only those that were refused or older."""
        table = patient_feed.c
        query = select(patient_feed).order_by(table.at.desc(), table.sender, table.control_id).limit(limit)
        if unapplied:
            query = query.where(table.outcome.in_(_UNAPPLIED))
        return [
            FeedEntry(
                row.sender,
                row.control_id,
                row.sha256,
                FeedOutcome(row.outcome),
                row.at,
                row.event,
                row.patient_id,
                row.reason,
            )
            for row in self._connection.execute(query)
        ]

    def newest_event(self, patient_id: str) -> datetime | None:
        """When the newest event happened that was applied to the patient."""
        table = patient_event.c
        found: datetime | None = self._connection.execute(
            select(table.event_at).where(table.patient_id == clean(patient_id)).order_by(table.seq.desc()).limit(1)
        ).scalar()
        return found

    def add_event(self, patient_id: str, event_at: datetime, at: datetime, source: str) -> None:
        """Remember that an event of that time was applied to the patient."""
        table = patient_event.c
        seq = self._connection.execute(
            select(func.coalesce(func.max(table.seq), 0)).where(table.patient_id == clean(patient_id))
        ).scalar_one()
        row = {"patient_id": patient_id, "seq": seq + 1, "event_at": event_at, "at": at, "source": source}
        self._connection.execute(insert(patient_event), row)

    def merge(self, patient_id: str, into_id: str | None, event_at: datetime, at: datetime, source: str) -> bool:
        """Say that the record is part of another since then, or (None) that it stands for itself.

        False, and nothing done, when that is known already, or something newer than ``event_at``.
        """
        newest = self._newest(patient_merge, patient_id)
        wanted = None if into_id is None else clean(into_id)
        if newest is not None and (
            newest.event_at > event_at or (newest.into_id, newest.event_at) == (wanted, event_at)
        ):
            return False
        row = {
            "patient_id": patient_id,
            "seq": 1 if newest is None else newest.seq + 1,
            "into_id": into_id,
            "event_at": event_at,
            "at": at,
            "source": source,
        }
        self._connection.execute(insert(patient_merge), row)
        return True

    def merge_event(self, patient_id: str) -> datetime | None:
        """When the newest event happened that made the record part of another, or another part of it."""
        newest = self._newest(patient_merge, patient_id)
        return None if newest is None else newest.event_at

    def merged_into(self, patient_ids: Collection[str]) -> dict[str, str]:
        """Of those of the records that are part of another one now: of which."""
        rows = _MERGES.rows(self._connection, _cleaned(patient_ids))
        return {row.patient_id: row.into_id for row in rows if row.into_id is not None}

    def set_detail(self, patient_id: str, detail: PatientDetail, at: datetime, source: str) -> bool:
        """Keep what is known of a patient from now on; False, and nothing done, when it is that already."""
        newest = self._newest(patient_detail, patient_id)
        # ASCII, so that what is read is what was written, whatever a database does to text.
        text = json.dumps(asdict(detail), sort_keys=True)
        known = None if newest is None else newest.detail
        if known == text or (known is None and detail == PatientDetail()):
            return False
        seq = 1 if newest is None else newest.seq + 1
        row = {"patient_id": patient_id, "seq": seq, "at": at, "source": source, "detail": text}
        self._connection.execute(insert(patient_detail), row)
        return True

    def details(self, patient_ids: Collection[str]) -> dict[str, PatientDetail]:
        """What is known of those of the patients of whom anything is."""
        rows = _DETAILS.rows(self._connection, _cleaned(patient_ids))
        return {row.patient_id: _detail(json.loads(row.detail)) for row in rows}

    def _newest(self, table: Table, patient_id: str) -> Row[Any] | None:
        """The row of a patient that counts."""
        of_patient = select(table).where(table.c.patient_id == clean(patient_id))
        return self._connection.execute(of_patient.order_by(table.c.seq.desc()).limit(1)).first()


def _cleaned(patient_ids: Collection[str]) -> list[str]:
    return sorted({clean(patient_id) for patient_id in patient_ids})


def _detail(known: dict[str, Any]) -> PatientDetail:
    return PatientDetail(
        names=tuple(
            PersonName(n["family"], tuple(n["given"]), n["middle"], n["suffix"], NameKind(n["kind"]))
            for n in known["names"]
        ),
        identifiers=tuple(Identifier(**identifier) for identifier in known["identifiers"]),
        phones=tuple(known["phones"]),
        emails=tuple(known["emails"]),
        addresses=tuple(PostalAddress(**{**a, "lines": tuple(a["lines"])}) for a in known["addresses"]),
    )
