"""A store with bundles, a clock that only the test moves, and publishers who publish what the test says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from gateway.bundles.service import TrustBundles
from gateway.core.errors import BundleError
from gateway.core.trust import BOTH_DIRECTIONS, BundleSetting, BundleStatus, BundleVersion
from gateway.store.sql_store import SQLStore
from tests.support.bundle_files import NOW, anchor, der, p7b
from tests.support.store_samples import SteadyClock

NAME = "partners"
WHO = "cli:test"
SETTING = BundleSetting(NAME, "https://bundles.example/p.p7b", None, (), BOTH_DIRECTIONS, 24)

Publication = bytes | BundleError | Callable[[], bytes]


def bundle(*numbers: int) -> bytes:
    """An unsigned bundle of the anchors with these numbers."""
    return p7b(*map(anchor, numbers))


@dataclass
class Publishers:
    """Where bundles come from: what stands at each location, or what goes wrong there."""

    files: dict[str, Publication] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def check(self, setting: BundleSetting) -> None:
        """Every location will do."""

    def read(self, setting: BundleSetting) -> bytes:
        """What is published now."""
        self.asked.append(setting.location)
        found = self.files[setting.location]
        if isinstance(found, BundleError):
            raise found
        return found() if callable(found) else found


@dataclass
class BundleWorld:
    """One gateway's bundles."""

    store: SQLStore
    clock: SteadyClock = field(default_factory=lambda: SteadyClock(NOW))
    publishers: Publishers = field(default_factory=Publishers)

    def service(self, **options: Any) -> TrustBundles:
        return TrustBundles(self.store, self.clock, self.publishers, **options)

    def publish(self, what: Publication, location: str = SETTING.location) -> None:
        self.publishers.files[location] = what

    async def added(self, *numbers: int, **changes: Any) -> TrustBundles:
        """A service with the bundle of these anchors in force."""
        setting = replace(SETTING, **changes)
        self.publish(bundle(*numbers), setting.location)
        service = self.service()
        await service.add(setting, WHO)
        return service

    async def status(self, name: str = NAME) -> BundleStatus:
        return await self.store.read(lambda tx: tx.bundles.status(name))

    async def versions(self, name: str = NAME) -> list[BundleVersion]:
        return await self.store.read(lambda tx: tx.bundles.versions(name))

    async def trusted(self) -> list[bytes]:
        """DER of every anchor in force."""
        return [one for found in await self.store.read(lambda tx: tx.bundles.in_force()) for one in found.anchors]

    async def audited(self) -> list[tuple[str, str]]:
        """Action and actor of every audit event."""

        def work(tx: Any) -> list[tuple[str, str]]:
            assert tx.audit.first_broken() is None
            return [(event.action, event.actor) for event in tx.audit.events()]

        return await self.store.read(work)

    def later(self, **by: float) -> datetime:
        self.clock.time += timedelta(**by)
        return self.clock.time


def ders(*numbers: int) -> list[bytes]:
    return [der(anchor(number)) for number in numbers]
