"""What a start says of the stop before it does not depend on the clock (ON-17).

The events of a node have an order, the chain. A clock that was ahead for a while leaves events behind that bear a later
time than everything after them: taken for the newest, they hide that the gateway was killed since, and have every start
of the next hours, or years, say once more that the clock was set back.
"""

from __future__ import annotations

import json
from pathlib import Path

from gateway.auditing.lifecycle import CLOCK_BEHIND, STARTED, record_start, record_stop
from gateway.core.audit import CHAIN_ORDER, AuditEvent, AuditQuery
from gateway.settings import Settings
from gateway.store.sql_store import SQLStore
from tests.support.store_samples import SteadyClock, open_store


def events(store: SQLStore, action: str) -> list[AuditEvent]:
    query = AuditQuery(action=action, sort=CHAIN_ORDER, ascending=True)
    return store.read_blocking(lambda tx: tx.audit.find(query))


async def test_a_kill_shows_although_the_clock_was_ahead_before(tmp_path: Path) -> None:
    clock, settings = SteadyClock(), Settings()
    with open_store(tmp_path, daemon=True) as store:
        clock.advance(3600)
        await record_start(store, clock, settings)
        await record_stop(store, clock, settings.store.node)
        clock.advance(-3600)
        await record_start(store, clock, settings)
        # Killed here.
        clock.advance(60)
        await record_start(store, clock, settings)
        ends = [json.loads(event.detail)["stop_before"] for event in events(store, STARTED)]
        assert ends == ["none", "clean", "missing"]
        assert len(events(store, CLOCK_BEHIND)) == 1, "it was set back once"
