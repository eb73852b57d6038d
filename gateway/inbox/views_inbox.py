r"""The inbox with the views of each mailbox as folders of their own: the work that is to do, and what is on a chart.

Beside ``INBOX`` stand ``Unlinked`` and ``Linked``; those of any other folder stand below it (``Lab/Unlinked``). They
are parts of the same mailbox: its flags, its rights, its audit events, UIDs of their own. A real folder of such a name
comes first, and the view is left out; a mailbox into which mail clients put copies (Sent) has no views.

How it is done: a session that has selected a view speaks of UIDs of the view. Here, and nowhere else, they become those
of the mailbox (:func:`_below`), before :class:`~gateway.inbox.service.Inbox` does the work; so everything that is kept,
flags and events, is about the mailbox itself, whichever way a message was looked at.

Guarantees and failure modes: those of the inbox and of :mod:`gateway.inbox.viewed_mailbox`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from gateway.core.standing import View
from gateway.inbox.flags import FlagChange
from gateway.inbox.service import INBOX, Grant, Inbox, TextTerm
from gateway.inbox.shared_mailbox import SharedMailbox
from gateway.inbox.viewed_mailbox import ViewedMailbox
from gateway.ports import Account, Folder, IndexedMessage, UnitOfWork

T = TypeVar("T")

KEPT_VIEWS = 64
"""Views kept in memory when nobody has them open, the least recently used forgotten first."""
VIEW_NAMES = {View.UNLINKED: "Unlinked", View.LINKED: "Linked"}
_VIEWS = frozenset(view.value for view in View)
_Key = tuple[int, int | None, View]


class ViewsInbox(Inbox):
    """See :class:`gateway.inbox.mailbox_service.MailboxService`. One per process; it belongs on the event loop."""

    _views: WeakValueDictionary[_Key, ViewedMailbox]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """As :class:`gateway.inbox.service.Inbox`."""
        super().__init__(*arguments, **named)
        self._views = WeakValueDictionary()
        self._recent: OrderedDict[_Key, ViewedMailbox] = OrderedDict()
        self._loading = asyncio.Lock()

    # --- folders ---

    def _arrange(self, granted: list[Folder]) -> list[Folder]:
        """The folders, each with its views."""
        folders = super()._arrange(granted)
        if not self._settings.views:
            return folders
        names = {folder.name for folder in folders}
        views = [view for folder in folders for view in _views_of(folder) if view.name not in names]
        return sorted([*folders, *views], key=lambda folder: (folder.name.upper() != INBOX, folder.name))

    async def shared(self, account: Account, folder: Folder) -> SharedMailbox:
        """The mailbox or the view of a folder, up to date. Raises NotFoundError, StoreError."""
        base = await super().shared(account, folder)
        if folder.view not in _VIEWS:
            return base
        key = (base.id, base.seen_by, View(folder.view))
        view = self._views.get(key)
        if view is None or view.base is not base:
            async with self._loading:
                view = self._views.get(key)
                if view is None or view.base is not base:
                    view = self._views[key] = await ViewedMailbox.load(self._store, base, key[2])
        await view.refresh()
        self._recent[key] = view
        self._recent.move_to_end(key)
        if len(self._recent) > KEPT_VIEWS:
            self._recent.popitem(last=False)
        return view

    # --- messages ---

    async def indexed(self, mailbox: SharedMailbox, uids: Sequence[int]) -> dict[int, IndexedMessage]:
        """See :meth:`Inbox.indexed`."""
        base, stored = _below(mailbox, uids)
        return _named(uids, stored, await super().indexed(base, stored))

    async def contents(self, mailbox: SharedMailbox, uids: Sequence[int], *, keep: bool = False) -> dict[int, bytes]:
        """See :meth:`Inbox.contents`."""
        base, stored = _below(mailbox, uids)
        return _named(uids, stored, await super().contents(base, stored, keep=keep))

    async def headers(self, mailbox: SharedMailbox, uids: Sequence[int]) -> dict[int, bytes]:
        """See :meth:`Inbox.headers`."""
        base, stored = _below(mailbox, uids)
        return _named(uids, stored, await super().headers(base, stored))

    async def search(self, mailbox: SharedMailbox, terms: Iterable[TextTerm]) -> dict[TextTerm, set[int]]:
        """See :meth:`Inbox.search`."""
        if not isinstance(mailbox, ViewedMailbox):
            return await super().search(mailbox, terms)
        found = await super().search(mailbox.base, terms)
        return {term: set(mailbox.shown(uids)) for term, uids in found.items()}

    async def record(
        self, grant: Grant, action: str, uids: Sequence[int], detail: Mapping[str, Any] | None = None
    ) -> None:
        """See :meth:`Inbox.record`."""
        below, stored = _below_grant(grant, uids)
        await super().record(below, action, stored, detail)

    def add_event(self, unit: UnitOfWork, grant: Grant, action: str, uids: Sequence[int], **detail: Any) -> None:
        """See :meth:`Inbox.add_event`."""
        below, stored = _below_grant(grant, uids)
        super().add_event(unit, below, action, stored, **detail)

    async def mark_read(
        self,
        grant: Grant,
        uids: Sequence[int],
        *,
        set_seen: bool,
        audit: Sequence[int],
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """See :meth:`Inbox.mark_read`."""
        below, stored = _below_grant(grant, uids)
        read = _below(grant.mailbox, audit)[1]
        await super().mark_read(below, stored, set_seen=set_seen, audit=read, detail=detail)
        await _follow(grant)

    async def change_flags(
        self, grant: Grant, uids: Sequence[int], change: FlagChange, *, unchanged_since: int | None = None
    ) -> set[int]:
        """See :meth:`Inbox.change_flags`."""
        below, stored = _below_grant(grant, uids)
        left = await super().change_flags(below, stored, change, unchanged_since=unchanged_since)
        await _follow(grant)
        return {uid for uid, of_uid in zip(uids, stored, strict=True) if of_uid in left}


def _views_of(folder: Folder) -> Iterator[Folder]:
    if folder.view or folder.special_use:
        return
    above = "" if folder.name.upper() == INBOX else f"{folder.name}/"
    for view, name in VIEW_NAMES.items():
        yield replace(folder, name=above + name, view=view.value)


def _below(mailbox: SharedMailbox, uids: Sequence[int]) -> tuple[SharedMailbox, Sequence[int]]:
    """The mailbox that the store has, and the UIDs of these messages there. Raises NotFoundError."""
    return (mailbox.base, mailbox.stored(uids)) if isinstance(mailbox, ViewedMailbox) else (mailbox, uids)


def _below_grant(grant: Grant, uids: Sequence[int]) -> tuple[Grant, Sequence[int]]:
    base, stored = _below(grant.mailbox, uids)
    return (grant if base is grant.mailbox else replace(grant, mailbox=base)), stored


def _named(uids: Sequence[int], stored: Sequence[int], rows: dict[int, T]) -> dict[int, T]:
    """The rows under the UIDs that were asked for."""
    return rows if stored is uids else {uid: rows[of_uid] for uid, of_uid in zip(uids, stored, strict=True)}


async def _follow(grant: Grant) -> None:
    """Let a view see what was changed below it."""
    if isinstance(grant.mailbox, ViewedMailbox):
        await grant.mailbox.refresh()
