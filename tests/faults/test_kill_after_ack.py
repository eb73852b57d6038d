"""``kill -9`` between ``250`` and the inbox: after a restart every acknowledged message is there, once (F01, F13).

The history of acknowledgements is kept by the client, not by the gateway. The harness is believed because of
``test_the_harness_sees_a_loss``: it must report a loss that is really there.
"""

from __future__ import annotations

import contextlib
import shutil
import smtplib
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice
from tests.support.pki import Authority, Identity

SENDER = "lab@partner.example"
STACK = CryptographyStack()
POINTS = {"pwrite64": range(-4, 60, 2), "fdatasync": range(-1, 8), "sendto": range(-2, 22)}
"""By system call: which of its calls kill the daemon, counted from the last one of its start."""


def make(practice: Practice, signer: Identity, number: int) -> tuple[bytes, bytes]:
    inner = inner_message(
        SENDER, practice.addresses, message_id=f"<{number}@partner.example>", subject=f"Result {number}"
    )
    raw = direct_message(
        STACK, inner, sender=SENDER, recipients=practice.addresses, signer=signer, to=[practice.identity()],
        message_id=f"<{number}@partner.example>",
    )  # fmt: skip
    return inner, raw


def violations(acknowledged: Sequence[bytes], inbox: Sequence[bytes]) -> list[str]:
    """What breaks "acked is a subset of stored, each once"."""
    found = []
    for index, inner in enumerate(acknowledged):
        count = inbox.count(inner)
        if count != 1:
            found.append(f"acknowledged message {index} is in the inbox {count} times")
    return found


def test_the_harness_sees_a_loss_and_a_duplicate() -> None:
    assert violations([b"a"], []) != []
    assert violations([b"a"], [b"a", b"a"]) != []
    assert violations([b"a"], [b"a", b"b"]) == []


def rounds(practice: Practice, partner: Authority, count: int) -> None:
    signer = partner.issue(address=SENDER)
    acknowledged: list[bytes] = []
    for number in range(count):
        inner, raw = make(practice, signer, number)
        code, _ = practice.send(raw, SENDER, practice.addresses)
        assert code == 250
        acknowledged.append(inner)
        practice.kill()
        practice.start()
    practice.settled(count)
    assert violations(acknowledged, practice.inbox()) == []


def test_killed_right_after_250(practice: Practice, partner_ca: Authority) -> None:
    rounds(practice, partner_ca, 2)


@pytest.mark.slow
def test_killed_right_after_250_many_times(practice: Practice, partner_ca: Authority) -> None:
    rounds(practice, partner_ca, 15)


def calls_of_a_start(practice: Practice, call: str, raw: bytes) -> int:
    """How many such calls the thread makes, until the daemon answers, that makes most of them for a message.

    strace counts the calls of each thread by themselves. Not of the first start of all: that one makes the tables.
    """
    practice.start()
    practice.kill()
    log = practice.directory / "calls"
    practice.prefix = ["strace", "-f", "-qq", "-ttt", "-o", str(log), "-e", f"trace={call}"]
    practice.start()
    started = time.time()
    assert practice.send(raw, SENDER, practice.addresses)[0] == 250
    practice.settled(1)
    practice.kill()
    lines = [line.split(None, 2) for line in log.read_text().splitlines() if f"{call}(" in line]
    message = Counter(thread for thread, when, _ in lines if float(when) >= started)
    [(busiest, _)] = message.most_common(1)
    return sum(thread == busiest for thread, _, _ in lines) - message[busiest]


def ended(practice: Practice) -> bool:
    """Whether the daemon was killed: strace ends a moment after it."""
    assert practice.process is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        practice.process.wait(1)
    return practice.process.poll() is not None


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("call", POINTS)
def test_killed_at_every_system_call(
    tmp_path: Path, partner_ca: Authority, call: str, report: Callable[[str], None]
) -> None:
    """F01: strace kills the daemon at the Nth write, sync or reply while a message is coming in."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner_ca.pem)
    signer = partner_ca.issue(address=SENDER)
    acknowledged: list[bytes] = []
    unsure: list[bytes] = []
    killed = 0
    inner, raw = make(practice, signer, 0)
    first = calls_of_a_start(practice, call, raw)
    acknowledged.append(inner)
    for number in (first + point for point in POINTS[call]):
        practice.prefix = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                           f"inject={call}:signal=SIGKILL:when={number}"]  # fmt: skip
        inner, raw = make(practice, signer, number)
        try:
            practice.start()
            code, _ = practice.send(raw, SENDER, practice.addresses)
            (acknowledged if code == 250 else unsure).append(inner)
        except (OSError, AssertionError, smtplib.SMTPException):
            unsure.append(inner)
        killed += ended(practice)
        practice.kill()
    practice.prefix = ()
    practice.start()
    try:
        practice.settled(len(acknowledged))
        inbox = practice.inbox()
        assert killed, "the injection must have hit at least once"
        assert len(acknowledged) > 1, "no message was acknowledged: all kills were in the start"
        assert violations(acknowledged, inbox) == []
        assert all(inbox.count(inner) <= 1 for inner in unsure)
        report(f"F01 (daemon, {call}): points={killed} acked={len(acknowledged)} lost=0 duplicated=0")
    finally:
        practice.stop()
