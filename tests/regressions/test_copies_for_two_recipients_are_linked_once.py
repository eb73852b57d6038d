"""A HISP that delivers to each recipient by itself must not put one message on the chart twice (promise 5, F14)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from gateway.core.lifecycle import JobKind, State
from gateway.core.message import Envelope
from gateway.core.verdict import Judgement
from gateway.inbox.change_hub import ChangeHub
from gateway.inbox.indexer import Indexer
from gateway.pipeline.accept import Accept
from gateway.pipeline.file import FileMessage
from gateway.pipeline.unwrap import Unwrap
from gateway.store.ids import new_id
from gateway.workers.pool import Step
from tests.support.store_samples import ALICE, BOB, InProcess, SteadyClock, accepted, inbound, open_store


class TrustingAgent:
    """Every ciphertext holds the same message."""

    def judge(self, raw: bytes, envelope: Envelope, at: datetime) -> Judgement:
        return accepted(*envelope.recipients)


@pytest.mark.parametrize("shared", [True, False])
async def test_the_second_copy_is_shown_to_its_recipient_and_not_linked_again(tmp_path: Path, shared: bool) -> None:
    clock = SteadyClock()
    with open_store(tmp_path) as store, ThreadPoolExecutor(1) as threads:
        boxes = {
            name: store.write_blocking(lambda tx, n=name, a=to: tx.mailboxes.create(n, clock.now(), a))  # type: ignore[misc]
            for name, to in {"alice": [ALICE], "bob": [BOB], **({"INBOX": [ALICE, BOB]} if shared else {})}.items()
        }
        accept = Accept(store, clock, lambda: new_id(clock.now()), lambda: None)
        steps: dict[JobKind, Step] = {
            JobKind.UNWRAP: Unwrap(store, TrustingAgent(), clock, threads, InProcess(TrustingAgent())),
            JobKind.FILE: FileMessage(store, Indexer(), clock, ChangeHub()),
        }
        first = await accept(inbound(b"ciphertext for alice", ALICE))
        second = await accept(inbound(b"ciphertext for bob", BOB))
        linked: list[str] = []
        while jobs := store.write_blocking(lambda tx: tx.jobs.claim(300, 10)):
            linked += [job.subject for job in jobs if job.kind is JobKind.LINK]
            for job in jobs:
                if job.kind in steps:
                    await steps[job.kind](job)
        counts = {n: len(store.read_blocking(lambda tx, b=b: tx.mailboxes.entries(b))) for n, b in boxes.items()}  # type: ignore[misc]
        states = store.read_blocking(lambda tx: (tx.messages.state(first), tx.messages.state(second)))
    assert set(counts.values()) == {1}
    assert states == (State.FILED, State.FILED)
    assert len(linked) == 1
