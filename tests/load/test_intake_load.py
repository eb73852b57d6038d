"""What the intake costs under load, with the real daemon and its defaults: memory, and how long others wait.

Slow, run by ``make test-all``; the numbers stand in the summary. Times are those of the clock on the wall, which depend
on what else the machine does: they are told, and only a sender that is starved fails the test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Self

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message
from tests.support.gateway_process import Practice, wait_for
from tests.support.intake_faults import PROJECT
from tests.support.pki import Authority

SENDER = "lab@partner.example"
LARGE_BYTES = 25_000_000
PEAK_BYTES = 200_000_000
GROWN_BYTES = 80_000_000
"""What any attack may cost. Messages that arrive may take 32 MiB of it, a thousand connections without a slot a few."""
pytestmark = pytest.mark.slow


def memory(practice: Practice, key: str) -> int:
    """In bytes."""
    assert practice.process is not None
    status = Path(f"/proc/{practice.process.pid}/status").read_text()
    return int(status.split(f"{key}:")[1].split()[0]) * 1024


@pytest.fixture
def clinic(tmp_path: Path, partner_ca: Authority) -> Iterator[Practice]:
    made = Practice.make(tmp_path / "practice")
    made.trust(partner_ca.pem)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def large(practice: Practice, authority: Authority, number: int) -> tuple[bytes, bytes]:
    """A genuine message of 25 MB on the wire."""
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = SENDER, practice.addresses[0], f"large {number}"
    message["Date"], message["Message-ID"] = "Mon, 05 Jan 2026 12:00:00 +0000", f"<large{number}@partner.example>"
    message.set_content("see\r\n")
    # Base64 twice, each with line ends: of the attachment, and of the CMS object.
    payload = os.urandom(int(LARGE_BYTES / 1.369 / 1.369))
    message.add_attachment(payload, maintype="application", subtype="pdf", filename="large.pdf")
    message.set_boundary("=_large")
    inner = bytes(message)
    raw = direct_message(
        CryptographyStack(), inner, sender=SENDER, recipients=practice.addresses,
        signer=authority.issue(address=SENDER), to=[practice.identity()], message_id=f"<large{number}@partner.example>",
    )  # fmt: skip
    assert LARGE_BYTES * 0.98 < len(raw) < LARGE_BYTES * 1.05
    return inner, raw


@pytest.mark.timeout(300)
def test_ten_large_messages_at_once(clinic: Practice, partner_ca: Authority, report: Callable[[str], None]) -> None:
    """The peak of the daemon stays below 200 MB, until all of them are filed and were read by IMAP."""
    made = [large(clinic, partner_ca, number) for number in range(10)]
    idle, answers = memory(clinic, "VmRSS"), []

    def send(raw: bytes) -> None:
        answers.append(clinic.send(raw, SENDER, clinic.addresses)[0])

    threads = [threading.Thread(target=send, args=(raw,)) for _, raw in made]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    arrived = memory(clinic, "VmHWM")
    wait_for(lambda: len(clinic.messages()) == 10, timeout=60, what="ten messages")
    wait_for(lambda: all(one["state"] == "filed" for one in clinic.messages()), timeout=120, what="all to be filed")
    seconds = time.monotonic() - began
    peak = memory(clinic, "VmHWM")
    shown = clinic.inbox()
    at_last = memory(clinic, "VmHWM")
    report(
        f"ten messages of 25 MB: acknowledged={answers.count(250)} idle={idle / 1e6:.0f} MB "
        f"received={arrived / 1e6:.0f} MB filed={peak / 1e6:.0f} MB read={at_last / 1e6:.0f} MB seconds={seconds:.0f}"
    )
    assert answers == [250] * 10
    assert sorted(shown) == sorted(inner for inner, _ in made)
    assert at_last < PEAK_BYTES


class Other:
    """A process of tests.support.attackers."""

    def __init__(self, kind: str, practice: Practice) -> None:
        command = [sys.executable, "-m", "tests.support.attackers", kind, str(practice.smtp_port)]
        self._process = subprocess.Popen(
            [*command, practice.addresses[0]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT
        )

    def ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def end(self) -> dict[str, int]:
        told, _ = self._process.communicate(timeout=60)
        return dict(json.loads(told))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.communicate()


def milliseconds_at_most() -> float:
    """The aim is one second when the machine has nothing else to do; this finds a sender that is starved."""
    return 1_000 * max(3, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("attack", ["idle", "idle_everywhere", "slow", "line_bomb", "recipients"])
def test_others_are_served_beside(attack: str, clinic: Practice, report: Callable[[str], None]) -> None:
    """An attack from the very address of an honest sender, or from a hundred: he is served, and memory stays flat."""
    with Other("senders", clinic) as warm:
        warm.ready()
        time.sleep(1)
        warm.end()
    base = memory(clinic, "VmRSS")
    with Other(attack, clinic) as attackers, Other("senders", clinic) as senders:
        attackers.ready()
        senders.ready()
        time.sleep(12)
        waits = senders.end()
        got = attackers.end()
    grown = memory(clinic, "VmHWM") - base
    report(
        f"beside {attack}: "
        + " ".join(f"{name.replace(' ', '-')}={value}" for name, value in waits.items())
        + f" grown={grown / 1e6:.0f} MB; attack: "
        + " ".join(f"{name.replace(' ', '-')}={value}" for name, value in got.items())
    )
    assert got
    assert waits["sent"] > 10
    assert waits["p99 ms"] < milliseconds_at_most()
    assert grown < GROWN_BYTES
