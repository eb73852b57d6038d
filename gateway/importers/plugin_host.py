"""The process of a plug-in (``python -m gateway.importers.plugin_host NAME``; see :mod:`gateway.importers.plugin`).

A process and not a thread, because a plug-in that blocks, leaks, calls ``os._exit`` or crashes in C code would take the
mail with it. Standard input and output are taken away from it, its memory is bounded, core dumps are off. It ends with
the pipe to the gateway, so that it never outlives it.

Each call is a task of the event loop. What the plug-in returns or raises goes back as a receipt, a nack with a reason
code, or ``nonsense``; its texts stay here.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from gateway.core.errors import ImporterGoneError, ImportFailedError, ImportRefusedError
from gateway.importers.documents import request_of, retraction_of
from gateway.importers.plugin_frames import MAX_REPLY_BYTES, MAX_REQUEST_BYTES, frame, read_frame
from gateway.importers.plugin_loading import PluginError, load
from gateway.ports import ImporterCapabilities, ImportPreview, PatientImporter

_STREAM_LIMIT = 1 << 20
_PR_SET_PDEATHSIG = 1


class PluginHost:
    """Answers calls for one plug-in."""

    def __init__(self, importer: PatientImporter, writer: asyncio.StreamWriter) -> None:
        self._importer = importer
        self._writer = writer
        self._calls: dict[int, asyncio.Task[None]] = {}

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Until the gateway is gone."""
        while True:
            try:
                head, body = await read_frame(reader, MAX_REQUEST_BYTES)
            except (EOFError, ValueError):
                return
            number = int(head["id"])
            if head["call"] == "cancel":
                if number in self._calls:
                    self._calls[number].cancel()
                continue
            task = asyncio.create_task(self._answer(number, str(head["call"]), body))
            self._calls[number] = task
            task.add_done_callback(lambda _, number=number: self._calls.pop(number, None))  # type: ignore[misc]

    async def _answer(self, number: int, call: str, body: bytes) -> None:
        try:
            head, data = await self._called(call, body)
        except asyncio.CancelledError:
            head, data = {"nack": "failed", "reason": "cancelled"}, b""
        if len(data) > MAX_REPLY_BYTES - 1_000:
            head, data = {"nack": "failed", "reason": "answer_too_long"}, b""
        self._writer.write(frame({"id": number, **head}, data))
        await self._writer.drain()

    async def _called(self, call: str, body: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            if call == "ping":
                return {"told": None}, b""
            if call in {"check", "close"}:
                told: object = await (self._importer.check() if call == "check" else self._importer.close())
                if told is not None and not isinstance(told, str):
                    return {"nack": "failed", "reason": "unusable_answer"}, b""
                return {"told": None if told is None else told[:1_000]}, b""
            document = json.loads(body)
            if call == "retract":
                if not self._capabilities().retract:
                    return {"nack": "refused", "reason": "cannot_retract"}, b""
                return _receipt(await self._importer.retract(retraction_of(document)))
            if call == "preview":
                return _preview(await self._importer.preview(request_of(document)))
            return _receipt(await self._importer.import_message(request_of(document)))
        except Exception as exc:  # noqa: BLE001 - whatever a plug-in raises is an answer
            return _nack(exc), b""

    def _capabilities(self) -> ImporterCapabilities:
        found: object = self._importer.capabilities
        return found if isinstance(found, ImporterCapabilities) else ImporterCapabilities()


def _receipt(given: object) -> tuple[dict[str, Any], bytes]:
    if isinstance(given, str) and len(given) <= MAX_REPLY_BYTES // 16:
        return {"receipt": given}, b""
    return {"nack": "failed", "reason": "unusable_receipt"}, b""


def _preview(given: object) -> tuple[dict[str, Any], bytes]:
    if isinstance(given, ImportPreview) and isinstance(given.data, bytes) and isinstance(given.content_type, str):
        return {"content_type": given.content_type[:200]}, given.data
    return {"nack": "failed", "reason": "unusable_preview"}, b""


def _nack(exc: Exception) -> dict[str, Any]:
    if isinstance(exc, ImporterGoneError):
        return {"nack": "gone", "reason": str(exc.reason)[:64]}
    if isinstance(exc, ImportRefusedError):
        return {"nack": "refused", "reason": str(exc.reason)[:64]}
    if isinstance(exc, ImportFailedError):
        after = exc.retry_after_seconds
        usable = isinstance(after, int | float) and not isinstance(after, bool) and 0 <= after < float("inf")
        return {"nack": "failed", "reason": str(exc.reason)[:64], "retry_after": after if usable else None}
    return {"nack": "failed", "reason": f"raised_{type(exc).__name__}".lower()[:63]}


async def _main(name: str, requests: int, replies: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_STREAM_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(requests, "rb", 0))
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(replies, "wb", 0))
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    head, _ = await read_frame(reader, MAX_REQUEST_BYTES)
    _bound_memory(int(head["max_memory_bytes"]))
    try:
        importer = load(name, _options(head))
    except PluginError as exc:
        writer.write(frame({"id": 0, "nack": "failed", "reason": exc.reason, "text": str(exc)[:1_000]}))
        await writer.drain()
        return
    writer.write(frame({"id": 0, "told": None}))
    await PluginHost(importer, writer).serve(reader)


def _options(head: Mapping[str, Any]) -> dict[str, Any]:
    found = head.get("options")
    return found if isinstance(found, dict) else {}


def _die_with_the_gateway() -> None:
    """Also when the plug-in blocks, so that nobody here would notice the end of the pipe."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _bound_memory(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Take the pipes away from whatever the plug-in prints and reads, and serve."""
    _die_with_the_gateway()
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    try:
        asyncio.run(_main(sys.argv[1], requests, replies))
    finally:
        # Threads of the plug-in that do not end must not keep the process.
        os._exit(0)


if __name__ == "__main__":
    main()
