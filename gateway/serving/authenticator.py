"""Who decides a login, as the servers see it (EP-20): one decision for every protocol.

A server asks with what the client gave, the network address that it came from and the name of its protocol, and gets
an account or None. It never learns which of the possible causes a None has, and says the same to the client for all
of them. Delays after failures are the authenticator's affair: the call takes time on purpose.

What a login counts against (limits, ``session list``) begins with the call: whoever gets an account goes on with
:meth:`gateway.serving.session_registry.SessionRegistry.begin` at once, without waiting for anything in between.

Failure modes: StoreError (nobody can be let in now); TooManySessionsError (the secret was right, and the account has as
many sessions as it may: the client is told so, because only whoever knows the secret can learn it).
"""

from __future__ import annotations

from typing import Protocol

from gateway.ports import Account


class Authenticator(Protocol):
    """Who decides logins."""

    @property
    def takes_tokens(self) -> bool:
        """Whether OAuth access tokens are taken (RFC 7628)."""
        ...

    async def authenticate(self, login: str, password: bytes, peer: str, protocol: str = "imap") -> Account | None:
        """The account, or None, whatever the cause. ``protocol`` is ``imap`` or ``pop3``.

        Raises TooManySessionsError, StoreError.
        """
        ...

    async def authenticate_token(self, token: str, login_hint: str, peer: str, protocol: str) -> Account | None:
        """The account that an access token speaks for, or None, whatever the cause.

        ``login_hint`` is the authorization identity that the client gave; empty, or it must be the account's login.
        Raises TooManySessionsError, StoreError.
        """
        ...
