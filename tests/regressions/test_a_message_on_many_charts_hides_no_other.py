"""A message on more than twenty charts was not told that its document was on a chart by another message as well.

The links that are told of one document are bounded, and the message's own filled the bound before they were left out.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from gateway.charts.service import Charts
from gateway.store.links import MOST_SEEN
from tests.contract.test_links_contract import put, says
from tests.support.store_samples import ALICE, NOW, SteadyClock, patient
from tests.support.stores import STORES


@pytest.mark.parametrize("engine", sorted(STORES))
async def test_the_links_of_the_message_itself_fill_no_bound(engine: str, tmp_path: Path) -> None:
    with STORES[engine](tmp_path) as store:
        last = MOST_SEEN + 1
        await store.write(lambda tx: tx.patients.upsert([patient(n) for n in range(1, last + 1)], "test", NOW))
        await store.write(lambda tx: tx.mailboxes.create("desk", NOW, [ALICE]))
        charts = Charts(store, SteadyClock(NOW), (f"L{n:04d}" for n in itertools.count()).__next__, says)
        first = put(store, b"Subject: s\r\n\r\nthe document")
        second = put(store, b"Subject: x\r\n\r\nthe document")
        for number in range(1, last):
            await charts.link(first, f"P{number}", actor="olga", override=True, reason="all of them")
        await charts.link(second, f"P{last}", actor="paul")
        assert {one.link.patient_id for one in await charts.seen_elsewhere(first)} == {f"P{last}"}
