"""Who may be meant by a message, as of the transaction that decides, on every kind of store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from gateway.core.claims import Claim, Evidence, Identifier, NameKind, PersonName, Source, Strength
from gateway.ports import Patient, PatientDetail, UnitOfWork
from gateway.store.sql_store import SQLStore
from gateway.weighing import Weighing, every_record
from tests.support.stores import STORES, together

AT = datetime(2026, 1, 5, tzinfo=UTC)
BORN = date(1961, 3, 14)
ADA = Patient("p1", "MRN-7", "Quimby", "Ada", BORN, phone="617-234-5678")
SAID = Evidence((
    Claim(
        Source.CDA_HEADER,
        Strength.AUTHOR,
        names=(PersonName("Quimby", ("Ada",)),),
        birth_date=BORN,
        identifiers=(Identifier("mrn 7", "urn:oid:1.2.3"),),
    ),
))  # fmt: skip


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SQLStore]:
    with STORES[request.param](tmp_path) as opened:
        yield opened


def upsert(store: SQLStore, *patients: Patient) -> None:
    store.write_blocking(lambda tx: tx.patients.upsert(patients, "csv-file", AT))


def compared(tx: UnitOfWork, weighing: Weighing, documented: tuple[str, ...] = ()) -> dict[str, bool]:
    """Whom the evidence was held against, and whether the record number is his."""
    found = weighing.weigh(tx, SAID, documented)
    assert found is not None
    return {one.patient_id: one.identifier for one in found.comparisons}


def test_everybody_who_shares_something_is_compared_and_the_documented_ones(store: SQLStore) -> None:
    upsert(store, ADA, Patient("p2", birth_date=BORN), Patient("p3", family="Okafor"), Patient("p4", family="Moe"))
    upsert(store, Patient("p5", family="Okafor", given="Ada"))
    born_as = PatientDetail(names=(PersonName("Quimby", ("Ada",), kind=NameKind.BIRTH),))
    store.write_blocking(lambda tx: tx.patient_feed.set_detail("p5", born_as, AT, "adt"))
    weighing = Weighing(store.read_blocking, ["1.2.3"])
    weighing.follow()
    assert store.read_blocking(lambda tx: compared(tx, weighing, ("p3",))) == {
        "p1": True, "p2": False, "p3": False, "p5": False,
    }  # fmt: skip
    sender = Evidence((Claim(Source.SIGNED_FROM, Strength.SIGNATURE, direct_addresses=("a@b.test",)),))
    assert store.read_blocking(lambda tx: weighing.weigh(tx, sender, ("p3",))) is None


def test_what_an_earlier_unit_of_the_same_commit_wrote_counts_only_if_it_stays(store: SQLStore) -> None:
    upsert(store, ADA)
    weighing = Weighing(store.read_blocking, ["1.2.3"])
    weighing.follow()

    def import_then_fail(tx: UnitOfWork) -> None:
        tx.patients.upsert([Patient("p8", birth_date=BORN)], "csv-file", AT)
        tx.audit.add(AT, "olga", "patients.imported", "", {})
        raise KeyError

    seen = together(
        store,
        lambda tx: tx.patients.upsert([Patient("p7", birth_date=BORN)], "csv-file", AT),
        lambda tx: compared(tx, weighing),
        import_then_fail,
        lambda tx: compared(tx, weighing),
    )
    assert seen[1] == seen[3] == {"p1": True, "p7": False}
    # The undone unit had the numbers in the log that these get: they must not be taken for known.
    upsert(store, Patient("p9", birth_date=BORN))
    weighing.follow()
    assert store.read_blocking(lambda tx: compared(tx, weighing)) == {"p1": True, "p7": False, "p9": False}


def test_every_record_has_its_details_and_merges(store: SQLStore) -> None:
    upsert(store, *(Patient(f"p{at:04d}", family="Lee") for at in range(1_001)))
    store.write_blocking(lambda tx: tx.patient_feed.merge("p0003", "p0001", AT, AT, "adt"))
    number = PatientDetail(identifiers=(Identifier("9", "1.2.9", "MR"), Identifier("8", "1.2.9", "AN")))
    store.write_blocking(lambda tx: tx.patient_feed.set_detail("p1000", number, AT, "adt"))
    found = {record.id: record for record in every_record(store.read_blocking, ())}
    assert len(found) == 1_001
    assert found["p0003"].merged_into == "p0001"
    assert found["p1000"].identifiers == (Identifier("9", "1.2.9", "MR"), Identifier("p1000"))
