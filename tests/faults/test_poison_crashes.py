"""F30: a message whose judging ends the process, as a fault in native code does, and a daemon that is started again.

The daemon is real. A line that Python runs at its start makes the judge write to address 0 (SIGSEGV) when it sees one
certain message. After a few deaths it is judged by a process of its own, which dies alone; when that has happened often
enough the message is set aside for a person. The mail behind it comes through. Without the memory of lost attempts the
daemon would die for ever: that is the seeded bug.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice
from tests.support.pki import Authority

Report = Callable[[str], None]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SENDER = "lab@partner.example"
STACK = CryptographyStack()
MARK = b"Subject: poison"
LIVES = 8
SEGFAULT = f"""
import ctypes
from gateway.sta.agent import SecurityTrustAgent
judge = SecurityTrustAgent.judge
def fatal(self, raw, *words, **named):
    if {MARK!r} in raw:
        ctypes.string_at(0)
    return judge(self, raw, *words, **named)
SecurityTrustAgent.judge = fatal
# As many attempts as ever, and less waiting between them.
from gateway.workers import pool
after = pool.delay_after
def soon(*words):
    seconds = after(*words)
    return None if seconds is None else min(seconds, 0.2)
pool.delay_after = soon
"""
NO_MEMORY = """
# The seeded bug: an attempt that was lost with its process is not remembered.
from dataclasses import replace
from gateway.store.jobs import Jobs
claim = Jobs.claim
def forget(self, *words, **named):
    return [replace(job, lost=0) for job in claim(self, *words, **(named | {"lost_below": None}))]
Jobs.claim = forget
"""


def lives(tmp_path: Path, partner: Authority, monkeypatch: pytest.MonkeyPatch, code: str) -> tuple[int, list[str], int]:
    """Send the poison and two messages behind it; returns deaths, the poison's states, and how many others came in."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner.pem)
    signer, deaths = partner.issue(address=SENDER), 0
    (tmp_path / "sitecustomize.py").write_text(code)
    practice.start()
    try:
        poison = b"From: a@b.example\r\n" + MARK + b"\r\n\r\nx\r\n"
        assert practice.send(poison, SENDER, practice.addresses)[0] == 250
        inner = [inner_message(SENDER, practice.addresses, message_id=f"<{n}@partner.example>") for n in range(2)]
        waiting = [
            direct_message(
                STACK, one, sender=SENDER, recipients=practice.addresses, signer=signer, to=[practice.identity()]
            )
            for one in inner
        ]  # fmt: skip
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and deaths < LIVES:
            assert practice.process is not None
            if practice.process.poll() is not None:
                assert practice.process.returncode == -signal.SIGSEGV
                deaths += 1
                practice.kill()
                start(practice)
                continue
            try:
                while waiting and practice.send(waiting[0], SENDER, practice.addresses)[0] == 250:
                    waiting.pop(0)
                came = sum(one in inner for one in practice.inbox())
            except OSError:
                continue
            states = [f"{message['state']} {message['reason']}" for message in practice.messages()]
            if not waiting and came == len(inner) and not any(one.startswith("received") for one in states):
                return deaths, states, came
            time.sleep(0.3)
        return deaths, [f"{message['state']} {message['reason']}" for message in practice.messages()], -1
    finally:
        practice.kill()


def start(practice: Practice) -> None:
    """The daemon may die before it answers; then it is started again like any other."""
    try:
        practice.start()
    except AssertionError:
        assert practice.process is not None
        assert practice.process.poll() is not None, "it hangs"


def test_f30_a_message_that_kills_the_process_is_set_aside(
    tmp_path: Path, partner_ca: Authority, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    deaths, states, came = lives(tmp_path, partner_ca, monkeypatch, SEGFAULT)
    report(f"F30: points={deaths} deaths, states={sorted(states)} lost={2 - came} duplicated=0")
    assert 0 < deaths <= 3
    assert came == 2
    assert sorted(states) == ["filed ok", "filed ok", "refused resource_limit"]


def test_f30_the_harness_sees_a_gateway_that_forgets_its_deaths(
    tmp_path: Path, partner_ca: Authority, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    deaths, _, came = lives(tmp_path, partner_ca, monkeypatch, SEGFAULT + NO_MEMORY)
    report(f"F30 with the seeded bug of forgotten deaths: deaths={deaths}")
    assert deaths == LIVES
    assert came == -1
