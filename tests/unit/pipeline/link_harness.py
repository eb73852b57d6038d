"""A store with patients and filed messages, for the steps ``link`` and ``import`` and for what follows them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.charts.service import Charts
from gateway.core.lifecycle import JobKind, State
from gateway.core.link_policy import LinkPolicy
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.core.verdict import Judgement, Reason
from gateway.inbox.change_hub import ChangeHub
from gateway.pipeline.link import LinkMessage
from gateway.ports import EvidenceReader, Job, Link, Patient, UnitOfWork
from gateway.settings import StoreSettings
from gateway.store.sql_store import SQLStore
from gateway.weighing import Weighing
from tests.support.body_keys import sealer_in
from tests.support.store_samples import SteadyClock

START = datetime(2026, 6, 1, 9, 0, tzinfo=UTC)
ANN = "ann@patients.direct.example"
CONTENT = (
    b"From: ann@patients.direct.example\r\n"
    b"Date: Mon, 1 Jun 2026 04:00:00 -0400\r\n"
    b"Subject: results\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n'
    b"\r\n"
    b"--b\r\n"
    b"Content-Type: text/plain\r\n\r\nPlease see.\r\n"
    b"--b\r\n"
    b'Content-Type: text/xml\r\nContent-Disposition: attachment; filename="../ccd.xml"\r\n'
    b"Content-Transfer-Encoding: base64\r\n\r\nPENEQS8+\r\n"
    b"--b--\r\n"
)


class Frozen:
    """A clock that stands still."""

    def now(self) -> datetime:
        return START


leases = SteadyClock(START)
"""In which the store keeps leases; each claim sets it."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    leases.time = START
    with SQLStore.open(
        StoreSettings(url=f"sqlite:///{tmp_path}/gateway.db", free_space_floor_mib=1), sealer_in(tmp_path), clock=leases
    ) as opened:
        yield opened


@pytest.fixture
def charts(store: SQLStore) -> Charts:
    numbers = itertools.count(1)
    return Charts(store, Frozen(), lambda: f"manual-{next(numbers)}")


def linker(store: SQLStore, *, automatic: bool = True, evidence: EvidenceReader | None = None) -> LinkMessage:
    numbers = itertools.count(1)
    new_id = lambda: f"auto-{next(numbers)}"  # noqa: E731
    reader = evidence or Weighing(store.read_blocking)
    return LinkMessage(store, Frozen(), new_id, ChangeHub(), reader, policy=LinkPolicy(automatic))


def filed(
    store: SQLStore,
    message_id: str = "M1",
    sender: str = ANN,
    *,
    content: bytes = CONTENT,
    stop_at: State = State.FILED,
) -> str:
    """An accepted message that was filed, with its link job, as the file step leaves it."""

    def work(tx: UnitOfWork) -> None:
        envelope = Envelope("s@x.example", ("dr@p.example",))
        tx.messages.add_raw(message_id, START, Inbound(MemoryBody(message_id.encode()), envelope, Source.SMTP))
        tx.messages.set_state(message_id, State.RECEIVED, START)
        if stop_at is State.REFUSED:
            tx.messages.set_state(message_id, State.REFUSED, START)
        else:
            judgement = Judgement(
                Reason.OK, "", ("dr@p.example",), sender=sender, subject="results", message_id="<1@x>", content=content
            )
            tx.messages.add_content(message_id, judgement)
            tx.messages.set_state(message_id, State.UNWRAPPED, START)
            if stop_at is State.FILED:
                tx.messages.set_state(message_id, State.FILED, START)
        tx.jobs.enqueue(JobKind.LINK, message_id)

    store.write_blocking(work)
    return message_id


def add_patients(store: SQLStore, *patients: Patient) -> None:
    store.write_blocking(lambda tx: tx.patients.upsert(patients, "csv-file", START))


def claim(store: SQLStore, kind: JobKind, minutes: int = 0) -> Job:
    leases.time = START + timedelta(minutes=minutes)
    found = store.write_blocking(lambda tx: tx.jobs.claim(60, 100))
    return next(job for job in found if job.kind is kind)


def open_jobs(store: SQLStore) -> list[tuple[JobKind, str]]:
    leases.time = START + timedelta(days=1)
    found = store.write_blocking(lambda tx: tx.jobs.claim(60, 100))
    return [(job.kind, job.subject) for job in found]


def links(store: SQLStore, message_id: str = "M1") -> list[Link]:
    return store.read_blocking(lambda tx: tx.links.for_message(message_id))


def state(store: SQLStore, message_id: str = "M1") -> State:
    return store.read_blocking(lambda tx: tx.messages.state(message_id))


def audit(store: SQLStore) -> list[tuple[str, dict[str, Any]]]:
    def work(tx: Any) -> list[tuple[str, dict[str, Any]]]:
        # What the fixtures write without an event of their own gets one from the store.
        return [(e.action, json.loads(e.detail)) for e in tx.audit.events() if e.action != "rows.written"]

    return store.read_blocking(work)
