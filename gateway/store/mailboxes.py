"""Mailboxes: what is in them, what IMAP answers, and the flags.

* UIDs of a mailbox strictly ascend and are taken in the transaction that files the message, so no reader ever sees
  a higher one before a lower one (RFC 3501 2.3.1.1). UIDVALIDITY never changes.
* MODSEQ of a mailbox rises with every message and every change of flags (RFC 7162).
* A content digest is in a mailbox once: the same message under another encryption is shown once (F14).
* What SEARCH looks at is the content once more, so it is kept sealed and compared here, message by message, not by the
  database. The answers to FETCH (envelope, structure) and the dates stand in clear.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, exists, func, insert, or_, select, update

from gateway.core.errors import ConflictError, InputError, NotFoundError
from gateway.core.standing import Standing
from gateway.ports import FiledMessage, FlagColumns, IndexedMessage, Mailbox, MailboxEntry
from gateway.store.body_parts import Kind
from gateway.store.mailbox_columns import flag_columns
from gateway.store.mailbox_details import filed_messages, message_of, total_size, uids_of_message
from gateway.store.mailbox_texts import BETWEEN, DIGESTS, MailboxTexts
from gateway.store.prepared import Prepared
from gateway.store.prepared_lists import PreparedList
from gateway.store.sealed_bodies import SealedBodies
from gateway.store.seen import keep_own_seen, own_flag_columns, use_seen
from gateway.store.tables import (
    clean,
    mailbox,
    mailbox_counter,
    mailbox_flag,
    mailbox_message,
    mailbox_route,
    message_index,
    raw_message,
)
from gateway.store.views import Views

_MAX_32 = 0xFFFF_FFFF

_ROUTES = Prepared(
    select(mailbox_route.c.mailbox_id)
    .where(mailbox_route.c.address == bindparam("to"))
    .order_by(mailbox_route.c.mailbox_id)
)
_MAILBOX = Prepared(
    select(mailbox, mailbox_counter.c.uid_next, mailbox_counter.c.highest_modseq)
    .join(mailbox_counter)
    .where(mailbox.c.id == bindparam("mailbox"))
)
_TO_ADD = Prepared(
    select(
        mailbox_counter.c.uid_next,
        mailbox_counter.c.highest_modseq,
        exists(
            select(mailbox_message.c.uid).where(
                mailbox_message.c.mailbox_id == bindparam("mailbox"),
                or_(
                    mailbox_message.c.content_sha256 == bindparam("sha256"),
                    mailbox_message.c.message_id == bindparam("message"),
                ),
            )
        ).label("present"),
        exists(select(message_index.c.message_id).where(message_index.c.message_id == bindparam("message"))).label(
            "indexed"
        ),
        exists(select(raw_message.c.id).where(raw_message.c.id == bindparam("message"))).label("there"),
    ).where(mailbox_counter.c.mailbox_id == bindparam("mailbox"))
)
_ADD = Prepared.into(mailbox_message)
_ADD_FLAGS = Prepared.into(mailbox_flag)
_ADD_INDEX = Prepared.into(message_index)
_COUNT = Prepared(
    update(mailbox_counter)
    .where(mailbox_counter.c.mailbox_id == bindparam("mailbox"))
    .values(uid_next=bindparam("next_uid"), highest_modseq=bindparam("modseq"))
)
_FLAG = Prepared(
    update(mailbox_flag)
    .where(
        mailbox_flag.c.mailbox_id == bindparam("mailbox"),
        mailbox_flag.c.uid == bindparam("of_uid"),
        mailbox_flag.c.flags != bindparam("text"),
    )
    .values(flags=bindparam("text"), modseq=bindparam("to_modseq"))
)
_ENTRIES = (
    select(mailbox_message, mailbox_flag.c.flags, mailbox_flag.c.modseq)
    .join(
        mailbox_flag,
        and_(mailbox_flag.c.mailbox_id == mailbox_message.c.mailbox_id, mailbox_flag.c.uid == mailbox_message.c.uid),
    )
    .where(mailbox_message.c.mailbox_id == bindparam("mailbox"))
    .order_by(mailbox_message.c.uid)
)
_ENTRIES_AFTER = _ENTRIES.where(mailbox_message.c.uid > bindparam("after"))
_INDEXED = PreparedList(
    lambda uids: (
        select(mailbox_message.c.uid, message_index)
        .join(message_index, message_index.c.message_id == mailbox_message.c.message_id)
        .where(mailbox_message.c.mailbox_id == bindparam("mailbox"), mailbox_message.c.uid.in_(uids))
    )
)


class Mailboxes:
    """See :class:`gateway.ports.MailboxRows`."""

    def __init__(self, connection: Connection, bodies: SealedBodies) -> None:
        self._connection = connection
        self._bodies = bodies
        self._texts = MailboxTexts(connection, bodies)

    def create(self, name: str, at: datetime, addresses: Sequence[str]) -> int:
        """Make a mailbox that receives what is delivered to the addresses. Raises ConflictError: the name is taken."""
        if self.find(name) is not None:
            raise ConflictError("there is a mailbox with that name already")
        # Each its own: a folder that comes to show another mailbox then has another one, as RFC 3501 2.3.1.1 asks.
        known = select(func.max(mailbox.c.uid_validity)).where(mailbox.c.uid_validity < _MAX_32)
        newest = self._connection.scalar(known) or 0
        validity = max(1, int(at.timestamp()) & _MAX_32, newest + 1)
        row = insert(mailbox).values(name=name, uid_validity=validity, created_at=at)
        # Without RETURNING of our own: SQLAlchemy then knows the id as well, and the audit log answers for the row.
        key = self._connection.execute(row).inserted_primary_key
        assert key is not None  # noqa: S101 - set for every INSERT of one row
        mailbox_id = int(key[0])
        self._connection.execute(insert(mailbox_counter).values(mailbox_id=mailbox_id, uid_next=1, highest_modseq=1))
        self.route(mailbox_id, addresses)
        return mailbox_id

    def find(self, name: str) -> int | None:
        """The mailbox of that name, or None."""
        found: int | None = self._connection.scalar(select(mailbox.c.id).where(mailbox.c.name == name))
        return found

    def route(self, mailbox_id: int, addresses: Sequence[str]) -> None:
        """Deliver what comes for the (normalised) addresses to the mailbox, too."""
        for address in dict.fromkeys(addresses):
            if mailbox_id not in self.for_recipient(address):
                self._connection.execute(insert(mailbox_route).values(address=address, mailbox_id=mailbox_id))

    def for_recipient(self, address: str) -> list[int]:
        return _ROUTES.scalars(self._connection, to=address)

    def get(self, mailbox_id: int) -> Mailbox:
        """Raises NotFoundError."""
        row = _MAILBOX.first(self._connection, mailbox=mailbox_id)
        if row is None:
            raise NotFoundError("there is no such mailbox")
        return Mailbox(row.id, row.name, row.uid_validity, row.uid_next, row.highest_modseq)

    def add(
        self,
        mailbox_id: int,
        message_id: str,
        content_sha256: str,
        indexed: IndexedMessage,
        at: datetime,
        *,
        standing: Standing | None = None,
    ) -> int | None:
        """File a message and return its UID; None when this content is in the mailbox already."""
        # One question: each is a wait while nobody else's mail is filed.
        here = _TO_ADD.first(self._connection, mailbox=mailbox_id, sha256=content_sha256, message=message_id)
        if here is None:
            raise NotFoundError("there is no such mailbox")
        if here.present:
            return None
        if not here.indexed:
            if not here.there:
                raise NotFoundError("there is no such message")
            self._add_index(message_id, indexed)
        uid: int = here.uid_next
        modseq: int = here.highest_modseq + 1
        if uid > _MAX_32:
            raise ConflictError("the mailbox has used up its UIDs")
        _ADD.later(
            self._connection,
            mailbox_id=mailbox_id,
            uid=uid,
            message_id=message_id,
            content_sha256=content_sha256,
            size_bytes=indexed.size_bytes,
            internal_date=at,
            sent_at=indexed.sent_at,
        )
        flags = "" if standing is None else " ".join(sorted(standing.keywords))
        _ADD_FLAGS.later(self._connection, mailbox_id=mailbox_id, uid=uid, flags=flags, modseq=modseq)
        if standing is not None:
            Views(self._connection).enter(mailbox_id, standing.view, uid, modseq)
        _COUNT.later(self._connection, mailbox=mailbox_id, next_uid=uid + 1, modseq=modseq)
        return uid

    def _add_index(self, message_id: str, indexed: IndexedMessage) -> None:
        _ADD_INDEX.later(
            self._connection,
            message_id=message_id,
            size_bytes=indexed.size_bytes,
            header_end=indexed.header_end,
            sent_at=indexed.sent_at,
            envelope=indexed.envelope,
            body=indexed.body,
            bodystructure=indexed.bodystructure,
            sections=indexed.sections,
        )
        text = clean(indexed.search_headers) + BETWEEN + clean(indexed.search_text)
        self._bodies.add(message_id, Kind.SEARCH, text.encode())

    # --- reading ---

    def entries(self, mailbox_id: int, after_uid: int = 0) -> list[MailboxEntry]:
        """Index rows by ascending UID."""
        rows = self._connection.execute(_ENTRIES_AFTER, {"mailbox": mailbox_id, "after": after_uid})
        return [
            MailboxEntry(
                uid=row.uid,
                message_id=row.message_id,
                size_bytes=row.size_bytes,
                internal_date=row.internal_date,
                sent_at=row.sent_at,
                flags=frozenset(row.flags.split()),
                modseq=row.modseq,
            )
            for row in rows
        ]

    def flags(self, mailbox_id: int, since: int = 0, *, seen_by: int | None = None) -> FlagColumns:
        r"""The flags of every message that was added or changed after the MODSEQ ``since``; of all for 0.

        ``seen_by``: the account whose own \Seen takes the place of the shared one.
        """
        if seen_by is not None:
            return own_flag_columns(self._connection, mailbox_id, since, seen_by)
        return flag_columns(self._connection, mailbox_id, since)

    def filed(self, mailbox_id: int, first_uid: int, last_uid: int) -> list[FiledMessage]:
        """What never changes of the messages from one UID to another, both included, by ascending UID."""
        return filed_messages(self._connection, mailbox_id, first_uid, last_uid)

    def size_bytes(self, mailbox_id: int, after_uid: int, last_uid: int) -> int:
        """The sizes of the messages after one UID up to another one, taken together."""
        return total_size(self._connection, mailbox_id, after_uid, last_uid)

    def message_id(self, mailbox_id: int, uid: int) -> str:
        """Raises NotFoundError."""
        return message_of(self._connection, mailbox_id, uid)

    def message_ids(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, str]:
        """The ids of the messages by UID. UIDs that are not there are left out."""
        return {row.uid: row.message_id for row in DIGESTS.rows(self._connection, uids, mailbox=mailbox_id)}

    def uids_of(self, mailbox_id: int, message_id: str) -> list[int]:
        """The UIDs of the message in the mailbox; empty when it is not there."""
        return uids_of_message(self._connection, mailbox_id, message_id)

    def indexed(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, IndexedMessage]:
        """What IMAP answers from, by UID, without the search texts. UIDs that are not there are left out."""
        return {row.uid: _indexed(row) for row in _INDEXED.rows(self._connection, uids, mailbox=mailbox_id)}

    def contents(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, bytes]:
        """See :class:`gateway.store.mailbox_texts.MailboxTexts`."""
        return self._texts.contents(mailbox_id, uids)

    def headers(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, bytes]:
        """See :class:`gateway.store.mailbox_texts.MailboxTexts`."""
        return self._texts.headers(mailbox_id, uids)

    def search_text(self, mailbox_id: int, needle: str, *, headers: bool, body: bool) -> set[int]:
        """See :class:`gateway.store.mailbox_texts.MailboxTexts`."""
        return self._texts.search_text(mailbox_id, needle, headers=headers, body=body)

    def search_header(self, mailbox_id: int, name: str, needle: str) -> set[int]:
        """See :class:`gateway.store.mailbox_texts.MailboxTexts`."""
        return self._texts.search_header(mailbox_id, name, needle)

    # --- flags ---

    def set_flags(self, mailbox_id: int, flags: dict[int, frozenset[str]], *, seen_by: int | None = None) -> int:
        r"""Replace the flags of those UIDs; returns the MODSEQ that all changed ones now have.

        When nothing changes, the MODSEQ stays what it is. UIDs that are not there are passed over. ``seen_by``: the
        account whose own \Seen it is that the flags say; the shared one stays.
        """
        counters = self.get(mailbox_id)
        modseq = counters.highest_modseq + 1
        changed = 0
        if seen_by is not None:
            flags, changed = keep_own_seen(self._connection, mailbox_id, seen_by, flags, modseq)
        for uid, wanted in flags.items():
            if any(not flag or flag.split() != [flag] for flag in wanted):
                raise InputError("a flag is one word")
            text = " ".join(sorted(wanted))
            changed += _FLAG.run(self._connection, mailbox=mailbox_id, of_uid=uid, text=text, to_modseq=modseq)
        if not changed:
            return counters.highest_modseq
        _COUNT.run(self._connection, mailbox=mailbox_id, next_uid=counters.uid_next, modseq=modseq)
        return modseq

    def use_seen(self, mode: str, at: datetime) -> list[int] | None:
        r"""Whose \Seen is shown from now on, ``shared`` or ``per_user``; returns the mailboxes that look otherwise now.

        None when it was so before.
        """
        return use_seen(self._connection, mode, at)


def _indexed(row: Any) -> IndexedMessage:
    return IndexedMessage(
        size_bytes=row.size_bytes,
        header_end=row.header_end,
        envelope=row.envelope,
        body=row.body,
        bodystructure=row.bodystructure,
        sections=row.sections,
        search_headers="",
        search_text="",
        sent_at=row.sent_at,
    )
