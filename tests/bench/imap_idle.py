"""Sessions in IDLE: how soon they are told of something new, how many there can be, and what each of them takes.

What is new comes as it comes in life: to ours by SMTP, as a Direct message that is decrypted, verified and filed, to
Dovecot by an APPEND of another session. The daemon writes down when it filed a message, a moment before that is
committed; from there to EXISTS is what the notification takes.
"""

from __future__ import annotations

import smtplib
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from selectors import EVENT_READ, DefaultSelector

from tests.bench.imap_client import Client
from tests.bench.imap_servers import Ours, Server, Theirs, memory_bytes
from tests.bench.world import SENDER, BenchError

_AT_ONCE = 8
_WAITS_SECONDS = 60.0
Bring = Callable[[], float]
"""Bring one new message; the moment on the monotonic clock when the server said that it has it."""


@dataclass(frozen=True)
class Noticed:
    """Milliseconds until a session in IDLE was told, the median of some messages."""

    from_reply_ms: float
    """From the 250 or the OK on."""
    from_filing_ms: float | None
    """From the filing on; None where it is the same as the reply."""
    from_flag_ms: float
    """Of a flag that another session set, from its OK on."""


@dataclass(frozen=True)
class Crowd:
    """Many sessions in IDLE."""

    sessions: int
    set_up_seconds: float
    """TCP, TLS, LOGIN, SELECT and IDLE of all of them, a few at a time."""
    bytes_each: float
    told_first_ms: float
    """From the reply to a new message until the first and the last of them were told."""
    told_last_ms: float


def deliveries(ours: Ours, messages: Iterator[bytes], stack: ExitStack) -> Bring:
    """By SMTP with STARTTLS, one connection for all."""
    practice = ours.practice
    client = stack.enter_context(smtplib.SMTP("localhost", practice.smtp_port, timeout=60))
    client.starttls(context=practice.tls())
    client.ehlo()

    def bring() -> float:
        client.mail(SENDER)
        client.rcpt(practice.addresses[0])
        code, reply = client.data(next(messages))
        if code != 250:
            raise BenchError(f"the gateway did not take a message: {code} {reply.decode(errors='replace')}")
        return time.monotonic()

    return bring


def appends(theirs: Theirs, content: bytes, stack: ExitStack) -> Bring:
    """By APPEND, one session for all."""
    client = stack.enter_context(theirs.connect())

    def bring() -> float:
        client.append([content])
        return time.monotonic()

    return bring


def notice(server: Server, bring: Bring, times: int) -> Noticed:
    """How soon one session in IDLE is told."""
    with server.connect() as idle, server.connect() as other:
        for client in (idle, other):
            client.command(b"SELECT INBOX")
        replies, filings, flags = [], [], []
        for number in range(times):
            with _idling(idle):
                told = bring()
                replies.append((idle.wait_for(b" EXISTS") - told) * 1e3)
                seen = datetime.now(UTC)
            if isinstance(server, Ours):
                filings.append((seen - _last_filed(server)).total_seconds() * 1e3)
            with _idling(idle):
                other.command(b"STORE 1 %sFLAGS (\\Answered)" % (b"-" if number % 2 else b"+"))
                told = time.monotonic()
                flags.append((idle.wait_for(b" FETCH ") - told) * 1e3)
    # Told before the one who stored it had his answer: there was nothing to wait for.
    flagged = [max(0.0, one) for one in flags]
    filed = statistics.median(filings) if filings else None
    return Noticed(max(0.0, statistics.median(replies)), filed, statistics.median(flagged))


@contextmanager
def _idling(client: Client) -> Iterator[None]:
    client.command(b"NOOP")
    client.begin_idle()
    yield
    client.end_idle()


def _last_filed(ours: Ours) -> datetime:
    file = ours.practice.directory / "data" / "gateway.db"
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        newest = "SELECT at FROM message_state WHERE state = 'filed' ORDER BY rowid DESC LIMIT 1"
        return datetime.fromisoformat(connection.execute(newest).fetchone()[0])


def crowd(server: Server, sessions: int, bring: Bring) -> Crowd:
    """Many sessions that wait, and one new message for all of them."""
    # What the first session makes the server load is not what the others take.
    with server.connect() as first:
        first.command(b"SELECT INBOX")
    before = memory_bytes(server)
    began = time.monotonic()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        clients = list(threads.map(lambda _: _waiting(server), range(sessions)))
    took = time.monotonic() - began
    try:
        time.sleep(1.0)
        each = (memory_bytes(server) - before) / sessions
        told = bring()
        moments = _told(clients)
    finally:
        for client in clients:
            client.socket.close()
    return Crowd(sessions, took, each, (moments[0] - told) * 1e3, (moments[-1] - told) * 1e3)


def _waiting(server: Server) -> Client:
    client = server.connect()
    client.command(b"SELECT INBOX")
    client.begin_idle()
    return client


def _told(clients: Sequence[Client]) -> list[float]:
    """When each of them was told of a new message, ascending. Raises BenchError: one was not."""
    moments: list[float] = []
    with DefaultSelector() as waiting:
        for client in clients:
            client.socket.setblocking(False)
            waiting.register(client.socket, EVENT_READ, client)
        deadline = time.monotonic() + _WAITS_SECONDS
        while len(moments) < len(clients):
            ready = waiting.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise BenchError(f"{len(clients) - len(moments)} of {len(clients)} sessions in IDLE were not told")
            for key, _ in ready:
                if key.data.hears(b" EXISTS"):
                    moments.append(time.monotonic())
                    waiting.unregister(key.fileobj)
    return moments
