"""A message on which no decision could be made, whatever went wrong, was filed and then forgotten.

Its link job was set aside, and nobody was told: no reason in the audit log, no keyword that asks for a person. And what
went wrong while the table of patients was made at the start came up again when the daemon was stopped.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.cli.explain_report import past_decision
from gateway.core.audit import AuditQuery
from gateway.core.lifecycle import JobKind, State
from gateway.core.retry import SCHEDULES
from gateway.matching import judge
from gateway.settings import JobSettings
from gateway.weighing import Weighing
from gateway.workers.pool import Step, WorkerPool
from tests.support.store_samples import ALICE, accepted, inbound
from tests.unit.evidence.evidence_messages import cda, message, part
from tests.unit.pipeline.test_onward import Works, works


async def _until_set_aside(made: Works) -> None:
    # As the daemon has them: the pool is to see what else a step can do.
    steps: dict[JobKind, Step] = {JobKind.UNWRAP: made.unwrap, JobKind.FILE: made.file, JobKind.LINK: made.link}
    pool = WorkerPool(made.store, made.clock, steps, JobSettings(), lambda: 1.0, concurrency=4)
    for delay in (1, *SCHEDULES[JobKind.LINK], 1):
        await pool.drain()
        made.clock.advance(delay + 1)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "step by step"])
async def test_it_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool) -> None:
    def fault(*_: object, **__: object) -> None:
        raise ValueError("Quimby")

    monkeypatch.setattr(judge, "candidates", fault)
    with works(tmp_path, at_once=at_once) as made:
        made.mailbox("alice", ALICE)
        content = message(part(cda().encode(), "text/xml"))
        made.agent.answer = lambda *_: accepted(ALICE, content=content)
        message_id = await made.accept(inbound(b"raw", ALICE))
        await _until_set_aside(made)
        assert made.state(message_id) is State.FILED
        assert made.jobs() == [["link", "poison"]]
        query = AuditQuery(subject=message_id, action="message.unlinked")
        [event] = made.store.read_blocking(lambda tx: list(tx.audit.find(query)))
        told = past_decision(event)
        assert (told["decision"], told["rule"]) == ("unlinked", "evidence-1:not_all_read")
        assert told["inputs"]["error"].startswith("ValueError")
        assert "Quimby" not in event.detail
        assert made.ask("SELECT flags FROM mailbox_flag") == [["$DirectNeedsReview $DirectVerified"]]
        # Tried again after a repair, it is decided.
        monkeypatch.undo()
        made.store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.LINK, message_id))
        await made.work()
        found = made.store.read_blocking(lambda tx: list(tx.audit.find(query)))
        assert len(found) == 2
        assert made.jobs() == []


async def test_a_table_that_cannot_be_made_spoils_no_stop(tmp_path: Path) -> None:
    with works(tmp_path) as made:
        weighing = Weighing(made.store.read_blocking)

        def follow() -> None:
            raise ValueError

        weighing.follow = follow  # type: ignore[method-assign]
        await asyncio.wait_for(weighing.prepare(), 10)
