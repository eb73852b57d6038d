"""Claims in shares, on every store: what is apart comes first, and a suspect among it keeps nothing else back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.lifecycle import JobKind
from gateway.core.retry import NEVER_LATER_SECONDS
from gateway.ports import Job, Store
from tests.support.store_samples import NOW, SteadyClock
from tests.support.stores import STORES

IMPORTS = frozenset({JobKind.IMPORT})
MAIL = frozenset(JobKind) - IMPORTS


clock = SteadyClock()
"""Of the store, set anew by each step of a test."""


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    with STORES[request.param](tmp_path, clock) as opened:
        yield opened


async def fill(store: Store, *jobs: tuple[JobKind, str, float]) -> None:
    """Kind, subject, and how many seconds after ``NOW`` the job was asked for."""
    for kind, subject, seconds in jobs:
        clock.time = NOW + timedelta(seconds=seconds)
        await store.write(lambda tx, kind=kind, subject=subject: tx.jobs.enqueue(kind, subject))  # type: ignore[misc]


async def claim(
    store: Store, room: int, imports: int, *, seconds: float = 0, lost_below: int | None = None, lease: float = 60
) -> list[Job]:
    clock.time = NOW + timedelta(seconds=seconds)
    return await store.write(
        lambda tx: tx.jobs.claim(lease, room, kinds=MAIL, apart=(IMPORTS, imports), lost_below=lost_below)
    )


def names(jobs: list[Job]) -> list[str]:
    return [job.subject for job in jobs]


async def test_each_share_has_its_room_and_its_order(store: Store) -> None:
    await fill(
        store,
        *((JobKind.IMPORT, f"i{number}", -100 + number) for number in range(5)),
        *((JobKind.UNWRAP, f"u{number}", -number) for number in range(5)),
        (JobKind.FILE, "f", -2.5),
        (JobKind.UNWRAP, "later", 1),
    )
    assert names(await claim(store, 4, 2)) == ["i0", "i1", "u4", "u3"]
    assert names(await claim(store, 3, 0)) == ["f", "u2", "u1"]
    assert names(await claim(store, 10, 1)) == ["i2", "u0"]
    assert names(await claim(store, 1, 1)) == ["i3"], "the room is for both together"
    assert names(await claim(store, 10, 10)) == ["i4"]
    assert await claim(store, 10, 10) == []


async def test_a_suspect_comes_alone_within_its_share(store: Store) -> None:
    await fill(store, (JobKind.IMPORT, "i1", 0), (JobKind.IMPORT, "i2", 0), (JobKind.UNWRAP, "u1", 0))
    assert len(await claim(store, 9, 9, lease=1)) == 3
    await fill(store, (JobKind.UNWRAP, "u2", 1))
    rounds = [await claim(store, 9, 9, seconds=5) for _ in range(4)]
    assert [names(jobs) for jobs in rounds] == [["i1", "u1"], ["i2", "u2"], [], []]
    assert [[job.lost for job in jobs] for jobs in rounds[:2]] == [[1, 1], [1, 0]]


async def test_what_was_lost_too_often_waits_and_the_rest_goes_on(store: Store) -> None:
    await fill(store, (JobKind.UNWRAP, "killer", 0))
    for number in range(2):
        assert len(await claim(store, 9, 9, seconds=10 * number, lease=1)) == 1
    await fill(store, (JobKind.UNWRAP, "innocent", 30))
    assert names(await claim(store, 9, 9, seconds=30, lost_below=1)) == ["innocent"]
    [job] = await claim(store, 9, 9, seconds=30)
    assert (job.subject, job.attempt, job.lost) == ("killer", 3, 2)


async def test_what_is_put_off_further_than_any_schedule_goes_is_due(store: Store) -> None:
    """F11: it was written before the clock was set back."""
    await fill(store, (JobKind.UNWRAP, "stranded", NEVER_LATER_SECONDS + 1), (JobKind.UNWRAP, "waits", 100))
    assert names(await claim(store, 9, 9)) == ["stranded"]


async def test_asking_for_a_poisoned_job_makes_a_fresh_one_and_for_an_open_one_none(store: Store) -> None:
    await fill(store, (JobKind.UNWRAP, "m", 0))
    [job] = await claim(store, 9, 9)
    await fill(store, (JobKind.UNWRAP, "m", 0))
    assert await claim(store, 9, 9) == []
    assert await store.write(lambda tx: tx.jobs.fail(job, "E", None))
    await fill(store, (JobKind.UNWRAP, "m", 0), (JobKind.UNWRAP, "m", 0), (JobKind.FILE, "m", 0))
    again = await claim(store, 9, 9)
    assert [(one.kind, one.attempt) for one in again] == [(JobKind.UNWRAP, 1), (JobKind.FILE, 1)]
    assert again[0].id != job.id
    assert not await store.write(lambda tx: tx.jobs.finish(job))
