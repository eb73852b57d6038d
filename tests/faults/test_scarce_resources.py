"""F04: the disk is full; F05: no descriptors and no memory; F43: two daemons on one database.

The harnesses of F04 and F05 are believed because they find a node that takes a failed commit for a success. F05 without
threads is in test_no_threads.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gateway_process import COMMAND, Practice
from tests.support.intake_faults import Findings, History, Node, Wire, examine, message, need

Report = Callable[[str], None]


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[list[str]]:
    """What to put before a command so that the folder is a file system of its own, which only that command sees."""
    folder.mkdir(parents=True, exist_ok=True)
    script = f'mount -t tmpfs -o size={megabytes}m none "{folder}" || exit 77; exec "$@"'
    probe = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this user may not mount a file system of his own")
    yield ["unshare", "-m", "sh", "-c", script, "sh"]


def inside(node: Node) -> Path:
    """The folder as the node sees it."""
    return Path(f"/proc/{node.process.pid}/root{node.folder}")


BUG = ("--bug", "success-after-eio")
"""The seeded bug of F04 and F05: whatever became of the commit, it is acknowledged."""


def full_disk(tmp_path: Path, *options: str) -> tuple[Findings, list[str], History]:
    """Fill the disk, let mail come, make room, let mail come; returns what was answered on the full disk as well."""
    history, copy = History(), tmp_path / "copy"
    with small_disk(tmp_path / "disk", 8) as prefix:
        node = Node.start(tmp_path / "disk", *options, prefix=prefix)
        assert node is not None
        ballast = inside(node) / "ballast"
        ballast.write_bytes(bytes(3_000_000))
        with node.connect() as wire:
            replies = [history.deliver(wire, message(number, 100_000)) for number in range(60)]
            # One that is too large for the memory goes to the spool, which is on the same disk.
            replies.append(history.deliver(wire, message(1_000, 2_000_000)))
            # Whoever only talks is served, and so is the reader of a disk without room.
            assert wire.ask("NOOP").startswith("250")
            ballast.unlink()
            again = [history.deliver(wire, message(2_000 + number, 10_000)) for number in range(3)]
        shutil.copytree(inside(node), copy, ignore=shutil.ignore_patterns("*.lock", "*-shm"))
        assert node.stop() == 0
    assert all(reply.startswith("250") for reply in again)
    return examine(copy, history), replies, history


@pytest.mark.timeout(120)
def test_f04_a_full_disk_refuses_for_now_and_recovers(tmp_path: Path, report: Report) -> None:
    need("unshare")
    found, replies, history = full_disk(tmp_path)
    refused = [reply for reply in replies if not reply.startswith("250")]
    assert 0 < len(refused) < len(replies)
    assert {reply[:9] for reply in refused} == {"452 4.3.1"}
    report(found.line("F04") + f" accepted={len(history.acked)} refused={len(refused)}")
    assert found.violations == 0


@pytest.mark.timeout(120)
def test_f04_the_harness_finds_a_success_on_a_full_disk(tmp_path: Path, report: Report) -> None:
    need("unshare")
    found, _, _ = full_disk(tmp_path, *BUG)
    report(found.line("F04 with the seeded bug success-after-eio"))
    assert found.lost > 0


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.timeout(120)
def test_f05_no_descriptors(tmp_path: Path, report: Report) -> None:
    """More connections than there are descriptors: the listener lives, idles, and serves when some are free again."""
    folder = tmp_path / "node"
    folder.mkdir()
    node = Node.start(folder)
    assert node is not None
    history = History()
    with node.connect() as wire:
        # What it opens only when it works is open now.
        assert history.deliver(wire, message(0)).startswith("250")
    limit = len(list(Path(f"/proc/{node.process.pid}/fd").iterdir())) + 10
    resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
    with contextlib.ExitStack() as stack:
        crowd = [
            stack.enter_context(Wire(node.port, greet=False, source=f"127.0.0.{20 + number % 10}", seconds=2))
            for number in range(60)
        ]
        time.sleep(0.5)
        began, cpu = time.monotonic(), processor_seconds(node.process.pid)
        time.sleep(2)
        busy = (processor_seconds(node.process.pid) - cpu) / (time.monotonic() - began)
        greeted = sum(1 for one in crowd[:3] if one.reply().startswith("220"))
    assert greeted == 3
    # The system hands out the rest a second later, when descriptors are free.
    time.sleep(1.5)
    with node.connect() as wire:
        assert history.deliver(wire, message(1)).startswith("250")
    assert node.stop() == 0
    found = examine(folder, history)
    report(found.line("F05 (descriptors)") + f" busy={busy * 100:.0f}% greeted={greeted}/3")
    assert busy < 0.5
    assert found.violations == 0


MIB = 1 << 20
HEADROOM_MIB = (0, 1, 2, 4, 8, 16, 32)
LARGE = 12_000_000


def without_memory(folder: Path, headroom: int, *options: str) -> tuple[Findings, list[str]]:
    """Let the node have so much more of address space; returns what was answered then. It must live, and recover."""
    folder.mkdir(parents=True, exist_ok=True)
    node = Node.start(folder, *options)
    assert node is not None
    history, pid = History(), node.process.pid
    with node.connect() as wire:
        assert history.deliver(wire, message(0)).startswith("250")
        size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (size + headroom, resource.RLIM_INFINITY))
        replies = [history.deliver(wire, message(10 + one, 200_000)) for one in range(4)]
    with contextlib.ExitStack() as stack, contextlib.suppress(ConnectionError):
        for one in range(6):
            wire = stack.enter_context(Wire(node.port, source=f"127.0.0.{30 + one}", seconds=20))
            replies.append(history.deliver(wire, message(20 + one, LARGE)))
    began, cpu = time.monotonic(), processor_seconds(pid)
    time.sleep(0.5)
    assert (processor_seconds(pid) - cpu) / (time.monotonic() - began) < 0.5, "it is busy with nothing"
    assert node.process.poll() is None, "the listener must live"
    resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with node.connect() as wire:
        again = [history.deliver(wire, message(100 + one)) for one in range(3)]
    assert all(reply.startswith("250") for reply in again), again
    assert node.stop() == 0
    return examine(folder, history), replies


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_f05_no_memory(tmp_path: Path, report: Report) -> None:
    """Each allocation may fail, ours and SQLite's: it is temporary for the sender, and over when there is memory."""
    found, refused, answered = Findings(), 0, 0
    for headroom in HEADROOM_MIB:
        now, replies = without_memory(tmp_path / str(headroom), headroom * MIB)
        found += now
        assert all(reply[:3] in {"250", "451", "452", "421", ""} for reply in replies), replies
        answered += len(replies)
        refused += sum(not reply.startswith("250") for reply in replies)
    report(found.line("F05 (memory)") + f" answered={answered} refused={refused}")
    assert refused, "the memory must have been short"
    assert found.violations == 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_f05_the_harness_finds_a_success_without_memory(tmp_path: Path, report: Report) -> None:
    found = Findings()
    for headroom in HEADROOM_MIB:
        found += without_memory(tmp_path / str(headroom), headroom * MIB, *BUG)[0]
        if found.lost:
            break
    report(found.line("F05 with the seeded bug success-after-eio"))
    assert found.lost > 0


def test_f43_a_second_daemon_is_refused(practice: Practice, report: Report) -> None:
    done = subprocess.run(
        [*COMMAND, "serve", "--config", str(practice.config)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "another direct-gateway serve" in done.stderr
    assert "Traceback" not in done.stderr
    assert practice.send(b"From: a@b.example\r\n\r\nx\r\n", "a@b.example", practice.addresses)[0] == 250
    report("F43: points=1 second-daemons=0")
