"""What every store promises of fetching (:class:`gateway.ports.FetchRows`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.fetching import FetchState, FetchStatus, ItemState, ItemTrouble
from gateway.core.lifecycle import State
from gateway.ports import Store, UnitOfWork
from tests.support.store_samples import NOW, SteadyClock, inbound
from tests.support.stores import STORES

MESSAGE = "01J0000000000000000000000A"


@pytest.fixture
def clock() -> SteadyClock:
    return SteadyClock()


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: SteadyClock) -> AsyncIterator[Store]:
    with STORES[request.param](tmp_path, clock) as opened:
        yield opened


async def test_a_status_is_changed_by_parts(store: Store) -> None:
    assert await store.read(lambda rows: rows.fetching.status("a")) == FetchStatus("a")
    await store.write(lambda rows: rows.fetching.set_status("a", state=FetchState.RETRYING, error="gone"))
    await store.write(lambda rows: rows.fetching.set_status("a", waiting=3, last_attempt=NOW))
    expected = FetchStatus("a", FetchState.RETRYING, last_attempt=NOW, error="gone", waiting=3)
    assert await store.read(lambda rows: rows.fetching.status("a")) == expected


async def test_requests_are_counted_until_they_are_answered(store: Store) -> None:
    assert await store.write(lambda rows: rows.fetching.ask("a")) == 1
    assert await store.write(lambda rows: rows.fetching.ask("a")) == 2
    assert await store.read(lambda rows: rows.fetching.asked()) == {"a": 2}
    await store.write(lambda rows: rows.fetching.set_status("a", answered=2))
    assert await store.read(lambda rows: rows.fetching.asked()) == {}


async def test_a_lease_has_one_owner_at_a_time(store: Store, clock: SteadyClock) -> None:
    async def claim(owner: str, seconds: float) -> bool:
        clock.time = NOW + timedelta(seconds=seconds)
        return await store.write(lambda rows: rows.fetching.claim("a", owner, 30))

    async def owned(seconds: float) -> bool:
        clock.time = NOW + timedelta(seconds=seconds)
        return (await store.read(lambda rows: rows.fetching.status("a"))).owned

    assert not await owned(0)
    assert await claim("one", 0)
    assert await owned(29)
    assert not await owned(31), "whoever had it is gone"
    assert not await claim("two", 10)
    assert await claim("one", 20), "its owner keeps it"
    assert not await claim("two", 40)
    assert await claim("two", 51), "it ran out"
    await store.write(lambda rows: rows.fetching.release("a", "one"))
    assert not await claim("one", 60), "only its owner gives it back"
    await store.write(lambda rows: rows.fetching.release("a", "two"))
    assert not await owned(70)
    assert await claim("one", 60)
    assert await claim("two", -10_000), "the clock was set back"


async def test_places_and_marks(store: Store) -> None:
    first = await store.write(lambda rows: rows.fetching.place("a", "x:7:1", NOW))
    assert (first.first, first.mark, first.since) == (True, 0, NOW.date())
    await store.write(lambda rows: rows.fetching.set_mark(first, 9))
    await store.write(lambda rows: rows.fetching.set_mark(first, 5))
    again = await store.write(lambda rows: rows.fetching.place("a", "x:7:1", NOW + timedelta(days=3)))
    assert (again.first, again.mark, again.since) == (False, 9, NOW.date())
    other = await store.write(lambda rows: rows.fetching.place("a", "x:8:1", NOW + timedelta(days=3)))
    assert (other.first, other.mark, other.since) == (False, 0, NOW.date())
    await store.write(lambda rows: rows.fetching.place("a", "x:7:12", NOW))
    assert await store.read(lambda rows: rows.fetching.newest_life("a", "x:7")) == 12
    assert await store.read(lambda rows: rows.fetching.newest_life("a", "x:9")) == 1


async def test_items_from_trouble_to_the_mark(store: Store) -> None:
    def work(rows: UnitOfWork) -> None:
        rows.messages.add_raw(MESSAGE, NOW, inbound())
        rows.messages.set_state(MESSAGE, State.RECEIVED, NOW)
        place = rows.fetching.place("a", "x:7:1", NOW)
        assert rows.fetching.trouble(place, "5", ItemTrouble.UNREADABLE, 77, NOW) == 1
        assert rows.fetching.trouble(place, "5", ItemTrouble.UNREADABLE, 77, NOW) == 2
        rows.fetching.set_aside(place, "5")
        rows.fetching.take(place, "6", MESSAGE, "ab" * 32, NOW)
        rows.fetching.gone(place, "7", NOW)

    await store.write(work)
    place = await store.write(lambda rows: rows.fetching.place("a", "x:7:1", NOW))
    wanted = [str(number) for number in range(2_000)]
    assert await store.read(lambda rows: rows.fetching.known(place, wanted)) == {"5", "6"}, "7 is there again"
    assert await store.read(lambda rows: rows.fetching.known(place, wanted, taken=False)) == {"5"}
    assert sorted(await store.read(lambda rows: rows.fetching.absent(place, ["8"]))) == ["5", "6"]
    assert await store.read(lambda rows: rows.fetching.absent(place, ["5", "6"])) == []
    assert await store.read(lambda rows: rows.fetching.same("a", "ab" * 32)) == MESSAGE
    assert await store.read(lambda rows: rows.fetching.same("b", "ab" * 32)) is None
    assert await store.read(lambda rows: rows.fetching.uids(place, ItemState.TAKEN, 10)) == ["6"]
    await store.write(lambda rows: rows.fetching.set_status("a"))
    status = await store.read(lambda rows: rows.fetching.status("a"))
    assert (status.taken, status.aside) == (1, 1)

    [item] = await store.read(lambda rows: rows.fetching.troubled("a"))
    assert (item.uid, item.state, item.attempts, item.size_bytes) == ("5", ItemState.ASIDE, 2, 77)
    await store.write(lambda rows: rows.fetching.retry(item, NOW))
    [item] = await store.read(lambda rows: rows.fetching.troubled("a"))
    assert (item.state, item.attempts) == (ItemState.TRYING, 0)

    await store.write(lambda rows: rows.fetching.marked(place, ["5", "6", "7"]))
    assert await store.read(lambda rows: rows.fetching.uids(place, ItemState.MARKED, 10)) == ["6"]
    assert await store.read(lambda rows: rows.fetching.uids(place, ItemState.TRYING, 10)) == ["5"]
