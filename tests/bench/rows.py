"""A row of the benchmark: something that opens messages and says how much CPU time that took.

The Python rows share one process, so that all of them meet the same allocator: whether a few megabytes are fresh from
the system or used before decides more at 1 MB than anything else, and a floor that gets the fresh ones is none.
The others are programs that answer commands, one a line: ``run SIZE REPEATS``, ``peak``, ``about``. Their own clocks
measure them, so the pipe costs nothing. For its peak of memory a Python row is such a program as well.
"""

from __future__ import annotations

import gc
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.bench.world import BenchError, World

PYTHON_ROWS = ("judge", "unwrap", "floor")
ANSWER_SECONDS = 300
_ROOT = Path(__file__).resolve().parents[2]
Work = Callable[[bytes], None]


class Row(Protocol):
    """What is measured."""

    @property
    def name(self) -> str: ...

    def warm(self, size: str) -> None:
        """Let caches fill and compilers work."""
        ...

    def run(self, size: str, repeats: int) -> float:
        """CPU seconds (user and system) of one message, the mean of so many."""
        ...


def work_of(name: str, world: World, size: str) -> Work:
    """The work of one Python row, set up. Imports only what that row needs, because its memory is measured too."""
    if name == "floor":
        from tests.bench.floor import Floor

        return Floor(world, size)
    from tests.bench.product import Judge, Unwrap

    return Judge(world) if name == "judge" else Unwrap(world)


def timed(work: Work, message: bytes, repeats: int) -> float:
    """CPU seconds of this process for one message, the mean of so many.

    When there are several, one more comes first, for which the clock stands: what the last row and the collector have
    left in the processor's caches is not this row's doing.
    """
    gc.collect()
    if repeats > 1:
        work(message)
    start = time.process_time()
    for _ in range(repeats):
        work(message)
    return (time.process_time() - start) / repeats


class PythonRow:
    """A row in this process."""

    def __init__(self, name: str, world: World, messages: Mapping[str, bytes]) -> None:
        self.name = name
        self._messages = messages
        self._work = {size: work_of(name, world, size) for size in messages}

    def warm(self, size: str) -> None:
        self.run(size, 3)

    def run(self, size: str, repeats: int) -> float:
        return timed(self._work[size], self._messages[size], repeats)


class ProgramRow:
    """A row in a process of its own."""

    def __init__(self, name: str, command: Sequence[str], *, warm_seconds: int = 0) -> None:
        self.name = name
        self._warm_seconds = warm_seconds
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
        )

    def ask(self, command: str) -> str:
        """Send a command and return the answer.

        Raises:
            BenchError: the program ended or does not answer; what it wrote to standard error is on ours.
        """
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise BenchError(f"{self.name} has no pipes")
        try:
            process.stdin.write(command + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise BenchError(f"{self.name} ended; its reason stands above") from None
        if not select.select([process.stdout], [], [], ANSWER_SECONDS)[0]:
            raise BenchError(f"{self.name} did not answer within {ANSWER_SECONDS} s")
        answer = process.stdout.readline().strip()
        if not answer:
            raise BenchError(f"{self.name} ended; its reason stands above")
        return answer

    def warm(self, size: str) -> None:
        self.ask(f"warm {size} {self._warm_seconds}" if self._warm_seconds else f"run {size} 3")

    def run(self, size: str, repeats: int) -> float:
        return float(self.ask(f"run {size} {repeats}"))

    def peak(self) -> float:
        """Peak resident set of the program until now, in MB (10^6 bytes)."""
        return int(self.ask("peak")) * 1024 / 1e6

    def close(self) -> None:
        """End the program."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def start_python(name: str, world: World, size: str) -> ProgramRow:
    """Start a Python row in a fresh process that has one message in its memory."""
    return ProgramRow(name, [sys.executable, "-m", "tests.bench.worker", name, str(world.folder), size])
