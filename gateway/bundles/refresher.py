"""Keeps the bundles of a running gateway fresh, and tells it when what is in force has changed (TB-5, TB-7).

Every poll: a look at the revision, which other processes (the command line) change as well, and at the clock. A bundle
is due so many hours after its last success, a little earlier each time so that gateways do not all ask at the same
moment; after a failure it is tried again soon, then less often, hourly at least. An attempt that ended without a word
(the process was killed) counts as failed. Whoever claims a bundle first refreshes it; the other nodes go on.

Guarantees: each refresh runs by itself, so that a slow server holds up nobody; no error of one bundle, of the store
or of the listener ends ``run``. A listener that fails is told again at the next poll.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

from gateway.bundles.service import TrustBundles
from gateway.bundles.threads import in_thread
from gateway.bundles.update import Outcome
from gateway.core.errors import NotFoundError
from gateway.core.trust import AnchorBundle, BundleSetting, BundleStatus
from gateway.observability.log import get_log
from gateway.ports import Clock

ACTOR = "gateway"
POLL_SECONDS = 2.0
FIRST_RETRY = timedelta(minutes=5)
LAST_RETRY = timedelta(hours=1)
_MAX_DOUBLINGS = 10

log = get_log("bundles")


def delay_until_due(setting: BundleSetting, status: BundleStatus, failures: int) -> timedelta | None:
    """How long after the last attempt the bundle is due again; None: not by itself."""
    if not setting.enabled or not setting.refresh_hours:
        return None
    interval = timedelta(hours=setting.refresh_hours)
    if status.last_attempt is None or (status.last_success == status.last_attempt and not status.error):
        return interval
    doublings: int = min(max(failures - 1, 0), _MAX_DOUBLINGS)
    return min(FIRST_RETRY * float(2**doublings), LAST_RETRY, interval)


def due_at(setting: BundleSetting, status: BundleStatus) -> datetime | None:
    """When the bundle is refreshed at the latest; None: not by itself, or now, because it never was."""
    delay = delay_until_due(setting, status, _MAX_DOUBLINGS)
    return None if delay is None or status.last_attempt is None else status.last_attempt + delay


class BundleRefresher:
    """Runs until it is cancelled. One per process."""

    def __init__(
        self,
        service: TrustBundles,
        clock: Clock,
        on_change: Callable[[Sequence[AnchorBundle]], None],
        jitter: Callable[[], float],
        *,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Take the parts.

        ``on_change`` is told what is in force, first at the start, in a thread beside the loop: reading thousands of
        anchors takes its time. ``jitter`` returns 0.9 to 1.0, say.
        """
        self._service = service
        self._clock = clock
        self._on_change = on_change
        self._jitter = jitter
        self._poll_seconds = poll_seconds
        self._seen: int | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, int] = {}
        self._spread: dict[str, float] = {}

    async def run(self) -> None:
        """Poll until cancelled. Downloads that run then are left behind; they change nothing."""
        try:
            while True:
                await self.poll()
                await asyncio.sleep(self._poll_seconds)
        finally:
            left = list(self._running.values())
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)

    async def poll(self) -> None:
        """Look once: tell what changed, and start what is due. Raises nothing."""
        for part in (self._tell, self._start_due):
            try:
                await part()
            except Exception as exc:  # noqa: BLE001 - the store fails for a while, and the gateway lives on
                log.fault("bundle_poll_failed", exc)

    async def settled(self) -> None:
        """Wait until the refreshes that run now have ended. For tests and tools."""
        while self._running:
            await asyncio.wait(set(self._running.values()))

    async def _tell(self) -> None:
        revision, bundles = await self._service.in_force(self._seen)
        if bundles is not None:
            await in_thread(partial(self._on_change, bundles))
            self._seen = revision

    async def _start_due(self) -> None:
        now = self._clock.now()
        for setting, status in await self._service.statuses():
            name = setting.name
            if name in self._running or not self._is_due(setting, status, now):
                continue
            task = asyncio.create_task(self._refresh(status), name=f"bundle-{name}")
            self._running[name] = task
            task.add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, _task: asyncio.Task[None]) -> None:
        self._running.pop(name, None)

    def _is_due(self, setting: BundleSetting, status: BundleStatus, now: datetime) -> bool:
        delay, last = delay_until_due(setting, status, self._failures.get(setting.name, 0)), status.last_attempt
        if delay is None:
            return False
        # A last attempt in the future was written by a clock that has been set back since.
        if last is None or last > now:
            return True
        return now >= last + delay * self._spread.setdefault(setting.name, self._jitter())

    async def _refresh(self, seen: BundleStatus) -> None:
        """Refresh one bundle. Raises nothing but the cancellation."""
        name = seen.name
        self._spread.pop(name, None)
        try:
            if not await self._service.claim(seen):
                return
            result = await self._service.refresh(name, ACTOR)
            failed = result.outcome is Outcome.FAILED
        except NotFoundError:
            return
        except Exception as exc:  # noqa: BLE001 - the refresher is the owner of every failure of a refresh
            log.fault("bundle_refresh_failed", exc, bundle=name)
            failed = True
        self._failures[name] = self._failures.get(name, 0) + 1 if failed else 0
