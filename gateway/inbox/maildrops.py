r"""The maildrop: a folder as POP3 shows it, the same messages that IMAP shows, without those that were deleted there.

A maildrop is what the folder held when it was opened: numbers and sizes stay for the whole session (RFC 1939 section
4), whatever comes meanwhile. To delete a message takes it out of the POP3 listing of this account, and out of nothing
else: IMAP, other accounts and the store keep it, and an operator can show everything again (EP-29, EP-30).

Guarantees: as those of :mod:`gateway.inbox.service`. What is read or listed is in the audit log before its first byte
is given out, once for each session, with ``protocol: pop3``; so is each attempt to delete. :meth:`Maildrops.hide` is
one transaction: all messages of a session leave the listing, or none. A message whose body is read is \Seen, where the
account has the right to that.

Failure modes: NotFoundError and RefusedError when the account has no such folder to show; StoreError when the store
cannot answer, or cannot keep the event: then nothing may be shown, and nothing was hidden. A process that dies in
:meth:`Maildrops.hide` has hidden all or nothing; a client that deletes the same again finds them gone, or hides them.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.core.errors import NotFoundError, RefusedError
from gateway.inbox.flags import SEEN
from gateway.inbox.readings import Readings
from gateway.inbox.service import DELETE_IGNORED, MESSAGE_LISTED, MESSAGE_READ, Grant, Inbox
from gateway.inbox.shared_mailbox import SharedMailbox
from gateway.ports import Account, Clock, Store, UnitOfWork

MESSAGE_HIDDEN = "message.hidden"
"""Messages left the POP3 listing of an account."""
LISTING_RESTORED = "pop3.restored"
"""Everything is in it again."""
AT_ONCE = 4_096
"""Messages that are looked at before others have their turn on the event loop."""
_POP3: Final = {"protocol": "pop3"}


@dataclass(slots=True)
class Maildrop:
    """The messages of one session. A number is from 1; ``slots`` are indexes of the shared mailbox, ascending."""

    grant: Grant
    slots: Sequence[int]
    readings: Readings = field(default_factory=Readings)

    @property
    def mailbox(self) -> SharedMailbox:
        """What is shared with everybody who has the folder open."""
        return self.grant.mailbox

    def __len__(self) -> int:
        return len(self.slots)

    def slot(self, number: int) -> int:
        """The slot of a message number. Raises NotFoundError."""
        if not 1 <= number <= len(self.slots):
            raise NotFoundError("No such message")
        return self.slots[number - 1]

    def uid(self, number: int) -> int:
        """The UID of a message. Raises NotFoundError."""
        return self.mailbox.uids[self.slot(number)]

    def unique_id(self, number: int) -> str:
        """The unique-id of RFC 1939: the same over sessions and restarts, never that of another message.

        The mailbox is part of it: mailboxes that were made in the same second have the same UIDVALIDITY, and a login
        may be given another INBOX.
        """
        return f"{self.mailbox.uid_validity}.{self.mailbox.id}.{self.uid(number)}"

    async def need_sizes(self, numbers: range) -> None:
        """Read what is not known yet of the sizes of these messages. Raises StoreError."""
        await self.mailbox.details.need(self.slots[numbers.start - 1 : numbers.stop - 1])

    def size_bytes(self, number: int) -> int:
        """Octets of the message; :meth:`need_sizes` comes first. Raises NotFoundError."""
        return self.mailbox.details.size_bytes(self.slot(number))

    async def total_bytes(self) -> int:
        """Octets of all messages. Raises StoreError."""
        total = 0
        for numbers in self.portions():
            await self.need_sizes(numbers)
            total += sum(map(self.size_bytes, numbers))
            await asyncio.sleep(0)
        return total

    def portions(self) -> Iterator[range]:
        """All message numbers, so many at a time."""
        for start in range(1, len(self.slots) + 1, AT_ONCE):
            yield range(start, min(start + AT_ONCE, len(self.slots) + 1))


class Maildrops:
    """Opens maildrops and does what is done with their messages. One per process."""

    def __init__(self, store: Store, clock: Clock, inbox: Inbox, folder: str) -> None:
        """``folder``: its name, of each account."""
        self._store = store
        self._clock = clock
        self._inbox = inbox
        self._folder = folder

    async def open(self, account: Account) -> Maildrop:
        """Open the maildrop as it is now.

        Raises NotFoundError, RefusedError (no right to read, or the folder is a view), StoreError.
        """
        grant = await self._inbox.open(account, self._folder)
        mailbox = grant.mailbox
        if grant.folder.view or mailbox.loses:
            # A view has UIDs of its own, which what was hidden does not speak of.
            raise RefusedError("A view cannot be a maildrop")
        hidden = await self._store.read(lambda unit: unit.pop3.hidden(account.id, mailbox.id))
        return Maildrop(grant, _slots(mailbox, hidden))

    async def look_at_rights(self, maildrop: Maildrop) -> None:
        """Take over the rights of now: an operator may have changed them since the login.

        Raises RefusedError when the account may not read the folder any more, StoreError.
        """
        grant = await self._inbox.in_force(maildrop.grant)
        if grant is None:
            raise RefusedError("The right to read these messages was taken away")
        maildrop.grant = grant

    async def read(self, maildrop: Maildrop, number: int) -> bytes:
        r"""The whole message, to be shown: recorded as read, and \Seen. Raises NotFoundError, StoreError."""
        slot = maildrop.slot(number)
        content = await self._content(maildrop, number)
        unrecorded = maildrop.readings.unrecorded(MESSAGE_READ, [slot])
        uid = maildrop.uid(number)
        await self._inbox.mark_read(
            maildrop.grant,
            [uid],
            set_seen=SEEN not in maildrop.mailbox.flags[slot],
            audit=[uid] if unrecorded else [],
            detail=_POP3,
        )
        maildrop.readings.remember(MESSAGE_READ, unrecorded)
        return content

    async def look(self, maildrop: Maildrop, number: int, *, into_body: bool) -> bytes:
        r"""The same for a look at its beginning, which leaves \Seen alone.

        It is recorded as listed, or as read when lines of the body are shown. Raises NotFoundError, StoreError.
        """
        content = await self._content(maildrop, number)
        await self._record(maildrop, number, MESSAGE_READ if into_body else MESSAGE_LISTED)
        return content

    async def record_deletion(self, maildrop: Maildrop, number: int) -> None:
        """Write down that somebody tries to delete a message. Raises NotFoundError, StoreError."""
        await self._record(maildrop, number, DELETE_IGNORED)

    async def hide(self, maildrop: Maildrop, numbers: Sequence[int]) -> int:
        """Take messages out of the account's listing; returns how many were in it. Raises StoreError."""
        grant = maildrop.grant
        uids = sorted(maildrop.uid(number) for number in numbers)
        at = self._clock.now()

        def work(unit: UnitOfWork) -> int:
            count = unit.pop3.hide(grant.account.id, grant.mailbox.id, uids, at)
            if count:
                self._inbox.add_event(unit, grant, MESSAGE_HIDDEN, uids, **_POP3, hidden=count)
            return count

        return await self._store.write(work) if uids else 0

    async def _content(self, maildrop: Maildrop, number: int) -> bytes:
        uid = maildrop.uid(number)
        return (await self._inbox.contents(maildrop.mailbox, [uid]))[uid]

    async def _record(self, maildrop: Maildrop, number: int, action: str) -> None:
        unrecorded = maildrop.readings.unrecorded(action, [maildrop.slot(number)])
        if unrecorded:
            detail = _POP3 if action == DELETE_IGNORED else {**_POP3, "peek": True}
            await self._inbox.record(maildrop.grant, action, [maildrop.uid(number)], detail)
            maildrop.readings.remember(action, unrecorded)


async def restore_listing(store: Store, clock: Clock, login: str, actor: str) -> int:
    """Put everything that an account's POP3 clients deleted into its listing again; returns how many messages.

    Raises NotFoundError (no such login), StoreError.
    """
    at = clock.now()

    def work(unit: UnitOfWork) -> int:
        account = unit.accounts.by_login(login)
        if account is None:
            raise NotFoundError("there is no account with that login")
        count = unit.pop3.restore(account.id, at, actor)
        unit.audit.add(at, actor, LISTING_RESTORED, account.login, {"account": account.id, "messages": count})
        return count

    return await store.write(work)


def _slots(mailbox: SharedMailbox, hidden: Sequence[tuple[int, int]]) -> Sequence[int]:
    """The slots that are listed. Without anything hidden they are all, which cost no memory."""
    count = len(mailbox)
    if not hidden:
        return range(count)
    listed, start = array("I"), 0
    for first, last in hidden:
        listed.extend(range(start, bisect_left(mailbox.uids, first, start, count)))
        start = bisect_right(mailbox.uids, last, start, count)
    listed.extend(range(start, count))
    return listed
