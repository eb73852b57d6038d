"""F01: ``kill -9`` at every write, sync and reply of the intake; F03: the same calls fail with EIO.

strace ends the node at its Nth call, for N = 1, 2, ... until a run meets no more such calls. After each run the files
are opened as they are, and at the end the client sends everything again. The harness must first find two seeded bugs:
an acknowledgement before the commit, and a job in a transaction of its own.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.intake_faults import Findings, History, Node, examine, message, need

PER_RUN = 2
STRIDE = {"pwrite64": 17, "fdatasync": 4, "sendto": 5}
Report = Callable[[str], None]


def inject(what: str) -> list[str]:
    calls = what.partition(":")[0]
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={what}"]


def made(folder: Path) -> Path:
    """A folder with the tables of a sound node."""
    folder.mkdir(parents=True, exist_ok=True)
    node = Node.start(folder)
    assert node is not None
    assert node.stop() == 0
    return folder


def once(folder: Path, history: History, what: str, first: int, *options: str) -> bool:
    """One run with a fault; returns whether it went to its end without meeting it. Every other end is the kill."""
    node = Node.start(folder, *options, prefix=inject(what))
    whole = node is not None
    if node is not None:
        try:
            with node.connect() as wire:
                for number in range(first, first + PER_RUN):
                    whole &= history.deliver(wire, message(number)).startswith("250")
        except (AssertionError, OSError):
            whole = False
    status = Node.last_status() if node is None else node.stop()
    # strace ends as what it traces ended. Any other end would be no point of this walk, and a bug of its own.
    assert status in {0, -signal.SIGKILL}, (what, status)
    assert whole or status, "nobody was killed, and still a message was not acknowledged"
    return whole and status == 0


@dataclass
class Walk:
    """What a walk found, and how many of its runs were killed before one was not."""

    found: Findings
    killed: int


def walk(folder: Path, call: str, *options: str, stride: int = 1, stop_at_first: bool = False) -> Walk:
    """Kill at the call's 1st, (1 + stride)th, ... time, until a run has no such call any more."""
    folder.mkdir(parents=True, exist_ok=True)
    history, found, number, killed = History(), Findings(), 1, 0
    while not once(folder, history, f"{call}:signal=SIGKILL:when={number}", number * 100, *options):
        killed += 1
        assert killed < 400, "the walk must reach a run that is not killed"
        if (folder / "gateway.db").exists() and (folder / "gateway.db").stat().st_size:
            now = examine_if_made(folder, history)
            found += now
            if stop_at_first and now.violations:
                return Walk(found, killed)
        else:
            assert not history.acked
            found += Findings(points=1)
        number += stride
    found += examine(folder, history, bodies=False)
    # The sender comes again with everything: what was stored is recognised, what was not is taken now.
    node = Node.start(folder)
    assert node is not None
    with node.connect() as wire:
        for digest, raw in list(history.sent.items()):
            before = history.acked.get(digest)
            assert history.deliver(wire, raw).startswith("250")
            assert before in {None, history.acked[digest]} or options
    assert node.stop() == 0
    return Walk(found + examine(folder, history), killed)


def examine_if_made(folder: Path, history: History) -> Findings:
    """A node that was killed while it made its tables for the first time has nothing to lose yet."""
    try:
        return examine(folder, history, bodies=False)
    except sqlite3.OperationalError:
        assert not history.acked
        return Findings(points=1)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "call",
    ["fdatasync", pytest.param("pwrite64", marks=pytest.mark.slow), pytest.param("sendto", marks=pytest.mark.slow)],
)
def test_a_kill_at_every_call_loses_nothing(tmp_path: Path, report: Report, call: str) -> None:
    need("strace")
    # On a fresh disk most calls are the making of tables: there a few points will do, and every one of the others.
    making = walk(tmp_path / "fresh", call, stride=STRIDE[call])
    done = walk(made(tmp_path / "made"), call)
    found = making.found + done.found
    report(found.line(f"F01 ({call})") + f" killed={making.killed + done.killed}")
    # The run that was not killed acknowledged one message after the other: each had a write, a sync and a reply of
    # its own, and each of these had been a kill before.
    assert done.killed >= PER_RUN
    assert done.found.points == done.killed + 2
    assert found.violations == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("bug", "call", "stride"), [("ack-before-commit", "pwrite64", 5), ("job-in-second-transaction", "pwrite64", 3)]
)
def test_the_harness_finds_a_seeded_bug(tmp_path: Path, report: Report, bug: str, call: str, stride: int) -> None:
    need("strace")
    # So that the kills fall on messages and not on the making of tables.
    found = walk(made(tmp_path / "node"), call, "--bug", bug, stride=stride, stop_at_first=True).found
    report(found.line(f"F01 with the seeded bug {bug}"))
    assert (found.lost if bug == "ack-before-commit" else found.jobless) > 0


def calls_of_a_start(folder: Path, call: str) -> int:
    """How many such calls a node makes until it listens, when its tables are there."""
    log = folder / "calls"
    node = Node.start(folder, prefix=["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}"])
    assert node is not None
    count = log.read_text().count(f"{call}(")
    assert node.stop() == 0
    return count


def eio(folder: Path, call: str, number: int, *options: str) -> tuple[Findings, int]:
    """From its Nth call after the start on every call fails; returns what is there afterwards, and the exit status."""
    made(folder)
    history = History()
    number += calls_of_a_start(folder, call)
    node = Node.start(folder, *options, prefix=inject(f"{call}:error=EIO:when={number}+"))
    assert node is not None
    replies: list[str] = []
    with contextlib.suppress(OSError), node.connect() as wire:
        # Each message is written and synced: the call comes within as many, whatever one takes.
        while len(replies) <= number and all(reply.startswith("250") for reply in replies):
            replies.append(history.deliver(wire, message(len(replies))))
    assert all(reply[:3] in {"250", "451", "452", "421", ""} for reply in replies), replies
    assert "/" not in "".join(replies)
    # Nobody stops it: it must end by itself, to be started again.
    status = -1
    with contextlib.suppress(subprocess.TimeoutExpired):
        status = node.process.wait(timeout=30)
    node.stop(signal.SIGKILL)
    clean = Node.start(folder)
    assert clean is not None
    assert clean.stop() == 0
    return examine(folder, history), status


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "points",
    [
        {"fdatasync": (1,), "pwrite64": (2,)},
        pytest.param({"fdatasync": (1, 2, 3), "pwrite64": (1, 2, 3, 5, 8)}, marks=pytest.mark.slow),
    ],
    ids=["few", "many"],
)
def test_a_disk_that_fails_acknowledges_nothing_and_ends_the_process(
    tmp_path: Path, report: Report, points: dict[str, tuple[int, ...]]
) -> None:
    need("strace")
    found = Findings()
    for call, numbers in points.items():
        for number in numbers:
            now, status = eio(tmp_path / f"{call}{number}", call, number)
            assert status == 75, (call, number, status)
            found += now
    report(found.line("F03"))
    assert found.violations == 0


@pytest.mark.timeout(120)
def test_the_harness_finds_a_success_after_eio(tmp_path: Path, report: Report) -> None:
    need("strace")
    found, _ = eio(tmp_path / "node", "fdatasync", 1, "--bug", "success-after-eio")
    report(found.line("F03 with the seeded bug success-after-eio"))
    assert found.lost > 0
