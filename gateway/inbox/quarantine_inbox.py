"""The inbox with the quarantine as a folder, for whom an operator has granted it.

Who has no grant neither sees the folder nor learns that there is one. Its messages are reports, made by the gateway:
reading one is in the audit log with the id of the message that it is about. Nothing in it can be changed; a report goes
when its message is judged again.

Failure modes: those of the inbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from gateway.core.errors import StoreError
from gateway.inbox.quarantine_mailbox import QuarantineMailbox
from gateway.inbox.service import Grant, TextTerm
from gateway.inbox.shared_mailbox import SharedMailbox
from gateway.inbox.views_inbox import ViewsInbox
from gateway.ports import Account, Folder, IndexedMessage, MessageIndexer, UnitOfWork

QUARANTINE_VIEW = "quarantine"
INDEXED_AT_ONCE = 500


class QuarantineInbox(ViewsInbox):
    """See :class:`gateway.inbox.mailbox_service.MailboxService`. One per process; it belongs on the event loop."""

    def __init__(self, indexer: MessageIndexer, *arguments: Any, **named: Any) -> None:
        """As :class:`gateway.inbox.service.Inbox`; ``indexer`` computes what IMAP answers of a report."""
        super().__init__(*arguments, **named)
        self._indexer = indexer
        self._quarantine: QuarantineMailbox | None = None
        self._opening = asyncio.Lock()

    async def shared(self, account: Account, folder: Folder) -> SharedMailbox:
        """The mailbox, the view or the quarantine behind a folder, up to date. Raises NotFoundError, StoreError."""
        if folder.view != QUARANTINE_VIEW:
            return await super().shared(account, folder)
        async with self._opening:
            if self._quarantine is None:
                self._quarantine = await QuarantineMailbox.load(self._store, folder.mailbox_id)
        await self._quarantine.refresh()
        return self._quarantine

    async def indexed(self, mailbox: SharedMailbox, uids: Sequence[int]) -> dict[int, IndexedMessage]:
        """See :meth:`Inbox.indexed`."""
        if not isinstance(mailbox, QuarantineMailbox):
            return await super().indexed(mailbox, uids)
        reports = await self.contents(mailbox, uids)
        return await asyncio.to_thread(lambda: {uid: self._indexer.index(text) for uid, text in reports.items()})

    async def contents(self, mailbox: SharedMailbox, uids: Sequence[int], *, keep: bool = False) -> dict[int, bytes]:
        """See :meth:`Inbox.contents`. Reports are small and made anew each time."""
        if not isinstance(mailbox, QuarantineMailbox):
            return await super().contents(mailbox, uids, keep=keep)
        reports = await mailbox.reports(uids)
        if any(uid not in reports for uid in uids):
            raise StoreError("a listed message has no row")
        return reports

    async def search(self, mailbox: SharedMailbox, terms: Iterable[TextTerm]) -> dict[TextTerm, set[int]]:
        """See :meth:`Inbox.search`: the texts of the reports that are there now."""
        if not isinstance(mailbox, QuarantineMailbox):
            return await super().search(mailbox, terms)
        found: dict[TextTerm, set[int]] = {term: set() for term in terms}
        present = [uid for slot, uid in enumerate(mailbox.uids) if not mailbox.is_gone(slot)] if found else []
        for start in range(0, len(present), INDEXED_AT_ONCE):
            for uid, indexed in (await self.indexed(mailbox, present[start : start + INDEXED_AT_ONCE])).items():
                for term, uids in found.items():
                    if _holds(indexed, term):
                        uids.add(uid)
        return found

    def _add(self, unit: UnitOfWork, grant: Grant, action: str, uids: Sequence[int], **detail: Any) -> None:
        """The event about one report has the message as its subject; its id is known here, and in no mailbox row."""
        if not isinstance(grant.mailbox, QuarantineMailbox) or len(uids) != 1:
            super()._add(unit, grant, action, uids, **detail)
            return
        about = {"mailbox": grant.mailbox.id, "uid": uids[0]}
        message_id = grant.mailbox.entry(uids[0]).message_id
        unit.audit.add(self._clock.now(), grant.account.login, action, message_id, {**detail, **about})


def _holds(indexed: IndexedMessage, term: TextTerm) -> bool:
    needle = term.needle.casefold()
    if term.name is not None:
        prefix = f"{term.name}:"
        lines = indexed.search_headers.split("\n")
        return any(needle in line[len(prefix) :] for line in lines if line.startswith(prefix))
    return (term.headers and needle in indexed.search_headers) or (term.body and needle in indexed.search_text)
