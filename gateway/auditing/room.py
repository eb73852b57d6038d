"""What the daemon keeps of the audit log while it runs: the start and the stop in it, and the upkeep between them.

Order: the signing key is at hand before anything is written, the start is written before a port opens, the stop after
the last one is closed. A daemon that is killed writes no stop, and its next start says that one is missing.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from gateway.auditing.heads import TreeHeads
from gateway.auditing.keeper import AuditKeeper
from gateway.auditing.lifecycle import record_start, record_stop
from gateway.core.errors import ConfigurationError, GatewayError
from gateway.keys.head_signing import HeadSigner, load_signing_key, make_signing_key
from gateway.observability.log import get_log
from gateway.ports import Clock, Store
from gateway.settings import AuditSettings, Settings

_log = get_log("audit")


class ReservingStore(Store, Protocol):
    """A store that sets space aside for audit rows."""

    async def keep_reserve(self) -> None:
        """Set it aside (again), where there is enough."""
        ...


async def signing_key(settings: AuditSettings, store: Store) -> HeadSigner:
    """The key that signs heads. It is made where none was ever used, as ``init`` makes it for a new practice.

    Raises:
        ConfigurationError: it is gone, although heads were signed with it; or it cannot be read.
        StoreError: the store does not answer.
    """
    path = settings.signing_key_file
    if path.exists() or await store.read(lambda rows: rows.audit_tree.newest_head()) is not None:
        return load_signing_key(path)
    try:
        return make_signing_key(path)
    except ConfigurationError:
        # Another process may have been faster.
        return load_signing_key(path)


class Auditing:
    """Enter it before the first port opens and leave it after the last is closed; ``keeper.run`` belongs between."""

    def __init__(self, settings: Settings, store: ReservingStore, clock: Clock, signer: HeadSigner) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self.keeper = AuditKeeper(
            store,
            clock,
            TreeHeads(store, clock, signer, settings.audit.heads_dir),
            node=settings.store.node,
            interval_minutes=settings.audit.head_interval_minutes,
            keep_reserve=store.keep_reserve,
        )

    async def __aenter__(self) -> Self:
        """Raises StoreError: a gateway that cannot write down its start does not start."""
        changed = await record_start(self._store, self._clock, self._settings)
        for key in changed:
            _log.info("setting_changed", setting=key)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        try:
            await record_stop(self._store, self._clock, self._settings.store.node)
        except GatewayError as exc:
            _log.warning("stop_not_recorded", exc=exc)
