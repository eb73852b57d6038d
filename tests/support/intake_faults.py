"""Drives an intake node through faults and says what was lost: the history is kept by the client, not by the node."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from tests.support.intake_node import RECIPIENT, SENDER
from tests.support.store_samples import open_store

PROJECT = Path(__file__).resolve().parents[2]


def need(program: str) -> None:
    """Skip by name when a program is not there."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def message(number: int, size: int = 300) -> bytes:
    head = b"From: lab@partner.example\r\nMessage-ID: <%d@partner.example>\r\n\r\n" % number
    return head + (b"%08d" % number * 9 + b"\r\n") * max(1, (size - len(head)) // 74)


STARTED: list[subprocess.Popen[str]] = []
"""Every node, so that a test that fails leaves none behind."""


def end_all() -> None:
    """Kill what still runs. Called after each test."""
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=10)


@dataclass
class Node:
    """A running intake node."""

    folder: Path
    process: subprocess.Popen[str]
    port: int

    @classmethod
    def start(cls, folder: Path, *options: str, prefix: Sequence[str] = (), seconds: float = 30) -> Node | None:
        """Start it; None when the fault ended it before it listened."""
        command = [*prefix, sys.executable, "-m", "tests.support.intake_node", str(folder), *options]
        process = subprocess.Popen(
            command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        assert process.stdout is not None
        STARTED.append(process)
        line = process.stdout.readline()
        if not line.strip().isdigit():
            process.wait(timeout=seconds)
            process.communicate()
            return None
        return cls(folder, process, int(line))

    @staticmethod
    def last_status() -> int:
        """The exit status of the node that was started last, and has ended."""
        status = STARTED[-1].returncode
        assert status is not None
        return status

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it, and whatever traces it; returns the exit status, which a tracer hands on."""
        for pid in self._traced() or [self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate(timeout=10)
        return self.process.returncode

    def _traced(self) -> list[int]:
        """The node itself, when what was started is a tracer."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            return [int(pid) for pid in path.read_text().split()]
        return []

    def connect(self) -> Wire:
        return Wire(self.port)


class Wire:
    """A raw SMTP client that has said EHLO."""

    def __init__(self, port: int, *, greet: bool = True, source: str = "127.0.0.1", seconds: float = 20) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        if greet:
            answers = self.reply(), self.ask("EHLO client.example")
            if not (answers[0].startswith("220 ") and answers[1].startswith("250")):
                self.close()
                raise ConnectionError(f"no greeting: {answers}")

    def reply(self) -> str:
        """The last line of a reply; empty when the connection is closed."""
        while True:
            line, found, rest = self._buffer.partition(b"\r\n")
            if found:
                self._buffer = rest
                if line[3:4] != b"-":
                    return line.decode("ascii")
                continue
            try:
                chunk = self.socket.recv(65_536)
            except (ConnectionError, TimeoutError):
                chunk = b""
            if not chunk:
                return ""
            self._buffer += chunk

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def ask(self, line: str) -> str:
        self.send(line.encode() + b"\r\n")
        return self.reply()

    def deliver(self, raw: bytes, sender: str = SENDER, recipient: str = RECIPIENT) -> str:
        """The reply that ended the transaction."""
        for command, wanted in ((f"MAIL FROM:<{sender}>", "250"), (f"RCPT TO:<{recipient}>", "250"), ("DATA", "354")):
            answer = self.ask(command)
            if not answer.startswith(wanted):
                return answer
        self.send(raw.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        return self.reply()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


@dataclass
class History:
    """What the client knows: messages by digest, and which of them were acknowledged, under which id."""

    sent: dict[str, bytes] = field(default_factory=dict)
    acked: dict[str, str] = field(default_factory=dict)

    def deliver(self, wire: Wire, raw: bytes) -> str:
        digest = hashlib.sha256(raw).hexdigest()
        self.sent[digest] = raw
        answer = wire.deliver(raw)
        if answer.startswith("250 2.0.0 Accepted as "):
            self.acked[digest] = answer.rsplit(" ", 1)[1]
        return answer


@dataclass
class Findings:
    """What an experiment found out."""

    points: int = 0
    lost: int = 0
    duplicated: int = 0
    jobless: int = 0
    broken: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def violations(self) -> int:
        return self.lost + self.duplicated + self.jobless + self.broken

    def __add__(self, other: Findings) -> Findings:
        return Findings(
            self.points + other.points,
            self.lost + other.lost,
            self.duplicated + other.duplicated,
            self.jobless + other.jobless,
            self.broken + other.broken,
            self.notes + other.notes,
        )

    def line(self, name: str) -> str:
        text = f"{name}: points={self.points} lost={self.lost} duplicated={self.duplicated}"
        if self.jobless or self.broken:
            text += f" without-job={self.jobless} damaged={self.broken}"
        return " ".join([text, *self.notes])


def examine(folder: Path, history: History, *, bodies: bool = True) -> Findings:
    """Compare what is on the disk with what was acknowledged. The node must not run."""
    found = Findings(points=1)
    with contextlib.closing(sqlite3.connect(folder / "gateway.db")) as database:
        check = database.execute("PRAGMA integrity_check").fetchone()[0]
        found.broken += check != "ok"
        rows = database.execute("SELECT id, sha256 FROM raw_message").fetchall()
        jobs = {subject for (subject,) in database.execute("SELECT subject FROM job")}
        states = {subject for (subject,) in database.execute("SELECT message_id FROM message_state")}
    stored = Counter(digest for _, digest in rows)
    found.lost += sum(1 for digest in history.acked if not stored[digest])
    found.duplicated += sum(count - 1 for count in stored.values())
    found.broken += sum(1 for digest in stored if digest not in history.sent)
    found.jobless += sum(1 for message_id, _ in rows if message_id not in jobs or message_id not in states)
    if bodies and rows:
        with open_store(folder) as store:
            for message_id, digest in rows:
                body = store.read_blocking(lambda tx, one=message_id: tx.messages.raw(one).body)  # type: ignore[misc]
                found.broken += body != history.sent.get(digest)
    return found


def wait_until(condition: object, seconds: float, what: str) -> None:
    """Poll a callable."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.02)
