"""A reason of control characters passed for one, and was kept: importers got what HL7 and FHIR do not take as text."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from gateway.charts.service import Charts
from gateway.core.errors import RefusedError
from tests.contract.test_links_contract import put
from tests.support.store_samples import ALICE, NOW, SteadyClock, patient
from tests.support.stores import STORES

NOTHING = "\x00\x1b \x07\udcff\n"


@pytest.mark.parametrize("engine", sorted(STORES))
async def test_control_characters_are_no_reason(engine: str, tmp_path: Path) -> None:
    with STORES[engine](tmp_path) as store:
        await store.write(lambda tx: tx.patients.upsert([patient(1)], "test", NOW))
        await store.write(lambda tx: tx.mailboxes.create("desk", NOW, [ALICE]))
        charts = Charts(store, SteadyClock(NOW), (f"L{n}" for n in itertools.count()).__next__)
        message = put(store)
        with pytest.raises(RefusedError, match="reason"):
            await charts.link(message, "P1", actor="olga", override=True, reason=NOTHING)
        link = (await charts.link(message, "P1", actor="olga")).link
        with pytest.raises(RefusedError, match="reason"):
            await charts.unlink(link.id, actor="olga", reason=NOTHING)
        undone = await charts.unlink(link.id, actor="olga", reason="\x1b[31mother\x00Ann\udcff, Zoë 👩\u200d⚕")
        assert undone.undone.reason == "[31mother Ann , Zoë 👩\u200d⚕"
        [kept] = await charts.history_of_message(message)
        assert kept.undone == undone.undone
