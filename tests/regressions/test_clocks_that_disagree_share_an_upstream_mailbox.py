"""Nodes whose clocks disagree do not take the lease of an upstream mailbox from each other for ever (F11).

A lease was written in the clock of the node. One node whose clock is a minute ahead saw every lease of the other as
over, and the other saw the first one's as written by a clock that was set back: they took it from each other at every
look, each time cutting off what was being downloaded, so that a large message never came.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from gateway.observability.clock import SystemClock
from gateway.ports import UnitOfWork
from gateway.store.fetching import Fetching
from gateway.store.sql_store import SQLStore
from gateway.store.unit_time import UnitTime
from tests.support.body_keys import sealer_in
from tests.support.postgresql import shared_cluster
from tests.support.store_samples import NOW, open_store

LEASE = 30.0
AHEAD = timedelta(seconds=60)
"""How far the clock of ``late``'s neighbour is ahead; the database's clock is the late one's."""


def test_a_lease_is_kept_in_the_time_of_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(tmp_path) as store:

        def claim(owner: str, ahead: timedelta, seconds: float) -> bool:
            told = NOW + timedelta(seconds=seconds)
            # The node's own clock, which the store is not to look at where the database tells the time.
            monkeypatch.setattr(SystemClock, "now", lambda _clock: told + ahead)

            def work(rows: UnitOfWork) -> bool:
                # As the writer makes it, on a database that tells the time.
                fetching = Fetching(rows.fetching._connection, UnitTime(lambda: told))  # type: ignore[attr-defined]
                return fetching.claim("upstream", owner, LEASE)

            return store.write_blocking(work)

        assert claim("right", timedelta(0), 0)
        assert not claim("fast", AHEAD, 5), "the lease has 25 seconds left, whatever the fast clock says"
        assert claim("right", timedelta(0), 10)
        assert claim("fast", AHEAD, 41), "it is over"
        assert not claim("right", timedelta(0), 46), "the fast one's lease is no lease of a clock that was set back"
        assert claim("fast", AHEAD, 51)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_command_sees_who_works_on_an_account_whatever_its_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """By its own clock it took a lease of a node that works for one that ran out, and one that ran out for a lease."""
    with SQLStore.open(shared_cluster().settings(), sealer_in(tmp_path)) as store:
        for seconds, owned in ((LEASE, True), (-LEASE, False)):
            with monkeypatch.context() as wrong:
                assert store.write_blocking(lambda rows, s=seconds: rows.fetching.claim("upstream", "one", s))  # type: ignore[misc]
                told = SystemClock().now() + timedelta(hours=hours)
                wrong.setattr(SystemClock, "now", lambda _clock, told=told: told)
                assert store.read_blocking(lambda rows: rows.fetching.status("upstream")).owned is owned
