"""One attempt to log in: what was given, what it may mean, and what the audit log keeps of it."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from gateway.accounts.passwords import MAX_LOGIN_CHARS
from gateway.ports import Account, Credentials
from gateway.ports.logins import OWN_PASSWORD

PASSWORD = "password"  # noqa: S105 - the name of a method
APP_PASSWORD = "app-password"  # noqa: S105 - the name of a method
TOKEN = "token"  # noqa: S105 - the name of a method
USE_NOTED_EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Given:
    """One attempt: what was given, and what it may mean."""

    login: str
    name: str | None
    secret: bytes | None = field(repr=False)
    known: Credentials | None
    peer: str
    protocol: str
    method: str
    app_password: int = OWN_PASSWORD
    """The number of the app password that was given."""

    @property
    def account(self) -> Account | None:
        """The account of that name, whatever was given for it."""
        return None if self.known is None else self.known.account

    @property
    def usable(self) -> Account | None:
        """The account, unless it is disabled."""
        return self.known.account if self.known is not None and self.known.enabled else None

    @property
    def delay_key(self) -> str:
        """One spelling for each account, so that a change of case does not begin a new count."""
        return self.account.login if self.account is not None else (self.name or "").casefold()

    @property
    def detail(self) -> dict[str, Any]:
        """What the audit log keeps of it."""
        found: dict[str, Any] = {"peer": self.peer, "protocol": self.protocol, "method": self.method}
        return found | ({"app_password": self.app_password} if self.app_password else {})

    def still_holds(self, now: Credentials | None) -> bool:
        """Whether what was found right at first is right by now: the attempt may have waited for its turn."""
        if now is None or not now.enabled or self.account is None or now.account.id != self.account.id:
            return False
        if self.method == APP_PASSWORD:
            return self.app_password in {one.number for one in now.app_passwords}
        return self.method == TOKEN or now.account.password_hash == self.account.password_hash


def is_same_login(claimed: str, login: str) -> bool:
    """Whether a name that an authority vouches for is that login, but for its case.

    Logins are found by a wider rule, by which people of similar names are one (a long s is an s). That is harmless with
    a password, which is of one account. An authority may give such names to different people.
    """
    if any(unicodedata.normalize("NFC", character) != character for character in claimed):
        return False  # One character that stands for another, as the sign of kelvin does for a K.
    return unicodedata.normalize("NFC", claimed).lower() == login.lower()


def is_stale(known: Credentials, number: int, now: datetime) -> bool:
    """Whether it is time to write down that the secret was used."""
    used = known.used_at
    if number:
        used = next(one.used_at for one in known.app_passwords if one.number == number)
    return used is None or abs(now - used) >= USE_NOTED_EVERY


def printable(login: str) -> str:
    """A login as it may stand in the audit log, whatever was sent."""
    return "".join(char if char.isprintable() else "?" for char in login[:MAX_LOGIN_CHARS])
