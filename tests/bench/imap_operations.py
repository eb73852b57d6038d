"""What mail clients do, as the IMAP benchmark measures it: one list of operations, the same commands for both servers.

In each round both servers get a new session each, and every operation is done by one and then at once by the other, so
that what disturbs the machine disturbs both. A new session is what a mail client begins with, and in ours it means that
what is read is written into the audit log anew.

The first round warms up and is compared: the bytes of messages and of header fields, the flags, and what was found must
be the same on both sides.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.bench.imap_client import Client, fetched, flags, searched
from tests.bench.imap_corpus import RARE_FIELD, RARE_SENDER, RARE_SUBJECT, RARE_WORD
from tests.bench.imap_servers import Server, cpu_between, cpu_clocks, processes
from tests.bench.world import BenchError

HEADER_FETCH = (
    b"(UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (From To Cc Bcc Subject Date Message-ID Priority X-Priority "
    b"References Newsgroups In-Reply-To Content-Type Reply-To)])"
)
BULK = 2_000
Say = Callable[[str], None]
Compare = Callable[[bytes], object]


@dataclass(frozen=True)
class Size:
    """What the mailbox holds."""

    small: int
    large: int

    @property
    def all(self) -> int:
        return self.small + self.large


@dataclass(frozen=True)
class Operation:
    """Some commands of one kind. ``limit``: at most so many times Dovecot's time; None when nothing is demanded."""

    key: str
    title: str
    lines: Callable[[Size, random.Random], Sequence[bytes]]
    limit: float | None = None
    compare: Compare | None = None
    strict: bool = False
    """Whether the time must be below the limit, and not at it."""


def _same(line: str, times: int = 1) -> Callable[[Size, random.Random], Sequence[bytes]]:
    return lambda size, _: [line.format(small=size.small, all=size.all, large=size.small + 1).encode()] * times


def _random_bodies(size: Size, chance: random.Random) -> Sequence[bytes]:
    return [b"UID FETCH %d (BODY.PEEK[])" % chance.randint(1, size.small) for _ in range(30)]


def _stores(size: Size, chance: random.Random) -> Sequence[bytes]:
    chosen = [chance.randint(1, size.small) for _ in range(15)]
    return [b"UID STORE %d %sFLAGS (\\Answered)" % (uid, sign) for uid in chosen for sign in (b"+", b"-")]


def _bulk(size: Size, _: random.Random) -> Sequence[bytes]:
    return [b"FETCH 1:%d (UID BODY.PEEK[])" % min(BULK, size.small)]


STORE = Operation("store", "STORE of one flag", _stores, 2.0)
OPERATIONS = (
    Operation("status", "STATUS", _same("STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY UNSEEN)", 20), 2.0),
    Operation("select", "SELECT, warm", _same("SELECT INBOX", 20), 2.0),
    Operation("noop", "NOOP, selected", _same("NOOP", 40), 2.0),
    Operation("flags", "UID FETCH 1:* (FLAGS)", _same("UID FETCH 1:* (FLAGS)"), 2.0, flags),
    Operation(
        "envelope",
        "FETCH UID FLAGS DATE SIZE ENVELOPE",
        _same("FETCH 1:{small} (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)"),
        1.0,
        lambda answer: answer.count(b" ENVELOPE ("),
    ),
    Operation(
        "bodystructure",
        "FETCH BODYSTRUCTURE",
        _same("FETCH 1:{small} (BODYSTRUCTURE)"),
        None,
        lambda answer: answer.count(b" FETCH (BODYSTRUCTURE ("),
    ),
    Operation(
        "headers",
        "Thunderbird's header fetch",
        lambda size, _: [b"UID FETCH 1:%d " % size.small + HEADER_FETCH],
        2.0,
        fetched,
    ),
    Operation("bulk", f"BODY.PEEK[] of {BULK:,}", _bulk, 1.0, fetched),
    Operation("large", "BODY.PEEK[] of the large", _same("FETCH {large}:{all} (BODY.PEEK[])"), 1.0, fetched),
    Operation("random", "BODY.PEEK[] of one, at random", _random_bodies, None, fetched),
    Operation("unseen", "SEARCH UNSEEN", _same("SEARCH UNSEEN"), 2.0, searched),
    Operation("subject", "SEARCH SUBJECT", _same(f"SEARCH SUBJECT {RARE_SUBJECT}"), 2.0, searched),
    Operation("from", "SEARCH FROM", _same(f"SEARCH FROM {RARE_SENDER}"), 2.0, searched),
    Operation("header", "SEARCH HEADER", _same(f"SEARCH HEADER {RARE_FIELD[0]} {RARE_FIELD[1]}"), 2.0, searched),
    Operation("body", "SEARCH BODY", _same(f"SEARCH BODY {RARE_WORD}"), 1.0, searched, strict=True),
    Operation("text", "SEARCH TEXT", _same(f"SEARCH TEXT {RARE_WORD}"), 1.0, searched, strict=True),
    STORE,
)


