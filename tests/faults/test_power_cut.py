"""F02: the power goes at every sync and at every acknowledgement, and unsynced bytes are gone.

strace writes down everything that the node writes to its files, and when it syncs them. From that the disk is rebuilt
as it would be found after a power cut at each of these moments: once with nothing of what was not synced, and once with
a random half of it. Every image is opened, checked, and compared with the ids that had been acknowledged until then.
The same with ``synchronous=OFF`` must lose mail, or the harness proves nothing.
"""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.intake_faults import Findings, History, Node, message, need

Report = Callable[[str], None]
MESSAGES = 12
_CALLS = "openat,pwrite64,write,fdatasync,fsync,ftruncate,unlink,sendto"
_LINE = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)")
_ACK = re.compile(rb"250 2\.0\.0 Accepted as ([0-9A-Z]{26})")


def calls(log: Path) -> Iterator[str]:
    """Completed system calls in the order of their end; those that were interrupted by others are put together."""
    begun: dict[str, str] = {}
    for line in log.read_text(encoding="ascii").splitlines():
        match = _LINE.match(line)
        assert match is not None, line[:80]
        pid, rest = match["pid"], match["rest"]
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest.removesuffix("<unfinished ...>").rstrip()
            continue
        if rest.startswith("<... "):
            rest = begun.pop(pid) + rest.partition("resumed>")[2]
        yield rest


@dataclass
class File:
    """One file: what is safe on the disk, and what was written since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes]] = field(default_factory=list)
    """Offset and data, in the order of the writes."""

    def sync(self) -> None:
        for offset, data in self.pending:
            put(self.durable, offset, data)
        self.pending.clear()

    def image(self, dice: random.Random | None) -> bytes:
        content = bytearray(self.durable)
        for offset, data in self.pending:
            if dice is not None and dice.random() < 0.5:
                put(content, offset, data)
        return bytes(content)


def put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def quoted(text: str) -> bytes:
    """The first string of a call, which strace wrote as hexadecimal escapes."""
    inside = text.partition('"')[2].rpartition('"')[0]
    return bytes.fromhex(inside.replace("\\x", ""))


class Disk:
    """The folder's database files while the log is replayed."""

    def __init__(self, folder: Path, before: dict[str, bytes]) -> None:
        self._folder = str(folder)
        self.files = {name: File(bytearray(content)) for name, content in before.items()}

    def file(self, call: str) -> File | None:
        match = re.search(r"\(\d+<([^>]*)>", call)
        # strace escapes the paths as it does the data.
        path = bytes.fromhex(match[1].replace("\\x", "")).decode() if match and match[1].startswith("\\x") else ""
        if not path.startswith(self._folder + "/gateway.db"):
            return None
        name = path.rpartition("/")[2]
        return None if name.endswith((".lock", "-shm")) else self.files.setdefault(name, File())

    def apply(self, call: str) -> str:
        """Take a call over; says ``sync`` or ``ack:ID`` when it is a moment of interest."""
        if call.startswith("sendto("):
            found = _ACK.search(quoted(call))
            return f"ack:{found[1].decode()}" if found else ""
        file = self.file(call)
        if file is None or "= -1" in call[-60:]:
            return ""
        if call.startswith("pwrite64("):
            file.pending.append((int(call.rpartition(")")[0].rpartition(", ")[2]), quoted(call)))
        elif call.startswith(("fdatasync(", "fsync(")):
            file.sync()
            return "sync"
        elif call.startswith("ftruncate("):
            # A cut of the WAL is only tidying up; taken as durable at once it is the harder case.
            size = int(call.partition(", ")[2].partition(")")[0])
            del file.durable[size:]
            file.pending = [(offset, data) for offset, data in file.pending if offset < size]
        return ""

    def write_to(self, folder: Path, dice: random.Random | None) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, file in self.files.items():
            (folder / name).write_bytes(file.image(dice))


def look(folder: Path, acked: list[str]) -> Findings:
    found = Findings(points=1)
    with contextlib.closing(sqlite3.connect(folder / "gateway.db")) as database:
        try:
            found.broken += database.execute("PRAGMA integrity_check").fetchone()[0] != "ok"
            stored = [one for (one,) in database.execute("SELECT id FROM raw_message")]
            jobs = {one for (one,) in database.execute("SELECT subject FROM job")}
            digests = [one for (one,) in database.execute("SELECT sha256 FROM raw_message")]
        except sqlite3.DatabaseError:
            return Findings(points=1, broken=1, lost=len(acked))
    found.lost += len(set(acked) - set(stored))
    found.duplicated += len(digests) - len(set(digests))
    found.jobless += len(set(stored) - jobs)
    return found


def record(tmp_path: Path, *options: str) -> tuple[Path, dict[str, bytes], Path]:
    """Run a node under strace until every message is acknowledged."""
    folder = tmp_path / "node"
    folder.mkdir(parents=True)
    made = Node.start(folder)
    assert made is not None
    assert made.stop() == 0
    before = {path.name: path.read_bytes() for path in folder.glob("gateway.db*") if path.suffix != ".lock"}
    log = tmp_path / "calls"
    prefix = ["strace", "-f", "-qq", "-y", "-xx", "-s", "1000000", "-o", str(log), "-e", f"trace={_CALLS}"]
    node = Node.start(folder, *options, prefix=[*prefix, "-e", "signal=none"])
    assert node is not None
    history = History()
    with node.connect() as wire:
        for number in range(MESSAGES):
            assert history.deliver(wire, message(number, 12_000)).startswith("250")
    assert node.stop() == 0
    return folder, before, log


def cut_everywhere(tmp_path: Path, *options: str) -> Findings:
    folder, before, log = record(tmp_path, *options)
    disk, acked, found, dice = Disk(folder, before), [], Findings(), random.Random(20260101)
    image = tmp_path / "image"
    for call in calls(log):
        moment = disk.apply(call)
        if moment.startswith("ack:"):
            acked.append(moment[4:])
        if moment:
            for kept in (None, dice):
                disk.write_to(image, kept)
                found += look(image, acked)
    assert len(acked) == MESSAGES, "the log must show every acknowledgement"
    return found


@pytest.mark.timeout(180)
def test_a_power_cut_at_any_sync_or_acknowledgement_loses_nothing(tmp_path: Path, report: Report) -> None:
    need("strace")
    found = cut_everywhere(tmp_path)
    report(found.line("F02"))
    assert found.points >= 2 * MESSAGES
    assert found.violations == 0


@pytest.mark.timeout(180)
def test_the_harness_finds_a_store_that_does_not_sync(tmp_path: Path, report: Report) -> None:
    need("strace")
    found = cut_everywhere(tmp_path, "--bug", "synchronous-off")
    report(found.line("F02 with the seeded bug synchronous-off"))
    assert found.lost > 0
