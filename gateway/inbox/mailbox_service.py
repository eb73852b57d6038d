"""What an IMAP session asks of the mailboxes behind it, whichever they are.

Two satisfy it: :class:`gateway.inbox.service.Inbox`, which is the gateway's, and keeps every message for ever; and
:class:`gateway.inbox.mutable.service.MutableInbox`, an ordinary mail server in memory, for conformance tests of the
engine. What differs between them in the rules is in :attr:`MailboxService.policy`; the commands that change something
are the same for both, and the gateway's own refuses them after writing the attempt down.

Errors of every method: NotFoundError for what the account cannot see, RefusedError when policy says no, StoreError when
the store cannot answer. Changes are kept when a call returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from gateway.inbox.change_hub import ChangeHub
from gateway.inbox.deletion_policy import DeletionPolicy
from gateway.inbox.flags import FlagChange
from gateway.inbox.no_delete import Copied
from gateway.inbox.service import Grant, TextTerm
from gateway.inbox.shared_mailbox import SharedMailbox
from gateway.ports import Account, Folder, IndexedMessage


class MailboxReading(Protocol):
    """Looking at mailboxes, and what a look leaves behind: flags and events of the audit log."""

    @property
    def hub(self) -> ChangeHub:
        """Where changes of a mailbox are hinted at."""
        ...

    @property
    def policy(self) -> DeletionPolicy: ...

    async def folders(self, account: Account) -> list[Folder]:
        """The folders that the account may look up, by name; INBOX first."""
        ...

    async def folder(self, account: Account, name: str) -> Folder:
        """One folder by its name; INBOX in any case (EP-25)."""
        ...

    async def open(self, account: Account, name: str) -> Grant:
        """Open a folder, up to date."""
        ...

    async def in_force(self, grant: Grant) -> Grant | None:
        """The grant with the rights of now; None when the account may not read the mailbox any more."""
        ...

    async def rights_on(self, account: Account, folder: Folder) -> list[tuple[str, str]]:
        """Login and rights of those who see a folder, as far as the account may know."""
        ...

    async def indexed(self, mailbox: SharedMailbox, uids: Sequence[int]) -> dict[int, IndexedMessage]:
        """Precomputed answers by UID. Raises StoreError when one is missing."""
        ...

    async def contents(self, mailbox: SharedMailbox, uids: Sequence[int], *, keep: bool = False) -> dict[int, bytes]:
        """Message bytes by UID. ``keep``: the client fetches pieces and will come back."""
        ...

    async def headers(self, mailbox: SharedMailbox, uids: Sequence[int]) -> dict[int, bytes]:
        """The header of each message as it stands in it, with the empty line that ends it, by UID."""
        ...

    async def search(self, mailbox: SharedMailbox, terms: Iterable[TextTerm]) -> dict[TextTerm, set[int]]:
        """UIDs that match each text term."""
        ...

    async def record(
        self, grant: Grant, action: str, uids: Sequence[int], detail: Mapping[str, Any] | None = None
    ) -> None:
        """Write down what is about to be done with messages of the mailbox."""
        ...

    async def record_refusal(self, account: Account, action: str) -> None:
        """Write down that somebody tried what nobody may do."""
        ...

    async def mark_read(self, grant: Grant, uids: Sequence[int], *, set_seen: bool, audit: Sequence[int]) -> None:
        r"""Set \Seen on ``uids`` where the rights allow it, and write down that ``audit`` were read."""
        ...

    async def change_flags(
        self, grant: Grant, uids: Sequence[int], change: FlagChange, *, unchanged_since: int | None = None
    ) -> set[int]:
        """Apply a STORE; returns the UIDs left alone because they changed after ``unchanged_since`` (RFC 7162)."""
        ...


class MailboxService(MailboxReading, Protocol):
    """All that sessions ask. The methods here change which messages and mailboxes there are."""

    async def subscriptions(self, account: Account) -> list[str]:
        """The names that the account is subscribed to, whether or not there is such a folder."""
        ...

    async def subscribe(self, account: Account, name: str) -> None:
        """Add a folder to them."""
        ...

    async def unsubscribe(self, account: Account, name: str) -> None:
        """Take a name from them; one that is not among them is no error."""
        ...

    async def appendable(self, account: Account, name: str) -> None:
        """Whether a message may be put into the folder, asked before its octets are taken.

        Raises NotFoundError (it could be made, RFC 3501 6.3.11), RefusedError (written down).
        """
        ...

    async def append(
        self, account: Account, folder: str, flags: frozenset[str], internal_date: datetime | None, content: bytes
    ) -> tuple[int, int]:
        """Put a message into a folder; UIDVALIDITY and UID. Without ``internal_date``: now. Raises as appendable."""
        ...

    async def create(self, account: Account, name: str) -> None:
        """Make a folder. Raises ConflictError (there is one), RefusedError."""
        ...

    async def delete(self, account: Account, name: str) -> None:
        """Remove a folder with its messages; those below it stay."""
        ...

    async def rename(self, account: Account, old: str, new: str) -> None:
        """Rename a folder and those below it; of INBOX, move the messages (RFC 3501 6.3.5). Raises as create."""
        ...

    async def copy(self, grant: Grant, uids: Sequence[int], target: str) -> Copied:
        """Copy messages into a folder, all or none. Messages that have left are passed over."""
        ...

    async def move(self, grant: Grant, uids: Sequence[int], target: str) -> Copied:
        """As :meth:`copy`, and remove them here."""
        ...

    async def expunge(self, grant: Grant, uids: Sequence[int] | None) -> list[int]:
        r"""Remove what is \Deleted, of all messages or of ``uids``; returns the UIDs that left."""
        ...
