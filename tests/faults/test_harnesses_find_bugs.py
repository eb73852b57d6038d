"""The experiments of test_smtp_abuse, F15, F16 and F43 against gateways with a bug in them: each must find its bug.

An experiment that passes whatever the gateway does proves nothing. The real daemon runs with a few lines that Python
runs at its start; the experiment is the very function that a sound gateway passes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP

from gateway.ingress.session import Session
from gateway.ingress.smtp_server import SMTPListener
from gateway.ingress.wire import Wire
from tests.faults import test_scarce_resources as scarce
from tests.faults import test_smtp_abuse as abuse
from tests.support.gateway_process import Practice
from tests.support.pki import Authority
from tests.unit.ingress import test_smtp_faults as smtp_faults

Report = Callable[[str], None]
pytestmark = pytest.mark.timeout(180)

NOT_RECOGNISED = """
from gateway.store.messages import Messages
Messages.find_transport_duplicate = lambda *_: None
"""
SHOWN_TWICE = """
# Nobody looks whether the content is in the mailbox already.
from types import SimpleNamespace
from gateway.store import mailboxes
ask = mailboxes._TO_ADD.first
def first(*args, **values):
    found = ask(*args, **values)
    fields = ("indexed", "there", "uid_next", "highest_modseq")
    return found and SimpleNamespace(present=False, **{field: getattr(found, field) for field in fields})
mailboxes._TO_ADD = SimpleNamespace(first=first)
"""
BARE_LINE_FEEDS = """
from gateway.ingress.data_reader import DataReader, Problem
refuse = DataReader._refuse
def lax(self, problem):
    if problem not in {Problem.BARE_NEWLINE, Problem.NUL}:
        refuse(self, problem)
