"""The labelled data of the policy, through the store and the very path that mail takes: no wrong link.

What decides for mail compares the patients who share an exact trait with the message; what evaluates a policy has all
of them at hand. Both must link the same.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from gateway.core.claims import Evidence
from gateway.core.matching import Decision, decide
from gateway.matching.index import PatientIndex
from gateway.matching.judge import findings
from gateway.matching.labelled import (
    ASSIGNER,
    QUERY_COLUMNS,
    REGISTRY_COLUMNS,
    Labelled,
    read_queries,
    read_registry,
)
from gateway.matching.records import PatientRecord
from gateway.ports import Patient, PatientDetail, UnitOfWork
from gateway.store.sql_store import SQLStore
from gateway.weighing import Weighing
from tests.support.people import World
from tests.unit.pipeline.link_harness import START


def keep(store: SQLStore, records: Iterable[PatientRecord]) -> None:
    """The patients in the store, their names at birth as a feed would bring them."""

    def work(tx: UnitOfWork) -> None:
        for record in records:
            current, *others = record.names
            address = record.addresses[0] if record.addresses else None
            patient = Patient(
                record.id,
                record.identifiers[0].value if record.identifiers else "",
                current.family,
                current.first,
                record.birth_date,
                record.sex,
                record.phones[0] if record.phones else "",
                " ".join(address.lines) if address else "",
                address.city if address else "",
                address.postal_code if address else "",
                direct_addresses=record.direct_addresses,
            )
            tx.patients.upsert([patient], "csv-file", START)
            tx.patient_feed.set_detail(record.id, PatientDetail(names=tuple(others)), START, "adt")

    store.write_blocking(work)


def decided(found: object) -> Decision:
    return decide("", [], {}, automatic=True, demographics=True, findings=found)  # type: ignore[arg-type]


def holds(store: SQLStore, records: Sequence[PatientRecord], queries: Sequence[Labelled]) -> int:
    """Ask every question as mail does; returns how many were linked."""
    keep(store, records)
    weighing, index, linked = Weighing(store.read_blocking, [ASSIGNER]), PatientIndex(records), 0
    weighing.follow()

    def by_mail(evidence: Evidence) -> Decision:
        return store.read_blocking(lambda tx: decided(weighing.weigh(tx, evidence, ())))

    for query in queries:
        decision = by_mail(query.evidence)
        right = query.true_patient_id if query.true_patient_id in index else None
        assert decision.patient_id in {None, right}, query.id
        assert decision.patient_id == decided(findings(index, query.evidence)).patient_id, query.id
        linked += decision.patient_id is not None
    return linked


def made(seed: int, size: int, each: int) -> tuple[list[PatientRecord], list[Labelled]]:
    world = World(seed, size)
    registry, queries = io.StringIO(newline=""), io.StringIO(newline="")
    rows = csv.DictWriter(registry, REGISTRY_COLUMNS)
    rows.writeheader()
    rows.writerows(own.row() for own in world.people)
    asked = csv.DictWriter(queries, QUERY_COLUMNS)
    asked.writeheader()
    asked.writerows(question.row(at) for at, question in enumerate(world.questions(each)))
    lines = registry.getvalue().splitlines(keepends=True), queries.getvalue().splitlines(keepends=True)
    return read_registry(lines[0], "registry"), read_queries(lines[1], "queries")


def test_a_made_practice(store: SQLStore) -> None:
    assert holds(store, *made(seed=5, size=300, each=4)) > 10


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_larger_practice(store: SQLStore) -> None:
    assert holds(store, *made(seed=8, size=2_000, each=30)) > 100


@pytest.mark.timeout(120)
def test_the_published_benchmark(store: SQLStore, shared_data: Path) -> None:
    folder = shared_data / "clinical" / "synthea"
    if not (folder / "match_queries.csv").exists():
        pytest.skip("the benchmark is not here")
    registry = (folder / "match_registry.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    queries = (folder / "match_queries.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    linked = holds(store, read_registry(registry, "registry"), read_queries(queries, "queries"))
    # As many as the whole index links (docs/matching.md): the path loses none.
    assert linked == 355
