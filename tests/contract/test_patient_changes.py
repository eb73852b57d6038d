"""Who follows the patients finds every change of them, on every kind of store, and nothing of what was undone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from gateway.core.claims import Identifier
from gateway.ports import Patient, PatientDetail, UnitOfWork
from gateway.store.sql_store import SQLStore
from tests.support.stores import STORES

AT = datetime(2026, 1, 5, tzinfo=UTC)
ADDRESS = "ann@phr.test"


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SQLStore]:
    with STORES[request.param](tmp_path) as opened:
        yield opened


def upsert(store: SQLStore, *patients: Patient) -> None:
    store.write_blocking(lambda tx: tx.patients.upsert(patients, "csv-file", AT))


def test_every_kind_of_change_is_found_once(store: SQLStore) -> None:
    upsert(store, Patient("p1", family="Lee"), Patient("p2"), Patient("p3"), Patient("p4"))
    mark = store.read_blocking(lambda tx: tx.patients.mark())

    def changed() -> set[str]:
        nonlocal mark
        found, mark = store.read_blocking(lambda tx: tx.patients.changed(mark))
        return found

    assert store.read_blocking(lambda tx: tx.patients.changed({}))[0] == {"p1", "p2", "p3", "p4"}
    assert changed() == set()
    upsert(store, Patient("p1", family="Li"), Patient("p2"))
    assert changed() == {"p1"}
    upsert(store, Patient("p2", direct_addresses=(ADDRESS,)))
    assert changed() == {"p2"}
    detail = PatientDetail(identifiers=(Identifier("7", "1.2.3", "MR"),))
    store.write_blocking(lambda tx: tx.patient_feed.set_detail("p3", detail, AT, "adt"))
    store.write_blocking(lambda tx: tx.patient_feed.merge("p4", "p1", AT, AT, "adt"))
    store.write_blocking(lambda tx: tx.audit.add(AT, "gateway", "message.list", "", {}))
    assert changed() == {"p3", "p4"}
    assert changed() == set()
    upsert(store, *(Patient(f"n{at}") for at in range(1_200)))
    assert len(changed()) == 1_200


def test_a_unit_sees_its_own_changes_and_those_that_were_undone_are_none(store: SQLStore) -> None:
    upsert(store, Patient("p1"))
    mark = store.read_blocking(lambda tx: tx.patients.mark())

    def fail(tx: UnitOfWork) -> None:
        tx.patients.upsert([Patient("p2")], "csv-file", AT)
        tx.audit.add(AT, "gateway", "patients.imported", "", {})
        assert tx.patients.changed(mark)[0] == {"p2"}
        raise KeyError

    with pytest.raises(KeyError):
        store.write_blocking(fail)
    assert store.read_blocking(lambda tx: tx.patients.changed(mark)) == (set(), mark)


def test_several_and_pages(store: SQLStore) -> None:
    born = date(1970, 1, 2)
    upsert(store, *(Patient(f"p{at:03d}", birth_date=born, direct_addresses=(f"{at}@phr.test",)) for at in range(25)))

    def read(tx: UnitOfWork) -> None:
        assert tx.patients.several(["p003", "p001", "none", "p003"]) == [
            Patient("p001", birth_date=born, direct_addresses=("1@phr.test",)),
            Patient("p003", birth_date=born, direct_addresses=("3@phr.test",)),
        ]
        assert tx.patients.several([]) == []
        pages, after = [], ""
        while page := tx.patients.page(after, 10):
            pages.append([patient.id for patient in page])
            after = page[-1].id
        assert [len(page) for page in pages] == [10, 10, 5]
        assert [patient_id for page in pages for patient_id in page] == [f"p{at:03d}" for at in range(25)]

    store.read_blocking(read)