@dataclass(frozen=True)
class Cost:
    """Of one command, in milliseconds."""

    wall_ms: float
    cpu_ms: float


@dataclass
class Costs:
    """One cost for each round, by operation and server."""

    rounds: dict[str, dict[str, list[Cost]]] = field(default_factory=dict)

    def add(self, key: str, server: str, cost: Cost) -> None:
        self.rounds.setdefault(key, {}).setdefault(server, []).append(cost)

    def median(self, key: str, server: str) -> Cost:
        found = self.rounds[key][server]
        return Cost(statistics.median(c.wall_ms for c in found), statistics.median(c.cpu_ms for c in found))

    def ratio(self, key: str, ours: str, theirs: str) -> Cost | None:
        """The medians of the ratios of each round; None when one of them was not measured."""
        found = self.rounds.get(key, {})
        if ours not in found or theirs not in found:
            return None
        pairs = list(zip(found[ours], found[theirs], strict=True))
        return Cost(
            statistics.median(a.wall_ms / b.wall_ms for a, b in pairs),
            statistics.median(a.cpu_ms / max(b.cpu_ms, 1e-6) for a, b in pairs),
        )


def prepare(server: Server, size: Size) -> None:
    """Give the messages flags, as a mailbox has them that is read."""
    with server.connect() as client:
        client.command(b"SELECT INBOX")
        client.command(b"STORE 1:%d +FLAGS.SILENT (\\Seen)" % max(1, size.small * 9 // 10))
        for numbers in _every(size.small, 50):
            client.command(b"STORE %s +FLAGS.SILENT (\\Flagged)" % numbers)


def _every(last: int, step: int) -> Iterator[bytes]:
    chosen = range(step, last + 1, step)
    for start in range(0, len(chosen), 500):
        yield b",".join(b"%d" % number for number in chosen[start : start + 500])


def measure(servers: Sequence[Server], operations: Sequence[Operation], size: Size, rounds: int, say: Say) -> Costs:
    """A round to warm up and to compare, then the rounds that count. Raises BenchError: they answer differently."""
    costs = Costs()
    for turn in range(rounds + 1):
        say("warming up, and comparing the answers" if not turn else f"round {turn} of {rounds}")
        sessions = [(server, server.connect()) for server in servers]
        try:
            for _, client in sessions:
                client.command(b"SELECT INBOX")
            pids = {server.name: processes(server) for server in servers}
            for place, operation in enumerate(operations):
                lines = operation.lines(size, random.Random(turn))
                answers = {}
                order = sessions if (turn + place) % 2 else sessions[::-1]
                for server, client in order:
                    cost, answers[server.name] = _timed(client, lines, pids[server.name])
                    if turn:
                        costs.add(operation.key, server.name, cost)
                if not turn:
                    _require_same(operation, answers)
        finally:
            for _, client in sessions:
                client.socket.close()
    return costs


def _timed(client: Client, lines: Sequence[bytes], pids: Sequence[int]) -> tuple[Cost, list[bytes]]:
    before, began = cpu_clocks(pids), time.monotonic()
    answers = [client.command(line) for line in lines]
    wall = time.monotonic() - began
    used = cpu_between(before, cpu_clocks(pids))
    return Cost(wall / len(lines) * 1e3, used / len(lines) * 1e3), answers


def _require_same(operation: Operation, answers: dict[str, list[bytes]]) -> None:
    if operation.compare is None:
        return
    found = [[operation.compare(answer) for answer in given] for given in answers.values()]
    if not all(found[0]):
        raise BenchError(f"{operation.title}: nothing was found")
    if any(other != found[0] for other in found[1:]):
        raise BenchError(f"{operation.title}: the two servers do not answer the same")


def first_select(server: Server) -> float:
    """Milliseconds of the first SELECT after a restart of a server that runs."""
    server.stop()
    server.start()
    with server.connect() as client:
        began = time.monotonic()
        client.command(b"SELECT INBOX")
        return (time.monotonic() - began) * 1e3
