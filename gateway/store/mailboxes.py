"""Mailboxes: what is in them, what IMAP answers, and the flags.

* UIDs of a mailbox strictly ascend and are taken in the transaction that files the message, so no reader ever sees
  a higher one before a lower one (RFC 3501 2.3.1.1). UIDVALIDITY never changes.
* MODSEQ of a mailbox rises with every message and every change of flags (RFC 7162).
* A content digest is in a mailbox once: the same message under another encryption is shown once (F14).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, insert, or_, select, update

from gateway.core.errors import ConflictError, InputError, NotFoundError, StoreError
from gateway.ports import IndexedMessage, Mailbox, MailboxEntry
from gateway.store.engines import has_text
from gateway.store.evidence import sha256_hex
from gateway.store.tables import (
    content_body,
    mailbox,
    mailbox_counter,
    mailbox_flag,
    mailbox_message,
    mailbox_route,
    message_index,
    message_search,
    raw_message,
)

_CHUNK = 500
"""UIDs in one statement."""
_MAX_32 = 0xFFFF_FFFF


class Mailboxes:
    """See :class:`gateway.ports.MailboxRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, name: str, at: datetime, addresses: Sequence[str]) -> int:
        """Make a mailbox that receives what is delivered to the addresses. Raises ConflictError: the name is taken."""
        if self._connection.scalar(select(mailbox.c.id).where(mailbox.c.name == name)) is not None:
            raise ConflictError("there is a mailbox with that name already")
        validity = max(1, int(at.timestamp()) & _MAX_32)
        row = insert(mailbox).values(name=name, uid_validity=validity, created_at=at).returning(mailbox.c.id)
        mailbox_id = int(self._connection.execute(row).scalar_one())
        self._connection.execute(insert(mailbox_counter).values(mailbox_id=mailbox_id, uid_next=1, highest_modseq=1))
        self.route(mailbox_id, addresses)
        return mailbox_id

    def route(self, mailbox_id: int, addresses: Sequence[str]) -> None:
        """Deliver what comes for the (normalised) addresses to the mailbox, too."""
        for address in dict.fromkeys(addresses):
            if mailbox_id not in self.for_recipient(address):
                self._connection.execute(insert(mailbox_route).values(address=address, mailbox_id=mailbox_id))

    def for_recipient(self, address: str) -> list[int]:
        rows = self._connection.execute(
            select(mailbox_route.c.mailbox_id)
            .where(mailbox_route.c.address == address)
            .order_by(mailbox_route.c.mailbox_id)
        )
        return list(rows.scalars())

    def get(self, mailbox_id: int) -> Mailbox:
        """Raises NotFoundError."""
        row = self._connection.execute(
            select(mailbox, mailbox_counter.c.uid_next, mailbox_counter.c.highest_modseq)
            .join(mailbox_counter)
            .where(mailbox.c.id == mailbox_id)
        ).first()
        if row is None:
            raise NotFoundError("there is no such mailbox")
        return Mailbox(row.id, row.name, row.uid_validity, row.uid_next, row.highest_modseq)

    def add(
        self, mailbox_id: int, message_id: str, content_sha256: str, indexed: IndexedMessage, at: datetime
    ) -> int | None:
        """File a message and return its UID; None when this content is in the mailbox already."""
        present = select(mailbox_message.c.uid).where(
            mailbox_message.c.mailbox_id == mailbox_id,
            or_(mailbox_message.c.content_sha256 == content_sha256, mailbox_message.c.message_id == message_id),
        )
        if self._connection.scalar(present.limit(1)) is not None:
            return None
        self._add_index(message_id, indexed)
        counters = self.get(mailbox_id)
        uid, modseq = counters.uid_next, counters.highest_modseq + 1
        if uid > _MAX_32:
            raise ConflictError("the mailbox has used up its UIDs")
        self._connection.execute(
            insert(mailbox_message).values(
                mailbox_id=mailbox_id,
                uid=uid,
                message_id=message_id,
                content_sha256=content_sha256,
                size_bytes=indexed.size_bytes,
                internal_date=at,
                sent_at=indexed.sent_at,
            )
        )
        self._connection.execute(insert(mailbox_flag).values(mailbox_id=mailbox_id, uid=uid, flags="", modseq=modseq))
        self._count(mailbox_id, uid_next=uid + 1, highest_modseq=modseq)
        return uid

    def _add_index(self, message_id: str, indexed: IndexedMessage) -> None:
        known = select(message_index.c.message_id).where(message_index.c.message_id == message_id)
        if self._connection.scalar(known) is not None:
            return
        if self._connection.scalar(select(raw_message.c.id).where(raw_message.c.id == message_id)) is None:
            raise NotFoundError("there is no such message")
        self._connection.execute(
            insert(message_index).values(
                message_id=message_id,
                size_bytes=indexed.size_bytes,
                header_end=indexed.header_end,
                sent_at=indexed.sent_at,
                envelope=indexed.envelope,
                body=indexed.body,
                bodystructure=indexed.bodystructure,
                sections=indexed.sections,
            )
        )
        self._connection.execute(
            insert(message_search).values(
                message_id=message_id, search_headers=indexed.search_headers, search_text=indexed.search_text
            )
        )

    def _count(self, mailbox_id: int, **values: int) -> None:
        self._connection.execute(
            update(mailbox_counter).where(mailbox_counter.c.mailbox_id == mailbox_id).values(**values)
        )

    # --- reading ---

    def entries(self, mailbox_id: int, after_uid: int = 0) -> list[MailboxEntry]:
        """Index rows by ascending UID."""
        return self._entries(mailbox_id, mailbox_message.c.uid > after_uid)

    def changed_since(self, mailbox_id: int, modseq: int) -> list[MailboxEntry]:
        """Index rows that were added or changed after that MODSEQ, by ascending UID."""
        return self._entries(mailbox_id, mailbox_flag.c.modseq > modseq)

    def _entries(self, mailbox_id: int, *conditions: Any) -> list[MailboxEntry]:
        same = and_(
            mailbox_flag.c.mailbox_id == mailbox_message.c.mailbox_id, mailbox_flag.c.uid == mailbox_message.c.uid
        )
        rows = self._connection.execute(
            select(mailbox_message, mailbox_flag.c.flags, mailbox_flag.c.modseq)
            .join(mailbox_flag, same)
            .where(mailbox_message.c.mailbox_id == mailbox_id, *conditions)
            .order_by(mailbox_message.c.uid)
        )
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

    def indexed(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, IndexedMessage]:
        """What IMAP answers from, by UID. UIDs that are not there are left out."""
        query = (
            select(mailbox_message.c.uid, message_index, message_search.c.search_headers, message_search.c.search_text)
            .join(message_index, message_index.c.message_id == mailbox_message.c.message_id)
            .join(message_search, message_search.c.message_id == mailbox_message.c.message_id)
        )
        return {row.uid: _indexed(row) for row in self._by_uid(query, mailbox_id, uids)}

    def contents(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, bytes]:
        """The verified bytes by UID. UIDs that are not there are left out.

        Raises:
            StoreError: the stored bytes of one are damaged; damaged mail is never shown.
        """
        query = select(mailbox_message.c.uid, mailbox_message.c.content_sha256, content_body.c.content).join(
            content_body, content_body.c.message_id == mailbox_message.c.message_id
        )
        found: dict[int, bytes] = {}
        for row in self._by_uid(query, mailbox_id, uids):
            if sha256_hex(row.content) != row.content_sha256:
                raise StoreError("a stored message does not match its digest")
            found[row.uid] = row.content
        return found

    def _by_uid(self, query: Select[Any], mailbox_id: int, uids: Sequence[int]) -> Iterator[Row[Any]]:
        for start in range(0, len(uids), _CHUNK):
            chunk = uids[start : start + _CHUNK]
            yield from self._connection.execute(
                query.where(mailbox_message.c.mailbox_id == mailbox_id, mailbox_message.c.uid.in_(chunk))
            )

    # --- searching ---

    def search_text(self, mailbox_id: int, needle: str, *, headers: bool, body: bool) -> set[int]:
        """UIDs whose case-folded text holds the needle."""
        needle = needle.casefold()
        places = []
        if headers:
            places.append(has_text(message_search.c.search_headers, needle))
        if body:
            places.append(has_text(message_search.c.search_text, needle))
        if not places:
            return set()
        rows = self._connection.execute(_search(mailbox_id, mailbox_message.c.uid).where(or_(*places)))
        return set(rows.scalars())

    def search_header(self, mailbox_id: int, name: str, needle: str) -> set[int]:
        """UIDs that have a field of that name whose folded text holds the needle; an empty one asks for the field."""
        prefix, needle = name.casefold() + ":", needle.casefold()
        query = _search(mailbox_id, mailbox_message.c.uid, message_search.c.search_headers).where(
            has_text(message_search.c.search_headers, prefix)
        )
        if needle:
            query = query.where(has_text(message_search.c.search_headers, needle))
        return {
            row.uid
            for row in self._connection.execute(query)
            if any(needle in text for text in _fields(row.search_headers, prefix))
        }

    # --- flags ---

    def set_flags(self, mailbox_id: int, flags: dict[int, frozenset[str]]) -> int:
        """Replace the flags of those UIDs; returns the MODSEQ that all changed ones now have.

        When nothing changes, the MODSEQ stays what it is. UIDs that are not there are passed over.
        """
        counters = self.get(mailbox_id)
        modseq = counters.highest_modseq + 1
        changed = 0
        for uid, wanted in flags.items():
            if any(not flag or flag.split() != [flag] for flag in wanted):
                raise InputError("a flag is one word")
            text = " ".join(sorted(wanted))
            changed += self._connection.execute(
                update(mailbox_flag)
                .where(
                    mailbox_flag.c.mailbox_id == mailbox_id,
                    mailbox_flag.c.uid == uid,
                    mailbox_flag.c.flags != text,
                )
                .values(flags=text, modseq=modseq)
            ).rowcount
        if not changed:
            return counters.highest_modseq
        self._count(mailbox_id, highest_modseq=modseq)
        return modseq


def _search(mailbox_id: int, *columns: Any) -> Select[Any]:
    return (
        select(*columns)
        .join_from(mailbox_message, message_search, message_search.c.message_id == mailbox_message.c.message_id)
        .where(mailbox_message.c.mailbox_id == mailbox_id)
    )


def _indexed(row: Row[Any]) -> IndexedMessage:
    return IndexedMessage(
        size_bytes=row.size_bytes,
        header_end=row.header_end,
        envelope=row.envelope,
        body=row.body,
        bodystructure=row.bodystructure,
        sections=row.sections,
        search_headers=row.search_headers,
        search_text=row.search_text,
        sent_at=row.sent_at,
    )


def _fields(headers: str, prefix: str) -> Iterator[str]:
    """The texts of the fields that begin with the prefix; a line that begins with white space continues a field."""
    current: list[str] | None = None
    for line in headers.split("\n"):
        if current is not None and line[:1] in {" ", "\t"}:
            current.append(line)
            continue
        if current is not None:
            yield "".join(current)
        current = [line[len(prefix) :]] if line.startswith(prefix) else None
    if current is not None:
        yield "".join(current)
