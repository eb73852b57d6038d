"""Hints that a mailbox changed, spread to everyone who watches it.

Purpose: a message filed by a worker must reach an idling mail client within milliseconds (EP-26), and one filed
by another process within a poll interval.

Guarantees: a hint costs no I/O; hints for one mailbox coalesce; a slow watcher holds nobody up and grows nothing.
A hint may be lost or come twice: whoever is woken reads the store, which is the truth.

Failure modes: while the store cannot be read, polling is logged and goes on; in-process hints still work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.core.errors import GatewayError
from gateway.observability.log import get_log
from gateway.ports import Store, UnitOfWork

_log = get_log("inbox")


class Subscription:
    """One watcher of one mailbox. Get it from :meth:`ChangeHub.subscribe`."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake the watcher, now or at its next wait."""
        self._event.set()

    async def wait(self) -> None:
        """Return when the mailbox changed since the last return. Any number of changes in between count as one."""
        await self._event.wait()
        self._event.clear()


class ChangeHub:
    """Implements :class:`gateway.ports.ChangeFeed`.

    ``changed`` may be called from any thread once the hub has been used on the event loop. :meth:`run` is the
    poller; its owner (the daemon) keeps it in a task group.
    """

    def __init__(self, store: Store | None = None, *, poll_interval_seconds: float = 2.0) -> None:
        self._store = store
        self._poll_interval_seconds = poll_interval_seconds
        self._watchers: dict[int, set[Subscription]] = {}
        self._seen_modseq: dict[int, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextmanager
    def subscribe(self, mailbox_id: int) -> Iterator[Subscription]:
        """Watch a mailbox for as long as the context lasts."""
        self._loop = asyncio.get_running_loop()
        subscription = Subscription()
        watchers = self._watchers.setdefault(mailbox_id, set())
        watchers.add(subscription)
        try:
            yield subscription
        finally:
            watchers.discard(subscription)
            if not watchers and self._watchers.get(mailbox_id) is watchers:
                del self._watchers[mailbox_id]
                self._seen_modseq.pop(mailbox_id, None)

    def changed(self, mailbox_id: int) -> None:
        """Hint that the mailbox has something new: a message or a flag."""
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
