"""Which mail clients are logged in now, on every node.

A row is written with the event of its login, in one transaction, and removed some time after the end. Whoever wants a
session to end writes that into its row; the node that has it looks for such rows (:mod:`gateway.accounts.sessions`).

Crash story: the rows of a daemon that was killed stay; its next start removes them. What was asked to end on a node
that is not there any more is forgotten after a while by any other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, select, update

from gateway.ports import ClientSession
from gateway.store.prepared import Prepared
from gateway.store.tables import account, client_session

_CHUNK = 200
_ADD = Prepared.into(client_session)
_ASKED = Prepared(
    select(client_session.c.id).where(
        client_session.c.node == bindparam("node"), client_session.c.ended_at.is_not(None)
    )
)


class ClientSessions:
    """See :class:`gateway.ports.SessionRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, session: ClientSession) -> None:
        """A client is let in."""
        _ADD.run(
            self._connection,
            id=session.id,
            node=session.node,
            account_id=session.account_id,
            protocol=session.protocol,
            peer=session.peer,
            method=session.method,
            app_password=session.app_password,
            since=session.since,
            ended_at=None,
            ended_by="",
        )

    def remove(self, ids: Sequence[str]) -> None:
        """They are over."""
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            self._connection.execute(delete(client_session).where(client_session.c.id.in_(chunk)))

    def all(self) -> list[ClientSession]:
        """The oldest first."""
        rows = self._connection.execute(
            select(client_session, account.c.login)
            .join(account, account.c.id == client_session.c.account_id)
            .order_by(client_session.c.since, client_session.c.id)
        )
        return [
            ClientSession(
                row.id, row.node, row.account_id, row.protocol, row.peer, row.method, row.app_password, row.since,
                row.login, row.ended_at, row.ended_by,
            )
            for row in rows
        ]  # fmt: skip

    def asked(self, node: str) -> list[str]:
        """Ids of the node's sessions that somebody asked to end."""
        return _ASKED.scalars(self._connection, node=node)

    def ask_to_end(self, ids: Collection[str], actor: str, at: datetime) -> None:
        """Ask the nodes of the sessions to end them; what was asked before stays as it was asked."""
        table, wanted = client_session, list(ids)
        for start in range(0, len(wanted), _CHUNK):
            self._connection.execute(
                update(table)
                .where(table.c.id.in_(wanted[start : start + _CHUNK]), table.c.ended_at.is_(None))
                .values(ended_at=at, ended_by=actor)
            )

    def of_account(self, account_id: int, app_password: int | None = None) -> list[str]:
        """Ids of the sessions of the account; only those that began with that app password when one is named."""
        query = select(client_session.c.id).where(client_session.c.account_id == account_id)
        if app_password is not None:
            query = query.where(client_session.c.app_password == app_password)
        return list(self._connection.scalars(query))
