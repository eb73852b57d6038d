"""The ``link`` step over the real store (S41, S42, S46)."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from gateway.charts.service import Charts
from gateway.core.claims import Evidence
from gateway.core.errors import ConflictError, StoreError
from gateway.core.lifecycle import JobKind, State
from gateway.ports import Link, Patient
from gateway.store.sql_store import SQLStore
from gateway.weighing import Weighing
from tests.unit.pipeline.link_harness import (
    ANN,
    CONTENT,
    START,
    add_patients,
    audit,
    claim,
    filed,
    linker,
    links,
    open_jobs,
    state,
)


async def test_a_documented_sender_is_linked(store: SQLStore) -> None:
    add_patients(store, Patient("p1", direct_addresses=(ANN,)))
    filed(store)
    await linker(store)(claim(store, JobKind.LINK))
    rule = "address-book-1:sole_patient"
    assert links(store) == [Link("auto-1", "M1", "p1", "automatic", "gateway", rule, START)]
    assert state(store) is State.LINKED
    assert open_jobs(store) == [(JobKind.IMPORT, "auto-1")]
    [(action, detail)] = audit(store)
    assert action == "message.linked"
    linked = {"link": "auto-1", "patient": "p1"}
    assert detail == {"decision": "automatic", "rule": rule, "entries": 1, "automatic": True, **linked}


@pytest.mark.parametrize(
    ("patients", "sender", "automatic", "ground"),
    [
        ([], ANN, True, "not_documented"),
        ([Patient("p1", direct_addresses=(ANN,))], "", True, "no_verified_sender"),
        ([Patient("p1", direct_addresses=(ANN,)), Patient("p2", direct_addresses=(ANN,))], ANN, True, "shared_address"),
        ([Patient("p1", direct_addresses=(ANN,), active=False)], ANN, True, "inactive"),
        ([Patient("p1", direct_addresses=(ANN,), deceased=True)], ANN, True, "deceased"),
        ([Patient("p1", direct_addresses=(ANN,))], ANN, False, "policy_off"),
    ],
)
async def test_others_wait_in_the_unlinked_queue(
    store: SQLStore, patients: list[Patient], sender: str, automatic: bool, ground: str
) -> None:
    add_patients(store, *patients)
    filed(store, sender=sender)
    await linker(store, automatic=automatic)(claim(store, JobKind.LINK))
    assert links(store) == []
    assert state(store) is State.FILED
    assert open_jobs(store) == []
    [(action, detail)] = audit(store)
    assert action == "message.unlinked"
    assert detail["rule"] == f"address-book-1:{ground}"
    assert "@" not in json.dumps(detail)


async def test_a_link_that_a_person_made_first_is_left_alone(store: SQLStore, charts: Charts) -> None:
    add_patients(store, Patient("p1", direct_addresses=(ANN,)), Patient("p2"))
    filed(store)
    job = claim(store, JobKind.LINK)
    made = await charts.link("M1", "p2", actor="olga")
    await linker(store)(job)
    assert links(store) == [made.link]
    assert open_jobs(store) == [(JobKind.IMPORT, made.link.id)]


async def test_running_twice_links_once(store: SQLStore) -> None:
    add_patients(store, Patient("p1", direct_addresses=(ANN,)))
    filed(store)
    step = linker(store)
    await step(claim(store, JobKind.LINK))
    store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.LINK, "M1"))
    job = next(j for j in store.write_blocking(lambda tx: tx.jobs.claim(60, 9)) if j.kind is JobKind.LINK)
    await step(job)
    assert len(links(store)) == 1
    assert len(audit(store)) == 1


async def test_a_lost_lease_leaves_nothing(store: SQLStore) -> None:
    add_patients(store, Patient("p1", direct_addresses=(ANN,)))
    filed(store)
    old = claim(store, JobKind.LINK)
    new = claim(store, JobKind.LINK, minutes=5)
    with pytest.raises(StoreError):
        await linker(store)(old)
    assert links(store) == []
    assert state(store) is State.FILED
    assert audit(store) == []
    await linker(store)(new)
    assert len(links(store)) == 1


@pytest.mark.parametrize("stop_at", [State.UNWRAPPED, State.REFUSED])
async def test_a_message_that_is_not_filed_is_never_linked(store: SQLStore, stop_at: State) -> None:
    add_patients(store, Patient("p1", direct_addresses=(ANN,)))
    filed(store, stop_at=stop_at)
    with pytest.raises(ConflictError):
        await linker(store)(claim(store, JobKind.LINK))
    assert links(store) == []


class Told(Weighing):
    """Says when the message has been read and the transaction is next."""

    def __init__(self, store: SQLStore) -> None:
        super().__init__(store.read_blocking)
        self.has_read = threading.Event()

    def read(self, content: bytes, sender: str) -> Evidence:
        found = super().read(content, sender)
        self.has_read.set()
        return found


async def test_the_machine_and_a_person_race_and_one_wins(store: SQLStore, charts: Charts) -> None:
    add_patients(store, Patient("p1", direct_addresses=(ANN,)), Patient("p2"))
    told = Told(store)
    machine = linker(store, evidence=told)

    async def person(message: str, *, waits: bool) -> object:
        if waits:
            await asyncio.to_thread(told.has_read.wait)
        return await charts.link(message, "p2", actor="olga")

    for number in range(10):
        told.has_read.clear()
        message = filed(store, f"M{number}", content=CONTENT + b"%d" % number)
        calls = machine(claim(store, JobKind.LINK)), person(message, waits=bool(number % 2))
        results = await asyncio.gather(*calls, return_exceptions=True)
        [link] = links(store, message)
        lost = [result for result in results if isinstance(result, BaseException)]
        # The machine that comes second leaves the message alone; the person who comes second is told.
        assert [type(error) for error in lost] == ([ConflictError] if link.mode == "automatic" else [])
        store.write_blocking(lambda tx: [tx.jobs.finish(job) for job in tx.jobs.claim(60, 100)])
