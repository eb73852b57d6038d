"""The conformance kit: whether an importer keeps the contract of docs/import-hook.md.

``direct-gateway plugin test NAME`` runs it on a plug-in in a process of its own, as the gateway does. Authors run it on
the object as well, with pytest::

    from gateway.importers.conformance import ImporterConformance

    class TestMyImporter(ImporterConformance):
        def make(self):
            return MyImporter({"url": "https://test.example"})

Messages and patients are made up, and their ids are new in each run: the other side should be a test system.

Guarantees: a check that passes was made: each of them fails for an importer that breaks what it is named after (held by
tests). Failure modes: none; what an importer does wrong is the problem of a :class:`CheckResult`.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TypeVar

from gateway.core.errors import GatewayError, ImportRefusedError
from gateway.core.import_settings import PLUGIN, ImporterSettings
from gateway.importers.plugin import PluginImporter
from gateway.ports import (
    CHECK_DEGRADED,
    IMPORTER_API_VERSION,
    MAX_RECEIPT_CHARS,
    ImporterCapabilities,
    ImportPreview,
    ImportRequest,
    Link,
    MessagePart,
    Patient,
    PatientImporter,
    Retraction,
)

T = TypeVar("T")
CALL_SECONDS = 30.0
CANCEL_SECONDS = 2.0
MAX_LAG_SECONDS = 1.0
LARGE_BYTES = 25 * 1024 * 1024
CONCURRENT = 8
_BEAT_SECONDS = 0.05
_NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ODD = 'Zo\u00eb \u674e \u0645\u0631\u064a\u0645 \U0001fa7a "quoted" <tag> & ; -- \''


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How a check went; ``problem`` is empty when it passed."""

    name: str
    summary: str
    problem: str


class Broken(Exception):  # noqa: N818 - a finding, and no error of ours
    """The importer breaks the contract; the text says how."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tested."""

    make: Callable[[], PatientImporter]
    """A new importer with the same other side, as after a restart of the gateway."""
    blocked: Callable[[PatientImporter], AbstractAsyncContextManager[Callable[[], float]]]
    """Measures the longest time for which its event loop was blocked."""


