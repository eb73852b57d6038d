"""Rotation of the keys of stored messages under load, with ``kill -9`` of the rotating process and of the daemon (F33).

The rotating process is killed at its Nth write to the disk, for many N, while mail comes in; and then the daemon is
killed as well. What was acknowledged must be readable afterwards, each message once, and the next rotation must finish.
The history of acknowledgements is kept by the client. The harness is believed because it finds the losses of three
seeded bugs: a rotation that throws the old key away before it has wrapped everything anew, one that takes a key into
use before it is on the disk, and one that changes the name of the key and not what is wrapped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import COMMAND, Practice
from tests.support.pki import Authority, Identity

pytestmark = pytest.mark.slow
"""Kills take a process each: `make test-all` runs them; `make test` has tests/faults/test_kill_after_ack.py."""

SENDER = "lab@partner.example"
STACK = CryptographyStack()
PROJECT = Path(__file__).resolve().parents[2]
FIRST_CALLS = [1, 2, 3, 4]
"""Every rotation has these: a new file of keys is synced and renamed, and a commit is written and synced."""
STORED_BEFORE = 450
"""Messages in the store before the first rotation: three batches of the rotation."""


def make(practice: Practice, signer: Identity, number: int) -> tuple[bytes, bytes]:
    inner = inner_message(
        SENDER, practice.addresses, message_id=f"<{number}@partner.example>", subject=f"Result {number}"
    )
    raw = direct_message(
        STACK, inner, sender=SENDER, recipients=practice.addresses, signer=signer, to=[practice.identity()],
        message_id=f"<{number}@partner.example>",
    )  # fmt: skip
    return inner, raw


def fill(practice: Practice, count: int) -> None:
    """Many stored messages, faster than by mail: copies of the ways of the pipeline."""
    code = """
import sys
from pathlib import Path
from datetime import timedelta
from gateway.keys.body_keys import body_sealer
from gateway.settings import load
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.store_samples import NOW, inbound, rejected
from gateway.core.lifecycle import State
settings = load(Path(sys.argv[1]), {})
with SQLStore.open(settings.store, body_sealer(settings)) as store:
    def work(tx):
        for number in range(int(sys.argv[2])):
            at = NOW + timedelta(seconds=number)
            message_id = new_id(at)
            tx.messages.add_raw(message_id, at, inbound(b"stored %d" % number))
            tx.messages.set_state(message_id, State.RECEIVED, at)
            tx.messages.add_verdict(message_id, at, rejected())
            tx.messages.set_state(message_id, State.REFUSED, at)
    store.write_blocking(work)
"""
    subprocess.run([sys.executable, "-c", code, str(practice.config), str(count)], cwd=PROJECT, check=True, timeout=120)


def unreadable(practice: Practice) -> list[str]:
    """What a process that starts now cannot read, of everything that is stored; searching included."""
    code = """
import sys
from pathlib import Path
from gateway.core.errors import GatewayError, NotFoundError
from gateway.keys.body_keys import body_sealer
from gateway.settings import load
from gateway.store.sql_store import SQLStore
from gateway.store.tables import mailbox, raw_message
from sqlalchemy import select
settings = load(Path(sys.argv[1]), {})
with SQLStore.open(settings.store, body_sealer(settings)) as store:
    def read(tx):
        for (message_id,) in tx.messages._connection.execute(select(raw_message.c.id)).all():
            try:
                tx.messages.raw(message_id)
                try:
                    tx.messages.content(message_id)
                except NotFoundError:
                    pass
            except GatewayError as error:
                print(error)
        for (box,) in tx.messages._connection.execute(select(mailbox.c.id)).all():
            try:
                tx.mailboxes.search_text(box, "x", headers=True, body=True)
            except GatewayError as error:
                print(error)
    store.read_blocking(read)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(practice.config)], cwd=PROJECT, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def resting(practice: Practice) -> dict[str, int]:
    """How many messages rest on each key."""
    with contextlib.closing(sqlite3.connect(practice.directory / "data" / "gateway.db")) as database:
        return dict(database.execute("SELECT kek_id, count(*) FROM wrapped_key GROUP BY kek_id").fetchall())


class Sending:
    """A client that sends one message after the other and keeps the history of what was acknowledged."""

    def __init__(self, practice: Practice, signer: Identity, first: int) -> None:
        self._practice = practice
        self._signer = signer
        self._number = first
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acknowledged: list[bytes] = []
        self.unsure: list[bytes] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._number += 1
            inner, raw = make(self._practice, self._signer, self._number)
            try:
                code, _ = self._practice.send(raw, SENDER, self._practice.addresses)
            except (OSError, AssertionError, EOFError):
                self.unsure.append(inner)
                time.sleep(0.05)
                continue
            (self.acknowledged if code == 250 else self.unsure).append(inner)


