"""A message whose isolated judgement never ended held its job, and with it all other mail, for ever (F30)."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway import agents
from gateway.core.message import Envelope
from gateway.settings import TrustSettings
from tests.support import dying

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ENVELOPE = Envelope("a@a.example", ("r@b.example",))
LARGE = b"x" * (4 << 20)
"""More than a pipe holds: the child that never reads it must not hold up whoever sends it."""


@pytest.fixture
def settings(tmp_path: Path) -> TrustSettings:
    return TrustSettings(identities_dir=tmp_path, anchors_dir=tmp_path, crls_dir=None)


def children() -> list[str]:
    return [one.name for one in multiprocessing.active_children() if one.name == "isolated-agent"]


async def test_a_child_that_hangs_is_killed_and_counts_as_a_crash(
    settings: TrustSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "_judge_here", dying.hang)
    with pytest.raises(agents.JudgeDiedError, match="took too long and was killed"):
        await agents.IsolatedAgent(settings, seconds=0.5)(LARGE, ENVELOPE, NOW)
    assert children() == []
    await _no_thread_waits()


async def test_a_child_is_killed_when_nobody_waits_for_it_any_longer(
    settings: TrustSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease was lost, or the gateway stops: the child would keep it from ending."""
    monkeypatch.setattr(agents, "_judge_here", dying.hang)
    judging = asyncio.ensure_future(agents.IsolatedAgent(settings)(LARGE, ENVELOPE, NOW))
    while not children():
        await asyncio.sleep(0.01)
    judging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await judging
    assert children() == []
    await _no_thread_waits()


async def test_an_error_that_cannot_be_sent_counts_as_a_crash_and_is_not_shown(
    settings: TrustSettings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agents, "_judge_here", dying.break_down)
    with pytest.raises(agents.JudgeDiedError):
        await agents.IsolatedAgent(settings)(LARGE, ENVELOPE, NOW)
    assert "Jane" not in capfd.readouterr().err


async def _no_thread_waits() -> None:
    deadline = time.monotonic() + 30
    while any(_is_waiting(thread) for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def _is_waiting(thread: threading.Thread) -> bool:
    """Whether one of the threads of ``asyncio.to_thread`` is in the middle of a question."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "ask" and frame.f_code.co_filename.endswith("agents.py"):
            return True
        frame = frame.f_back
    return False


def test_an_orphan_ends_by_itself(settings: TrustSettings) -> None:
    """The daemon may be killed while the child hangs; nobody else would end it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_hurried, args=(theirs,))
    child.start()
    ours.send((dying.hang, settings))
    child.join(30)
    assert child.exitcode == -14, "SIGALRM, which nothing can put off"


def _hurried(connection: object) -> None:
    agents._GRACE_SECONDS = 0
    agents._answer(connection, 0.2)  # type: ignore[arg-type]
