"""The sessions of mail clients that are open now, as the servers see them: told when one begins and when it ends.

An operator lists sessions and ends them, on any node (``session list``, ``session end``, ``user disable``). The server
learns of it by :attr:`SessionHandle.ended`, or at once by the function that it gave to :meth:`SessionHandle.on_end`,
and then closes the connection, whatever the client is doing: waiting in IDLE, in the middle of an answer, or not
reading at all. A server that runs each session in a task of its own gives ``task.cancel``, and tells the cancellation
by ``ended.is_set()`` from that of the daemon's end.

Every method belongs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.ports import Account


class Ended(Protocol):
    """An event; only whether it has happened is asked here."""

    def is_set(self) -> bool:
        """Whether it has happened."""
        ...


class SessionHandle(Protocol):
    """One session, from its login to its end."""

    @property
    def ended(self) -> Ended:
        """Set when somebody ended the session from outside. The server closes the connection then."""
        ...

    def on_end(self, interrupt: Callable[[], object]) -> None:
        """Call the function once, when somebody ends the session; at once when that has happened already."""
        ...

    async def end(self) -> None:
        """The session is over, for whatever reason. May be called twice; never fails, never waits for the store."""
        ...


class SessionRegistry(Protocol):
    """The open sessions of this node."""

    def begin(self, account: Account, protocol: str, peer: str) -> SessionHandle:
        """A login was answered by :meth:`gateway.serving.authenticator.Authenticator.authenticate`."""
        ...
