"""What a login is decided by: the account, its app passwords, whether it is disabled, and when each was last used.

App passwords and the state of an account are append-only: taking one back is a row of its own, and so is every
disabling and enabling; the newest counts. ``login_use`` is mutable and to the hour, which is enough to find what nobody
uses any more: who logged in when stands in the audit log.

Crash story: every method is a part of its caller's transaction.
"""

from __future__ import annotations

from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, insert, select, update

from gateway.core.errors import NotFoundError
from gateway.ports import Account, AccountOverview, AppPassword, Credentials, Folder
from gateway.ports.logins import OWN_PASSWORD
from gateway.store.accounts import login_key
from gateway.store.prepared import Prepared
from gateway.store.tables import (
    account,
    account_folder,
    account_status,
    app_password,
    app_password_end,
    client_session,
    login_use,
)

ENABLED = "enabled"
DISABLED = "disabled"
_NOBODY = 0
"""No account has this id: databases count from 1."""

_ACCOUNT = Prepared(
    select(account.c.id, account.c.login, account.c.password_hash).where(account.c.login_key == bindparam("key"))
)
_ENDS = and_(
    app_password_end.c.account_id == app_password.c.account_id,
    app_password_end.c.seq == app_password.c.seq,
)
_LIVING = (
    select(
        app_password.c.account_id,
        app_password.c.seq,
        app_password.c.at,
        app_password.c.name,
        app_password.c.salt,
        app_password.c.digest,
    )
    .outerjoin(app_password_end, _ENDS)
    .where(app_password_end.c.at.is_(None))
)
_APP_PASSWORDS = Prepared(_LIVING.where(app_password.c.account_id == bindparam("account")).order_by(app_password.c.seq))
_STATE = Prepared(
    select(account_status.c.state)
    .where(account_status.c.account_id == bindparam("account"))
    .order_by(account_status.c.seq.desc())
    .limit(1)
)
_USES = Prepared(select(login_use.c.app_password, login_use.c.at).where(login_use.c.account_id == bindparam("account")))


class Logins:
    """See :class:`gateway.ports.LoginRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def credentials(self, login: str) -> Credentials | None:
        """None when there is no such login. As many statements are run for that as for one that there is."""
        row = _ACCOUNT.first(self._connection, key=login_key(login))
        account_id = _NOBODY if row is None else row.id
        found = _APP_PASSWORDS.rows(self._connection, account=account_id)
        state = _STATE.scalar(self._connection, account=account_id)
        uses = {use.app_password: use.at for use in _USES.rows(self._connection, account=account_id)}
        if row is None:
            return None
        return Credentials(
            Account(row.id, row.login, row.password_hash),
            enabled=state != DISABLED,
            app_passwords=tuple(_app_password(one, uses) for one in found),
            used_at=uses.get(OWN_PASSWORD),
        )

    def overview(self) -> list[AccountOverview]:
        """Every account, by login."""
        connection = self._connection
        app_passwords = _by_account(connection.execute(_LIVING.order_by(app_password.c.account_id, app_password.c.seq)))
        states = _by_account(
            connection.execute(select(account_status).order_by(account_status.c.account_id, account_status.c.seq))
        )
        folders = _by_account(
            connection.execute(
                select(account_folder).order_by(
                    account_folder.c.account_id, account_folder.c.folder, account_folder.c.seq
                )
            )
        )
        uses = _by_account(connection.execute(select(login_use).order_by(login_use.c.account_id)))
        counted = select(client_session.c.account_id, func.count()).group_by(client_session.c.account_id)
        sessions: dict[int, int] = {row[0]: row[1] for row in connection.execute(counted)}
        found = []
        for row in connection.execute(select(account).order_by(account.c.login_key)):
            newest = states.get(row.id, [None])[-1]
            is_disabled = newest is not None and newest.state == DISABLED
            used = {use.app_password: use.at for use in uses.get(row.id, [])}
            credentials = Credentials(
                Account(row.id, row.login, row.password_hash),
                enabled=not is_disabled,
                app_passwords=tuple(_app_password(one, used) for one in app_passwords.get(row.id, [])),
                used_at=used.get(OWN_PASSWORD),
            )
            disabled_at = newest.at if newest is not None and is_disabled else None
            reason = newest.reason if newest is not None and is_disabled else ""
            seen = {one.folder: Folder(one.folder, one.mailbox_id, one.rights) for one in folders.get(row.id, [])}
            visible = tuple(folder for folder in seen.values() if folder.rights)
            found.append(AccountOverview(credentials, visible, disabled_at, reason, sessions.get(row.id, 0)))
        return found

    def add_app_password(self, account_id: int, name: str, salt: bytes, digest: bytes, at: datetime) -> int:
        """Add one and return its number."""
        table = app_password
        newest = self._connection.scalar(select(func.max(table.c.seq)).where(table.c.account_id == account_id))
        number = (newest or 0) + 1
        self._connection.execute(
            insert(table).values(account_id=account_id, seq=number, at=at, name=name, salt=salt, digest=digest)
        )
        return number

    def end_app_password(self, account_id: int, number: int, actor: str, at: datetime) -> None:
        """Take one back. Raises NotFoundError: there is none, or it was taken back already."""
        found = _APP_PASSWORDS.rows(self._connection, account=account_id)
        if number not in {row.seq for row in found}:
            raise NotFoundError("there is no such app password")
        values = {"account_id": account_id, "seq": number, "at": at, "actor": actor}
        self._connection.execute(insert(app_password_end).values(values))

    def set_enabled(self, account_id: int, actor: str, reason: str, at: datetime, *, enabled: bool) -> None:
        """Append a state."""
        table = account_status
        newest = self._connection.scalar(select(func.max(table.c.seq)).where(table.c.account_id == account_id))
        state = ENABLED if enabled else DISABLED
        self._connection.execute(
            insert(table).values(
                account_id=account_id, seq=(newest or 0) + 1, at=at, state=state, actor=actor, reason=reason
            )
        )

    def note_use(self, account_id: int, number: int, at: datetime) -> None:
        """Remember when the secret was last used."""
        table = login_use
        changed = self._connection.execute(
            update(table).where(table.c.account_id == account_id, table.c.app_password == number).values(at=at)
        )
        if not changed.rowcount:
            self._connection.execute(insert(table).values(account_id=account_id, app_password=number, at=at))


def _app_password(row: Any, uses: dict[int, datetime]) -> AppPassword:
    return AppPassword(row.seq, row.name, row.at, bytes(row.salt), bytes(row.digest), uses.get(row.seq))


def _by_account(rows: Any) -> dict[int, list[Any]]:
    """Rows that are in the order of their accounts, by account."""
    return {account_id: list(group) for account_id, group in groupby(rows, key=lambda row: row.account_id)}
