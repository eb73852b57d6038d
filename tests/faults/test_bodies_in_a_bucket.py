"""The whole daemon with its bodies in a bucket: SMTP in, S3, IMAP out; and what happens when S3 or the daemon fails.

The bar: what was acknowledged is in the inbox once, whatever was killed or cut; what is missing or altered in the
bucket is never served (F01, F13, F32). ``test_the_harness_sees_a_row_before_its_body`` shows that the harness finds a
gateway that acknowledges first and puts afterwards.
"""

from __future__ import annotations

import contextlib
import imaplib
import os
import signal
import smtplib
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import COMMAND, Practice, wait_for
from tests.support.pki import Authority, Identity
from tests.support.s3_server import S3Server, Wire, s3_server, wire_to

pytestmark = pytest.mark.slow
"""Kills take a process each: `make test-all` runs them; `make test` has tests/faults/test_kill_after_ack.py."""

SENDER = "lab@partner.example"
STACK = CryptographyStack()
SEEDED = [sys.executable, "-m", "tests.support.row_before_body"]
NOT_NOW = (OSError, smtplib.SMTPException, AssertionError)
"""What a sender sees of a gateway that was killed under his hands."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@dataclass
class World:
    """A practice whose bodies go over a wire into a bucket."""

    practice: Practice
    server: S3Server
    wire: Wire
    bucket: str
    signer: Identity
    sent: int = 0
    acknowledged: list[bytes] = field(default_factory=list)

    def message(self) -> tuple[bytes, bytes]:
        """(the inner message as the inbox shows it, the message as it is sent)."""
        self.sent += 1
        message_id = f"<{self.sent}@partner.example>"
        addresses = self.practice.addresses
        inner = inner_message(SENDER, addresses, message_id=message_id, subject=f"Result {self.sent}")
        raw = direct_message(
            STACK, inner, sender=SENDER, recipients=addresses, signer=self.signer, to=[self.practice.identity()],
            message_id=message_id,
        )  # fmt: skip
        return inner, raw

    def deliver(self) -> bytes:
        """One message that must be taken."""
        inner, raw = self.message()
        code, reply = self.practice.send(raw, SENDER, self.practice.addresses)
        assert code == 250, reply
        self.acknowledged.append(inner)
        return inner

    def names(self, kind: str) -> list[tuple[str, str]]:
        return [one for one in self.server.names(self.bucket) if f"/{kind}/" in one[0]]

    def lost(self, timeout: float) -> list[str]:
        """What breaks "acknowledged is in the inbox once", when it is still so after that time."""
        deadline = time.monotonic() + timeout
        while True:
            found = violations(self.acknowledged, self._inbox())
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    def _inbox(self) -> Sequence[bytes]:
        try:
            return self.practice.inbox()
        except (imaplib.IMAP4.error, OSError):
            return []


def violations(acknowledged: Sequence[bytes], inbox: Sequence[bytes]) -> list[str]:
    counts = [(number, inbox.count(inner)) for number, inner in enumerate(acknowledged)]
    return [f"message {number} is in the inbox {count} times" for number, count in counts if count != 1]


def configure(practice: Practice, server: S3Server, bucket: str, port: int) -> None:
    settings = server.settings(bucket, port)
    changes = {
        'bodies = "database"': 'bodies = "s3"',
        'bucket = ""': f'bucket = "{bucket}"',
        'endpoint_url = ""': f'endpoint_url = "{settings.endpoint_url}"',
        'credentials_file = ""': f'credentials_file = "{settings.credentials_file}"',
        "connect_timeout_seconds = 5": "connect_timeout_seconds = 2",
        "read_timeout_seconds = 15": "read_timeout_seconds = 5",
        "max_attempts = 2": "max_attempts = 1",
        "allow_retention_shortening = false": "allow_retention_shortening = true",
    }
    text = practice.config.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    practice.config.write_text(text)


@pytest.fixture
def world(tmp_path: Path, server: S3Server, partner_ca: Authority) -> Iterator[World]:
    yield from made_world(tmp_path, server, partner_ca)


def made_world(tmp_path: Path, server: S3Server, partner_ca: Authority) -> Iterator[World]:
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner_ca.pem)
    bucket = server.bucket()
    with wire_to(server) as wire:
        configure(practice, server, bucket, wire.port)
        try:
            yield World(practice, server, wire, bucket, partner_ca.issue(address=SENDER))
        finally:
            practice.stop()


def test_mail_goes_through_the_bucket_and_survives_a_restart(world: World) -> None:
    world.practice.start()
    for _ in range(3):
        world.deliver()
    assert world.lost(20) == []
    assert len(world.names("raw")) == len(world.names("content")) == 3
    with contextlib.closing(sqlite3.connect(world.practice.directory / "data" / "gateway.db")) as database:
        kinds = database.execute("SELECT DISTINCT kind FROM body_part").fetchall()
    assert kinds == [("search",)], "no body lies in the database, but the text for SEARCH"
    assert world.practice.stop() == 0
    gets = len(world.wire.gets)
    world.practice.start()
    assert world.lost(10) == []
    assert len(world.wire.gets) > gets
    assert "SECRET-OF-THE-TEST" not in world.practice.log.read_text()
    assert world.practice.json("store", "orphans") == {"objects": 6, "orphans": [], "missing": []}
    assert "SECRET-OF-THE-TEST" not in world.practice.run("config", "show").stdout.decode()


def health(practice: Practice) -> bytes:
    """What /readyz says, whatever its status."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{practice.http_port}/readyz", timeout=10) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return error.read()


