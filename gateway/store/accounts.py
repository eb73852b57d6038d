"""Accounts and the folders that each may see.

An account's row is mutable: a replaced password hash is not kept. Grants are append-only, the newest counts for
each folder, and one with no rights takes the folder away: who could read what, and since when, stays on record.
Logins are compared without regard to case.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, func, insert, select, update

from gateway.core.errors import ConflictError, NotFoundError
from gateway.ports import Account, Folder
from gateway.store.tables import account, account_folder, clean


class Accounts:
    """See :class:`gateway.ports.AccountRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, login: str, password_hash: str, at: datetime) -> int:
        """Add an account and return its id. Raises ConflictError when the login is taken."""
        if self.by_login(login) is not None:
            raise ConflictError("there is an account with that login already")
        row = insert(account).values(login=login, login_key=_key(login), password_hash=password_hash, created_at=at)
        return int(self._connection.execute(row.returning(account.c.id)).scalar_one())

    def set_password_hash(self, account_id: int, password_hash: str) -> None:
        """Replace the password hash. Raises NotFoundError."""
        changed = self._connection.execute(
            update(account).where(account.c.id == account_id).values(password_hash=password_hash)
        )
        if changed.rowcount != 1:
            raise NotFoundError("there is no such account")

    def by_login(self, login: str) -> Account | None:
        row = self._connection.execute(select(account).where(account.c.login_key == _key(login))).first()
        return None if row is None else Account(row.id, row.login, row.password_hash)

    def grant(self, account_id: int, folder: str, mailbox_id: int, rights: str) -> None:
        """Show the mailbox to the account as ``folder``; empty ``rights`` take it away."""
        newest = self._connection.scalar(
            select(func.max(account_folder.c.seq)).where(
                account_folder.c.account_id == account_id, account_folder.c.folder == folder
            )
        )
        self._connection.execute(
            insert(account_folder).values(
                account_id=account_id, folder=folder, seq=(newest or 0) + 1, mailbox_id=mailbox_id, rights=rights
            )
        )

    def folders(self, account_id: int) -> list[Folder]:
        rows = self._connection.execute(
            select(account_folder)
            .where(account_folder.c.account_id == account_id)
            .order_by(account_folder.c.folder, account_folder.c.seq)
        )
        newest = {row.folder: Folder(row.folder, row.mailbox_id, row.rights) for row in rows}
        return [folder for folder in newest.values() if folder.rights]


def _key(login: str) -> str:
    return clean(login).casefold()
