"""The mailboxes that are in memory: each is read from the store once and shared by everybody who has it open.

Guarantees: whoever gets a mailbox sees everything that was committed before he asked. However many ask at once for one
that is not there yet, it is read once, and that goes on when those who asked go away: a client that gives up and tries
again does not begin from the start. A mailbox in use is never forgotten; of the others, the most recently used stay.

Failure modes: NotFoundError or StoreError reaches everybody who waits; the next who asks has it read anew.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from weakref import WeakValueDictionary

from gateway.inbox.open_mailbox import OpenMailbox
from gateway.ports import Store

KEPT_MAILBOXES = 64
"""Mailboxes kept in memory when nobody has them open, the least recently used forgotten first."""

_Key = tuple[int, int | None]
r"""The mailbox, and the account whose own \Seen is shown."""


class OpenMailboxes:
    """One per process; it belongs on the event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: WeakValueDictionary[_Key, OpenMailbox] = WeakValueDictionary()
        self._recent: OrderedDict[_Key, OpenMailbox] = OrderedDict()
        self._loading: dict[_Key, asyncio.Future[OpenMailbox]] = {}

    async def get(self, mailbox_id: int, *, seen_by: int | None = None) -> OpenMailbox:
        r"""The mailbox, up to date. Raises NotFoundError, StoreError.

        ``seen_by``: the account whose own \Seen it is to show, which then shares it with nobody else.
        """
        key = (mailbox_id, seen_by)
        mailbox = self._open.get(key)
        if mailbox is None:
            loading = self._loading.get(key)
            if loading is None:
                loading = self._loading[key] = asyncio.ensure_future(self._load(key))
                loading.add_done_callback(_heard)
                return await asyncio.shield(loading)
            # After a start all mail clients come back at once. What was committed since the reading began comes below.
            mailbox = await asyncio.shield(loading)
        await mailbox.refresh()
        self._keep(mailbox)
        return mailbox

    async def _load(self, key: _Key) -> OpenMailbox:
        mailbox_id, seen_by = key
        try:
            mailbox = self._open[key] = await OpenMailbox.load(self._store, mailbox_id, seen_by=seen_by)
        finally:
            del self._loading[key]
        self._keep(mailbox)
        return mailbox

    def _keep(self, mailbox: OpenMailbox) -> None:
        key = (mailbox.id, mailbox.seen_by)
        self._recent[key] = mailbox
        self._recent.move_to_end(key)
        if len(self._recent) > KEPT_MAILBOXES:
            self._recent.popitem(last=False)


def _heard(loading: asyncio.Future[OpenMailbox]) -> None:
    """Take note of an error: when everybody has gone away there is nobody else whom it could reach."""
    if not loading.cancelled():
        loading.exception()
