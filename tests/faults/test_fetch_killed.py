"""``kill -9`` of the daemon at each step of fetching: nothing is lost and nothing is doubled (F01, F13).

The upstream server is the test's own, so that it knows exactly how far the daemon has come when it dies. The harness
is believed because of ``test_the_harness_sees_a_loss_and_a_duplicate``.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gateway_process import Practice, wait_for
from tests.support.pki import Authority
from tests.support.scripted_imap import ScriptedIMAP, Writer
from tests.support.upstream import SENDER, message, subscribe

pytestmark = pytest.mark.slow
"""Kills take a process each: `make test-all` runs them; `make test` has tests/faults/test_kill_after_ack.py."""

STEPS = ["asked for the message", "message half sent", "message sent", "asked to mark", "marked"]
MESSAGES = 4


def violations(inner: list[bytes], inbox: list[bytes]) -> list[int]:
    """Which of the messages are not in the inbox exactly once."""
    return [number for number, one in enumerate(inner) if inbox.count(one) != 1]


def test_the_harness_sees_a_loss_and_a_duplicate() -> None:
    assert violations([b"a", b"b"], [b"a"]) == [1]
    assert violations([b"a"], [b"a", b"a"]) == [0]
    assert violations([b"a"], [b"a"]) == []


@contextlib.contextmanager
def upstream(server: ScriptedIMAP) -> Iterator[None]:
    """The server in a thread of its own."""
    loop = asyncio.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with server:
            started.set()
            await stop.wait()
        await asyncio.sleep(0.1)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    started.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


class Killer:
    """Kills the daemon once it has come to the step, each time it comes there, so many times."""

    def __init__(self, practice: Practice, server: ScriptedIMAP, step: str, times: int) -> None:
        self._practice = practice
        self._server = server
        self._step = step
        self._left = times
        self._last = 0
        self.killed = 0

    def __call__(self, tag: str, words: list[str], writer: Writer) -> bytes | None:
        text = " ".join(words)
        asked, mark = "BODY.PEEK[]" in text, "STORE" in words
        if self._left <= 0 or not (asked or mark):
            return None
        honest = self._server._uid(words[1].upper(), words[2:])
        ok = f"{tag} OK done\r\n".encode()
        if asked and self._step.startswith("message"):
            half = len(honest) // 2
            writer.write(honest[:half] if "half" in self._step else honest + ok)
            # Enough for the daemon to begin with it, each time a little further.
            delay = 0.004 * self._left
            asyncio.get_running_loop().call_later(delay, self._kill)
            return b""
        if (self._step == "asked for the message" and asked) or (self._step == "asked to mark" and mark):
            if mark:
                for flags in self._server.flags.values():
                    flags.clear()
            self._kill()
            return b""
        if self._step == "marked" and mark:
            self._kill()
            return b""
        return None

    def _kill(self) -> None:
        process = self._practice.process
        if process is not None and process.pid != self._last and process.poll() is None:
            # Once for each daemon: it may ask for two messages before it is killed, and takes a moment to die.
            process.send_signal(signal.SIGKILL)
            self._last = process.pid
            self.killed += 1
            self._left -= 1


def rounds(practice: Practice, signer_ca: Authority, step: str, times: int, report: Callable[[str], None]) -> None:
    signer = signer_ca.issue(address=SENDER)
    made = [message(practice, signer, number) for number in range(MESSAGES)]
    server = ScriptedIMAP(password="upstream pass {word}")
    for _, raw in made:
        server.put(raw)
    killer = Killer(practice, server, step, times)
    server.override = killer
    with upstream(server):
        subscribe(practice, host="127.0.0.1", port=server.port, tls="none", ca_file="")
        for number in range(MESSAGES, MESSAGES + times):
            # What came in before the kills of earlier rounds is not asked for again, and this round needs a message.
            made.append(message(practice, signer, number))
            server.put(made[-1][1])
            with contextlib.suppress(AssertionError):
                practice.start()
            assert practice.process is not None
            wait_for(lambda: practice.process.poll() is not None, what="the daemon's death")  # type: ignore[union-attr]
            practice.kill()
        practice.start()
        inner = [one for one, _ in made]
        wait_for(lambda: set(inner) <= set(practice.inbox()), what="every message in the inbox")
        wait_for(lambda: all("\\Seen" in flags for flags in server.flags.values()), what="\\Seen upstream")
        assert killer.killed == times
        assert violations(inner, practice.inbox()) == []
        assert len(practice.messages()) == len(made), "nothing was even taken in twice"
        report(f"F01 (fetching, {step}): points={killer.killed} messages={len(made)} lost=0 duplicated=0")


@pytest.fixture
def clinic(tmp_path: Path, partner_ca: Authority) -> Iterator[Practice]:
    made = Practice.make(tmp_path / "practice")
    made.trust(partner_ca.pem)
    yield made
    made.stop()


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step(clinic: Practice, partner_ca: Authority, step: str, report: Callable[[str], None]) -> None:
    rounds(clinic, partner_ca, step, 2, report)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step_many_times(
    clinic: Practice, partner_ca: Authority, step: str, report: Callable[[str], None]
) -> None:
    rounds(clinic, partner_ca, step, 12, report)


POINTS: dict[str, Callable[[int], range]] = {
    "pwrite64": lambda first: range(first, first + 60, 3),
    "fdatasync": lambda first: range(first, first + 16),
    "sendto": lambda first: range(first, first + 20),
}
"""Which calls kill the daemon, from the first ones of its start on."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("call", POINTS)
def test_killed_at_every_system_call_of_a_look(
    tmp_path: Path, partner_ca: Authority, call: str, report: Callable[[str], None]
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner_ca.pem)
    signer = partner_ca.issue(address=SENDER)
    server = ScriptedIMAP(password="upstream pass {word}")
    inner, killed = [], 0
    with upstream(server):
        subscribe(practice, host="127.0.0.1", port=server.port, tls="none", ca_file="")
        for number in POINTS[call](1):
            one, raw = message(practice, signer, number)
            inner.append(one)
            server.put(raw)
            practice.prefix = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                               f"inject={call}:signal=SIGKILL:when={number}"]  # fmt: skip
            with contextlib.suppress(AssertionError):
                practice.start()
                wait_for(lambda: not _alive(practice), timeout=3, what="the daemon's death")
            killed += not _alive(practice)
            practice.kill()
        practice.prefix = ()
        practice.start()
        try:
            wait_for(lambda: set(inner) <= set(practice.inbox()), timeout=60, what="every message in the inbox")
            assert killed, "the injection must have hit at least once"
            assert violations(inner, practice.inbox()) == []
            assert len(practice.messages()) == min(50, len(inner))
            report(f"F01 (fetching, {call}): points={killed} messages={len(inner)} lost=0 duplicated=0")
        finally:
            practice.stop()


def _alive(practice: Practice) -> bool:
    return practice.process is not None and practice.process.poll() is None
