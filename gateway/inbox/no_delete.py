"""The refusals of a store that keeps everything: an attempt is written down first, and changes nothing (EP-29, ON-10).

Failure modes: StoreError when the attempt cannot be written down; then that is the answer, and nothing changed either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Never

from gateway.core.errors import RefusedError
from gateway.inbox.deletion_policy import NO_DELETE, DeletionPolicy

if TYPE_CHECKING:
    from gateway.inbox.service import Grant
    from gateway.ports import Account, Folder

Copied = tuple[int, list[tuple[int, int]]]
"""UIDVALIDITY of the target, and for each message its UID there, was and is."""
EXPUNGE_IGNORED = "message.expunge_ignored"
COPY_REFUSED = "message.copy_refused"
MAILBOX_CHANGE_REFUSED = "mailbox.change_refused"
NO_CHANGE = "Folders and messages cannot be made or removed here"
NO_COPY = "Messages cannot be copied or moved"
NO_APPEND = "Messages cannot be added to this mailbox"


class NoDelete(ABC):
    """The part of the gateway's inbox that says no. See :class:`gateway.inbox.mailbox_service.MailboxService`."""

    policy: ClassVar[DeletionPolicy] = NO_DELETE

    @abstractmethod
    async def folders(self, account: Account) -> list[Folder]:
        """The folders that the account may look up."""

    @abstractmethod
    async def folder(self, account: Account, name: str) -> Folder:
        """One of them. Raises NotFoundError."""

    @abstractmethod
    async def record(
        self, grant: Grant, action: str, uids: Sequence[int], detail: Mapping[str, Any] | None = None
    ) -> None:
        """Write down what is about to be done with messages."""

    @abstractmethod
    async def record_refusal(self, account: Account, action: str) -> None:
        """Write down that somebody tried what nobody may do."""

    async def subscriptions(self, account: Account) -> list[str]:
        """Every folder is subscribed for good."""
        return [folder.name for folder in await self.folders(account)]

    async def subscribe(self, account: Account, name: str) -> None:
        """Granted where there is such a folder, without effect. Raises NotFoundError, StoreError."""
        await self.folder(account, name)

    async def unsubscribe(self, account: Account, name: str) -> None:
        """Granted and without effect."""
        del account, name

    async def create(self, account: Account, name: str) -> None:  # noqa: ARG002 - whatever the name
        """Refused."""
        await self._refuse(account, NO_CHANGE)

    async def delete(self, account: Account, name: str) -> None:  # noqa: ARG002 - whatever the name
        """Refused."""
        await self._refuse(account, NO_CHANGE)

    async def rename(self, account: Account, old: str, new: str) -> None:  # noqa: ARG002 - whatever the name
        """Refused."""
        await self._refuse(account, NO_CHANGE)

    async def _refuse(self, account: Account, text: str) -> Never:
        await self.record_refusal(account, MAILBOX_CHANGE_REFUSED)
        raise RefusedError(text)

    async def copy(self, grant: Grant, uids: Sequence[int], target: str) -> Copied:  # noqa: ARG002 - wherever
        """Refused: a message stays where it was filed."""
        await self.record(grant, COPY_REFUSED, uids)
        raise RefusedError(NO_COPY)

    async def move(self, grant: Grant, uids: Sequence[int], target: str) -> Copied:
        """Refused, as :meth:`copy`."""
        return await self.copy(grant, uids, target)

    async def expunge(self, grant: Grant, uids: Sequence[int] | None) -> list[int]:  # noqa: ARG002 - whichever
        r"""Nothing is ever \Deleted, so there is nothing to remove, and that is a success."""
        await self.record(grant, EXPUNGE_IGNORED, ())
        return []
