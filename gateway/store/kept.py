"""Mailboxes of sent mail, and the messages that mail clients put into them.

Each INBOX has at most one mailbox for what is sent by those who work with it (``sent_mailbox``). A message in it was
never received: it has no verdict, no recipients and no content row, only its raw bytes and what it says of itself
(``kept_message``). So nothing that asks for a verified message can take it for one.

Failure modes: ConflictError for a second row about one message; those of the statements.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, select

from gateway.ports import KeptMessage, LackingSent
from gateway.store.prepared import Prepared
from gateway.store.tables import account, account_folder, kept_message, mailbox_message, sent_mailbox

if TYPE_CHECKING:
    from gateway.store.mailboxes import Mailboxes

INBOX = "INBOX"
SENT = "Sent"
"""Name of the folder; the mailbox behind it is named after the INBOX that it goes with."""

_ADD_SENT = Prepared.into(sent_mailbox)
_ADD_KEPT = Prepared.into(kept_message)
_SENT_OF = Prepared(select(sent_mailbox.c.mailbox_id).where(sent_mailbox.c.inbox_id == bindparam("inbox")))
_INBOX_OF = Prepared(select(sent_mailbox.c.inbox_id).where(sent_mailbox.c.mailbox_id == bindparam("mailbox")))
_FIND = Prepared(
    select(mailbox_message.c.uid).where(
        mailbox_message.c.mailbox_id == bindparam("mailbox"), mailbox_message.c.content_sha256 == bindparam("sha256")
    )
)
_KEPT = Prepared(
    select(kept_message, account.c.login)
    .join(account, account.c.id == kept_message.c.account_id)
    .where(kept_message.c.message_id == bindparam("message"))
)


class Kept:
    """See :class:`gateway.ports.KeptRows`."""

    def __init__(self, connection: Connection, mailboxes: Mailboxes) -> None:
        self._connection = connection
        self._mailboxes = mailboxes

    def sent_of(self, inbox_id: int) -> int | None:
        """The mailbox of what is sent from that INBOX, or None while there is none."""
        found: int | None = _SENT_OF.scalar(self._connection, inbox=inbox_id)
        return found

    def inbox_of(self, mailbox_id: int) -> int | None:
        """The INBOX whose sent mail the mailbox keeps; None for any other mailbox."""
        found: int | None = _INBOX_OF.scalar(self._connection, mailbox=mailbox_id)
        return found

    def make_sent(self, inbox_id: int, at: datetime) -> int:
        """The same as :meth:`sent_of`, made when it is not there. Raises NotFoundError: no such INBOX."""
        found = self.sent_of(inbox_id)
        if found is not None:
            return found
        made = self._mailboxes.create(f"{SENT}/{self._mailboxes.get(inbox_id).name}", at, [])
        _ADD_SENT.run(self._connection, inbox_id=inbox_id, mailbox_id=made)
        return made

    def lacking(self) -> list[LackingSent]:
        """The accounts that see an INBOX and never had a folder ``Sent``, whatever it held, by id."""
        rows = self._connection.execute(
            select(account_folder).order_by(account_folder.c.account_id, account_folder.c.seq)
        ).all()
        had = {row.account_id for row in rows if row.folder.casefold() == SENT.casefold()}
        inboxes = {
            row.account_id: LackingSent(row.account_id, row.mailbox_id, row.rights)
            for row in rows
            if row.folder == INBOX and row.account_id not in had
        }
        return [one for one in inboxes.values() if one.rights]

    def find(self, mailbox_id: int, sha256: str) -> int | None:
        """The UID under which the mailbox has those very bytes, or None."""
        found: int | None = _FIND.scalar(self._connection, mailbox=mailbox_id, sha256=sha256)
        return found

    def add(self, message_id: str, account_id: int, *, sender: str, subject: str, rfc822_message_id: str) -> None:
        """Write down who put the message here and what it says of itself. Its raw row must be there."""
        _ADD_KEPT.run(
            self._connection,
            message_id=message_id,
            account_id=account_id,
            claimed_sender=sender,
            subject=subject,
            rfc822_message_id=rfc822_message_id,
        )

    def get(self, message_id: str) -> KeptMessage | None:
        """What is known of a message that was put here; None for one that was received."""
        row = _KEPT.first(self._connection, message=message_id)
        if row is None:
            return None
        return KeptMessage(row.message_id, row.login, row.claimed_sender, row.subject, row.rfc822_message_id)


def kept_among(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Claimed sender, subject and Message-ID of those of the messages that were put here."""
    if not ids:
        return {}
    rows = connection.execute(select(kept_message).where(kept_message.c.message_id.in_(ids)))
    return {row.message_id: (row.claimed_sender, row.subject, row.rfc822_message_id) for row in rows}


def is_sent(connection: Connection, mailbox_id: int) -> bool:
    """Whether the mailbox keeps sent mail, whose bytes are the raw ones."""
    return _INBOX_OF.scalar(connection, mailbox=mailbox_id) is not None
