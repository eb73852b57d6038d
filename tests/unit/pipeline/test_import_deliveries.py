"""The ``import`` step and the queues of the targets over the real store (S46, promise 4 and 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import (
    ConflictError,
    ImporterGoneError,
    ImportFailedError,
    ImportRefusedError,
    NotFoundError,
    StoreError,
)
from gateway.core.lifecycle import JobKind
from gateway.core.retry import WEBHOOK_SCHEDULE_SECONDS
from gateway.importers.folder import FolderImporter
from gateway.pipeline.deliver import Deliveries, Target
from gateway.pipeline.import_hook import OrderImports
from gateway.pipeline.import_request import sent_at
from gateway.pipeline.message_view import view_message
from gateway.ports import (
    IMPORTER_API_VERSION,
    DeliveryState,
    ImporterCapabilities,
    ImportPreview,
    ImportRequest,
    Job,
    ListedDelivery,
    Patient,
    PatientImporter,
    Retraction,
)
from gateway.store.sql_store import SQLStore
from tests.unit.pipeline.link_harness import (
    ANN,
    CONTENT,
    START,
    Frozen,
    add_patients,
    audit,
    claim,
    filed,
    leases,
    linker,
    open_jobs,
)

SCHEDULE = (10.0, 100.0)


class Recorder:
    """An importer that remembers its calls, and answers as it is told."""

    api_version = IMPORTER_API_VERSION

    def __init__(self, name: str = "recorder", *errors: Exception, retract: bool = True, content: bool = True) -> None:
        self.name = name
        self.errors = list(errors)
        self.capabilities = ImporterCapabilities(retract=retract, preview=True, content=content)
        self.calls: list[ImportRequest] = []
        self.retractions: list[Retraction] = []
        self.closed = False
        self.answer: Any = None

    async def import_message(self, request: ImportRequest) -> str:
        self.calls.append(request)
        if self.errors:
            raise self.errors.pop(0)
        receipt: str = f"{self.name}/{request.link.id}" if self.answer is None else self.answer
        return receipt

    async def retract(self, retraction: Retraction) -> str:
        self.retractions.append(retraction)
        if self.errors:
            raise self.errors.pop(0)
        return f"gone/{retraction.key}"

    async def check(self) -> str | None:
        return None

    async def preview(self, request: ImportRequest) -> ImportPreview:
        return ImportPreview("text/plain", request.link.id.encode())

    async def close(self) -> None:
        self.closed = True


def deliveries(store: SQLStore, *importers: PatientImporter, timeout_seconds: float = 60) -> Deliveries:
    targets = [Target(importer, SCHEDULE, timeout_seconds) for importer in importers]
    return Deliveries(store, Frozen(), targets, view_message, poll_seconds=0.01)


async def linked(store: SQLStore, message: str = "M1") -> Job:
    """A linked message and its claimed import job."""
    add_patients(store, Patient("p1", family="Lee", direct_addresses=(ANN,)))
    filed(store, message)
    await linker(store)(claim(store, JobKind.LINK))
    return claim(store, JobKind.IMPORT)


async def ordered(store: SQLStore, *targets: str) -> None:
    assert await OrderImports(store, targets)(await linked(store)) is False


def receipts(store: SQLStore) -> dict[str, str]:
    return store.read_blocking(lambda tx: tx.links.receipts("auto-1"))


def listed(store: SQLStore, **options: Any) -> list[ListedDelivery]:
    return store.read_blocking(lambda tx: tx.deliveries.listed(limit=100, **options))


def later(seconds: float) -> None:
    leases.time += timedelta(seconds=seconds)


def imports_of(store: SQLStore) -> list[str]:
    return [action for action, _ in audit(store) if "import" in action or "retract" in action]


# --- the step ---


async def test_the_step_orders_and_calls_nobody(store: SQLStore) -> None:
    job = await linked(store)
    woken: list[bool] = []
    await OrderImports(store, ["a", "b"], lambda: woken.append(True))(job)
    assert [(d.target, d.state, d.failures) for d in listed(store)] == [
        ("a", DeliveryState.WAITING, 0),
        ("b", DeliveryState.WAITING, 0),
    ]
    assert woken == [True]
    assert open_jobs(store) == []


async def test_the_step_run_again_orders_nothing_twice(store: SQLStore) -> None:
    await ordered(store, "a", "b")
    await deliveries(store, Recorder("a")).drain()
    store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.IMPORT, "auto-1"))
    await OrderImports(store, ["a", "b"])(claim(store, JobKind.IMPORT))
    assert [d.target for d in listed(store, state=DeliveryState.WAITING)] == ["b"]


async def test_a_lost_lease_orders_nothing(store: SQLStore) -> None:
    old = await linked(store)
    claim(store, JobKind.IMPORT, minutes=5)
    with pytest.raises(StoreError):
        await OrderImports(store, ["a"])(old)
    assert listed(store) == []
    assert len(open_jobs(store)) == 1


async def test_an_unknown_link_is_an_error(store: SQLStore) -> None:
    job = await linked(store)
    with pytest.raises(NotFoundError):
        await OrderImports(store, ["a"])(replace(job, subject="absent"))


# --- what is delivered ---


async def test_what_an_importer_gets(store: SQLStore) -> None:
    importer = Recorder()
    await ordered(store, "recorder")
    await deliveries(store, importer).drain()
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
    assert [(d.id, d.state, d.receipt) for d in listed(store)] == [(None, DeliveryState.DONE, "recorder/auto-1")]
    assert [action for action, _ in audit(store)] == ["message.linked", "message.imported"]


async def test_who_needs_no_content_gets_none(store: SQLStore) -> None:
    importer = Recorder(content=False)
    await ordered(store, "recorder")
    await deliveries(store, importer).drain()
    assert (importer.calls[0].content, importer.calls[0].parts) == (b"", ())


async def test_to_the_folder_and_back(store: SQLStore, tmp_path: Path) -> None:
    await ordered(store, "folder")
    await deliveries(store, FolderImporter(tmp_path / "charts")).drain()
    folder = tmp_path / "charts" / receipts(store)["folder"]
    assert (folder / "message.eml").read_bytes() == CONTENT
    assert (folder / "parts" / "02-ccd.xml").read_bytes() == b"<CDA/>"


async def test_one_that_fails_neither_delays_nor_repeats_another(store: SQLStore) -> None:
    bad, good = Recorder("bad", OSError(f"/charts/{ANN} is full")), Recorder("good")
    await ordered(store, "bad", "good")
    both = deliveries(store, bad, good)
    await both.drain()
    assert receipts(store) == {"good": "good/auto-1"}
    [waiting] = listed(store, state=DeliveryState.WAITING)
    assert (waiting.target, waiting.failures, waiting.error) == ("bad", 1, "raised_oserror")
    assert waiting.at == leases.time + timedelta(seconds=SCHEDULE[0])
    later(SCHEDULE[0] - 1)
    assert await both.drain() == 0
    later(1)
    await both.drain()
    assert receipts(store) == {"good": "good/auto-1", "bad": "bad/auto-1"}
    assert (len(bad.calls), len(good.calls)) == (2, 1)


async def test_one_that_hangs_does_not_delay_another(store: SQLStore) -> None:
    class Hanging(Recorder):
        async def import_message(self, request: ImportRequest) -> str:
            await asyncio.Event().wait()
            return ""

    await ordered(store, "good", "hanging")
    good = Recorder("good")
    running = asyncio.create_task(deliveries(store, Hanging("hanging"), good).run())
    async with asyncio.timeout(10):
        while not receipts(store):
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    [left] = listed(store, state=DeliveryState.WAITING)
    assert (left.target, left.running, left.failures, left.error) == ("hanging", False, 0, "")
    assert good.closed


async def test_no_answer_in_time_is_tried_again(store: SQLStore) -> None:
    class Hanging(Recorder):
        async def import_message(self, request: ImportRequest) -> str:
            await asyncio.Event().wait()
            return ""

    await ordered(store, "recorder")
    await deliveries(store, Hanging(), timeout_seconds=0.01).drain()
    assert [d.error for d in listed(store)] == ["timeout"]


async def test_the_other_side_may_ask_for_more_patience_than_the_schedule(store: SQLStore) -> None:
    patient = Recorder("recorder", ImportFailedError("busy", reason="http_503", retry_after_seconds=500))
    await ordered(store, "recorder")
    await deliveries(store, patient).drain()
    [waiting] = listed(store)
    assert (waiting.at - leases.time, waiting.error) == (timedelta(seconds=500), "http_503")


async def test_after_its_last_attempt_it_is_set_aside_and_repaired(store: SQLStore) -> None:
    importer = Recorder("recorder", *[OSError() for _ in range(3)])
    await ordered(store, "recorder")
    for _ in range(3):
        await deliveries(store, importer).drain()
        later(1000)
    [dead] = listed(store)
    assert (dead.state, dead.failures) == (DeliveryState.DEAD, 3)
    assert await deliveries(store, importer).drain() == 0
    assert imports_of(store) == ["import.set_aside"]
    assert [(s.name, s.waiting, s.dead) for s in store.read_blocking(lambda tx: tx.deliveries.standings())] == [
        ("recorder", 0, 1)
    ]
    assert dead.id is not None
    dead_id = dead.id
    again = store.write_blocking(lambda tx: tx.deliveries.retry(dead_id))
    assert (again.state, again.failures) == (DeliveryState.WAITING, 0)
    await deliveries(store, importer).drain()
    assert receipts(store) == {"recorder": "recorder/auto-1"}
    with pytest.raises(NotFoundError):
        store.write_blocking(lambda tx: tx.deliveries.retry(dead_id))


async def test_a_nack_for_good_is_set_aside_at_once(store: SQLStore) -> None:
    await ordered(store, "recorder")
    await deliveries(store, Recorder("recorder", ImportRefusedError("no", reason="unknown_patient"))).drain()
    [dead] = listed(store)
    assert (dead.state, dead.failures, dead.error) == (DeliveryState.DEAD, 1, "unknown_patient")


async def test_a_target_that_is_gone_is_stopped_until_a_person_starts_it(store: SQLStore) -> None:
    importer = Recorder("recorder", ImporterGoneError("gone", reason="http_410"))
    await ordered(store, "recorder")
    await deliveries(store, importer).drain()
    [standing] = store.read_blocking(lambda tx: tx.deliveries.standings())
    assert (standing.waiting, standing.dead, standing.stop_reason) == (1, 0, "http_410")
    later(100_000)
    assert await deliveries(store, importer).drain() == 0
    assert imports_of(store) == ["import.target_stopped"]
    assert store.write_blocking(lambda tx: tx.deliveries.start("recorder"))
    await deliveries(store, importer).drain()
    assert receipts(store) == {"recorder": "recorder/auto-1"}


@pytest.mark.parametrize("answer", ["", "  ", "x" * 1_001, "two\nlines", b"bytes", 7, ["x"], "\x1b[31m"])
async def test_a_receipt_that_is_none_is_no_ack(store: SQLStore, answer: Any) -> None:
    importer = Recorder()
    importer.answer = answer
    await ordered(store, "recorder")
    await deliveries(store, importer).drain()
    assert receipts(store) == {}
    assert [d.error for d in listed(store)] == ["unusable_receipt"]


@pytest.mark.parametrize("reason", ["Ann Lee", "ann@x.example", "", "x" * 70, "a\nb"])
async def test_a_reason_that_is_no_code_is_not_kept(store: SQLStore, reason: str) -> None:
    await ordered(store, "recorder")
    await deliveries(store, Recorder("recorder", ImportRefusedError("no", reason=reason))).drain()
    assert [d.error for d in listed(store)] == ["unusable_reason"]


async def test_a_receiver_that_is_down_for_three_days_gets_it(store: SQLStore) -> None:
    """F41, by the schedule of webhooks and without waiting for it."""
    importer = Recorder("recorder", *[ImportFailedError("down", reason="unreachable") for _ in range(9)])
    target = Target(importer, WEBHOOK_SCHEDULE_SECONDS)
    await ordered(store, "recorder")
    begun = leases.time
    while not receipts(store):
        await Deliveries(store, Frozen(), [target], view_message).drain()
        rows = store.read_blocking(lambda tx: tx.deliveries.listed(limit=9))
        assert len(rows) == 1, "the queue does not grow"
        assert rows[0].state is not DeliveryState.DEAD
        leases.time = max(leases.time, rows[0].at)
    assert leases.time - begun > timedelta(days=3)
    assert len(importer.calls) == 10
    assert {request.link.id for request in importer.calls} == {"auto-1"}


# --- crashes ---


async def test_a_crash_before_the_receipt_gives_the_same_record_once(store: SQLStore, tmp_path: Path) -> None:
    await ordered(store, "folder")
    importer = FolderImporter(tmp_path / "charts")
    write = store.write
    claimed: list[bool] = []

    async def crash(work: Callable[[Any], Any], *, urgent: bool = False) -> Any:
        if claimed:
            raise StoreError("the power is gone")
        claimed.append(True)
        return await write(work, urgent=urgent)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "write", crash)
        with pytest.raises(StoreError):
            await asyncio.wait_for(_until_error(deliveries(store, importer).drain), 10)
    assert [p.name for p in (tmp_path / "charts" / "p1").iterdir()] == ["auto-1"]
    assert receipts(store) == {}
    assert store.write_blocking(lambda tx: tx.deliveries.release()) == 1
    [delivery] = listed(store)
    assert (delivery.failures, delivery.running) == (0, False)
    await deliveries(store, FolderImporter(tmp_path / "charts")).drain()
    assert [p.name for p in (tmp_path / "charts" / "p1").iterdir()] == ["auto-1"]
    assert receipts(store) == {"folder": "p1/auto-1"}


async def _until_error(drain: Callable[[], Awaitable[int]]) -> None:
    await drain()
    raise StoreError("as drained")


async def test_one_that_kills_the_process_again_and_again_is_set_aside(store: SQLStore) -> None:
    await ordered(store, "recorder")
    for _ in range(10):
        assert len(store.write_blocking(lambda tx: tx.deliveries.claim("recorder", 60, 5))) == 1
        store.write_blocking(lambda tx: tx.deliveries.release())
    assert store.write_blocking(lambda tx: tx.deliveries.claim("recorder", 60, 5)) == []
    [dead] = listed(store)
    assert (dead.state, dead.error, dead.failures) == (DeliveryState.DEAD, "lost", 0)


async def test_a_late_answer_of_a_lost_lease_ends_nothing_but_is_kept(store: SQLStore) -> None:
    await ordered(store, "recorder")
    [old] = store.write_blocking(lambda tx: tx.deliveries.claim("recorder", 60, 5))
    later(61)
    [new] = store.write_blocking(lambda tx: tx.deliveries.claim("recorder", 60, 5))
    assert new.attempt == old.attempt + 1
    assert not store.write_blocking(lambda tx: tx.deliveries.finish(old))
    assert not store.write_blocking(lambda tx: tx.deliveries.fail(old, "late", None))
    assert not store.write_blocking(lambda tx: tx.deliveries.hand_back(old))
    assert store.write_blocking(lambda tx: tx.deliveries.finish(new))


async def test_what_is_with_a_target_cannot_be_asked_for_again(store: SQLStore) -> None:
    await ordered(store, "recorder")
    [held] = store.write_blocking(lambda tx: tx.deliveries.claim("recorder", 60, 5))
    with pytest.raises(ConflictError):
        store.write_blocking(lambda tx: tx.deliveries.retry(held.id))


# --- targets that come and go ---


async def test_a_new_target_gets_older_links_on_request_only(store: SQLStore) -> None:
    await ordered(store, "a")
    new = Recorder("new")
    both = deliveries(store, Recorder("a"), new)
    await both.drain()
    assert new.calls == []
    tomorrow = START + timedelta(days=1)
    assert store.write_blocking(lambda tx: tx.deliveries.order_missing("new", tomorrow, None, 10)) == (0, None)
    assert store.write_blocking(lambda tx: tx.deliveries.order_missing("new", None, None, 10)) == (1, None)
    assert store.write_blocking(lambda tx: tx.deliveries.order_missing("new", None, None, 10)) == (0, None)
    assert store.write_blocking(lambda tx: tx.deliveries.order_missing("a", None, None, 10)) == (0, None)
    await both.drain()
    assert len(new.calls) == 1


async def test_a_target_that_is_removed_leaves_its_rows(store: SQLStore) -> None:
    await ordered(store, "removed", "stays")
    await deliveries(store, Recorder("stays")).drain()
    assert [d.target for d in listed(store, state=DeliveryState.WAITING)] == ["removed"]


# --- retraction ---


async def test_a_retraction_follows_the_import_and_is_kept(store: SQLStore) -> None:
    importer = Recorder()
    await ordered(store, "recorder", "unsent")
    await deliveries(store, importer).drain()
    order: Callable[[Any], list[str]] = lambda tx: tx.deliveries.order_retraction("auto-1", "olga", "wrong", START)  # noqa: E731
    assert store.write_blocking(order) == ["recorder"]
    assert store.write_blocking(order) == [], "a second order changes nothing"
    await deliveries(store, importer).drain()
    [retraction] = importer.retractions
    assert (retraction.receipt, retraction.reason, retraction.actor) == ("recorder/auto-1", "wrong", "olga")
    assert retraction.key == "auto-1.retract"
    assert store.read_blocking(lambda tx: tx.deliveries.retractions("auto-1")) == {"recorder": "gone/auto-1.retract"}
    assert receipts(store) == {"recorder": "recorder/auto-1"}, "what was imported stays on record"
    assert listed(store, state=DeliveryState.WAITING) == [], "what was never sent is not sent any more"
    assert imports_of(store) == ["message.imported", "message.retracted"]
    assert store.write_blocking(order) == []
    assert store.write_blocking(lambda tx: tx.deliveries.order_missing("new", None, None, 10)) == (0, None)


async def test_a_retraction_never_overtakes_an_import_that_may_have_arrived(store: SQLStore) -> None:
    importer = Recorder("recorder", TimeoutError())
    await ordered(store, "recorder")
    await deliveries(store, importer).drain()
    store.write_blocking(lambda tx: tx.deliveries.order_retraction("auto-1", "olga", "wrong", START))
    assert await deliveries(store, importer).drain() == 0
    later(SCHEDULE[0])
    await deliveries(store, importer).drain()
    assert (len(importer.calls), len(importer.retractions)) == (2, 1)


async def test_a_retraction_before_anybody_was_asked_ends_the_job(store: SQLStore) -> None:
    job = await linked(store)
    assert store.write_blocking(lambda tx: tx.deliveries.order_retraction("auto-1", "olga", "wrong", START)) == []
    with pytest.raises(StoreError):
        await OrderImports(store, ["recorder"])(job)
    assert listed(store) == []


async def test_a_target_that_cannot_retract_leaves_it_to_a_person(store: SQLStore) -> None:
    importer = Recorder(retract=False)
    await ordered(store, "recorder")
    await deliveries(store, importer).drain()
    store.write_blocking(lambda tx: tx.deliveries.order_retraction("auto-1", "olga", "wrong", START))
    await deliveries(store, importer).drain()
    assert importer.retractions == []
    assert [(d.action, d.error) for d in listed(store, state=DeliveryState.DEAD)] == [("retract", "cannot_retract")]


def test_importers_need_different_names(store: SQLStore) -> None:
    with pytest.raises(ValueError, match="names"):
        deliveries(store, Recorder(), Recorder())


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
