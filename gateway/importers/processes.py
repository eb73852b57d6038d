"""Runs programs of others beside the gateway, so that nothing they do reaches it.

Guarantees: no shell; an environment of our making, without a variable of the gateway's; no descriptor but standard
input, output and error; a session and process group of its own, all of which is killed at the end of its time; what is
read of its output is bounded, and the rest is thrown away without holding it up.

Failure modes: OSError when it cannot be started.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

MAX_OUTPUT_BYTES = 65_536
_CHUNK_BYTES = 65_536
_REAP_SECONDS = 5.0
_DRAIN_SECONDS = 2.0
_LOOK_SECONDS = 0.05
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended. ``status`` is negative for the number of the signal that killed it."""

    status: int
    output: bytes
    too_long: bool


@dataclass(slots=True)
class _Kept:
    """What was read so far."""

    output: bytearray = field(default_factory=bytearray)
    total: int = 0


async def start(argv: Sequence[str], extra: Mapping[str, str], *, error_output: int) -> Process:
    """Start a program with pipes for standard input and output. Raises OSError."""
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=PIPE,
        stdout=PIPE,
        stderr=error_output,
        env={**_ENVIRONMENT, **extra},
        cwd="/",
        close_fds=True,
        start_new_session=True,
    )


async def run(argv: Sequence[str], extra: Mapping[str, str], data: bytes) -> Ended:
    """Run a program to its end, and kill what is left of its group then, also when this is cancelled.

    The caller bounds the time. Raises OSError.
    """
    process = await start(argv, extra, error_output=asyncio.subprocess.DEVNULL)
    kept = _Kept()
    pipes = [asyncio.create_task(_read(process, kept)), asyncio.create_task(_feed(process, data))]
    try:
        status = await exited(process)
        # What it left behind may hold the pipes open for ever: its group is killed, and who fled is not waited for.
        kill_group(process)
        await asyncio.wait(pipes, timeout=_DRAIN_SECONDS)
        return Ended(status, bytes(kept.output), kept.total > MAX_OUTPUT_BYTES)
    finally:
        for task in pipes:
            task.cancel()
        await asyncio.wait(pipes)
        await end(process)


async def exited(process: Process) -> int:
    """Wait until the program has ended; returns its status.

    ``Process.wait`` would wait for the end of its pipes as well, which a process that it left behind may hold for ever.
    """
    ended = asyncio.ensure_future(process.wait())
    try:
        while process.returncode is None:
            await asyncio.wait({ended}, timeout=_LOOK_SECONDS)
    finally:
        ended.cancel()
        await asyncio.wait({ended})
    return process.returncode


async def end(process: Process) -> None:
    """Kill the whole group of a program, and wait until its first process is gone.

    One that has ended is left alone: its number is free, and may be that of somebody else's program by now.
    """
    if process.returncode is None:
        kill_group(process)
    with suppress(TimeoutError):
        async with asyncio.timeout(_REAP_SECONDS):
            await exited(process)
    # Whoever fled from the group may hold a pipe open for ever; asyncio has no public way to let go of it.
    process._transport.close()  # type: ignore[attr-defined] # noqa: SLF001


def kill_group(process: Process) -> None:
    """Kill every process of its group that is there. To be called while it runs, or as soon as it has ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def _feed(process: Process, data: bytes) -> None:
    writer = process.stdin
    assert writer is not None  # noqa: S101 - it was asked for
    # A program that does not read its input is its own business.
    with suppress(ConnectionError):
        view = memoryview(data)
        for begin in range(0, len(view), _CHUNK_BYTES):
            writer.write(view[begin : begin + _CHUNK_BYTES])
            await writer.drain()
    with suppress(ConnectionError, OSError):
        writer.close()


async def _read(process: Process, kept: _Kept) -> None:
    reader = process.stdout
    assert reader is not None  # noqa: S101 - it was asked for
    while chunk := await reader.read(_CHUNK_BYTES):
        kept.total += len(chunk)
        kept.output += chunk[: MAX_OUTPUT_BYTES - len(kept.output)]
