"""F10 and F36: several real daemons on PostgreSQL, killed, frozen and cut off, while mail comes in.

Jepsen's way: clients write down what they were told, a nemesis disturbs, and a checker reads both afterwards. Acked is
a subset of what is stored, each message is delivered once, UIDs come to light in rising order without a gap, MODSEQ
never goes back.

``GATEWAY_FAULT_SECONDS`` makes the long run of three nodes longer (600 for the full experiment).
"""

from __future__ import annotations

import os
import random
import signal
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice, wait_for
from tests.support.nodes import make_nodes
from tests.support.pki import Authority
from tests.support.postgresql import Cluster, running_cluster
from tests.support.postgresql_proxy import Proxy

SENDER = "lab@partner.example"
STACK = CryptographyStack()
LONG_SECONDS = float(os.environ.get("GATEWAY_FAULT_SECONDS", "60"))
FROZEN_SECONDS = 4.0
LEASE_SECONDS = 2
SETTLE_SECONDS = 90


@dataclass
class History:
    """What the clients were told, and what a bystander saw of the mailbox, in the order of time."""

    acked: dict[str, bytes] = field(default_factory=dict)
    """Content by Message-ID."""
    unsure: int = 0
    uids: list[tuple[frozenset[int], int]] = field(default_factory=list)
    """The UIDs and the MODSEQ that were there."""

    def saw(self, uids: Sequence[int], modseq: int) -> None:
        self.uids.append((frozenset(uids), modseq))


def violations(history: History, inbox: Sequence[bytes]) -> list[str]:
    """What breaks "acked is a subset of stored, which is delivered once; UIDs rise; MODSEQ never goes back"."""
    counts = Counter(inbox)
    found = [
        f"{one} was acknowledged and is not there" for one, content in history.acked.items() if not counts[content]
    ]
    found += [f"a message is there {count} times" for count in counts.values() if count > 1]
    highest, modseq = 0, 0
    for uids, now in history.uids:
        fresh = {uid for uid in uids if uid > highest}
        if any(uid not in uids for uid in range(1, highest + 1)) or len(uids) != max(uids, default=0):
            found.append(f"UIDs came to light out of order up to {max(uids, default=0)}")
        highest = max(fresh, default=highest)
        if now < modseq:
            found.append(f"MODSEQ went back from {modseq} to {now}")
        modseq = max(modseq, now)
    return found


def test_the_checker_sees_what_is_wrong() -> None:
    one = History(acked={"a": b"a"})
    assert violations(one, [b"a"]) == []
    assert violations(one, []) != []
    assert violations(one, [b"a", b"a"]) != []
    for seen in ([([1, 3], 1)], [([1], 2), ([1], 1)], [([1, 2], 1), ([1], 2)]):
        history = History()
        for uids, modseq in seen:
            history.saw(uids, modseq)
        assert violations(history, []) != []
    fine = History()
    fine.saw([], 1)
    fine.saw([1], 2)
    fine.saw([1, 2, 3], 4)
    assert violations(fine, []) == []


class Run:
    """The clients, the bystander and the nemesis of one experiment."""

    def __init__(self, cluster: Cluster, nodes: Sequence[Practice], partner: Authority, seed: int) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._signer = partner.issue(address=SENDER)
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._numbers = iter(range(1_000_000))
        self._lock = threading.Lock()
        self._schema = next(
            line.split('"')[1] for line in nodes[0].config.read_text().splitlines() if line.startswith("schema = ")
        )
        self.history = History()
        self.disturbed: Counter[str] = Counter()

    def run(self, seconds: float, disturb: Callable[[Run, random.Random], None]) -> None:
        """Send from two clients for so long while the nemesis works; then let everything come to rest."""
        threads = [threading.Thread(target=self._send, args=(n,)) for n in range(2)]
        threads.append(threading.Thread(target=self._watch))
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                disturb(self, self._random)
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def _send(self, client: int) -> None:
        """Each message goes to some node, and again, to another, until one of them answers 250."""
        choose = random.Random(client)
        while not self._stopping.is_set():
            with self._lock:
                number = next(self._numbers)
            message_id = f"<{number}@partner.example>"
            to = self._nodes[0].addresses
            inner = inner_message(SENDER, to, message_id=message_id, subject=f"Result {number}")
            raw = direct_message(
                STACK, inner, sender=SENDER, recipients=to, signer=self._signer, to=[self._nodes[0].identity()],
                message_id=message_id,
            )  # fmt: skip
            for _ in range(40):
                node = choose.choice(self._nodes)
                try:
                    code, _ = _deliver(node, raw)
                except (OSError, smtplib.SMTPException):
                    code = 0
                if code == 250:
                    with self._lock:
                        self.history.acked[message_id] = inner
                    break
                with self._lock:
                    self.history.unsure += 1
                time.sleep(0.05)

    def _watch(self) -> None:
        uids = f"SELECT array_agg(uid) FROM {self._schema}.mailbox_message WHERE mailbox_id = c.mailbox_id"  # noqa: S608
        query = (
            f"SELECT coalesce(({uids}), '{{}}'), c.highest_modseq FROM {self._schema}.mailbox_counter c "  # noqa: S608
            f"ORDER BY c.mailbox_id LIMIT 1"
        )
        with self._cluster.connect(database="gateway") as connection:
            while not self._stopping.wait(0.05):
                with suppress(psycopg.Error):
                    for uids, modseq in connection.execute(query):
                        self.history.saw(uids, modseq)

    def settle(self) -> list[bytes]:
        """Wait until nothing waits any more, and return the inbox; the same at every node."""
        self._cluster.sql("SELECT 1")
        open_jobs = f"SELECT count(*) FROM {self._schema}.job"  # noqa: S608
        wait_for(
            lambda: self._cluster.sql(open_jobs, "gateway") == [(0,)],
            timeout=SETTLE_SECONDS,
            what="the end of all jobs",
        )
        inboxes = [node.inbox() for node in self._nodes]
        assert all(inbox == inboxes[0] for inbox in inboxes)
        states = self._cluster.sql(
            f"SELECT message_id, state, count(*) FROM {self._schema}.message_state GROUP BY 1, 2 HAVING count(*) > 1",  # noqa: S608
            "gateway",
        )
        assert states == [], "an effect in the database came twice"
        return inboxes[0]


