"""Accounts and the folders that each may see.

An account's row is mutable: a replaced password hash is not kept. Grants are append-only, the newest counts for
each folder, and one with no rights takes the folder away: who could read what, and since when, stays on record.
Logins are compared without regard to case.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, func, insert, select, update

from gateway.core.errors import ConflictError, NotFoundError
from gateway.ports import Account, Folder
from gateway.store.prepared import Prepared
from gateway.store.quarantine_folder import FOLDER as QUARANTINE_MAILBOX
from gateway.store.tables import account, account_folder, clean, mailbox, sent_mailbox

QUARANTINE = "quarantine"
"""The view that shows the reports about refused messages."""
SENT = "\\Sent"
"""RFC 6154: of a folder whose mailbox keeps what is sent."""

_FOLDERS = Prepared(
    select(account_folder.c.folder, account_folder.c.mailbox_id, account_folder.c.rights, sent_mailbox.c.inbox_id)
    .add_columns(mailbox.c.name)
    .join_from(account_folder, sent_mailbox, sent_mailbox.c.mailbox_id == account_folder.c.mailbox_id, isouter=True)
    .join(mailbox, mailbox.c.id == account_folder.c.mailbox_id)
    .where(account_folder.c.account_id == bindparam("account"))
    .order_by(account_folder.c.folder, account_folder.c.seq)
)

_GRANTED = Prepared(
    select(account_folder, account.c.login)
    .join(account, account.c.id == account_folder.c.account_id)
    .where(
        account_folder.c.account_id.in_(
            select(account_folder.c.account_id).where(account_folder.c.mailbox_id == bindparam("mailbox"))
        )
    )
    .order_by(account.c.login_key, account_folder.c.folder, account_folder.c.seq)
)


class Accounts:
    """See :class:`gateway.ports.AccountRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, login: str, password_hash: str, at: datetime) -> int:
        """Add an account and return its id. Raises ConflictError when the login is taken."""
        if self.by_login(login) is not None:
            raise ConflictError("there is an account with that login already")
        row = insert(account).values(
            login=login, login_key=login_key(login), password_hash=password_hash, created_at=at
        )
        return int(self._connection.execute(row.returning(account.c.id)).scalar_one())

    def set_password_hash(self, account_id: int, password_hash: str) -> None:
        """Replace the password hash. Raises NotFoundError."""
        changed = self._connection.execute(
            update(account).where(account.c.id == account_id).values(password_hash=password_hash)
        )
        if changed.rowcount != 1:
            raise NotFoundError("there is no such account")

    def by_login(self, login: str) -> Account | None:
        row = self._connection.execute(select(account).where(account.c.login_key == login_key(login))).first()
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
        rows = _FOLDERS.rows(self._connection, account=account_id)
        newest = {
            row.folder: Folder(
                row.folder,
                row.mailbox_id,
                row.rights,
                view=QUARANTINE if row.name == QUARANTINE_MAILBOX else "",
                special_use="" if row.inbox_id is None else SENT,
            )
            for row in rows
        }
        return [folder for folder in newest.values() if folder.rights]

    def shown_as(self, account_id: int, folder: str) -> list[int]:
        """The mailboxes that the folder of that name shows or has ever shown to the account, by id."""
        rows = _FOLDERS.rows(self._connection, account=account_id)
        return sorted({row.mailbox_id for row in rows if row.folder == folder})

    def granted_on(self, mailbox_id: int) -> list[tuple[str, str]]:
        """Login and rights of everybody who sees the mailbox, by login; rights on several folders of it are joined."""
        rows = _GRANTED.rows(self._connection, mailbox=mailbox_id)
        newest = {(row.login, row.folder): (row.mailbox_id, row.rights) for row in rows}
        joined: dict[str, str] = {}
        for (login, _), (granted, rights) in newest.items():
            if granted == mailbox_id and rights:
                known = joined.get(login, "")
                joined[login] = known + "".join(right for right in rights if right not in known)
        return list(joined.items())


def login_key(login: str) -> str:
    """The one spelling by which a login is found."""
    return clean(login).casefold()
