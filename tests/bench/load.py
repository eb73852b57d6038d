"""Sends mail to a running gateway and watches it arrive in the inbox: the measurement itself.

The clock runs from the first MAIL to the last message that is visible. CPU is counted until nothing is left to do.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.gateways import Gateway
from tests.bench.mail_pool import MailPool, inner_of, message_id_of
from tests.bench.watcher import Watcher
from tests.bench.world import SENDER, BenchError

_ROOT = Path(__file__).resolve().parents[2]
_COMPARED = 20
_FETCHED = 1000
_MESSAGE_ID = re.compile(rb"(?im)^message-id:\s*(\S+)")


@dataclass(frozen=True)
class Manner:
    """How the senders send."""

    connections: int
    per_session: int
    tls: bool

    def __str__(self) -> str:
        return (
            f"{self.connections} connections, {'STARTTLS' if self.tls else 'no TLS'}, "
            f"{self.per_session} messages a session"
        )


@dataclass(frozen=True)
class Quantiles:
    """Seconds."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        if len(values) < 2:
            return cls(*[values[0] if values else 0.0] * 3)
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        return cls(cuts[49], cuts[94], cuts[98])


@dataclass(frozen=True)
class Measured:
    """What one run gave."""

    messages: int
    sending_seconds: float
    """From the first MAIL to the last 250."""
    seconds: float
    """From the first MAIL until the last message was visible."""
    cpu: dict[str, float]
    """CPU seconds, of ``daemon`` and perhaps ``postgresql``."""
    sender_cpu: float
    commits: int
    backlog: int
    """Messages that had their 250 and were not visible when the last 250 came."""
    reply: Quantiles
    """From MAIL to 250."""
    visible: Quantiles
    """From MAIL until the watching client was told."""

    @property
    def rate(self) -> float:
        """Messages per second, end to end."""
        return self.messages / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Of one message, of all processes that serve it."""
        return sum(self.cpu.values()) / self.messages * 1e3

    @property
    def per_core(self) -> float:
        """Messages per second of CPU."""
        return 1e3 / self.cpu_ms


def send(gateway: Gateway, pool: MailPool, manner: Manner, *, first: int, end: int, seconds: float) -> Measured:
    """Send messages of the pool until they or the seconds run out, and wait until all are visible.

    Raises:
        BenchError: a message was refused, or did not arrive, or arrived twice, or is another one.
    """
    with Watcher(gateway.practice) as watcher:
        with _sender(gateway, pool, manner, range(first, end), seconds) as process:
            commits = gateway.commits()
            before = gateway.cpu()
            times, sender_cpu = _finish(process, gateway, seconds)
            if not times:
                raise BenchError("the senders sent nothing")
            watcher.wait_for(watcher.first + len(times))
            gateway.settle()
            after = gateway.cpu()
            commits = gateway.commits() - commits
        numbers = _visible(gateway, pool, watcher.first, len(times))
        seen = {number: watcher.seen_at(watcher.first + 1 + place) for place, number in enumerate(numbers)}
        began, ended = min(t[1] for t in times), max(t[2] for t in times)
        if set(seen) != {t[0] for t in times}:
            raise BenchError("the inbox does not hold what was sent")
        return Measured(
            messages=len(times),
            sending_seconds=ended - began,
            seconds=max(seen.values()) - began,
            cpu={name: after[name] - before[name] for name in after},
            sender_cpu=sender_cpu,
            commits=commits,
            backlog=len(times) - (watcher.visible_at(ended) - watcher.first),
            reply=Quantiles.of([t[2] - t[1] for t in times]),
            visible=Quantiles.of([seen[t[0]] - t[1] for t in times]),
        )


def _sender(gateway: Gateway, pool: MailPool, manner: Manner, numbers: range, seconds: float) -> subprocess.Popen[str]:
    result = _result(gateway)
    result.unlink(missing_ok=True)
    process = subprocess.Popen(
        [
            sys.executable, "-m", "tests.bench.sender", str(pool.file), str(result),
            "--port", str(gateway.practice.smtp_port), "--ca", str(gateway.practice.tls_ca) if manner.tls else "",
            "--sender", SENDER, "--to", gateway.site.address, "--first", str(numbers.start), "--end", str(numbers.stop),
            "--seconds", str(seconds), "--connections", str(manner.connections),
            "--per-session", str(manner.per_session),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT,
    )  # fmt: skip
    if process.stdout is None or process.stdout.readline() != "ready\n":
        process.wait()
        raise BenchError("the senders did not start; the reason stands above")
    return process


def _result(gateway: Gateway) -> Path:
    return gateway.practice.directory / "sent.json"


def _finish(
    process: subprocess.Popen[str], gateway: Gateway, seconds: float
) -> tuple[list[tuple[int, float, float]], float]:
    """When each message was sent and answered, and the CPU seconds of the senders."""
    try:
        process.communicate("go\n", timeout=seconds + 180)
    except subprocess.TimeoutExpired:
        process.kill()
        raise BenchError("the senders did not come to an end") from None
    if process.returncode:
        raise BenchError("the gateway did not take a message; its reply stands above")
    document = json.loads(_result(gateway).read_text())
    return document["times"], document["cpu_seconds"]


def _visible(gateway: Gateway, pool: MailPool, before: int, count: int) -> list[int]:
    """The numbers of the messages after the first ``before``, in the order of the inbox; some are compared whole.

    Raises:
        BenchError: there are more or fewer of them, or one is not, byte for byte, what was sent.
    """
    prefix = message_id_of(pool.size, 0)[: -len("0@bench.example>")].encode()
    numbers: list[int] = []
    with gateway.practice.imap() as client:
        status, answer = client.select("INBOX", readonly=True)
        if status != "OK" or int(answer[0] or 0) != before + count:
            raise BenchError(f"the inbox holds {answer!r} messages, and not {before + count}")
        for start in range(before + 1, before + count + 1, _FETCHED):
            last = min(start + _FETCHED - 1, before + count)
            for found in _bodies(client.fetch(f"{start}:{last}", "(BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")):
                name = _MESSAGE_ID.search(found)
                if name is None or not name[1].startswith(prefix):
                    raise BenchError("the inbox holds a message that was not sent")
                numbers.append(int(name[1][len(prefix) :].partition(b"@")[0]))
        for place in range(0, count, max(1, count // _COMPARED)):
            [whole] = _bodies(client.fetch(str(before + 1 + place), "(BODY.PEEK[])"))
            if whole != inner_of(pool.size, numbers[place], gateway.site.address):
                raise BenchError("a message in the inbox is not what was sent")
    if len(numbers) != len(set(numbers)):
        raise BenchError("a message is in the inbox twice")
    return numbers


def _bodies(answer: tuple[str, Sequence[object]]) -> list[bytes]:
    return [item[1] for item in answer[1] if isinstance(item, tuple)]