def rotate(practice: Practice, *, die_at: int = 0, prefix: Sequence[str] = ()) -> int:
    """Run ``keys rotate``; with ``die_at`` strace kills it at that write or sync. Returns the exit status."""
    words = [*prefix, *COMMAND, "keys", "rotate", "--config", str(practice.config)]
    if die_at:
        calls = "pwrite64,fdatasync,fsync,rename"
        words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e",
                 f"inject={calls}:signal=SIGKILL:when={die_at}", *words]  # fmt: skip
    process = subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return process.wait(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def violations(acknowledged: Sequence[bytes], inbox: Sequence[bytes], practice: Practice) -> list[str]:
    """What breaks the promise: everything that was acknowledged is there once, and everything can be read."""
    found = [f"acknowledged message {index} is in the inbox {inbox.count(inner)} times"
             for index, inner in enumerate(acknowledged) if inbox.count(inner) != 1]  # fmt: skip
    return found + unreadable(practice)


@pytest.fixture
def filled(tmp_path: Path, partner_ca: Authority) -> Iterator[Practice]:
    made = Practice.make(tmp_path / "practice")
    made.trust(partner_ca.pem)
    fill(made, STORED_BEFORE)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def kill_everything(
    practice: Practice, signer: Identity, points: Sequence[int], report: Callable[[str], None]
) -> tuple[list[int], int]:
    """Kill the rotation at each point, and the daemon at every second one; returns which points were met, and how
    often the daemon was killed.
    """
    acknowledged: list[bytes] = []
    unsure: list[bytes] = []
    killed: list[int] = []
    stopped = 0
    for number, point in enumerate(points):
        with Sending(practice, signer, 1_000 * number) as sending:
            time.sleep(0.3)
            if rotate(practice, die_at=point) != 0:
                killed.append(point)
            if number % 2:
                practice.kill()
                stopped += 1
            else:
                time.sleep(0.3)
        acknowledged += sending.acknowledged
        unsure += sending.unsure
        if practice.process is None:
            practice.start()
        assert unreadable(practice) == [], f"after a kill at write {point}"
    assert rotate(practice) == 0
    assert len(resting(practice)) == 1, "the last rotation brought everything under one key"
    practice.kill()
    practice.start()
    inbox = settled_inbox(practice, acknowledged)
    assert acknowledged
    assert violations(acknowledged, inbox, practice) == []
    assert all(inbox.count(inner) <= 1 for inner in unsure)
    report(
        f"F33: points={len(killed)} of the rotation, {stopped} of the daemon, {len(acknowledged)} acked, lost=0 "
        f"duplicated=0"
    )
    return killed, stopped


def settled_inbox(practice: Practice, acknowledged: Sequence[bytes]) -> list[bytes]:
    """The inbox when what was acknowledged is in it, or does not come any more."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        inbox = practice.inbox()
        if all(inner in inbox for inner in acknowledged):
            return inbox
        time.sleep(0.3)
    return practice.inbox()


def needs_strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")


@pytest.mark.timeout(300)
def test_rotation_and_daemon_killed_under_load(
    filled: Practice, partner_ca: Authority, report: Callable[[str], None]
) -> None:
    needs_strace()
    killed, stopped = kill_everything(filled, partner_ca.issue(address=SENDER), (1, 3, 6, 12), report)
    assert killed[:2] == FIRST_CALLS[::2], "the injection must have hit"
    assert stopped == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_rotation_and_daemon_killed_at_every_write(
    filled: Practice, partner_ca: Authority, report: Callable[[str], None]
) -> None:
    needs_strace()
    killed, stopped = kill_everything(filled, partner_ca.issue(address=SENDER), range(1, 41), report)
    assert killed[:4] == FIRST_CALLS, "the injection must have hit"
    assert stopped == 20


SEEDED_BUGS = {
    # The old key goes as soon as the new one is in use.
    "key thrown away too early": """
from gateway.keys import body_key_file
whole = body_key_file.KeyFile._replace
body_key_file.KeyFile._replace = lambda self, keys: whole(self, keys[:1])
""",
    # The new key would reach the file at the end, and the process is killed before.
    "key used before it is on the disk": """
import os
from gateway.keys.body_key_file import KeyFile, new_key
from gateway.pipeline import body_keys
late = {}
def make_key(self, at):
    made = new_key(at)
    late[made.id] = made
    return made.id
find, ids, whole = KeyFile._find, KeyFile.ids, body_keys._rewrap_all
KeyFile.make_key = make_key
KeyFile._find = lambda self, kek_id: late.get(kek_id) or find(self, kek_id)
KeyFile.ids = lambda self: (*late, *ids(self))
async def dies(*words):
    await whole(*words)
    os.kill(os.getpid(), 9)
body_keys._rewrap_all = dies
""",
    # The row names the new key, and holds what was wrapped under the old one.
    "id without the wrapping": """
from dataclasses import replace
from gateway.pipeline import body_keys
body_keys._rewrapped = lambda ring, batch, target: ([(old, replace(old, kek_id=target)) for old in batch], [])
""",
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("bug", SEEDED_BUGS)
def test_the_harness_finds_a_seeded_bug(tmp_path: Path, partner_ca: Authority, bug: str) -> None:
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner_ca.pem)
    fill(practice, 5)
    assert unreadable(practice) == []
    code = f"{SEEDED_BUGS[bug]}\nfrom gateway.cli.main import main\nraise SystemExit(main())\n"
    words = [sys.executable, "-c", code, "keys", "rotate", "--config", str(practice.config)]
    subprocess.run(words, cwd=PROJECT, capture_output=True, timeout=60, check=False)
    assert unreadable(practice) != []


def test_the_harness_sees_a_loss_and_a_duplicate(tmp_path: Path) -> None:
    practice = Practice.make(tmp_path / "practice")
    assert violations([b"a"], [], practice) != []
    assert violations([b"a"], [b"a", b"a"], practice) != []
    assert violations([b"a"], [b"a", b"b"], practice) == []
