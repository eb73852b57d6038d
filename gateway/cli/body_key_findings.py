"""What ``config check`` says of the keys that stored messages rest on. Reads, never writes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.core.errors import ConfigurationError, GatewayError, KeyUnavailableError
from gateway.settings import CREDENTIAL_PREFIX, Settings


def body_key_findings(settings: Settings) -> tuple[list[str], list[str], list[str]]:
    """Return (errors, warnings, notes)."""
    from gateway.keys.body_keys import body_keys  # noqa: PLC0415 - heavy, and not needed to parse a command line

    try:
        ring = body_keys(settings)
        if not ring.ids():
            _ = ring.current_id
        error = _missing_keys(settings)
    except (ConfigurationError, KeyUnavailableError) as exc:
        return [str(exc)], [], []
    note = f"keep a copy of {ring.place} apart from the database and its backups: no stored message opens without it"
    return [error] if error else [], _exposed(settings), [note]


def _missing_keys(settings: Settings) -> str:
    """What stored messages lack; empty when there is no database, or it cannot be asked: that is told by others."""
    from gateway.store.opening import missing_tables  # noqa: PLC0415 - as above

    async def ask() -> None:
        from gateway.services import open_services  # noqa: PLC0415 - as above

        async with open_services(settings) as services:
            await services.store.read(lambda rows: rows.body_keys.require())

    try:
        # To open a database without tables would make them.
        if not missing_tables(settings.store):
            asyncio.run(ask())
    except (ConfigurationError, KeyUnavailableError) as exc:
        return str(exc)
    except (GatewayError, OSError):
        return ""
    return ""


def _exposed(settings: Settings) -> list[str]:
    if settings.store.key_file.startswith(CREDENTIAL_PREFIX):
        return []
    path = Path(settings.store.key_file)
    if not path.is_file() or not path.stat().st_mode & 0o077:
        return []
    return [f"{path} can be read by others, who could read all stored mail with it; run: chmod 600 {path}"]
