"""Watches over the key file of the stored messages while the gateway runs.

The gateway has the keys in its memory and goes on without the file; after a restart nobody could read a stored message
again. So somebody must be told while there is still time: ``doubt`` says what is wrong, for the health of the gateway,
and ``run`` looks by itself, so that the log says it where nobody asks for the health.

Keys on a token are the token's business; a file beside the token is missed only when stored mail rests on a key in it.

Failure modes: StoreError from ``doubt`` when the database must be asked and does not answer. ``run`` survives it. No
path and no key is in a text or in the log.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.core.errors import ConfigurationError, GatewayError, KeyUnavailableError
from gateway.keys.body_key_file import KeyFile
from gateway.keys.body_keys import key_file
from gateway.observability.log import get_log
from gateway.ports import KeyWrapper, Store, UnitOfWork
from gateway.settings import CREDENTIAL_PREFIX, Settings

LOOK_SECONDS = 30.0
LOST = "no stored message could be read after a restart: do not stop the gateway"
log = get_log("keys")


class BodyKeyWatch:
    """One for a daemon."""

    def __init__(self, settings: Settings, ring: KeyWrapper, store: Store, *, pid: int) -> None:
        """``ring`` is the one that the daemon works with; ``pid`` is the daemon's, for the words on what to do."""
        self._settings = settings
        self._ring = ring
        self._store = store
        self._pid = pid
        self._on_token = bool(settings.store.key_token_label)
        self._beside_token = _ids_of(self._file()) or frozenset() if self._on_token else frozenset()
        self._reload_failed = False
        self._told = False

    def reload(self) -> None:
        """Read the ring again; what cannot be read leaves what is known in force, and is told. Raises nothing."""
        try:
            self._ring.reload()
            self._reload_failed = False
        except (ConfigurationError, KeyUnavailableError) as exc:
            self._reload_failed = True
            log.warning("body_keys_reload_failed", exc=exc)

    @property
    def reload_failed(self) -> bool:
        """Whether the last reload left what was read before in force."""
        return self._reload_failed

    async def doubt(self) -> str | None:
        """What a person must do about the keys now; None when nothing is wrong. Raises StoreError."""
        lost = await self._lost()
        if bool(lost) != self._told:
            self._told = bool(lost)
            log.error("body_key_file_lost") if lost else log.info("body_key_file_is_back")
        if lost:
            return lost
        if not self._reload_failed:
            return None
        return (
            "the last reload could not read the keys of stored messages: what was read before stays in force; "
            f"direct-gateway config check says why, and once it is mended: kill -HUP {self._pid}"
        )

    async def run(self) -> None:
        """Look, and look again, until cancelled."""
        while True:
            try:
                await self.doubt()
            except GatewayError as exc:
                # The database is away, which is told by others; this is looked at again.
                log.warning("body_key_look_failed", exc=exc)
            await asyncio.sleep(LOOK_SECONDS)

    async def _lost(self) -> str:
        file = self._file()
        if file is None:
            return ""
        now = await asyncio.to_thread(_ids_of, file)
        known = self._beside_token if self._on_token else await asyncio.to_thread(self._known)
        missing = known - (now or frozenset())
        if now is None and not self._on_token:
            gone = not await asyncio.to_thread(_is_there, file)
            what = "is gone" if gone else "cannot be read any more"
            return f"the file of store.key_file {what}, and {LOST}; put the file back from your copy"
        if missing and missing & await self._store.read(_needed):
            return f"the file of store.key_file lacks a key that stored mail rests on, and {LOST}; put it back"
        return ""

    def _known(self) -> frozenset[str]:
        try:
            return frozenset(self._ring.ids())
        except (ConfigurationError, KeyUnavailableError):
            return frozenset()

    def _file(self) -> KeyFile | None:
        """The file as a start would read it: nothing is remembered from one look to the next."""
        if self._on_token and self._settings.store.key_file.startswith(CREDENTIAL_PREFIX):
            return None
        return key_file(self._settings)


def _ids_of(file: KeyFile | None) -> frozenset[str] | None:
    """The ids in the file; None when it is not there, or is no key file."""
    try:
        return None if file is None else frozenset(file.ids())
    except ConfigurationError:
        return None


def _is_there(file: KeyFile) -> bool:
    try:
        return Path(file.place).exists()
    except (ConfigurationError, OSError):
        return False


def _needed(rows: UnitOfWork) -> frozenset[str]:
    """The keys without which a stored message, or the next one, cannot be read."""
    newest = rows.body_keys.newest()
    return frozenset(use.kek_id for use in rows.body_keys.keks() if use.messages or use.kek_id == newest)