def _deliver(node: Practice, raw: bytes) -> tuple[int, bytes]:
    """As ``Practice.send`` with little patience: a frozen node is left for another."""
    with smtplib.SMTP("localhost", node.smtp_port, timeout=3) as client:
        client.starttls(context=node.tls())
        client.ehlo()
        client.mail(SENDER)
        client.rcpt(node.addresses[0])
        return client.data(raw)


def kill(node: Practice) -> None:
    node.kill()
    node.start()


def freeze(node: Practice, seconds: float = FROZEN_SECONDS) -> None:
    assert node.process is not None
    node.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        node.process.send_signal(signal.SIGCONT)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster() as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_that_are_killed_and_frozen_do_every_job_once(
    cluster: Cluster, tmp_path: Path, partner_ca: Authority, report: Callable[[str], None]
) -> None:
    """F10: SIGKILL, and SIGSTOP of 4 s with leases of 2 s, on two nodes."""
    nodes = make_nodes(cluster, tmp_path, partner_ca.pem, 2, lease_seconds=LEASE_SECONDS)
    run = Run(cluster, nodes, partner_ca, seed=10)

    def disturb(run: Run, chance: random.Random) -> None:
        node = chance.choice(nodes)
        how = chance.choice((kill, freeze))
        run.disturbed[how.__name__] += 1
        how(node)
        time.sleep(chance.uniform(0.5, 1.5))

    try:
        for node in nodes:
            node.start()
        run.run(30, disturb)
        inbox = run.settle()
    finally:
        for node in nodes:
            node.kill()
    assert run.disturbed["kill"]
    assert run.disturbed["freeze"]
    assert run.history.acked
    assert violations(run.history, inbox) == []
    report(f"F10 {dict(run.disturbed)}, {len(run.history.acked)} acked, 0 lost, 0 duplicated")


@pytest.mark.slow
@pytest.mark.timeout(LONG_SECONDS + 600)
def test_three_nodes_that_are_killed_frozen_and_cut_off(
    cluster: Cluster, tmp_path: Path, partner_ca: Authority, report: Callable[[str], None]
) -> None:
    """F36."""
    nodes = make_nodes(cluster, tmp_path, partner_ca.pem, 3, lease_seconds=LEASE_SECONDS)
    proxies = [Proxy(cluster.port) for _ in nodes]
    for node, proxy in zip(nodes, proxies, strict=True):
        node.set("store", url=cluster.url("gateway_writer", port=proxy.port))
    run = Run(cluster, nodes, partner_ca, seed=36)

    def disturb(run: Run, chance: random.Random) -> None:
        number = chance.randrange(len(nodes))
        how = chance.choice(("kill", "freeze", "partition", "drop"))
        run.disturbed[how] += 1
        if how == "kill":
            kill(nodes[number])
        elif how == "freeze":
            freeze(nodes[number])
        elif how == "partition":
            proxies[number].partition()
            time.sleep(chance.uniform(1, 5))
            proxies[number].heal()
        else:
            proxies[number].drop()
        time.sleep(chance.uniform(0.2, 1.0))

    try:
        for node in nodes:
            node.start()
        run.run(LONG_SECONDS, disturb)
        inbox = run.settle()
    finally:
        for node in nodes:
            node.kill()
        for proxy in proxies:
            proxy.close()
    assert run.history.acked
    assert violations(run.history, inbox) == []
    seen = len(run.history.uids)
    report(
        f"F36 {LONG_SECONDS:.0f} s, {dict(run.disturbed)}, {len(run.history.acked)} acked, "
        f"{run.history.unsure} unsure, {seen} looks at the UIDs, 0 lost, 0 duplicated"
    )


CARELESS = """
import asyncio
from gateway.pipeline.accept import Accept

sound, running = Accept.__call__, set()

async def call(self, inbound, also=None):
    # The seeded bug: 250 before the commit.
    async def later():
        await asyncio.sleep(0.3)
        await sound(self, inbound, also)

    task = asyncio.ensure_future(later())
    running.add(task)
    task.add_done_callback(running.discard)
    return "0" * 26

Accept.__call__ = call
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_harness_sees_a_gateway_that_acknowledges_before_the_commit(
    cluster: Cluster, tmp_path: Path, partner_ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = make_nodes(cluster, tmp_path, partner_ca.pem, 2, lease_seconds=LEASE_SECONDS)
    (tmp_path / "sitecustomize.py").write_text(CARELESS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = Run(cluster, nodes, partner_ca, seed=1)

    def disturb(_run: Run, chance: random.Random) -> None:
        time.sleep(chance.uniform(0.5, 1.5))
        kill(chance.choice(nodes))

    try:
        for node in nodes:
            node.start()
        run.run(20, disturb)
        # What the bug puts off is still to come: two looks at the inbox would differ.
        time.sleep(2)
        inbox = run.settle()
    finally:
        for node in nodes:
            node.kill()
    # What was not lost came in: the bug is the order, and not that nothing works.
    assert inbox
    assert any("is not there" in one for one in violations(run.history, inbox))
