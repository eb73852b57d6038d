"""Poolers before PostgreSQL: one that gives each client a session of its own is taken, any other is refused.

The store rests on sessions. Their settings make commits durable and find the tables, the name of a node is an advisory
lock of its writing session, and hints are heard by LISTEN. A pooler that lends a server session for one transaction or
one statement (PgBouncer: ``pool_mode = transaction`` or ``statement``) keeps none of the three, and with little traffic
it looks for a long time as if it did: the same server session happens to come back.

So the question is put in a way that luck has little part in. A pooler answers with a process id of its own making when
a connection is made, and with the server's when that is asked for it; where both agree there is no pooler. Where they
differ, a second connection is made, and both ask in turns who serves them. Two connections that live have two server
sessions, and each keeps its own, if and only if sessions are not shared.

Failure modes: a pooler that is busy enough may deal out its sessions so that five rounds find nothing; what a session
then lacks is found by :meth:`gateway.store.postgresql_session.Session.begin` or at the first statement, as a failure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from gateway.core.errors import ConfigurationError

if TYPE_CHECKING:
    import psycopg

ROUNDS: Final = 5


def refuse_shared_sessions(connection: psycopg.Connection[Any], connect: Callable[[], psycopg.Connection[Any]]) -> None:
    """Look at what is at the other end of a new connection; ``connect`` makes another one like it.

    Raises:
        ConfigurationError: a pooler that shares sessions; the text says what to do.
        psycopg.Error: the other end does not answer.
    """
    ours = {_server_process(connection)}
    if ours == {connection.info.backend_pid}:
        return
    other = connect()
    try:
        theirs: set[int] = set()
        for _ in range(ROUNDS):
            theirs.add(_server_process(other))
            ours.add(_server_process(connection))
            if len(ours) > 1 or len(theirs) > 1 or ours & theirs:
                raise ConfigurationError(
                    "store.url leads to a pooler that lends sessions for one transaction or one statement; the "
                    "gateway needs sessions of its own, for their settings, locks and LISTEN: connect to the server "
                    "itself, or give this database pool_mode = session in the pooler"
                )
    finally:
        other.close()


def _server_process(connection: psycopg.Connection[Any]) -> int:
    """The process that serves one statement, asked for outside of any transaction."""
    before = connection.autocommit
    connection.autocommit = True
    try:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
    finally:
        connection.autocommit = before
    assert row is not None  # noqa: S101 - a SELECT without FROM has a row
    return int(row[0])
