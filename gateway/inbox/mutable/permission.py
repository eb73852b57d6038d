"""Where the mutable mailboxes may run: only this machine can reach them, and no mail is there that they would hide."""

from __future__ import annotations

from gateway.core.errors import ConfigurationError
from gateway.core.fetching import is_loopback
from gateway.ports import Store

OPTION = "--imap-test-policy"
TOLD = f"{OPTION}: mail clients see test mailboxes in memory, which are gone with this process, and no mail"


async def check_permitted(imap_host: str, store: Store) -> None:
    """Raise ConfigurationError, with what to do, when the test mailboxes may not be served here; StoreError."""
    if not is_loopback(imap_host):
        raise ConfigurationError(
            f"{OPTION} lets mail clients delete messages, for tests on this machine alone: imap.host must be a "
            f"loopback address, as 127.0.0.1; it is {imap_host}"
        )
    if await store.read(lambda rows: rows.messages.newest(limit=1)):
        raise ConfigurationError(
            f"{OPTION} is for an empty store, and this one holds messages, which nobody would see; "
            "make a practice for the test: direct-gateway init DIR"
        )
