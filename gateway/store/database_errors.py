"""What an error of a database means for us: temporary, full, contradicting, or the end of the engine.

SQLite tells by ``sqlite_errorcode``, PostgreSQL by ``sqlstate``; an error of PostgreSQL's driver without a state is a
connection that could not be made or was lost.

Guarantee: what leaves has a fixed text. The databases' own texts hold values ("Key (x)=(Jane Doe) already exists"),
so :func:`scrub` takes them out of the errors of PostgreSQL before anybody can log them (promise 6).
"""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError, StatementError

from gateway.core.errors import ConflictError, GatewayError, StoreError, StoreFullError, StoreUnavailableError

_SQLITE_FULL: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR | (19 << 8)}
"""No space: plainly, or (SQLITE_IOERR_SHMSIZE) while the shared-memory index of the WAL grows."""

_SQLITE_FATAL: Final = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""After one of these nothing that the engine says of a commit can be believed (fsync does not fail twice)."""

_STATE_FULL: Final = {"53100"}
"""disk_full."""

_STATE_CONFLICT_CLASSES: Final = {"23"}
"""integrity_constraint_violation, which our own append-only guards raise as well."""

_STATE_UNAVAILABLE_CLASSES: Final = {"08", "53", "57", "28"}
"""connection_exception, insufficient_resources, operator_intervention, invalid_authorization: another moment may be
better, and nothing is known against the unit of work."""

_STATE_UNAVAILABLE: Final = {
    "25006",  # read_only_sql_transaction: a standby answered, as one does in the middle of a fail-over.
    "25P03",  # idle_in_transaction_session_timeout: we were frozen, and the server gave our place to another node.
    "55P03",  # lock_not_available: another node has the writers' lock for too long.
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
}


def _origin(error: BaseException) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def sqlite_code(error: BaseException) -> int | None:
    """Return SQLite's extended result code behind an error, or None."""
    code = getattr(_origin(error), "sqlite_errorcode", None)
    return code if isinstance(code, int) else None


def sqlstate(error: BaseException) -> str | None:
    """Return PostgreSQL's five characters behind an error, or None."""
    state = getattr(_origin(error), "sqlstate", None)
    return state if isinstance(state, str) else None


def is_full(error: BaseException) -> bool:
    """Whether there was no space left."""
    code = sqlite_code(error)
    if code is not None:
        return code in _SQLITE_FULL or code & 0xFF == sqlite3.SQLITE_FULL
    return sqlstate(error) in _STATE_FULL


def is_fatal(error: BaseException) -> bool:
    """Whether the engine must not be used any more. Never so for PostgreSQL.

    A PostgreSQL that cannot sync stops by itself and recovers from its log (its answer to fsync errors is a panic), and
    we only see the connection go.
    """
    code = sqlite_code(error)
    return code is not None and not is_full(error) and code & 0xFF in _SQLITE_FATAL


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, or could not be made."""
    if not isinstance(error, DBAPIError) or sqlite_code(error) is not None:
        return False
    return error.connection_invalidated or _is_of_no_state(error)


def _is_of_no_state(error: DBAPIError) -> bool:
    # Other classes without a state are mistakes in the program, which the driver found by itself.
    if sqlstate(error) is not None or not is_of_psycopg(error):
        return False
    return any(kind.__name__ in {"OperationalError", "InterfaceError"} for kind in type(error.orig).__mro__)


def is_of_psycopg(error: BaseException) -> bool:
    """Whether PostgreSQL or its driver raised it."""
    return type(_origin(error)).__module__.startswith("psycopg")


def scrub(error: BaseException | None) -> None:
    """Replace the text of an error of PostgreSQL by its state and class: the text may hold values."""
    if error is None or not is_of_psycopg(error):
        return
    error.args = (f"{type(_origin(error)).__name__}, SQLSTATE {sqlstate(error) or 'unknown'}",)


def as_gateway_error(error: BaseException) -> BaseException:
    """Return the error of our tree for one of the database, with a fixed text; any other error as it is."""
    if isinstance(error, GatewayError) or not isinstance(error, StatementError):
        return error
    if not isinstance(error, DBAPIError):
        # A value that no column takes: the mistake of whoever gave it.
        return error.orig or error
    if is_full(error):
        return StoreFullError("no space is left for the store")
    if _is_conflict(error):
        return ConflictError("the request contradicts what is stored")
    name = getattr(error.orig, "sqlite_errorname", None) or sqlstate(error) or type(error.orig).__name__
    if _is_unavailable(error):
        return StoreUnavailableError(f"the database cannot be used at this moment ({name})")
    if sqlstate(error) == "42501":
        return StoreError("the database role of the gateway lacks a right (42501); see direct-gateway store init")
    return StoreError(f"the store failed ({name})")


def _is_conflict(error: DBAPIError) -> bool:
    code = sqlite_code(error)
    if code is not None:
        return code & 0xFF == sqlite3.SQLITE_CONSTRAINT
    state = sqlstate(error)
    return state is not None and state[:2] in _STATE_CONFLICT_CLASSES


def _is_unavailable(error: DBAPIError) -> bool:
    state = sqlstate(error)
    if state is None:
        return is_lost(error)
    return state in _STATE_UNAVAILABLE or state[:2] in _STATE_UNAVAILABLE_CLASSES
