"""What the store remembers of logins: app passwords, who is disabled, and which mail clients are logged in now."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from gateway.ports.rows import Account, Folder

OWN_PASSWORD = 0
"""Stands where the number of an app password may stand: the account's own password, or a token."""


@dataclass(frozen=True, slots=True)
class AppPassword:
    """A second secret of an account, for one mail client. Its number is unique within the account, for ever."""

    number: int
    name: str
    made_at: datetime
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    used_at: datetime | None = None
    """To the hour."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a login is decided by."""

    account: Account
    enabled: bool
    app_passwords: tuple[AppPassword, ...]
    """Those that were not taken back, by number."""
    used_at: datetime | None
    """When the account's own password, or a token for it, was last used; to the hour."""

    @property
    def last_login(self) -> datetime | None:
        """To the hour, by whatever secret that is still there."""
        known = [self.used_at, *(one.used_at for one in self.app_passwords)]
        return max((at for at in known if at is not None), default=None)


@dataclass(frozen=True, slots=True)
class AccountOverview:
    """One line of ``user list``."""

    credentials: Credentials
    folders: tuple[Folder, ...]
    disabled_at: datetime | None
    disabled_reason: str
    sessions: int


@dataclass(frozen=True, slots=True)
class ClientSession:
    """A mail client that is logged in, as the store has it."""

    id: str
    node: str
    account_id: int
    protocol: str
    """``imap`` or ``pop3``."""
    peer: str
    """Network address of the client."""
    method: str
    """``password``, ``app-password`` or ``token``."""
    app_password: int
    """Its number, or OWN_PASSWORD."""
    since: datetime
    login: str = ""
    """Of the account; only in what the store gives."""
    ended_at: datetime | None = None
    """When somebody asked to end it; its node does that."""
    ended_by: str = ""


class LoginRows(Protocol):
    """What a login is decided by. App passwords and the state of an account are append-only."""

    def credentials(self, login: str) -> Credentials | None:
        """None when there is no such login. As many statements are run for that as for one that there is."""
        ...

    def overview(self) -> list[AccountOverview]:
        """Every account, by login."""
        ...

    def add_app_password(self, account_id: int, name: str, salt: bytes, digest: bytes, at: datetime) -> int:
        """Add one and return its number."""
        ...

    def end_app_password(self, account_id: int, number: int, actor: str, at: datetime) -> None:
        """Take one back. Raises NotFoundError: there is none, or it was taken back already."""
        ...

    def set_enabled(self, account_id: int, actor: str, reason: str, at: datetime, *, enabled: bool) -> None: ...

    def note_use(self, account_id: int, number: int, at: datetime) -> None:
        """Remember when the secret was last used: the number of an app password, or OWN_PASSWORD."""
        ...


class SessionRows(Protocol):
    """Which mail clients are logged in now, on every node. Mutable: the audit log keeps who logged in when."""

    def add(self, session: ClientSession) -> None: ...

    def remove(self, ids: Sequence[str]) -> None: ...

    def all(self) -> list[ClientSession]:
        """The oldest first."""
        ...

    def asked(self, node: str) -> list[str]:
        """Ids of the node's sessions that somebody asked to end."""
        ...

    def ask_to_end(self, ids: Collection[str], actor: str, at: datetime) -> None:
        """Ask the nodes of the sessions to end them; what was asked before stays as it was asked."""
        ...

    def of_account(self, account_id: int, app_password: int | None = None) -> list[str]:
        """Ids of the sessions of the account; only those that began with that app password when one is named."""
        ...
