"""``kill -9`` between ``250`` and the inbox: after a restart every acknowledged message is there, once (F01, F13).

The history of acknowledgements is kept by the client, not by the gateway. The harness is believed because of
``test_the_harness_sees_a_loss``: it must report a loss that is really there.
"""

from __future__ import annotations

import shutil
import smtplib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice
from tests.support.pki import Authority, Identity

SENDER = "lab@partner.example"
STACK = CryptographyStack()
POINTS = {"pwrite64": (12, 60), "fdatasync": (1, 25), "sendto": (1, 25)}
"""By system call: which of its calls kill the daemon, the first ones being those of its start."""


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
    rounds(practice, partner_ca, 3)


@pytest.mark.slow
def test_killed_right_after_250_many_times(practice: Practice, partner_ca: Authority) -> None:
    rounds(practice, partner_ca, 15)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("call", POINTS)
def test_killed_at_every_system_call(tmp_path: Path, partner_ca: Authority, call: str) -> None:
    """F01: strace kills the daemon at the Nth write, sync or reply while a message is coming in."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner_ca.pem)
    signer = partner_ca.issue(address=SENDER)
    acknowledged: list[bytes] = []
    unsure: list[bytes] = []
    killed = 0
    for number in range(*POINTS[call]):
        practice.prefix = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                           f"inject={call}:signal=SIGKILL:when={number}"]  # fmt: skip
        inner, raw = make(practice, signer, number)
        try:
            practice.start()
            code, _ = practice.send(raw, SENDER, practice.addresses)
            (acknowledged if code == 250 else unsure).append(inner)
        except (OSError, AssertionError, smtplib.SMTPException):
            unsure.append(inner)
        killed += practice.process is not None and practice.process.poll() is not None
        practice.kill()
    practice.prefix = ()
    practice.start()
    try:
        practice.settled(len(acknowledged))
        inbox = practice.inbox()
        assert killed, "the injection must have hit at least once"
        assert violations(acknowledged, inbox) == []
        assert all(inbox.count(inner) <= 1 for inner in unsure)
    finally:
        practice.stop()