DataReader._refuse = lax
"""
ANOTHER_END = """
# A line feed and a dot pass for the end of the message.
from gateway.ingress.data_reader import DataReader
feed = DataReader.feed
DataReader.feed = lambda self, chunk: feed(self, chunk.replace(b"\\n.\\n", b"\\r\\n.\\r\\n"))
"""
AN_OBJECT_FOR_EACH_LINE = """
from gateway.ingress.data_reader import DataReader
take, kept = DataReader._take, []
def hoard(self, piece):
    kept.extend(bytearray(1) for _ in range(piece.count(b"\\n") // 6))
    take(self, piece)
DataReader._take = hoard
"""
NO_END_OF_COMMANDS = """
from gateway.ingress.session import Session
serve = Session._serve_command
async def patient(self, line):
    self._idle_commands = 0
    await serve(self, line)
Session._serve_command = patient
"""
NO_DEADLINES = """
from gateway.ingress.limits import SMTPLimits
SMTPLimits.silence_seconds = lambda *_, **__: 3600.0
SMTPLimits.data_seconds_left = lambda *_, **__: 3600.0
"""
CLEAR_TEXT_REACHES_INTO_TLS = """
from gateway.ingress.wire import Wire
async def forgetful(self):
    self.kept = bytes(self._pending) + bytes(self._reader._buffer)
    self._pending.clear()
    await self._reader.read(len(self._reader._buffer)) if self._reader._buffer else None
Wire._discard_plaintext = forgetful
made = Wire.connection_made
def with_what_was_kept(self, transport):
    made(self, transport)
    self._pending += getattr(self, "kept", b"")
Wire.connection_made = with_what_was_kept
"""
A_WORD_TOO_MUCH = """
import sys
from gateway.ingress.session import Session
mail = Session._on_mail
async def chatty(self, arg):
    print("mail from", arg, file=sys.stderr, flush=True)
    await mail(self, arg)
Session._on_mail = chatty
"""
AN_END_WITHOUT_GOODBYE = """
from gateway.ingress.smtp_server import SMTPListener
async def close(self, grace_seconds):
    pass
SMTPListener.close = close
"""
NO_LOCK = """
from gateway.store.files import FileLock
FileLock.acquire = FileLock.release = lambda self: None
"""

Experiment = Callable[[Practice, Authority, Report], object]
SEEDED: dict[str, tuple[str, Experiment]] = {
    "F13, a repetition is not recognised": (NOT_RECOGNISED, abuse.test_f13_a_reply_that_was_lost),
    "F14, the same content is filed again": (SHOWN_TWICE, abuse.test_f14_the_same_message_under_another_encryption),
    "F17, bare line feeds are taken": (
        BARE_LINE_FEEDS, lambda gate, _, report: abuse.test_f17_nothing_but_crlf_dot_crlf_ends_a_message(gate, report)
    ),
    "F17, another end of data": (
        ANOTHER_END, lambda gate, _, report: abuse.test_f17_nothing_but_crlf_dot_crlf_ends_a_message(gate, report)
    ),
    "F18, an object for each line": (
        AN_OBJECT_FOR_EACH_LINE, lambda gate, _, report: abuse.test_f18_a_message_of_line_ends(gate, report)
    ),
    "F19, commands without end": (
        NO_END_OF_COMMANDS,
        lambda gate, _, report: abuse.test_f19_recipients_commands_and_messages_without_end(gate, report),
    ),
    "F20, no deadlines": (
        NO_DEADLINES, lambda gate, _, report: abuse.test_f20_slow_senders_are_sent_away(gate, report)
    ),
    "F21, clear text reaches into TLS": (
        CLEAR_TEXT_REACHES_INTO_TLS,
        lambda gate, _, report: abuse.test_f21_what_was_sent_in_the_clear_is_forgotten_by_starttls(gate, report),
    ),
    "F38, an address in the log": (A_WORD_TOO_MUCH, abuse.test_f38_no_canary_leaves_the_gateway),
    "F43, no lock": (NO_LOCK, lambda gate, _, report: scarce.test_f43_a_second_daemon_is_refused(gate, report)),
}  # fmt: skip


@contextlib.contextmanager
def with_bug(folder: Path, bug: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every daemon that is started meanwhile has the bug."""
    seeded = folder / "seeded"
    seeded.mkdir()
    (seeded / "sitecustomize.py").write_text(bug)
    monkeypatch.setenv("PYTHONPATH", str(seeded))
    yield
    monkeypatch.delenv("PYTHONPATH")


def unheard(_line: str) -> None:
    """What an experiment reports of a gateway with a bug is no result."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDED)
def test_the_experiment_finds_its_bug(
    tmp_path: Path, partner_ca: Authority, monkeypatch: pytest.MonkeyPatch, report: Report, name: str
) -> None:
    bug, experiment = SEEDED[name]
    practice = abuse.quick(Practice.make(tmp_path / "practice"))
    practice.trust(partner_ca.pem)
    with with_bug(tmp_path, bug, monkeypatch):
        practice.start()
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            experiment(practice, partner_ca, unheard)
    finally:
        practice.kill()
    report(f"{name}: found")


@pytest.mark.slow
def test_f39_finds_an_end_without_goodbye(
    tmp_path: Path, partner_ca: Authority, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    with with_bug(tmp_path, AN_END_WITHOUT_GOODBYE, monkeypatch), pytest.raises(AssertionError):
        abuse.test_f39_sigterm_while_a_message_comes_in(tmp_path, partner_ca, unheard)
    report("F39, an end without goodbye: found")


async def test_f15_finds_a_commit_that_ends_with_its_session(monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    """As the base class has it: the session is cancelled when the client leaves, and the commit with it."""

    async def commit(self: SMTPListener, inbound: object) -> str:
        return await self._accept(inbound)  # type: ignore[arg-type]

    monkeypatch.setattr(SMTPListener, "commit", commit)
    monkeypatch.setattr(Wire, "connection_lost", SMTP.connection_lost)
    monkeypatch.setattr(Session, "connection_lost", SMTP.connection_lost)
    with pytest.raises((AssertionError, TimeoutError)):
        async with asyncio.timeout(2):
            await smtp_faults.test_a_client_that_leaves_does_not_stop_the_commit(smtp_faults.reset)
    report("F15, a commit that ends with its session: found")


async def test_f16_finds_a_reply_that_tells_all(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, report: Report
) -> None:
    """As the base class has it: 500, with the class and the text of the error."""

    async def handle_exception(_self: Session, error: Exception) -> str:
        return f"500 Error: ({type(error).__name__}) {error}"

    monkeypatch.setattr(Session, "handle_exception", handle_exception)
    error, expected = smtp_faults.FAULTS[0]
    with pytest.raises(AssertionError):
        await smtp_faults.test_a_fault_of_ours_is_temporary_and_tells_nothing(error, expected, caplog)
    report("F16, a reply that tells all: found")
