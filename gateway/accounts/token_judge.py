"""What a login by access token asks for.

The judge itself is :mod:`gateway.accounts.tokens`. The daemon makes it; commands do not wait for the libraries that it
needs, and work while the keys of the authority cannot be read.
"""

from __future__ import annotations

from typing import Protocol


class TokenRefusedError(Exception):
    """The token speaks for nobody. ``reason`` is one word for the audit log, and for nobody outside."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TokenJudge(Protocol):
    """Judges the tokens of one authority."""

    async def login_of(self, token: str) -> str:
        """The login that the token speaks for. Raises TokenRefusedError, KeyUnavailableError."""
        ...
