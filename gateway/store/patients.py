"""The patient index and the address book. Append-only: an update is a new version, and the newest counts.

An address is *shared* when more than one patient documents it now, whatever their standing: a family's address
must never link by itself (S42). What an import brings is *confirmed*: it comes from the EHR's own file. What a merge of
records hands over is not: it stays unconfirmed until somebody or another import says it of that patient.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, FromClause, Row, Select, and_, bindparam, func, insert, select

from gateway.core.errors import NotFoundError
from gateway.ports import AddressBookEntry, Patient, PatientMark
from gateway.store.engines import has_text
from gateway.store.patient_changes import PatientChanges
from gateway.store.patient_feed import PatientFeed
from gateway.store.prepared import Prepared
from gateway.store.tables import clean, patient_address, patient_version

_CHUNK = 400
_SAME_VERSION = and_(
    patient_address.c.patient_id == patient_version.c.patient_id,
    patient_address.c.version == patient_version.c.version,
)


class Patients:
    """See :class:`gateway.ports.PatientRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def upsert(
        self,
        patients: Sequence[Patient],
        source: str,
        at: datetime,
        *,
        keep_addresses: bool = False,
        unconfirmed: Mapping[str, Collection[str]] | None = None,
    ) -> int:
        """Add or replace patients and their documented (normalised) addresses; returns how many changed.

        A patient who is in the list twice counts as the last one says. With ``keep_addresses`` a patient who is
        known keeps the addresses that are documented at this moment, whatever the value given here says, and each
        stays as confirmed as it is. ``unconfirmed``: those of the addresses of a patient that nobody has confirmed.
        A record that was merged into another is never active, whatever an older export of the EHR says.
        """
        wanted = {patient.id: patient for patient in map(_cleaned, patients)}
        open_ones = {clean(key): frozenset(map(clean, value)) for key, value in (unconfirmed or {}).items()}
        changed = 0
        ids = list(wanted)
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            present = self._versions(chunk)
            doubted = self.unconfirmed(chunk)
            for patient_id in PatientFeed(self._connection).merged_into(chunk):
                wanted[patient_id] = replace(wanted[patient_id], active=False)
            if keep_addresses:
                # Read within this transaction: an import that ran meanwhile must not be undone by a stale copy.
                for patient_id, (_, patient) in present.items():
                    wanted[patient_id] = replace(wanted[patient_id], direct_addresses=patient.direct_addresses)
                    open_ones[patient_id] = doubted.get(patient_id, frozenset())
            new = [
                (wanted[patient_id], present[patient_id][0] + 1 if patient_id in present else 1)
                for patient_id in chunk
                if patient_id not in present
                or present[patient_id][1] != wanted[patient_id]
                or doubted.get(patient_id, frozenset()) != open_ones.get(patient_id, frozenset())
            ]
            self._insert(new, open_ones, source, at)
            changed += len(new)
        return changed

    def unconfirmed(self, patient_ids: Collection[str]) -> dict[str, frozenset[str]]:
        """The addresses documented now that nobody has confirmed, of those of the patients that have any."""
        wanted = sorted(set(patient_ids))
        found: defaultdict[str, set[str]] = defaultdict(set)
        for start in range(0, len(wanted), _CHUNK):
            columns = select(patient_address.c.patient_id, patient_address.c.address)
            rows = self._connection.execute(
                _current(columns.join_from(patient_version, patient_address, _SAME_VERSION)).where(
                    patient_version.c.patient_id.in_(wanted[start : start + _CHUNK]), ~patient_address.c.confirmed
                )
            )
            for row in rows:
                found[row.patient_id].add(row.address)
        return {patient_id: frozenset(addresses) for patient_id, addresses in found.items()}

    def _insert(
        self, new: Iterable[tuple[Patient, int]], unconfirmed: Mapping[str, Collection[str]], source: str, at: datetime
    ) -> None:
        rows: list[dict[str, Any]] = []
        addresses: list[dict[str, Any]] = []
        for patient, version in new:
            rows.append(_values(patient) | {"version": version, "source": source, "at": at})
            addresses.extend(
                {
                    "patient_id": patient.id,
                    "version": version,
                    "position": position,
                    "address": address,
                    "confirmed": address not in unconfirmed.get(patient.id, ()),
                }
                for position, address in enumerate(patient.direct_addresses)
            )
        if rows:
            self._connection.execute(insert(patient_version), rows)
        if addresses:
            self._connection.execute(insert(patient_address), addresses)

    def get(self, patient_id: str) -> Patient:
        """Raises NotFoundError."""
        found = self._versions([patient_id])
        if patient_id not in found:
            raise NotFoundError("there is no such patient; see: direct-gateway patient list")
        return found[patient_id][1]

    def several(self, patient_ids: Collection[str]) -> list[Patient]:
        """Those of the patients that there are, by id."""
        wanted = sorted(set(patient_ids))
        found: dict[str, tuple[int, Patient]] = {}
        for start in range(0, len(wanted), _CHUNK):
            found |= self._versions(wanted[start : start + _CHUNK])
        return [found[patient_id][1] for patient_id in wanted if patient_id in found]

    def page(self, after: str = "", limit: int = 1_000) -> list[Patient]:
        """Patients in the order of their ids, beginning behind one of them: for whoever reads all."""
        query = _current(select(patient_version)).where(patient_version.c.patient_id > after)
        rows = self._connection.execute(query.order_by(patient_version.c.patient_id).limit(limit)).all()
        return [patient for _, patient in self._patients(rows).values()]

    def mark(self) -> PatientMark:
        """Where the history of the patients stands now; see :mod:`gateway.store.patient_changes`."""
        return PatientChanges(self._connection).mark()

    def changed(self, mark: PatientMark) -> tuple[set[str], PatientMark]:
        """The patients of whom anything was written after the mark, and the mark of now."""
        return PatientChanges(self._connection).since(mark)

    def search(self, *, text: str = "", limit: int = 50, offset: int = 0) -> list[Patient]:
        """Patients in whose id, MRN, names, birth date, phone or Direct address every word of the text stands.

        Ordered by name; case does not count.
        """
        query = _current(select(patient_version))
        for word in text.casefold().split():
            query = query.where(has_text(patient_version.c.search_text, word))
        order = patient_version.c.family, patient_version.c.given, patient_version.c.patient_id
        rows = self._connection.execute(query.order_by(*order).limit(limit).offset(offset)).all()
        return [patient for _, patient in self._patients(rows).values()]

    def address_book(self, address: str) -> list[AddressBookEntry]:
        """Every patient that documents the (normalised) address now."""
        rows = _BOOK.rows(self._connection, wanted=address)
        shared = len({row.patient_id for row in rows}) > 1
        return [
            AddressBookEntry(address, row.patient_id, confirmed=row.confirmed, shared=shared, source=row.source)
            for row in rows
        ]

    def shared(self, addresses: Collection[str]) -> set[str]:
        """Those of the (normalised) addresses that two or more patients document now."""
        wanted = sorted(set(addresses))
        found: set[str] = set()
        for start in range(0, len(wanted), _CHUNK):
            query = select(patient_address.c.address).join_from(patient_version, patient_address, _SAME_VERSION)
            rows = self._connection.execute(
                _current(query)
                .where(patient_address.c.address.in_(wanted[start : start + _CHUNK]))
                .group_by(patient_address.c.address)
                .having(func.count(patient_address.c.patient_id.distinct()) > 1)
            )
            found.update(rows.scalars())
        return found

    def _versions(self, ids: Sequence[str]) -> dict[str, tuple[int, Patient]]:
        """Newest version number and patient, by id."""
        rows = self._connection.execute(
            _current(select(patient_version)).where(patient_version.c.patient_id.in_(ids))
        ).all()
        return self._patients(rows)

    def _patients(self, rows: Sequence[Row[Any]]) -> dict[str, tuple[int, Patient]]:
        addresses: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        ids = [row.patient_id for row in rows]
        for start in range(0, len(ids), _CHUNK):
            found = self._connection.execute(
                select(patient_address)
                .where(patient_address.c.patient_id.in_(ids[start : start + _CHUNK]))
                .order_by(patient_address.c.position)
            )
            for entry in found:
                addresses[entry.patient_id, entry.version].append(entry.address)
        return {row.patient_id: (row.version, _patient(row, addresses[row.patient_id, row.version])) for row in rows}


def _current(query: Select[Any]) -> Select[Any]:
    """Keep the newest version of each patient."""
    other: FromClause = patient_version.alias()
    newest = (
        select(func.max(other.c.version))
        .where(other.c.patient_id == patient_version.c.patient_id)
        .correlate(patient_version)
        .scalar_subquery()
    )
    return query.where(patient_version.c.version == newest)


_BOOK = Prepared(
    _current(
        select(patient_version.c.patient_id, patient_version.c.source, patient_address.c.confirmed).join_from(
            patient_version, patient_address, _SAME_VERSION
        )
    )
    .where(patient_address.c.address == bindparam("wanted"))
    .order_by(patient_version.c.patient_id)
)

_TEXT_FIELDS = ("mrn", "family", "given", "sex", "phone", "address_line", "city", "postal_code")


def _cleaned(patient: Patient) -> Patient:
    """The patient as he will be read back, so that an unchanged one is seen as unchanged."""
    texts = {name: clean(getattr(patient, name)) for name in _TEXT_FIELDS}
    return Patient(
        id=clean(patient.id),
        birth_date=patient.birth_date,
        active=patient.active,
        deceased=patient.deceased,
        direct_addresses=tuple(dict.fromkeys(clean(address) for address in patient.direct_addresses)),
        **texts,
    )


def _values(patient: Patient) -> dict[str, Any]:
    birth = "" if patient.birth_date is None else patient.birth_date.isoformat()
    seen = (patient.id, patient.mrn, patient.given, patient.family, birth, patient.phone, *patient.direct_addresses)
    texts = {name: getattr(patient, name) for name in _TEXT_FIELDS}
    return texts | {
        "patient_id": patient.id,
        "birth_date": birth,
        "active": patient.active,
        "deceased": patient.deceased,
        "search_text": "\n".join(seen).casefold(),
    }


def _patient(row: Row[Any], addresses: list[str]) -> Patient:
    return Patient(
        id=row.patient_id,
        birth_date=date.fromisoformat(row.birth_date) if row.birth_date else None,
        active=row.active,
        deceased=row.deceased,
        direct_addresses=tuple(addresses),
        **{name: getattr(row, name) for name in _TEXT_FIELDS},
    )
