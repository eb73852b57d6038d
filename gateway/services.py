"""What the command line works with: the store and the rooms above it, without any port.

A room is imported and built when it is first asked for. Half of the time of a short command was the import of rooms
that it does not use: the agent with its certificates, the mail servers, the password hash.

Failure modes: those of the rooms; ConfigurationError when there is no usable store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from gateway.keys.body_keys import body_sealer
from gateway.observability.clock import SystemClock
from gateway.settings import Settings
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore

if TYPE_CHECKING:
    from gateway.accounts.service import Accounts
    from gateway.accounts.sessions import ClientSessions
    from gateway.bundles.service import TrustBundles
    from gateway.charts.service import Charts
    from gateway.core.claims import Evidence


class Services:
    """The rooms on one open store.

    Args:
        settings: the whole configuration.
        store: open; closed by whoever opened it, after :meth:`close`.
    """

    def __init__(self, settings: Settings, store: SQLStore) -> None:
        self.settings = settings
        self.store = store
        self.clock = SystemClock()

    @cached_property
    def accounts(self) -> Accounts:
        from gateway.accounts.service import Accounts  # noqa: PLC0415 - see the module's docstring

        return Accounts(
            self.store,
            self.clock,
            sessions=self.sessions,
            own_password=self.settings.accounts.imap_password == "any",  # noqa: S105 - the name of a rule
        )

    @cached_property
    def sessions(self) -> ClientSessions:
        from gateway.accounts.sessions import ClientSessions  # noqa: PLC0415 - see the module's docstring

        most = self.settings.imap.max_sessions_per_account
        return ClientSessions(
            self.store,
            self.clock,
            node=self.settings.store.node,
            poll_seconds=self.settings.accounts.session_poll_seconds,
            most={"imap": most, "pop3": most},
        )

    @cached_property
    def charts(self) -> Charts:
        from gateway.charts.service import Charts  # noqa: PLC0415 - see the module's docstring

        return Charts(self.store, self.clock, ids(self.clock), self.evidence)

    @cached_property
    def bundles(self) -> TrustBundles:
        from gateway.agents import trust_policy  # noqa: PLC0415 - see the module's docstring
        from gateway.bundles.service import TrustBundles  # noqa: PLC0415

        trust = self.settings.trust
        return TrustBundles.configured(self.store, self.clock, trust, trust_policy(trust).algorithms)

    def evidence(self, content: bytes, sender: str) -> Evidence:
        """What a verified message says of its patient (:func:`gateway.evidence.message.read_evidence`)."""
        from gateway.evidence.message import read_evidence  # noqa: PLC0415 - see the module's docstring

        return read_evidence(content, sender)

    def close(self) -> None:
        """Let go of what the rooms hold."""
        if "accounts" in self.__dict__:
            self.accounts.close()


def ids(clock: SystemClock) -> Callable[[], str]:
    """Return what makes new ids, in the order of time."""
    return lambda: new_id(clock.now())


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Open the store for a command, beside a running daemon or without one.

    Raises:
        ConfigurationError: there is no usable store.
    """
    with SQLStore.open(settings.store, body_sealer(settings), s3=settings.s3) as store:
        services = Services(settings, store)
        try:
            yield services
        finally:
            services.close()