def request(*, large: bool = False, odd: bool = False) -> ImportRequest:
    """A made-up request with ids of its own."""
    number = uuid.uuid4().hex[:26].upper()
    data = bytes(range(256)) * (LARGE_BYTES // 256) if large else b"%PDF-1.7 made up"
    text = ODD if odd else "Please see the attached."
    filename = f"../{ODD}.pdf" if odd else "report.pdf"
    content = b"Subject: test\r\nContent-Type: application/pdf\r\n\r\n" + data
    return ImportRequest(
        link=Link(f"T{number[1:]}", f"M{number[1:]}", f"TEST-{number[:8]}", "manual", "conformance", "manual", _NOW),
        patient=Patient(
            f"TEST-{number[:8]}",
            mrn="000",
            family=ODD if odd else "Test",
            given="Ann",
            birth_date=date(1970, 1, 31),
            direct_addresses=("ann@direct.example",),
        ),
        sender="sender@direct.example",
        recipients=("clinic@direct.example",),
        subject=ODD if odd else "test",
        sent_at=None if odd else _NOW,
        received_at=_NOW,
        rfc822_message_id=f"<{number}@direct.example>",
        content_sha256=hashlib.sha256(content).hexdigest(),
        content=content,
        text=text,
        parts=(MessagePart(filename, "application/pdf", data),),
    )


# --- calls ---


async def _import(importer: PatientImporter, asked: ImportRequest) -> str:
    return _receipt(await _timely(importer.import_message(asked), "import_message"), "import_message")


async def _timely(call: Awaitable[T], what: str) -> T:
    try:
        async with asyncio.timeout(CALL_SECONDS):
            return await call
    except TimeoutError:
        raise Broken(f"{what} does not answer within {CALL_SECONDS:.0f} s") from None
    except GatewayError as exc:
        code = getattr(exc, "reason", type(exc).__name__)
        raise Broken(f"{what} is answered with a nack ({code}: {exc})") from None
    except Exception as exc:  # noqa: BLE001 - whatever it raises is what is told
        raise Broken(f"{what} raises {type(exc).__name__}") from None


def _receipt(given: object, what: str) -> str:
    if not isinstance(given, str):
        raise Broken(f"{what} returns a {type(given).__name__}, and no receipt (a string)")
    if not given.strip() or len(given) > MAX_RECEIPT_CHARS or not given.isprintable():
        raise Broken(f"{what} returns a receipt that is empty, longer than {MAX_RECEIPT_CHARS} or not printable")
    return given


def _same(receipts: list[str], when: str) -> None:
    if len(set(receipts)) != 1:
        raise Broken(f"{when}: the same link is given different receipts, so there may be two records")


# --- the checks ---


async def shape(subject: Subject) -> None:
    """Name, version and capabilities are what the Protocol says, and the other side is fit."""
    importer = subject.make()
    try:
        if importer.api_version != IMPORTER_API_VERSION:
            raise Broken(f"api_version is {importer.api_version!r}, and not {IMPORTER_API_VERSION}")
        if not isinstance(importer.name, str) or not importer.name:
            raise Broken("name is no text")
        if not isinstance(importer.capabilities, ImporterCapabilities):
            raise Broken("capabilities are no ImporterCapabilities")
        told = await _timely(importer.check(), "check")
        if told is not None and not told.startswith(CHECK_DEGRADED):
            raise Broken(f"check says that the other side is not fit: {told}")
    finally:
        await importer.close()


async def twice(subject: Subject) -> None:
    """The same link twice gives the same receipt; another link another one."""
    importer, asked = subject.make(), request()
    try:
        first = await _import(importer, asked)
        _same([first, await _import(importer, asked)], "asked twice")
        if await _import(importer, request()) == first:
            raise Broken("two links are given the same receipt, so that one record cannot be told from the other")
    finally:
        await importer.close()


async def crash_between(subject: Subject) -> None:
    """The gateway dies before it has written the receipt: a new process is given the same one."""
    asked, receipts = request(), []
    for _ in range(2):
        importer = subject.make()
        try:
            receipts.append(await _import(importer, asked))
        finally:
            await importer.close()
    _same(receipts, "after a restart")


async def at_once(subject: Subject) -> None:
    """Calls at the same time, for one link and for several, are one record each."""
    importer, asked = subject.make(), request()
    others = [request() for _ in range(CONCURRENT)]
    try:
        calls = [_import(importer, asked) for _ in range(CONCURRENT)] + [_import(importer, one) for one in others]
        receipts = await asyncio.gather(*calls)
        _same(receipts[:CONCURRENT], "asked at the same time")
        if len(set(receipts[CONCURRENT:])) != CONCURRENT:
            raise Broken("several links at the same time are given one receipt")
    finally:
        await importer.close()


async def odd_text(subject: Subject) -> None:
    """Names and texts of any script, and a file name that is an attack."""
    importer, asked = subject.make(), request(odd=True)
    try:
        _same([await _import(importer, asked), await _import(importer, asked)], "with odd texts")
    finally:
        await importer.close()


async def one_part(subject: Subject) -> None:
    """A link of one part, which comes without the message around it, is one record as any other."""
    importer, whole = subject.make(), request()
    link, part = replace(whole.link, part="2"), replace(whole.parts[0], number="2")
    asked = replace(whole, link=link, content=b"", text="", subject="", parts=(part,))
    try:
        _same([await _import(importer, asked), await _import(importer, asked)], "asked twice")
    finally:
        await importer.close()


async def large(subject: Subject) -> None:
    """25 MB are taken, and are the same link as well."""
    importer, asked = subject.make(), request(large=True)
    try:
        _same([await _import(importer, asked), await _import(importer, asked)], "with 25 MB")
    finally:
        await importer.close()


async def loop_goes_on(subject: Subject) -> None:
    """A call does not block the event loop."""
    importer = subject.make()
    try:
        await _import(importer, request())
        async with subject.blocked(importer) as longest:
            await _import(importer, request())
        if longest() > MAX_LAG_SECONDS:
            raise Broken(f"it blocks the event loop for {longest():.1f} s: await, or use a thread")
    finally:
        await importer.close()


async def cancelled(subject: Subject) -> None:
    """A call that is cancelled lets go at once, and the link can be asked for again."""
    importer, asked = subject.make(), request()
    try:
        await _import(importer, request())
        call = asyncio.ensure_future(importer.import_message(asked))
        await asyncio.sleep(0.01)
        call.cancel()
        begun = time.monotonic()
        await asyncio.wait({call}, timeout=CANCEL_SECONDS)
        if not call.done():
            raise Broken(f"a cancelled call goes on for more than {CANCEL_SECONDS:.0f} s")
        if time.monotonic() - begun > CANCEL_SECONDS:
            raise Broken("a cancelled call blocks the event loop")
        if not call.cancelled():
            call.exception()
        _same([await _import(importer, asked), await _import(importer, asked)], "after a cancelled call")
    finally:
        await importer.close()


async def retracted_twice(subject: Subject) -> None:
    """A retraction twice gives the same receipt; an importer that cannot retract says so by a nack for good."""
    importer, asked = subject.make(), request()
    try:
        receipt = await _import(importer, asked)
        wanted = Retraction(asked, receipt, "wrong chart", "conformance", _NOW)
        try:
            first = await importer.retract(wanted)
        except ImportRefusedError:
            return
        except Exception as exc:  # noqa: BLE001 - whatever it raises is what is told
            raise Broken(f"retract raises {type(exc).__name__}") from None
        first = _receipt(first, "retract")
        _same([first, _receipt(await _timely(importer.retract(wanted), "retract"), "retract")], "taken back twice")
        if await _import(importer, asked) != receipt:
            raise Broken("an import that was taken back is made anew when it is repeated")
    finally:
        await importer.close()


async def previewed(subject: Subject) -> None:
    """A preview, where there is one, is an ImportPreview."""
    importer = subject.make()
    try:
        if not importer.capabilities.preview:
            return
        try:
            given: object = await _timely(importer.preview(replace(request(), parts=())), "preview")
        except Broken as exc:
            if "unusable_preview" in str(exc):
                raise Broken("preview returns no ImportPreview") from None
            raise
        if not isinstance(given, ImportPreview) or not isinstance(given.data, bytes):
            raise Broken("preview returns no ImportPreview")
    finally:
        await importer.close()


CHECKS: tuple[Callable[[Subject], Awaitable[None]], ...] = (
    shape,
    twice,
    crash_between,
    at_once,
    odd_text,
    one_part,
    large,
    loop_goes_on,
    cancelled,
    retracted_twice,
    previewed,
)


async def run_check(check: Callable[[Subject], Awaitable[None]], subject: Subject) -> CheckResult:
    """Run one check. Raises nothing."""
    name = getattr(check, "__name__", "check")
    summary = (check.__doc__ or "").strip()
    try:
        await check(subject)
    except Broken as exc:
        return CheckResult(name, summary, str(exc))
    except Exception as exc:  # noqa: BLE001 - an importer that cannot be made is a finding like any other
        return CheckResult(name, summary, f"it raises {type(exc).__name__}")
    return CheckResult(name, summary, "")


async def run_for_plugin(name: str, options: Path | None = None) -> list[CheckResult]:
    """Run every check on an installed plug-in, in a process of its own."""
    settings = ImporterSettings(name="conformance", kind=PLUGIN, plugin=name, options_file=options)
    subject = Subject(lambda: PluginImporter(settings), _plugin_blocked)
    return [await run_check(check, subject) for check in CHECKS]


@asynccontextmanager
async def _plugin_blocked(importer: PatientImporter) -> AsyncIterator[Callable[[], float]]:
    """The longest time that the process of the plug-in took to answer a ping, which its event loop does."""
    longest = 0.0

    async def ping() -> None:
        nonlocal longest
        assert isinstance(importer, PluginImporter)  # noqa: S101 - made by run_for_plugin
        while True:
            begun = time.monotonic()
            try:
                await importer.ping()
            finally:
                longest = max(longest, time.monotonic() - begun)
            await asyncio.sleep(_BEAT_SECONDS)

    async with _beside(ping()):
        yield lambda: longest


@asynccontextmanager
async def _own_blocked(_importer: PatientImporter) -> AsyncIterator[Callable[[], float]]:
    """By how much a beat of this very event loop came late."""
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            begun = time.monotonic()
            try:
                await asyncio.sleep(_BEAT_SECONDS)
            finally:
                longest = max(longest, time.monotonic() - begun - _BEAT_SECONDS)

    async with _beside(beat()):
        yield lambda: longest


@asynccontextmanager
async def _beside(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()


class ImporterConformance:
    """For pytest: derive a class whose name begins with ``Test``, and say how your importer is made."""

    def make(self) -> PatientImporter:
        """A new importer, each time with the same other side."""
        raise NotImplementedError

    def _hold(self, check: Callable[[Subject], Awaitable[None]]) -> None:
        async def go() -> CheckResult:
            return await run_check(check, Subject(self.make, _own_blocked))

        result = asyncio.run(go())
        assert not result.problem, result.problem  # noqa: S101 - this is a test

    def test_shape(self) -> None:
        self._hold(shape)

    def test_the_same_link_twice(self) -> None:
        self._hold(twice)

    def test_a_crash_between(self) -> None:
        self._hold(crash_between)

    def test_calls_at_once(self) -> None:
        self._hold(at_once)

    def test_odd_text(self) -> None:
        self._hold(odd_text)

    def test_one_part(self) -> None:
        self._hold(one_part)

    def test_a_large_message(self) -> None:
        self._hold(large)

    def test_the_loop_goes_on(self) -> None:
        self._hold(loop_goes_on)

    def test_a_cancelled_call(self) -> None:
        self._hold(cancelled)

    def test_retracted_twice(self) -> None:
        self._hold(retracted_twice)

    def test_the_preview(self) -> None:
        self._hold(previewed)
