r"""The mailboxes of the conformance tests: a :class:`gateway.inbox.mailbox_service.MailboxService` without a store.

Flags, dates and messages are kept as a client gives them; ``\Deleted`` and ``\Draft`` are flags like the others. There
is nothing to audit: no message here is anybody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any, ClassVar

from gateway.core.errors import NotFoundError
from gateway.inbox.change_hub import ChangeHub
from gateway.inbox.deletion_policy import MUTABLE, DeletionPolicy
from gateway.inbox.flags import DELETED, SEEN, FlagAction, FlagChange, canonical, check_limits
from gateway.inbox.indexer import Indexer
from gateway.inbox.mutable.mailbox import MemoryMailbox, MemoryMessage
from gateway.inbox.mutable.mailbox_tree import MailboxTree, canonical_name
from gateway.inbox.mutable.text_search import matches
from gateway.inbox.no_delete import Copied
from gateway.inbox.service import Grant, TextTerm
from gateway.inbox.shared_mailbox import SharedMailbox
from gateway.ports import Account, Clock, Folder, IndexedMessage

_RIGHTS = MUTABLE.supported_rights


class MutableInbox:
    """One per process; every method belongs on the event loop. See the Protocol for what each of them does."""

    policy: ClassVar[DeletionPolicy] = MUTABLE

    def __init__(self, clock: Clock) -> None:
        self.hub = ChangeHub()
        self._clock = clock
        self._indexer = Indexer()
        self._numbers = count(1)
        self._message_numbers = count(1)
        self._trees: dict[int, MailboxTree] = {}
        self._mailboxes: dict[int, MemoryMailbox] = {}
        """By number, also those that were deleted while a session has them open."""

    # --- mailboxes ---

    def _tree(self, account: Account) -> MailboxTree:
        if account.id not in self._trees:
            self._trees[account.id] = MailboxTree(self._make)
        return self._trees[account.id]

    def _make(self) -> MemoryMailbox:
        made = MemoryMailbox(next(self._numbers))
        self._mailboxes[made.id] = made
        return made

    async def folders(self, account: Account) -> list[Folder]:
        """Every mailbox of the account, with every right."""
        tree = self._tree(account)
        return [Folder(name, tree.get(name).id, _RIGHTS) for name in tree.names()]

    async def folder(self, account: Account, name: str) -> Folder:
        """Raises NotFoundError."""
        return Folder(canonical_name(name), self._tree(account).get(name).id, _RIGHTS)

    async def open(self, account: Account, name: str) -> Grant:
        """Raises NotFoundError."""
        folder = await self.folder(account, name)
        return Grant(account, folder, self._mailboxes[folder.mailbox_id])

    async def in_force(self, grant: Grant) -> Grant | None:
        """The same: rights never change."""
        return grant

    async def rights_on(self, account: Account, folder: Folder) -> list[tuple[str, str]]:
        """The account alone."""
        return [(account.login, folder.rights)]

    async def subscriptions(self, account: Account) -> list[str]:
        """In order; names of mailboxes that are gone are among them (RFC 3501 6.3.6)."""
        return sorted(self._tree(account).subscribed)

    async def subscribe(self, account: Account, name: str) -> None:
        """Raises NotFoundError."""
        tree = self._tree(account)
        tree.get(name)
        tree.subscribed.add(canonical_name(name))

    async def unsubscribe(self, account: Account, name: str) -> None:
        """The name may be that of a mailbox that is gone."""
        self._tree(account).subscribed.discard(canonical_name(name))

    async def create(self, account: Account, name: str) -> None:
        """Raises ConflictError, RefusedError."""
        self._tree(account).create(name)

    async def delete(self, account: Account, name: str) -> None:
        """Sessions that have it selected keep what they see. Raises NotFoundError, RefusedError."""
        self._tree(account).delete(name)

    async def rename(self, account: Account, old: str, new: str) -> None:
        """Raises NotFoundError, ConflictError, RefusedError."""
        tree = self._tree(account)
        target = tree.rename(old, new)
        if target is not None:
            source = tree.get(old)
            self._transfer(source, source.slots(), target)
            source.remove(source.slots())
            self.hub.changed(source.id)

    # --- messages ---

    async def appendable(self, account: Account, name: str) -> None:
        """Whether there is such a mailbox is told when the message is here: a tester may count on sending it."""

    async def append(
        self, account: Account, folder: str, flags: frozenset[str], internal_date: datetime | None, content: bytes
    ) -> tuple[int, int]:
        """Raises NotFoundError, RefusedError (keywords beyond the limits)."""
        mailbox = self._tree(account).get(folder)
        check_limits(FlagChange(FlagAction.ADD, flags), mailbox.keywords)
        kept = frozenset(canonical(flag, mailbox.keywords) for flag in flags)
        message = MemoryMessage(
            f"memory-{next(self._message_numbers)}",
            content,
            self._indexer.index(content),
            internal_date or self._clock.now(),
        )
        uid = mailbox.add(message, frozenset(filter(self.policy.keeps, kept)))
        self.hub.changed(mailbox.id)
        return mailbox.uid_validity, uid

    async def copy(self, grant: Grant, uids: Sequence[int], target: str) -> Copied:
        """Raises NotFoundError: there is no target."""
        into = self._tree(grant.account).get(target)
        mailbox = self._of(grant.mailbox)
        return into.uid_validity, self._transfer(mailbox, mailbox.present_slots(uids), into)

    async def move(self, grant: Grant, uids: Sequence[int], target: str) -> Copied:
        """Also to the mailbox itself, where the messages get new UIDs. Raises NotFoundError."""
        copied = await self.copy(grant, uids, target)
        mailbox = self._of(grant.mailbox)
        mailbox.remove(mailbox.present_slots(uids))
        self.hub.changed(mailbox.id)
        return copied

    def _transfer(self, mailbox: MemoryMailbox, slots: Sequence[int], into: MemoryMailbox) -> list[tuple[int, int]]:
        done = [(mailbox.uids[slot], into.add(mailbox.messages[slot], mailbox.flags[slot])) for slot in slots]
        if done:
            self.hub.changed(into.id)
        return done

    async def expunge(self, grant: Grant, uids: Sequence[int] | None) -> list[int]:
        r"""Those that are \Deleted."""
        mailbox = self._of(grant.mailbox)
        slots = mailbox.slots() if uids is None else mailbox.present_slots(uids)
        left = mailbox.remove([slot for slot in slots if DELETED in mailbox.flags[slot]])
        if left:
            self.hub.changed(mailbox.id)
        return left

    def _of(self, mailbox: SharedMailbox) -> MemoryMailbox:
        return self._mailboxes[mailbox.id]

    # --- looking and flags ---

    async def indexed(self, mailbox: SharedMailbox, uids: Sequence[int]) -> dict[int, IndexedMessage]:
        """By UID; of messages that left as well, for sessions that were not told yet."""
        return {uid: message.indexed for uid, message in self._messages(mailbox, uids)}

    async def contents(
        self,
        mailbox: SharedMailbox,
        uids: Sequence[int],
        *,
        keep: bool = False,  # noqa: ARG002 - everything is kept
    ) -> dict[int, bytes]:
        """Likewise."""
        return {uid: message.content for uid, message in self._messages(mailbox, uids)}

    async def headers(self, mailbox: SharedMailbox, uids: Sequence[int]) -> dict[int, bytes]:
        """Likewise."""
        found = self._messages(mailbox, uids)
        return {uid: message.content[: message.indexed.header_end] for uid, message in found}

    def _messages(self, mailbox: SharedMailbox, uids: Sequence[int]) -> Iterable[tuple[int, MemoryMessage]]:
        here = self._of(mailbox)
        for uid in uids:
            slot = here.index_of(uid)
            if slot is None:
                raise NotFoundError("No such message")
            yield uid, here.messages[slot]

    async def search(self, mailbox: SharedMailbox, terms: Iterable[TextTerm]) -> dict[TextTerm, set[int]]:
        """On the texts that the indexer made."""
        here = self._of(mailbox)
        rows = [(uid, message.indexed) for uid, message in zip(here.uids, here.messages, strict=True)]
        return {term: {uid for uid, row in rows if matches(term, row)} for term in terms}

    async def record(
        self, grant: Grant, action: str, uids: Sequence[int], detail: Mapping[str, Any] | None = None
    ) -> None:
        """There is no audit log of what is nobody's."""

    async def record_refusal(self, account: Account, action: str) -> None:
        """Likewise."""

    async def mark_read(
        self,
        grant: Grant,
        uids: Sequence[int],
        *,
        set_seen: bool,
        audit: Sequence[int],  # noqa: ARG002 - see record
    ) -> None:
        r"""Set \Seen."""
        if set_seen:
            await self.change_flags(grant, uids, FlagChange(FlagAction.ADD, frozenset({SEEN})))

    async def change_flags(
        self, grant: Grant, uids: Sequence[int], change: FlagChange, *, unchanged_since: int | None = None
    ) -> set[int]:
        """Messages that left are passed over. Raises RefusedError (keywords beyond the limits)."""
        mailbox = self._of(grant.mailbox)
        check_limits(change, mailbox.keywords)
        asked = frozenset(filter(self.policy.keeps, change.flags))
        slots = mailbox.present_slots(uids)
        modified = {slot for slot in slots if unchanged_since is not None and mailbox.modseqs[slot] > unchanged_since}
        wanted = {slot: _applied(change.action, mailbox.flags[slot], asked) for slot in slots if slot not in modified}
        changes = {slot: flags for slot, flags in wanted.items() if flags != mailbox.flags[slot]}
        mailbox.set_flags(changes)
        if changes:
            self.hub.changed(mailbox.id)
        return {mailbox.uids[slot] for slot in modified}


def _applied(action: FlagAction, current: frozenset[str], asked: frozenset[str]) -> frozenset[str]:
    if action is FlagAction.ADD:
        return current | asked
    return current - asked if action is FlagAction.REMOVE else asked
