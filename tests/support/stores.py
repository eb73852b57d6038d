"""Every kind of store, for tests that all of them must pass: parametrise over ``STORES``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from gateway.ports import Clock, UnitOfWork
from gateway.settings import StoreSettings
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in
from tests.support.postgresql import shared_cluster
from tests.support.store_samples import settings_for

SETTINGS: Mapping[str, Callable[[Path], StoreSettings]] = {
    "postgresql": lambda _folder: shared_cluster().settings(),
    "sqlite": settings_for,
}
"""Settings of a new database; they may be opened several times."""


class Opener(Protocol):
    """Opens a store."""

    def __call__(self, folder: Path, clock: Clock | None = None) -> AbstractContextManager[SQLStore]:
        """``clock``: of leases and schedules, for a test that moves it."""
        ...


def _opener(engine: str) -> Opener:
    @contextmanager
    def opened(folder: Path, clock: Clock | None = None) -> Iterator[SQLStore]:
        with SQLStore.open(SETTINGS[engine](folder), sealer_in(folder), clock=clock) as store:
            yield store

    return opened


STORES: Mapping[str, Opener] = {name: _opener(name) for name in SETTINGS}
"""A new, empty store that needs no more than a scratch folder."""


def together(store: SQLStore, *works: Callable[[UnitOfWork], object]) -> list[Any]:
    """Run the units as one group; each result, or its error."""
    entered, go = threading.Event(), threading.Event()

    def block(_: UnitOfWork) -> None:
        entered.set()
        assert go.wait(10)

    blocker = store._submit(block)
    assert entered.wait(10)
    futures = [store._submit(work) for work in works]
    go.set()
    blocker.exception(20)
    return [future.exception(20) or future.result() for future in futures]
