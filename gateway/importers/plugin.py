"""The plug-in adapter: an importer of others, from a Python package, in a process of its own.

The gateway never imports a plug-in. It starts :mod:`gateway.importers.plugin_host` when there is something to deliver,
speaks with it in frames, and starts it again when it has ended, was killed, or has answered ``_CALLS`` calls (what
leaks is let go). A call that takes too long is cancelled there; a process that does not even answer to that is blocked
and is killed with its whole group.

Guarantees: whatever a plug-in does, mail goes on: it has no thread, no memory, no descriptor and no variable of the
gateway's. What it answers is believed to be a receipt only when it is one.

Failure modes: ImportFailedError, ImportRefusedError, ImporterGoneError as the plug-in says; ImportFailedError with
``plugin_ended``, ``cannot_start``, ``cannot_load``, ``api_version`` and the like when there is no plug-in to say it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tomllib
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from gateway.core.errors import GatewayError, ImporterGoneError, ImportFailedError, ImportRefusedError
from gateway.core.import_settings import ImporterSettings
from gateway.importers.documents import encoded, import_document, retraction_document
from gateway.importers.plugin_frames import MAX_REPLY_BYTES, frame, read_frame
from gateway.importers.processes import end, kill_group, start
from gateway.ports import (
    IMPORTER_API_VERSION,
    ImporterCapabilities,
    ImportPreview,
    ImportRequest,
    Retraction,
)

LOAD_SECONDS = 30.0
CANCEL_SECONDS = 1.0
"""How long a cancelled call may take to let go, before the process is taken for blocked."""
_CALLS = 1_000
Reply = tuple[dict[str, Any], bytes]


@dataclass(slots=True)
class _Host:
    """A running process, and who waits for its answers."""

    process: Process
    waiting: dict[int, asyncio.Future[Reply]] = field(default_factory=dict)
    reading: asyncio.Task[None] | None = None
    calls: int = 0
    over: bool = False


class PluginImporter:
    """A :class:`gateway.ports.PatientImporter` behind which a plug-in stands."""

    def __init__(self, settings: ImporterSettings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=f"plugin-{settings.name}")
        self._host: _Host | None = None
        self._starting = asyncio.Lock()
        self._reaping: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def api_version(self) -> int:
        return IMPORTER_API_VERSION

    @property
    def capabilities(self) -> ImporterCapabilities:
        """What it may be asked; what it cannot do it refuses then, by ``cannot_retract``."""
        return ImporterCapabilities(retract=True, preview=True)

    async def import_message(self, request: ImportRequest) -> str:
        """Ask the plug-in. Raises ImportFailedError, ImportRefusedError, ImporterGoneError."""
        return await self._receipt("import", lambda: encoded(import_document(request)))

    async def retract(self, retraction: Retraction) -> str:
        """Ask the plug-in. Raises as :meth:`import_message`."""
        return await self._receipt("retract", lambda: encoded(retraction_document(retraction)))

    async def check(self) -> str | None:
        """Load the plug-in and let it look at its other side."""
        try:
            head, _ = await self._call("check", bytes)
        except GatewayError as exc:
            return str(exc)
        told = head.get("told")
        return told if isinstance(told, str) else None

    async def preview(self, request: ImportRequest) -> ImportPreview:
        """Ask the plug-in. Raises as :meth:`import_message`."""
        head, data = await self._call("preview", lambda: encoded(import_document(request)))
        return ImportPreview(str(head.get("content_type", "")), data)

    async def ping(self) -> None:
        """Answered by the event loop of the plug-in's process, unless it is blocked. Raises ImportFailedError."""
        await self._call("ping", bytes)

    async def close(self) -> None:
        """Let the plug-in close for a moment, and end its process."""
        if self._host is not None:
            with suppress(GatewayError, TimeoutError):
                async with asyncio.timeout(CANCEL_SECONDS):
                    await self._call("close", bytes)
            await self._kill(self._host)
        if self._reaping:
            await asyncio.wait(set(self._reaping))
        self._threads.shutdown(wait=False)

    # --- calls ---

    async def _receipt(self, call: str, make: Callable[[], bytes]) -> str:
        head, _ = await self._call(call, make)
        receipt = head.get("receipt")
        if not isinstance(receipt, str):
            raise ImportFailedError("the plug-in gave no receipt", reason="unusable_receipt")
        return receipt

    async def _call(self, call: str, make: Callable[[], bytes]) -> Reply:
        body = await asyncio.get_running_loop().run_in_executor(self._threads, make)
        async with self._starting:
            host = await self._running()
            host.calls += 1
            number = host.calls
            answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            host.waiting[number] = answer
        try:
            await self._send(host, frame({"id": number, "call": call}, body))
            return _judged(await asyncio.shield(answer))
        except asyncio.CancelledError:
            self._reap(host, number, answer)
            raise

    async def _send(self, host: _Host, data: bytes) -> None:
        writer = host.process.stdin
        assert writer is not None  # noqa: S101 - it was asked for
        try:
            writer.write(data)
            await writer.drain()
        except (ConnectionError, RuntimeError) as exc:
            raise ImportFailedError("the process of the plug-in has ended", reason="plugin_ended") from exc

    def _reap(self, host: _Host, number: int, answer: asyncio.Future[Reply]) -> None:
        """Cancel the call over there, and kill the process if it is blocked. Waits for nothing here."""

        async def reap() -> None:
            writer = host.process.stdin
            if writer is not None and not writer.is_closing():
                writer.write(frame({"id": number, "call": "cancel"}))
            await asyncio.wait({answer}, timeout=CANCEL_SECONDS)
            if not answer.done():
                await self._kill(host)
            elif not answer.cancelled():
                answer.exception()

        task = asyncio.create_task(reap())
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)

    # --- the process ---

    async def _running(self) -> _Host:
        host = self._host
        if host is not None and not host.over and not (host.calls >= _CALLS and not host.waiting):
            return host
        if host is not None:
            await self._kill(host)
        self._host = host = await self._start()
        return host

    async def _start(self) -> _Host:
        options = self._options()
        argv = [sys.executable, "-P", "-m", "gateway.importers.plugin_host", self._settings.plugin]
        paths = os.pathsep.join(path for path in sys.path if path)
        try:
            process = await start(argv, {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}, error_output=DEVNULL)
        except OSError as exc:
            raise ImportFailedError("the process of the plug-in cannot be started", reason="cannot_start") from exc
        host = _Host(process)
        try:
            bound = self._settings.max_memory_mib << 20
            await self._send(host, frame({"id": 0, "options": options, "max_memory_bytes": bound}))
            assert process.stdout is not None  # noqa: S101 - it was asked for
            async with asyncio.timeout(LOAD_SECONDS):
                head, _ = await read_frame(process.stdout, MAX_REPLY_BYTES)
        except (TimeoutError, EOFError, ValueError) as exc:
            await self._kill(host)
            raise ImportFailedError("the plug-in does not load", reason="cannot_load") from exc
        except BaseException:
            await self._kill(host)
            raise
        if "nack" in head:
            await self._kill(host)
            raise ImportFailedError(str(head.get("text", "")), reason=str(head.get("reason", "")))
        host.reading = asyncio.create_task(self._read(host))
        return host

    def _options(self) -> dict[str, Any]:
        path = self._settings.options_file
        if path is None:
            return {}
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise ImportFailedError(f"{path}: options_file cannot be read as TOML", reason="bad_options") from exc

    async def _read(self, host: _Host) -> None:
        reader = host.process.stdout
        assert reader is not None  # noqa: S101 - it was asked for
        try:
            while True:
                head, body = await read_frame(reader, MAX_REPLY_BYTES)
                answer = host.waiting.pop(int(head["id"]), None)
                if answer is not None and not answer.done():
                    answer.set_result((head, body))
        except (EOFError, ValueError, LookupError, TypeError):
            # What it left behind ends with it, at once: later its number may be that of another program.
            kill_group(host.process)
        finally:
            self._abandon(host)

    def _abandon(self, host: _Host) -> None:
        host.over = True
        waiting, host.waiting = host.waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_result(({"nack": "failed", "reason": "plugin_ended"}, b""))

    async def _kill(self, host: _Host) -> None:
        self._abandon(host)
        if host.reading is not None and not host.reading.done():
            # Somebody of its group holds its pipe, be it itself or what it left behind.
            kill_group(host.process)
        await end(host.process)
        if host.reading is not None:
            host.reading.cancel()
            await asyncio.wait({host.reading})


def _judged(reply: Reply) -> Reply:
    head, _ = reply
    nack, reason = head.get("nack"), str(head.get("reason", ""))
    if nack == "gone":
        raise ImporterGoneError("the plug-in wants no more", reason=reason)
    if nack == "refused":
        raise ImportRefusedError("the plug-in refuses the message", reason=reason)
    if nack is not None:
        after = head.get("retry_after")
        seconds = float(after) if isinstance(after, int | float) else None
        text = f"the plug-in does not take the message ({reason})"
        raise ImportFailedError(text, reason=reason, retry_after_seconds=seconds)
    return reply
