"""A session in IDLE (RFC 2177): waits for its client's DONE and for news of the mailbox, whichever comes first.

Thousands of sessions are in IDLE all day long. So one that waits holds no task of its own and no command that is under
way: the session's loop waits here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.inbox.change_hub import Subscription
from gateway.serving.connection import Connection


class Idling:
    """An IDLE that was begun. ``tag`` is that of its command. Close it at its end."""

    __slots__ = ("_subscription", "tag")

    def __init__(self, tag: bytes, subscription: Subscription | None) -> None:
        """``subscription`` to the selected mailbox, which wakes the connection; None when none is selected."""
        self.tag = tag
        self._subscription = subscription

    async def line(self, connection: Connection, look: Callable[[], Awaitable[None]]) -> bytes:
        """The client's next line; until it comes, ``look`` is called for every hint.

        Raises ConnectionClosedError, LineTooLongError.
        """
        subscription = self._subscription
        while (line := connection.line_here()) is None:
            if subscription is not None and subscription.taken():
                await look()
                await connection.flush()
            else:
                # Nothing is awaited between the looks above and this: no hint and no octet is passed over.
                await connection.arrival()
        return line

    def close(self) -> None:
        """No hints any more."""
        if self._subscription is not None:
            self._subscription.close()
