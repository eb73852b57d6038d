"""The ``link`` and ``import`` steps over the real store (S41, S42, S46, promise 4 and 5)."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.charts.folder_importer import FolderImporter
from gateway.charts.service import Charts
from gateway.core.errors import ConflictError, ImportFailedError, NotFoundError, StoreError
from gateway.core.lifecycle import JobKind, State
from gateway.core.message import Envelope, Inbound, Source
from gateway.core.verdict import Judgement, Reason
from gateway.pipeline.import_hook import ImportLinked, sent_at
from gateway.pipeline.link import LinkMessage
from gateway.pipeline.message_view import view_message
from gateway.ports import ImportRequest, Job, Link, Patient, PatientImporter, UnitOfWork
from gateway.settings import StoreSettings
from gateway.store.sql_store import SQLStore

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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    with SQLStore.open(StoreSettings(url=f"sqlite:///{tmp_path}/gateway.db", free_space_floor_mib=1)) as opened:
        yield opened


@pytest.fixture
def charts(store: SQLStore) -> Charts:
    numbers = itertools.count(1)
    return Charts(store, Frozen(), lambda: f"manual-{next(numbers)}")


def linker(store: SQLStore, *, automatic: bool = True) -> LinkMessage:
    numbers = itertools.count(1)
    return LinkMessage(store, Frozen(), lambda: f"auto-{next(numbers)}", automatic=automatic)


def filed(store: SQLStore, message_id: str = "M1", sender: str = ANN, *, stop_at: State = State.FILED) -> str:
    """An accepted message that was filed, with its link job, as the file step leaves it."""

    def work(tx: UnitOfWork) -> None:
        envelope = Envelope("s@x.example", ("dr@p.example",))
        tx.messages.add_raw(message_id, START, Inbound(message_id.encode(), envelope, Source.SMTP))
        tx.messages.set_state(message_id, State.RECEIVED, START)
        if stop_at is State.REFUSED:
            tx.messages.set_state(message_id, State.REFUSED, START)
        else:
            judgement = Judgement(
                Reason.OK, "", ("dr@p.example",), sender=sender, subject="results", message_id="<1@x>", content=CONTENT
            )
            tx.messages.add_content(message_id, judgement)
            tx.messages.set_state(message_id, State.UNWRAPPED, START)
            if stop_at is State.FILED:
                tx.messages.set_state(message_id, State.FILED, START)
        tx.jobs.enqueue(JobKind.LINK, message_id, START)

    store.write_blocking(work)
    return message_id


def add_patients(store: SQLStore, *patients: Patient) -> None:
    store.write_blocking(lambda tx: tx.patients.upsert(patients, "csv-file", START))


def claim(store: SQLStore, kind: JobKind, minutes: int = 0) -> Job:
    found = store.write_blocking(lambda tx: tx.jobs.claim(START + timedelta(minutes=minutes), 60, 100))
    return next(job for job in found if job.kind is kind)


def open_jobs(store: SQLStore) -> list[tuple[JobKind, str]]:
    found = store.write_blocking(lambda tx: tx.jobs.claim(START + timedelta(days=1), 60, 100))
    return [(job.kind, job.subject) for job in found]


def links(store: SQLStore, message_id: str = "M1") -> list[Link]:
    return store.read_blocking(lambda tx: tx.links.for_message(message_id))


def state(store: SQLStore, message_id: str = "M1") -> State:
    return store.read_blocking(lambda tx: tx.messages.state(message_id))


def audit(store: SQLStore) -> list[tuple[str, dict[str, Any]]]:
    def work(tx: Any) -> list[tuple[str, dict[str, Any]]]:
        return [(e.action, json.loads(e.detail)) for e in tx.audit.events()]

    return store.read_blocking(work)


# --- the link step ---


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
    assert detail == {"rule": rule, "entries": 1, "automatic": True, "link": "auto-1", "patient": "p1"}


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
    store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.LINK, "M1", START))
    job = next(j for j in store.write_blocking(lambda tx: tx.jobs.claim(START, 60, 9)) if j.kind is JobKind.LINK)
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


async def test_the_machine_and_a_person_race_and_one_wins(store: SQLStore, charts: Charts) -> None:
    add_patients(store, Patient("p1", direct_addresses=(ANN,)), Patient("p2"))
    numbers = itertools.count(1)
    step = LinkMessage(store, Frozen(), lambda: f"auto-{next(numbers)}", automatic=True)
    for number in range(10):
        message = filed(store, f"M{number}")
        calls: list[Awaitable[object]] = [step(claim(store, JobKind.LINK)), charts.link(message, "p2", actor="olga")]
        if number % 2:
            calls.reverse()
        results = await asyncio.gather(*calls, return_exceptions=True)
        [link] = links(store, message)
        lost = [result for result in results if isinstance(result, BaseException)]
        # The machine that comes second leaves the message alone; the person who comes second is told.
        assert [type(error) for error in lost] == ([ConflictError] if link.mode == "automatic" else [])
        store.write_blocking(lambda tx: [tx.jobs.finish(job) for job in tx.jobs.claim(START, 60, 100)])


# --- the import step ---


class Recorder:
    """An importer that remembers its calls, and fails as often as it is told."""

    def __init__(self, name: str = "recorder", failures: int = 0, error: Exception | None = None) -> None:
        self._name = name
        self.failures = failures
        self.error = error or OSError(f"/charts/{ANN} is full")
        self.calls: list[ImportRequest] = []

    @property
    def name(self) -> str:
        return self._name

    async def import_message(self, request: ImportRequest) -> str:
        self.calls.append(request)
        if self.failures:
            self.failures -= 1
            raise self.error
        return f"{self._name}/{request.link.id}"


def hook(store: SQLStore, *importers: PatientImporter, timeout_seconds: float = 60) -> ImportLinked:
    return ImportLinked(store, Frozen(), importers, view_message, timeout_seconds=timeout_seconds)


async def linked(store: SQLStore) -> Job:
    """A linked message and its claimed import job."""
    add_patients(store, Patient("p1", family="Lee", direct_addresses=(ANN,)))
    filed(store)
    await linker(store)(claim(store, JobKind.LINK))
    return claim(store, JobKind.IMPORT)


def receipts(store: SQLStore) -> dict[str, str]:
    return store.read_blocking(lambda tx: tx.links.receipts("auto-1"))


async def test_what_an_importer_gets(store: SQLStore) -> None:
    importer = Recorder()
    await hook(store, importer)(await linked(store))
    [request] = importer.calls
    assert request.link.id == "auto-1"
    assert request.patient == Patient("p1", family="Lee", direct_addresses=(ANN,))
    assert (request.sender, request.recipients, request.subject) == (ANN, ("dr@p.example",), "results")
    assert request.sent_at == datetime(2026, 6, 1, 8, 0, tzinfo=UTC)
    assert request.received_at == START
    assert request.rfc822_message_id == "<1@x>"
    assert request.content == CONTENT
    assert request.text == "Please see."
    assert [(p.filename, p.content_type) for p in request.parts] == [("", "text/plain"), ("../ccd.xml", "text/xml")]
    assert request.parts[1].data == b"<CDA/>"
    assert receipts(store) == {"recorder": "recorder/auto-1"}
    assert open_jobs(store) == []
    assert [action for action, _ in audit(store)] == ["message.linked", "message.imported"]


async def test_to_the_folder_and_back(store: SQLStore, tmp_path: Path) -> None:
    await hook(store, FolderImporter(tmp_path / "charts"))(await linked(store))
    folder = tmp_path / "charts" / receipts(store)["folder"]
    assert (folder / "message.eml").read_bytes() == CONTENT
    assert (folder / "parts" / "02-ccd.xml").read_bytes() == b"<CDA/>"
    assert json.loads((folder / "record.json").read_text())["message"]["sent_at"] == "2026-06-01T08:00:00+00:00"


async def test_a_failure_keeps_the_job_and_spares_the_others(store: SQLStore) -> None:
    bad, good = Recorder("bad", failures=1), Recorder("good")
    job = await linked(store)
    with pytest.raises(ImportFailedError) as caught:
        await hook(store, bad, good)(job)
    assert str(caught.value) == "importer bad failed: OSError"
    assert receipts(store) == {"good": "good/auto-1"}
    store.write_blocking(lambda tx: tx.jobs.fail(job, START, "", START))
    await hook(store, bad, good)(claim(store, JobKind.IMPORT))
    assert receipts(store) == {"good": "good/auto-1", "bad": "bad/auto-1"}
    assert (len(bad.calls), len(good.calls)) == (2, 1)
    assert open_jobs(store) == []


async def test_a_crash_before_the_receipt_gives_the_same_record_once(store: SQLStore, tmp_path: Path) -> None:
    importer = FolderImporter(tmp_path / "charts")
    job = await linked(store)

    def crash(_: Any) -> Any:
        raise StoreError("the power is gone")

    step = hook(store, importer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "write", crash)
        with pytest.raises(StoreError):
            await step(job)
    assert receipts(store) == {}
    await step(claim(store, JobKind.IMPORT, minutes=5))
    assert [p.name for p in (tmp_path / "charts" / "p1").iterdir()] == ["auto-1"]
    assert receipts(store) == {"folder": "p1/auto-1"}


async def test_an_importer_that_hangs_is_given_up(store: SQLStore) -> None:
    class Hanging(Recorder):
        async def import_message(self, request: ImportRequest) -> str:
            await asyncio.Event().wait()
            return ""

    with pytest.raises(ImportFailedError, match="TimeoutError"):
        await hook(store, Hanging(), timeout_seconds=0.01)(await linked(store))
    assert receipts(store) == {}


async def test_a_lost_lease_does_not_end_the_newer_job(store: SQLStore) -> None:
    old = await linked(store)
    claim(store, JobKind.IMPORT, minutes=5)
    with pytest.raises(StoreError):
        await hook(store)(old)
    assert len(open_jobs(store)) == 1


async def test_without_importers_the_job_just_ends(store: SQLStore) -> None:
    await hook(store)(await linked(store))
    assert open_jobs(store) == []


async def test_an_unknown_link_is_an_error(store: SQLStore) -> None:
    job = await linked(store)
    with pytest.raises(NotFoundError):
        await hook(store, Recorder())(replace(job, subject="absent"))


def test_importers_need_different_names(store: SQLStore) -> None:
    with pytest.raises(ValueError, match="names"):
        hook(store, Recorder(), Recorder())


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (b"Date: Mon, 1 Jun 2026 04:00:00 -0000", datetime(2026, 6, 1, 4, 0, tzinfo=UTC)),
        (b"Date: Mon, 99 Jun 2026 04:00:00 +0000", None),
        (b"Date: Fri, 31 Dec 9999 23:00:00 -1400", None),
        (b"Date: soon", None),
        (b"Date: ", None),
        (b"Subject: x", None),
        (b"X: " + b"y" * 100_000, None),
    ],
)
def test_the_date_of_a_message(date: bytes, expected: datetime | None) -> None:
    assert sent_at(date + b"\r\n\r\n") == expected
