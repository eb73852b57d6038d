"""What every session with PostgreSQL must be like, set and read back; and which servers are refused.

A server, a database or a role may carry settings that lose mail (``ALTER ROLE ... SET synchronous_commit = off``), so
each session sets its own and reads them back. What a session cannot set (fsync, full_page_writes) is looked at in each
session too: a reload of the server's configuration may change it while we run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.core.errors import ConfigurationError, StoreUnavailableError

if TYPE_CHECKING:
    import psycopg

OLDEST_VERSION = 15
LOCK_WAIT_FACTOR = 3
"""How much longer others wait for the writers' lock than one that is frozen may keep it: it costs them a wait and no
failure."""
STATEMENT_FACTOR = 6
"""No statement of ours takes a minute, but one that waits for a disk that is gone, or a COMMIT that waits for a standby
(there the server has no limit: gateway.store.postgresql_commit_watch). Longer than the wait for the lock, so that it is
the lock that is told of."""
READER_SECONDS = 60
"""A reader that is frozen keeps the server from cleaning up; nothing waits for it."""


@dataclass(frozen=True, slots=True)
class Session:
    """The settings of one session."""

    schema: str
    frozen_after_seconds: int
    writes: bool

    def values(self) -> dict[str, str]:
        """Name and value of what is set."""
        frozen = self.frozen_after_seconds
        idle = frozen if self.writes else READER_SECONDS
        statement = STATEMENT_FACTOR * frozen if self.writes else READER_SECONDS
        return {
            # Temporary tables come last, so that none can stand in the place of one of ours.
            "search_path": f"{self.schema}, pg_temp",
            "synchronous_commit": "on",
            "TimeZone": "UTC",
            # A frozen or cut-off node that holds the writers' lock loses it with its session; nothing was acknowledged.
            "idle_in_transaction_session_timeout": f"{idle}s",
            "lock_timeout": f"{LOCK_WAIT_FACTOR * frozen}s",
            "statement_timeout": f"{statement}s",
            # The server's own look at whether we are there: without it the session of a node that is gone stands in
            # the queue for the lock, or keeps the node's name.
            "tcp_keepalives_idle": str(max(1, frozen // 2)),
            "tcp_keepalives_interval": str(max(1, frozen // 6)),
            "tcp_keepalives_count": "3",
            "tcp_user_timeout": f"{frozen}s",
            "client_connection_check_interval": f"{max(1, frozen // 2)}s",
            # Our statements are short; compiling one takes longer than running it.
            "jit": "off",
        }

    def begin(self, connection: psycopg.Connection[Any]) -> None:
        """Set everything in a new session, and read back what durability rests on.

        Raises:
            ConfigurationError: the server does not do what was asked for.
        """
        values = self.values()
        connection.autocommit = True
        try:
            setters = ", ".join("set_config(%s, %s, false)" for _ in values)
            arguments = [part for pair in values.items() for part in pair]
            connection.execute(f"SELECT {setters}", arguments)
            found = connection.execute(
                "SELECT current_setting('synchronous_commit'), current_setting('fsync'), "
                "current_setting('full_page_writes'), current_setting('search_path'), pg_is_in_recovery()"
            ).fetchone()
        finally:
            connection.autocommit = False
        assert found is not None  # noqa: S101 - a SELECT without FROM has a row
        if found[:4] != ("on", "on", "on", values["search_path"]):
            raise ConfigurationError(
                "store.url: a session does not keep its settings (synchronous_commit, fsync, full_page_writes or "
                "search_path): committed mail would not be safe. A pooler in transaction mode does that, too; "
                "connect to the server itself, or to a pooler in session mode"
            )
        if found[4]:
            raise StoreUnavailableError("the database is a standby at this moment and takes no mail")
        connection.read_only = not self.writes


def refuse_unsafe_server(connection: psycopg.Connection[Any]) -> None:
    """Look at a server before it is used, with the settings that a role gets from it by itself.

    Raises:
        ConfigurationError: mail would not be safe there; the text has the reason and the mend.
        StoreUnavailableError: it is a standby now.
    """
    major = connection.info.server_version // 10_000
    if major < OLDEST_VERSION:
        raise ConfigurationError(
            f"store.url: this is PostgreSQL {major}; the gateway is tested with {OLDEST_VERSION} and newer: upgrade it"
        )
    row = connection.execute(
        "SELECT current_setting('server_encoding'), current_setting('fsync'), current_setting('full_page_writes'), "
        "current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), pg_is_in_recovery()"
    ).fetchone()
    connection.rollback()
    assert row is not None  # noqa: S101 - a SELECT without FROM has a row
    encoding, fsync, full_pages, synchronous, standbys, standby = row
    if standby:
        raise StoreUnavailableError("the database is a standby at this moment and takes no mail; name the primary")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"store.url: the database has the encoding {encoding}, which cannot hold every name; "
            f"make it with: createdb --encoding=UTF8 --template=template0"
        )
    if fsync != "on":
        raise ConfigurationError(
            "store.url: the server runs with fsync=off: a power cut would lose acknowledged mail and ruin the "
            "database; set fsync = on in postgresql.conf, and restart the server"
        )
    if full_pages != "on":
        raise ConfigurationError(
            "store.url: the server runs with full_page_writes=off: a power cut would leave torn pages; "
            "set full_page_writes = on in postgresql.conf, and reload the server"
        )
    _refuse_asynchronous(synchronous, standbys)


def _refuse_asynchronous(synchronous: str, standbys: str) -> None:
    mend = (
        "set synchronous_commit = on in postgresql.conf and look for it in: "
        "ALTER ROLE ... RESET synchronous_commit, ALTER DATABASE ... RESET synchronous_commit"
    )
    if synchronous == "off":
        raise ConfigurationError(
            f"store.url: synchronous_commit is off for this role: the server acknowledges what is not on the disk "
            f"yet, and a crash loses it; {mend}"
        )
    if standbys and synchronous in {"local", "remote_write"}:
        raise ConfigurationError(
            f"store.url: a synchronous standby is named, and synchronous_commit is {synchronous}: a fail-over would "
            f"lose acknowledged mail; {mend}"
        )
