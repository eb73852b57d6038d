"""Whether what a session was allowed when it selected a mailbox still holds.

Rights are changed by commands of the operator, in another process, while sessions are open. So before a command reads
or changes something in the selected mailbox, the grant is looked at again. Commands that a client sends in a row share
one look: what was true a moment ago counts, for less time than the operator's command needs to end and say that it is
done.

Failure modes: StoreError when the store cannot say; then nothing may be shown.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from gateway.ports import Account, Folder

FRESH_SECONDS = 0.02
MAX_ACCOUNTS = 1_000
"""Remembered at a time; more are asked for anew."""

READ = "r"


class RightsInForce:
    """One per process; it belongs on the event loop."""

    def __init__(
        self,
        folders: Callable[[Account], Awaitable[Sequence[Folder]]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``folders`` gives those that an account may look up now."""
        self._folders = folders
        self._monotonic = monotonic
        self._looked: dict[int, tuple[float, Sequence[Folder]]] = {}

    async def look(self, account: Account) -> Sequence[Folder]:
        """The folders of the account now, whatever was looked at before. Raises StoreError."""
        began = self._monotonic()
        folders = await self._folders(account)
        if len(self._looked) >= MAX_ACCOUNTS:
            self._looked.clear()
        # Counted from before the look: what was changed during it may not be in it. Of two looks that were under way
        # at one time the later one counts.
        known = self._looked.get(account.id)
        if known is None or known[0] <= began:
            self._looked[account.id] = (began, folders)
        return folders

    async def of(self, account: Account, folder: Folder) -> Folder | None:
        """The folder with the rights of now; None when the account may not read it any more. Raises StoreError."""
        looked = self._looked.get(account.id)
        if looked is not None and self._monotonic() - looked[0] < FRESH_SECONDS:
            folders = looked[1]
        else:
            folders = await self.look(account)
        for one in folders:
            if one is folder or (one.name, one.mailbox_id, one.view) == (folder.name, folder.mailbox_id, folder.view):
                return one if READ in one.rights else None
        return None
