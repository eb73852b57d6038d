"""A database or a bucket that is away is named in health, in words of what happens to mail, and makes it not ready."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway import readiness
from gateway.core.errors import StoreFullError, StoreUnavailableError
from gateway.readiness import NO_BUCKET, NO_DATABASE, BucketCheck, readiness_checks
from gateway.settings import Settings
from gateway.store.sql_store import SQLStore


class _Store:
    """As much of a store as a check asks."""

    dead = False
    places_bodies = True

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.hangs = False
        self.trouble: Callable[[], str] = str

    async def write(self, _work: object) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails is not None:
            raise self.fails

    def free_bytes(self) -> None:
        return None

    def bucket_trouble(self) -> str:
        return self.trouble()


def _checks(store: _Store) -> dict[str, Any]:
    return readiness_checks(cast("SQLStore", store), Settings())


async def test_a_database_that_is_away_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", 0.05)
    store = _Store()
    check = _checks(store)["store"]
    assert await check() is None
    store.fails = StoreUnavailableError("the database cannot be used at this moment (OperationalError)")
    assert await check() == NO_DATABASE
    store.fails = StoreFullError("full")
    assert "no space is left" in await check()
    store.fails, store.hangs = None, True
    assert await check() == NO_DATABASE


async def test_a_bucket_that_is_away_makes_it_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that comes back is noticed although nobody sends mail to a gateway that is not ready."""
    store = _Store()
    check = _checks(store)["bodies"]
    assert await check() is None
    store.trouble = lambda: "away"
    assert await check() is None, "it was asked a moment ago"
    monkeypatch.setattr(readiness, "ASKED_AGAIN_SECONDS", 0.0)
    check = _checks(store)["bodies"]
    assert await check() == NO_BUCKET
    assert "451" in NO_BUCKET
    store.trouble = lambda: "refused"
    assert "s3.credentials_file" in await check()
    store.trouble = str
    assert await check() is None
    store.places_bodies = False
    assert "bodies" not in _checks(store)


async def test_a_bucket_that_hangs_is_asked_once_by_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", 0.05)
    answer, asked = threading.Event(), []

    def slow() -> str:
        asked.append(1)
        answer.wait(10)
        return ""

    check = BucketCheck(slow)
    assert set(await asyncio.gather(check(), check())) == {NO_BUCKET}
    assert await check() == NO_BUCKET
    assert len(asked) == 1
    answer.set()
    await asyncio.sleep(0.05)
    assert await check() is None