def fetch(practice: Practice, uid: int) -> tuple[str, bytes]:
    """Status of a FETCH, and what was served of the message."""
    with practice.imap() as client:
        client.select("INBOX", readonly=True)
        try:
            status, data = client.uid("FETCH", str(uid), "(BODY.PEEK[])")
        except imaplib.IMAP4.error as error:
            return "NO", str(error).encode()
        return status, b"".join(item[1] for item in data if isinstance(item, tuple))


def test_a_body_that_was_removed_or_altered_is_never_served(world: World) -> None:
    """F32: the one message is refused by name, the others are served, and the operator is told."""
    world.practice.start()
    first, second = world.deliver(), world.deliver()
    assert world.lost(20) == []
    world.practice.stop()
    inbox_order = [first, second]
    bend, name = world.wire.bend, world.names("content")[0]
    target = name[0].split("/")[1]

    world.wire.bend = lambda path, data: data[:-1] + bytes([data[-1] ^ 1]) if f"/{target}/" in path else data
    world.practice.start()
    answers = [fetch(world.practice, uid) for uid in (1, 2)]
    assert sorted(status for status, _ in answers) == ["NO", "OK"]
    served = [body for status, body in answers if status == "OK"]
    assert served[0] in inbox_order
    wait_for(lambda: f"stored_message_damaged message_id={target}" in world.practice.log.read_text(), what="the alert")

    world.wire.bend = bend
    assert world.lost(5) == [], "the object itself was whole"
    world.practice.stop()
    world.server.destroy(world.bucket, *name)
    world.practice.start()
    assert sorted(fetch(world.practice, uid)[0] for uid in (1, 2)) == ["NO", "OK"]
    done = world.practice.run("store", "orphans", "--json", check=False)
    assert done.returncode == 1
    assert target.encode() in done.stdout


def test_a_bucket_without_lock_is_refused_before_a_port_opens(world: World) -> None:
    unlocked = world.server.bucket(lock=False)
    text = world.practice.config.read_text()
    proven = world.practice.run("config", "check", "--lock")
    assert b"s3.bucket: the lock is proven" in proven.stdout
    assert b"s3.allow_retention_shortening is true, which is for test servers only" in proven.stderr
    assert not {b"bucket_lock_proven", b"bucket_retention_can_be_shortened"}.intersection(proven.stderr.split())
    assert world.practice.run("config", "check", "--strict", check=False).returncode == 1
    world.practice.config.write_text(text.replace(world.bucket, unlocked))
    checked = world.practice.run("config", "check", "--lock", check=False)
    assert checked.returncode == 2
    assert b"keeps no versions" in checked.stderr
    served = subprocess.run(
        [*COMMAND, "serve", "--config", str(world.practice.config)], capture_output=True, check=False, timeout=60
    )
    assert served.returncode == 2
    assert b"keeps no versions" in served.stderr
    assert b"Traceback" not in served.stderr
    world.practice.config.write_text(
        text.replace("allow_retention_shortening = true", "allow_retention_shortening = false")
    )
    strict = world.practice.run("config", "check", "--lock", check=False)
    assert strict.returncode == 2
    assert b"be shortened" in strict.stderr


