r"""Which session was the first to hear of a message: for it, and for no other, the message is ``\Recent``.

RFC 3501 2.3.2. One mark a mailbox, the highest UID that a session of this process was told of, is all that it takes,
because UIDs ascend. Nothing is written: what was there when a mailbox was first looked at after a start is not recent,
since somebody may have been told of it before; else every message of a large mailbox would be announced as new.
Processes that share a store each keep their own marks, so that two sessions may both be the first, as the RFC allows.
"""

from __future__ import annotations

from bisect import bisect_right

from gateway.inbox.service import Grant


class Recents:
    """One for all sessions of a listener; it belongs on the event loop."""

    def __init__(self, *, all_recent: bool = False) -> None:
        """``all_recent``: everything came in this process's life."""
        self._all_recent = all_recent
        self._told: dict[tuple[int, str, int], int] = {}

    def untold(self, grant: Grant, below: int) -> range:
        """The slots smaller than ``below`` of the messages that no session was told of."""
        mailbox = grant.mailbox
        key = (grant.folder.mailbox_id, grant.folder.view, mailbox.uid_validity)
        told = self._told.get(key)
        if told is None:
            told = self._told[key] = 0 if self._all_recent else mailbox.uid_next - 1
        return range(bisect_right(mailbox.uids, told, 0, below), below)

    def tell(self, grant: Grant, below: int) -> range:
        """As :meth:`untold`; now a session has been told of them."""
        found = self.untold(grant, below)
        if found:
            mailbox = grant.mailbox
            self._told[grant.folder.mailbox_id, grant.folder.view, mailbox.uid_validity] = mailbox.uids[below - 1]
        return found
