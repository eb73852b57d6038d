"""Hints that a mailbox changed, spread to everyone who watches it.

Purpose: a message filed by a worker must reach an idling mail client within milliseconds (EP-26), and one filed
by another process within a poll interval, or as soon as that one's hint comes (several nodes on one database).

Guarantees: a hint costs no I/O; hints for one mailbox coalesce; a slow watcher holds nobody up and grows nothing.
A hint may be lost or come twice: whoever is woken reads the store, which is the truth.

Failure modes: while the store cannot be read, polling is logged and goes on; in-process hints still work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gateway.core.errors import GatewayError
from gateway.observability.log import get_log
from gateway.observability.waking import SmallEvent
from gateway.ports import Store, UnitOfWork

_log = get_log("inbox")


class Subscription:
    """One watcher of one mailbox. Get it from :meth:`ChangeHub.subscribe`."""

    __slots__ = ("_changed", "_event", "_hub", "_wake", "mailbox_id")

    def __init__(self, hub: ChangeHub, mailbox_id: int, wake: Callable[[], object] | None = None) -> None:
        self._hub = hub
        self.mailbox_id = mailbox_id
        self._changed = False
        self._event: SmallEvent | None = None
        """Of who waits here, and not for something else as well."""
        self._wake = wake

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Watch no more. Safe to call twice."""
        self._hub.forget(self)

    def notify(self) -> None:
        """Wake the watcher, now or at its next wait."""
        self._changed = True
        if self._event is not None:
            self._event.set()
        if self._wake is not None:
            self._wake()

    def taken(self) -> bool:
        """Whether the mailbox changed since this, or :meth:`wait`, said so last."""
        changed, self._changed = self._changed, False
        return changed

    async def wait(self) -> None:
        """Return when the mailbox changed since the last return. Any number of changes in between count as one."""
        if self._event is None:
            self._event = SmallEvent()
        while not self._changed:
            self._event.clear()
            await self._event.wait()
        self._changed = False


class ChangeHub:
    """Implements :class:`gateway.ports.ChangeFeed`.

    ``changed`` may be called from any thread once the hub has been used on the event loop. :meth:`run` is the
    poller; its owner (the daemon) keeps it in a task group.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        poll_interval_seconds: float = 2.0,
        tell_others: Callable[[int], None] | None = None,
    ) -> None:
        """``tell_others`` passes a hint of this process on to the other nodes; called from any thread."""
        self._store = store
        self._tell_others = tell_others
        self._poll_interval_seconds = poll_interval_seconds
        self._watchers: dict[int, set[Subscription]] = {}
        self._seen_modseq: dict[int, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def subscribe(self, mailbox_id: int, wake: Callable[[], object] | None = None) -> Subscription:
        """Watch a mailbox until the subscription is closed, or for as long as it is a context.

        ``wake`` is called on the event loop with every hint, for a watcher who waits for something else as well and
        asks :meth:`Subscription.taken` then: so many wait, all day long, that none should need a task for it.
        """
        self._loop = asyncio.get_running_loop()
        subscription = Subscription(self, mailbox_id, wake)
        self._watchers.setdefault(mailbox_id, set()).add(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Tell it of nothing any more. Safe to call twice."""
        mailbox_id = subscription.mailbox_id
        watchers = self._watchers.get(mailbox_id, set())
        watchers.discard(subscription)
        if not watchers:
            self._watchers.pop(mailbox_id, None)
            self._seen_modseq.pop(mailbox_id, None)

    def changed(self, mailbox_id: int) -> None:
        """Hint that this process has put something new into the mailbox: a message or a flag."""
        if self._tell_others is not None:
            self._tell_others(mailbox_id)
        self.heard(mailbox_id)

    def look_again(self) -> None:
        """Wake every watcher: hints of others may have been lost. To be called on the event loop."""
        for mailbox_id in list(self._watchers):
            self._wake(mailbox_id)

    def heard(self, mailbox_id: int) -> None:
        """Wake who watches the mailbox: somebody has put something new into it."""
        loop = self._loop
        if loop is None:
            return  # Nobody has ever watched.
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is loop:
            self._wake(mailbox_id)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._wake, mailbox_id)

    def _wake(self, mailbox_id: int) -> None:
        # Whoever is woken runs later, so nobody comes or goes meanwhile.
        for subscription in self._watchers.get(mailbox_id, ()):
            subscription.notify()

    async def run(self) -> None:
        """Poll the watched mailboxes for commits of other processes until cancelled."""
        while True:
            await asyncio.sleep(self._poll_interval_seconds)
            try:
                await self.poll()
            except GatewayError as error:
                _log.warning("poll_failed", exc=error)

    async def poll(self) -> None:
        """Look once at every watched mailbox; one read for all of them. Raises StoreError."""
        watched = list(self._watchers)
        if not watched or self._store is None:
            return

        def highest(unit: UnitOfWork) -> dict[int, int]:
            return {mailbox_id: unit.mailboxes.get(mailbox_id).highest_modseq for mailbox_id in watched}

        for mailbox_id, modseq in (await self._store.read(highest)).items():
            if mailbox_id not in self._watchers:
                continue
            # The first look wakes as well: a commit may lie between the watcher's own read and this one.
            if self._seen_modseq.get(mailbox_id) != modseq:
                self._seen_modseq[mailbox_id] = modseq
                self._wake(mailbox_id)