def test_a_bucket_that_is_away_under_load_loses_nothing(world: World) -> None:
    """Senders are told 451 and come again; nothing that was acknowledged is missing, nothing is there twice."""
    world.practice.start()
    world.deliver()
    assert world.lost(20) == []
    replies: list[int] = []
    done = threading.Event()
    lock = threading.Lock()

    def sender(messages: list[tuple[bytes, bytes]]) -> None:
        for inner, raw in messages:
            while True:
                code, _ = world.practice.send(raw, SENDER, world.practice.addresses)
                with lock:
                    replies.append(code)
                    if code == 250:
                        world.acknowledged.append(inner)
                if code == 250 or done.is_set():
                    break
                time.sleep(0.3)

    batches = [[world.message() for _ in range(6)] for _ in range(4)]
    threads = [threading.Thread(target=sender, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(world.wire.puts) >= 4, what="some uploads")
    world.wire.cut()
    wait_for(lambda: 451 in replies, what="a sender that is put off")
    assert fetch(world.practice, 1)[0] in {"OK", "NO"}
    wait_for(lambda: b'"status":"not ready"' in health(world.practice), what="the word of health")
    assert b"the bucket of [s3] does not answer: senders are put off (451)" in health(world.practice)
    with world.practice.imap() as client:
        assert client.select("INBOX", readonly=True)[0] == "OK", "listing does not need the bucket"
    time.sleep(2)
    world.wire.connect()
    for thread in threads:
        thread.join(60)
    done.set()
    wait_for(lambda: b'"status":"ready"' in health(world.practice), what="the word of health")
    assert set(replies) == {250, 451}
    assert len(world.acknowledged) == 25
    assert world.lost(60) == []


def kill_at(world: World, number: int, *, stored: bool) -> threading.Event:
    """``kill -9`` of the daemon at its Nth body from now: before the bucket has it, or before the daemon knows."""
    killed = threading.Event()
    left = [number]

    def hook(_name: str) -> bool:
        left[0] -= 1
        if left[0] or killed.is_set() or world.practice.process is None:
            return True
        killed.set()
        os.killpg(world.practice.process.pid, signal.SIGKILL)
        return False

    if stored:
        world.wire.on_stored = hook
    else:
        world.wire.before_put = hook
    return killed


def let_be(world: World) -> None:
    world.wire.on_stored = world.wire.before_put = lambda _name: True


def kill_at_each_body(world: World, points: Sequence[tuple[int, bool]]) -> int:
    """A message with each kill; the sender comes again until he is told 250. Returns how many daemons were killed."""
    kills = 0
    for number, stored in points:
        killed = kill_at(world, number, stored=stored)
        inner, raw = world.message()
        # What the last daemon left undone may make this one put a body, and be killed, before it has told its ports.
        with contextlib.suppress(*NOT_NOW, AssertionError):
            world.practice.start()
            if world.practice.send(raw, SENDER, world.practice.addresses)[0] == 250:
                world.acknowledged.append(inner)
        killed.wait(10)
        kills += killed.is_set()
        world.practice.kill()
        let_be(world)
        if inner not in world.acknowledged:
            world.practice.start()
            assert world.practice.send(raw, SENDER, world.practice.addresses)[0] == 250
            world.acknowledged.append(inner)
            world.practice.kill()
    world.practice.prefix = ()
    world.practice.start()
    return kills


def test_killed_between_put_and_commit(world: World) -> None:
    """The raw body (1) and the content (2), each before and after it is in the bucket."""
    points = [(1, True), (2, True), (1, False), (2, False)]
    assert kill_at_each_body(world, points) == len(points)
    assert world.lost(60) == []
    assert len(world.practice.messages()) == len(points)
    objects = world.practice.json("store", "orphans")["objects"]
    assert objects > 2 * len(points), "what was put and never named is left over, and harms nobody"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_between_put_and_commit_many_times(world: World) -> None:
    points = [(1 + index % 2, index % 4 < 2) for index in range(12)]
    assert kill_at_each_body(world, points) == len(points)
    assert world.lost(90) == []
    assert len(world.practice.messages()) == len(points)


def test_the_harness_sees_a_row_before_its_body(world: World) -> None:
    world.practice.prefix = SEEDED
    assert kill_at_each_body(world, [(1, False)]) == 1
    assert len(world.acknowledged) == 1, "the seeded gateway says 250 before the body is in the bucket"
    assert world.lost(4) == ["message 0 is in the inbox 0 times"]
