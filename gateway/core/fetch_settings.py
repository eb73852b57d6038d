"""The settings of an upstream mailbox (``[[fetch]]``), and what must hold among them.

Nothing here is secret: passwords and tokens stand in files of their own, which are named here and read at each login.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.core.errors import InputError
from gateway.core.fetching import check_after, check_name, is_loopback

PORTS = {("imap", True): 993, ("imap", False): 143, ("pop3", True): 995, ("pop3", False): 110}
"""By protocol and whether TLS comes first (RFC 8314 section 3)."""


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """One upstream mailbox."""

    name: str = ""
    protocol: str = "imap"
    host: str = ""
    port: int = 0
    """0 = the usual one."""
    tls: str = "implicit"
    """``implicit`` or ``starttls``; ``none`` to this very machine only."""
    ca_file: Path | None = None
    """The authorities that may vouch for the server, instead of those of the system."""
    username: str = ""
    password_file: Path | None = None
    oauth_token_file: Path | None = None
    mailbox: str = "INBOX"
    addresses: tuple[str, ...] = ()
    after: str = ""
    """See :func:`gateway.core.fetching.check_after`."""
    poll_seconds: int = 120
    idle: bool = True
    max_message_mib: int = 50
    enabled: bool = True

    @property
    def max_message_bytes(self) -> int:
        return self.max_message_mib << 20

    @property
    def secret_file(self) -> Path:
        """The file with the password or the token."""
        found = self.password_file or self.oauth_token_file
        if found is None:
            raise InputError("password_file or oauth_token_file is missing")
        return found


def completed(account: FetchSettings, addresses: Collection[str], domains: Collection[str]) -> FetchSettings:
    """The settings with what was left to us filled in.

    Args:
        account: as read.
        addresses: those that have an inbox here.
        domains: the local health domains.

    Raises:
        InputError: something does not fit; the text names the key and the mend.
    """
    check_name(account.name)
    for key in ("host", "username", "mailbox"):
        value = getattr(account, key)
        if not value or not value.isprintable() or len(value) > 255:
            raise InputError(f"{key} must be set, to printable characters")
    if any(char.isspace() for char in account.host):
        raise InputError("host must be one name or address")
    if (account.password_file is None) == (account.oauth_token_file is None):
        raise InputError("set password_file or oauth_token_file, and not both: the secret stands in that file")
    if account.tls == "none" and not is_loopback(account.host):
        raise InputError(
            'tls = "none" would send password and mail in the clear; use "implicit" or "starttls" '
            "(none is for a loopback address, as 127.0.0.1)"
        )
    if account.protocol == "pop3" and account.mailbox.upper() != "INBOX":
        raise InputError("mailbox: pop3 knows INBOX only")
    _check_addresses(account.addresses, addresses, domains)
    return replace(
        account,
        port=account.port or PORTS[account.protocol, account.tls == "implicit"],
        after=check_after(account.protocol, account.after),
        mailbox="INBOX" if account.mailbox.upper() == "INBOX" else account.mailbox,
    )


def _check_addresses(wanted: Sequence[str], addresses: Collection[str], domains: Collection[str]) -> None:
    if not wanted:
        raise InputError("addresses is empty: name the Direct addresses whose mail lies in this mailbox")
    if len(set(wanted)) != len(wanted):
        raise InputError("addresses: one is named twice")
    for address in wanted:
        if address.rpartition("@")[2] not in domains:
            raise InputError(f"addresses: {address} is not in practice.domains")
        if address not in addresses:
            raise InputError(f"addresses: {address} has no inbox here; add it to practice.addresses")


def check_together(accounts: Sequence[FetchSettings]) -> None:
    """What must hold among all accounts.

    Raises:
        InputError: a name or a mailbox is used twice.
    """
    names: set[str] = set()
    mailboxes: dict[tuple[object, ...], str] = {}
    for account in accounts:
        if account.name in names:
            raise InputError(f"two [[fetch]] have the name {account.name}; each needs its own")
        names.add(account.name)
        place = (account.protocol, account.host.lower(), account.port, account.username, account.mailbox)
        if place in mailboxes:
            raise InputError(f"{mailboxes[place]} and {account.name} fetch the same mailbox; keep one of them")
        mailboxes[place] = account.name
