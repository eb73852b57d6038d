"""A message that came once for each recipient must not get onto two charts without a warning (S47, promise 4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.charts.service import Charts
from gateway.core.errors import ConflictError
from gateway.core.lifecycle import State
from gateway.ports import Patient, UnitOfWork
from tests.support.store_samples import ALICE, BOB, NOW, SteadyClock, accepted, inbound, open_store


def add_copies(tx: UnitOfWork) -> None:
    tx.patients.upsert([Patient("p1"), Patient("p2")], "csv", NOW)
    for message_id, recipient in (("M1", ALICE), ("M2", BOB)):
        tx.messages.add_raw(message_id, NOW, inbound(message_id.encode(), recipient))
        tx.messages.set_state(message_id, State.RECEIVED, NOW)
        tx.messages.add_content(message_id, accepted(recipient))
        tx.messages.set_state(message_id, State.UNWRAPPED, NOW)
        tx.messages.set_state(message_id, State.FILED, NOW)


@pytest.mark.parametrize(("first", "second"), [("M1", "M2"), ("M2", "M1")])
async def test_another_chart_is_a_conflict_and_the_same_one_changes_nothing(
    tmp_path: Path, first: str, second: str
) -> None:
    with open_store(tmp_path) as store:
        store.write_blocking(add_copies)
        ids = iter(["L1", "L2", "L3"])
        charts = Charts(store, SteadyClock(), lambda: next(ids))
        assert (await charts.link(first, "p1", actor="olga")).created
        with pytest.raises(ConflictError):
            await charts.link(second, "p2", actor="olga")
        again = await charts.link(second, "p1", actor="olga")
        assert not again.created
        assert again.link.message_id == first
