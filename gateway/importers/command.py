"""The command adapter: a program for each link, with the request as JSON on its standard input (docs/import-hook.md).

Exit status 0 with a receipt on the first line of standard output is the ack; 65 (EX_DATAERR) is the nack for good;
every other status, a signal and no answer in time is the nack for now, 75 (EX_TEMPFAIL) by name. Standard error goes
nowhere: it would hold what the program knows of the patient.

Guarantees: those of :mod:`gateway.importers.processes`.

Failure modes: ImportFailedError, ImportRefusedError.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.core.errors import ImportFailedError, ImportRefusedError
from gateway.core.import_settings import ImporterSettings
from gateway.importers.documents import elided, encoded, import_document, retraction_document
from gateway.importers.processes import Ended, run
from gateway.ports import (
    IMPORTER_API_VERSION,
    MAX_RECEIPT_CHARS,
    ImporterCapabilities,
    ImportPreview,
    ImportRequest,
    Retraction,
)

ACK, REFUSED = 0, os.EX_DATAERR
_VARIABLES = ("DIRECT_GATEWAY_API_VERSION", "DIRECT_GATEWAY_ACTION", "DIRECT_GATEWAY_KEY")


class CommandImporter:
    """A :class:`gateway.ports.PatientImporter` that runs a program."""

    def __init__(self, settings: ImporterSettings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=f"command-{settings.name}")

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def api_version(self) -> int:
        return IMPORTER_API_VERSION

    @property
    def capabilities(self) -> ImporterCapabilities:
        return ImporterCapabilities(retract=True, preview=True)

    async def import_message(self, request: ImportRequest) -> str:
        """Run it with ``action`` ``import``. Raises ImportFailedError, ImportRefusedError."""
        data = await self._in_thread(lambda: encoded(import_document(request)))
        return await self._run("import", request.link.id, data)

    async def retract(self, retraction: Retraction) -> str:
        """Run it with ``action`` ``retract``. Raises ImportFailedError, ImportRefusedError."""
        data = await self._in_thread(lambda: encoded(retraction_document(retraction)))
        return await self._run("retract", retraction.key, data)

    async def check(self) -> str | None:
        """Whether the program is there and may be run by this user, and by whom it may be replaced. Runs nothing."""
        return unfit(Path(self._settings.argv[0]))

    async def preview(self, request: ImportRequest) -> ImportPreview:
        """The document without its bytes."""
        return ImportPreview("application/json", encoded(elided(import_document(request))))

    async def close(self) -> None:
        """Let the thread go."""
        self._threads.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], bytes]) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _run(self, action: str, key: str, data: bytes) -> str:
        told = dict(zip(_VARIABLES, (str(IMPORTER_API_VERSION), action, key), strict=True))
        try:
            ended = await run(self._settings.argv, told, data)
        except (OSError, ValueError) as exc:
            raise ImportFailedError("the program cannot be started", reason="cannot_start") from exc
        return _receipt(ended)


def unfit(program: Path) -> str | None:
    """Why the program cannot or should not be run, in words; None when nothing speaks against it."""
    try:
        mode = program.stat().st_mode
    except OSError:
        return f"there is no program {program}"
    if not stat.S_ISREG(mode) or not os.access(program, os.X_OK):
        return f"{program} cannot be run by this user; run: chmod +x {program}"
    if stat.S_IMODE(mode) & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to {program}, and so run what they like as this user; run: chmod go-w {program}"
    return None


def _receipt(ended: Ended) -> str:
    if ended.status == REFUSED:
        raise ImportRefusedError("the program refuses the message", reason=f"exit_{REFUSED}")
    if ended.status < 0:
        raise ImportFailedError("the program was killed", reason=f"signal_{-ended.status}")
    if ended.status != ACK:
        raise ImportFailedError(f"the program ended with status {ended.status}", reason=f"exit_{ended.status}")
    if ended.too_long:
        raise ImportFailedError("the program wrote too much", reason="output_too_long")
    line = ended.output.split(b"\n", 1)[0].rstrip(b"\r")
    try:
        receipt = line.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ImportFailedError("the receipt is not UTF-8", reason="unusable_receipt") from None
    if not receipt or len(receipt) > MAX_RECEIPT_CHARS or not receipt.isprintable():
        raise ImportFailedError("the program gave no receipt", reason="unusable_receipt")
    return receipt
