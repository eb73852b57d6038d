"""Connecting to PostgreSQL once, to look at it, and the pause between attempts.

Failure modes: StoreUnavailableError when the server does not answer; ConfigurationError when it is not safe.
"""

from __future__ import annotations

import getpass
import os
import random
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from gateway.core.errors import StoreUnavailableError
from gateway.settings import StoreSettings
from gateway.store.postgresql_address import PostgreSQLAddress
from gateway.store.postgresql_pooler import refuse_shared_sessions
from gateway.store.postgresql_session import refuse_unsafe_server

MIN_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 5.0


def connect_once(address: PostgreSQLAddress, role: str) -> psycopg.Connection[Any]:
    """Connect outside the engines.

    Raises:
        StoreUnavailableError: the server does not answer; the text has libpq's reason, which names host and role.
    """
    try:
        return psycopg.connect(**address.arguments(role))
    except psycopg.Error as exc:
        reason = " ".join(str(exc).split())
        if "no password supplied" in reason:
            reason += "; give it in a password file, or in ~/.pgpass (PGPASSFILE)"
        raise StoreUnavailableError(f"store.url: the database does not answer: {reason}") from None


def look_at_server(address: PostgreSQLAddress) -> None:
    """Raises ConfigurationError and StoreUnavailableError as :func:`refuse_unsafe_server`."""
    connection = connect_once(address, "check")
    try:
        _refuse(connection, address)
    finally:
        connection.close()


def _refuse(connection: psycopg.Connection[Any], address: PostgreSQLAddress) -> None:
    try:
        # First: a pooler of statements takes no transaction.
        refuse_shared_sessions(connection, lambda: connect_once(address, "check"))
        refuse_unsafe_server(connection)
    except psycopg.Error as exc:
        reason = " ".join(str(exc).split())
        raise StoreUnavailableError(f"store.url: the database does not answer: {reason}") from None


def lacks_tables(settings: StoreSettings) -> bool:
    """Whether our tables are not there.

    Raises:
        ConfigurationError, StoreUnavailableError: the database cannot be asked.
    """
    address = PostgreSQLAddress.parse(settings)
    connection = connect_once(address, "check")
    try:
        _refuse(connection, address)
        row = connection.execute("SELECT to_regclass(%s)", (f"{address.schema}.schema_version",)).fetchone()
        return row is None or row[0] is None
    finally:
        connection.close()


def role_of(address: PostgreSQLAddress) -> str:
    """The role that a URL means, which libpq may have found elsewhere, without a connection to anything."""
    found = conninfo_to_dict(address.conninfo).get("user") or os.environ.get("PGUSER") or getpass.getuser()
    return str(found)


class Pause:
    """A pause before the next attempt to connect, longer after each one that failed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._not_before = 0.0

    def refuse_if_early(self) -> None:
        """Raises StoreUnavailableError during the pause: whoever waits is told at once, and not after a time-out."""
        with self._lock:
            if time.monotonic() < self._not_before:
                raise StoreUnavailableError("the database did not answer a moment ago; it is tried again soon")

    def failed(self) -> None:
        """An attempt failed."""
        with self._lock:
            self._seconds = min(MAX_PAUSE_SECONDS, max(MIN_PAUSE_SECONDS, 2 * self._seconds))
            jitter = random.uniform(0.5, 1.0)  # noqa: S311 - keeps nodes apart, hides nothing
            self._not_before = time.monotonic() + self._seconds * jitter

    def end(self) -> None:
        """It succeeded."""
        with self._lock:
            self._seconds = self._not_before = 0.0


def close_quietly(connection: psycopg.Connection[Any]) -> None:
    """Close a connection that may be broken."""
    with suppress(psycopg.Error):
        connection.close()
