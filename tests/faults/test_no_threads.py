"""F05: no thread is to be had, from some moment of the start on or while the gateway runs.

strace lets each call for a thread fail: of a process from its start, or of one that runs. The harness is believed
because it finds a node that takes what no thread has written for written.
"""

from __future__ import annotations

import contextlib
import imaplib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.test_scarce_resources import processor_seconds
from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice, wait_for
from tests.support.intake_faults import Findings, History, Node, examine, message, need
from tests.support.pki import Authority

Report = Callable[[str], None]
THREADS = "clone,clone3"
SENDER = "lab@partner.example"
TO_THE_SPOOL = 600_000
"""Bytes of a message that a thread writes to the spool."""
COMMANDS_IN_IT = b"\r\nMAIL FROM:<evil@x.example>\r\nRCPT TO:<inbox@clinic.example>\r\nDATA\r\nsmuggled\r\n"


# --- at the start ---


def calls_of_a_start(folder: Path) -> int:
    """How many threads a node asks for until it listens; its tables are made by that."""
    log = folder / "calls"
    node = Node.start(folder, prefix=["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={THREADS}"])
    assert node is not None
    count = sum("resumed>" not in line and "(" in line for line in log.read_text().splitlines())
    assert node.stop() == 0
    return count


def without(folder: Path, number: int) -> tuple[Findings, list[str]]:
    """From the Nth call on each fails; returns what was answered, none when it did not start."""
    history = History()
    inject = f"inject={THREADS}:error=EAGAIN:when={number}+"
    prefix = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={THREADS}", "-e", inject]
    node = Node.start(folder, prefix=prefix)
    replies: list[str] = []
    if node is None:
        return Findings(points=1), replies
    with contextlib.suppress(OSError), node.connect() as wire:
        replies = [history.deliver(wire, message(number * 10 + one, size)) for one, size in enumerate((300, 300_000))]
        assert wire.ask("NOOP").startswith("250")
    node.stop()
    return examine(folder, history), replies


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_f05_no_threads_from_a_moment_of_the_start_on(tmp_path: Path, report: Report) -> None:
    """It does not start, or it refuses for now what it has no thread for, or it had all that it asks for."""
    need("strace")
    found, refused, started, number = Findings(), 0, 0, 0
    most = calls_of_a_start(tmp_path)
    while True:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        now, replies = without(folder, number)
        found += now
        started += bool(replies)
        assert all(reply.startswith(("250", "451 4.3.0")) for reply in replies), replies
        refused += sum(reply.startswith("451") for reply in replies)
        if number > most and replies and all(reply.startswith("250") for reply in replies):
            break
        assert number < most + 20, "the walk must reach a run that has all the threads it asks for"
    report(found.line("F05 (threads, at the start)") + f" started={started}/{number} refused={refused}")
    assert refused, "a large message must have met the fault"
    assert found.violations == 0


# --- while it runs ---


def is_traced(pid: int) -> bool:
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.append((thread / "status").read_text().split("TracerPid:")[1].split()[0] != "0")
    return all(found)


@contextlib.contextmanager
def none_to_be_had(pid: int, log: Path) -> Iterator[None]:
    """Meanwhile a process that runs gets no thread and no child; the log tells of each that it asked for."""
    words = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={THREADS}", "-e", f"inject={THREADS}:error=EAGAIN"]
    tracer = subprocess.Popen([*words, "-p", str(pid)], stderr=subprocess.PIPE)
    try:
        wait_for(lambda: tracer.poll() is not None or is_traced(pid), what="the tracer")
        if tracer.poll() is not None:
            pytest.skip("this user may not trace a process that runs")
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=10)


def starved(tmp_path: Path, *options: str) -> tuple[Findings, list[str], list[str], float]:
    """Small and large mail while there is no thread, and when there is one; what was answered, and how busy it was."""
    folder, log, history = tmp_path / "node", tmp_path / "calls", History()
    folder.mkdir()
    node = Node.start(folder, *options)
    assert node is not None
    with node.connect() as wire:
        with none_to_be_had(node.process.pid, log):
            replies = [history.deliver(wire, message(number)) for number in range(3)]
            for number in range(10, 14):
                raw = message(number, TO_THE_SPOOL)
                replies.append(history.deliver(wire, raw + COMMANDS_IN_IT))
            began, cpu = time.monotonic(), processor_seconds(node.process.pid)
            time.sleep(0.5)
            busy = (processor_seconds(node.process.pid) - cpu) / (time.monotonic() - began)
            assert wire.ask("NOOP").startswith("250"), "the session must go on"
        again = [history.deliver(wire, message(20 + number, TO_THE_SPOOL)) for number in range(3)]
    assert "INJECTED" in log.read_text(), "nothing asked for a thread"
    assert node.stop() == 0
    return examine(folder, history), replies, again, busy


@pytest.mark.timeout(60)
def test_f05_no_threads_while_it_runs(tmp_path: Path, report: Report) -> None:
    """What needs a thread is refused for now and read to its end; nothing in it is a command; it recovers."""
    need("strace")
    found, replies, again, busy = starved(tmp_path)
    refused = sum(reply.startswith("451 4.3.0") for reply in replies)
    found.points = len(replies)
    report(found.line("F05 (threads, while it runs)") + f" refused={refused} busy={busy * 100:.0f}%")
    assert [reply[:3] for reply in replies] == ["250"] * 3 + ["451"] * 4
    assert all(reply.startswith("250") for reply in again), again
    assert busy < 0.5
    assert found.violations == 0


@pytest.mark.timeout(60)
def test_f05_the_harness_finds_half_a_message(tmp_path: Path, report: Report) -> None:
    need("strace")
    found, _, _, _ = starved(tmp_path, "--bug", "half-a-message")
    report(found.line("F05 (threads) with the seeded bug half-a-message"))
    assert found.lost > 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_f05_a_daemon_without_threads_delivers_when_it_has_them(
    practice: Practice, tmp_path: Path, partner_ca: Authority, report: Report
) -> None:
    """Nobody can be judged, logged in or read without a thread: all of that waits, and what was acknowledged comes."""
    need("strace")
    assert practice.process is not None
    pid, signer, log = practice.process.pid, partner_ca.issue(address=SENDER), tmp_path / "calls"
    acked: list[bytes] = []
    codes: list[int] = []
    with none_to_be_had(pid, log):
        for number in range(6):
            name = f"<{number}@partner.example>"
            inner = inner_message(SENDER, practice.addresses, message_id=name)
            raw = direct_message(
                CryptographyStack(), inner, sender=SENDER, recipients=practice.addresses, signer=signer,
                to=[practice.identity()], message_id=name,
            )  # fmt: skip
            codes.append(practice.send(raw, SENDER, practice.addresses)[0])
            if codes[-1] == 250:
                acked.append(inner)
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            practice.inbox()
        began, cpu = time.monotonic(), processor_seconds(pid)
        time.sleep(1)
        busy = (processor_seconds(pid) - cpu) / (time.monotonic() - began)
    assert "INJECTED" in log.read_text(), "nothing asked for a thread"
    assert practice.process.poll() is None, "the daemon must live"
    wait_for(lambda: set(acked) <= set(practice.inbox()), timeout=60, what="all that was acknowledged")
    inbox = practice.inbox()
    again = max(0, len(inbox) - len(set(inbox)))
    report(f"F05 (threads, daemon): points={len(codes)} lost=0 duplicated={again} acked={len(acked)} busy={busy:.0%}")
    assert set(codes) <= {250, 451}
    assert acked
    assert again == 0
    assert busy < 0.5
