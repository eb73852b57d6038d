"""What the messages of a mailbox say: their bytes, their headers, and which of them hold a text.

All of it is sealed at rest, message by message, and compared here, not by the database. Headers that were opened once
are kept in memory (:mod:`gateway.store.header_texts`), so that to list or to search them again opens nothing.

Failure modes: StoreError where one of the messages is damaged: an answer without it would pass for a whole one.
KeyUnavailableError while the key of its key is away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby

from sqlalchemy import Connection, bindparam, select

from gateway.core.errors import StoreError
from gateway.store.body_parts import Kind
from gateway.store.header_texts import (
    CHUNK_UIDS,
    Form,
    HeaderRun,
    field_pattern,
    run_of,
    searchable,
    span_of,
)
from gateway.store.kept import is_sent
from gateway.store.prepared import Prepared
from gateway.store.prepared_lists import PreparedList
from gateway.store.sealed_bodies import SealedBodies, require_digest
from gateway.store.shown_fields import as_shown
from gateway.store.tables import clean, mailbox_counter, mailbox_message, message_index, shown_fields

_MAX_32 = 0xFFFF_FFFF
BETWEEN = "\0"
"""Between the header text and the body text of what is searched; cleaned text holds none."""

DIGESTS = PreparedList(
    lambda uids: select(mailbox_message.c.uid, mailbox_message.c.message_id, mailbox_message.c.content_sha256).where(
        mailbox_message.c.mailbox_id == bindparam("mailbox"), mailbox_message.c.uid.in_(uids)
    )
)
_WITH_FIELDS = (shown_fields.c.fields, shown_fields.c.size_bytes.label("shown_bytes"))
_CONTENTS = PreparedList(
    lambda uids: (
        select(
            mailbox_message.c.uid,
            mailbox_message.c.message_id,
            mailbox_message.c.content_sha256,
            *_WITH_FIELDS,
        )
        .join(shown_fields, shown_fields.c.message_id == mailbox_message.c.message_id, isouter=True)
        .where(mailbox_message.c.mailbox_id == bindparam("mailbox"), mailbox_message.c.uid.in_(uids))
    )
)
_HEADER_ENDS = PreparedList(
    lambda uids: (
        select(
            mailbox_message.c.uid,
            mailbox_message.c.message_id,
            mailbox_message.c.content_sha256,
            message_index.c.header_end,
            *_WITH_FIELDS,
        )
        .join(message_index, message_index.c.message_id == mailbox_message.c.message_id)
        .join(shown_fields, shown_fields.c.message_id == mailbox_message.c.message_id, isouter=True)
        .where(mailbox_message.c.mailbox_id == bindparam("mailbox"), mailbox_message.c.uid.in_(uids))
    )
)
_MESSAGES = Prepared(
    select(mailbox_message.c.message_id, mailbox_message.c.uid).where(
        mailbox_message.c.mailbox_id == bindparam("mailbox"),
        mailbox_message.c.uid.between(bindparam("first"), bindparam("last")),
    )
)
_NEXT = Prepared(select(mailbox_counter.c.uid_next).where(mailbox_counter.c.mailbox_id == bindparam("mailbox")))


class MailboxTexts:
    """See :class:`gateway.ports.MailboxRows`, of which this is a part. Within one transaction."""

    def __init__(self, connection: Connection, bodies: SealedBodies) -> None:
        self._connection = connection
        self._bodies = bodies

    def contents(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, bytes]:
        """The messages as they are shown, by UID: the verified bytes, some with fields of the gateway in front.

        UIDs that are not there are left out.

        Raises:
            StoreError: the stored bytes of one are damaged; damaged mail is never shown.
        """
        rows = {row.message_id: row for row in _CONTENTS.rows(self._connection, uids, mailbox=mailbox_id)}
        found: dict[int, bytes] = {}
        for message_id, content in self._bodies.read_many(list(rows), self._kind(mailbox_id)):
            row = rows[message_id]
            require_digest(message_id, content, row.content_sha256)
            found[row.uid] = as_shown(message_id, content, row)
        return found

    def _kind(self, mailbox_id: int) -> Kind:
        # What was sent from here was never judged: its bytes are those that came.
        return Kind.RAW if is_sent(self._connection, mailbox_id) else Kind.CONTENT

    def headers(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, bytes]:
        """The header of each message as it stands in it, with the empty line. UIDs that are not there are left out.

        Raises StoreError as :meth:`contents`.
        """
        found: dict[int, bytes] = {}
        for run, group in groupby(sorted(uids), run_of):
            asked = list(group)
            known = self._bodies.headers.get(mailbox_id, Form.RAW, run, asked[-1])
            if known is None and len(asked) >= CHUNK_UIDS // 2:
                # One that is damaged is an error for those who ask for it, and not for its neighbours.
                with suppress(StoreError):
                    known = self._header_run(mailbox_id, run)
            # Of few messages only those are opened: they may be the newest of very many.
            found.update(self._raw_headers(mailbox_id, asked) if known is None else known.headers(asked))
        return found

    def _header_run(self, mailbox_id: int, run: int) -> HeaderRun:
        first, last = span_of(run)
        upto = min(last, self._highest(mailbox_id))
        made = HeaderRun(self._raw_headers(mailbox_id, range(first, upto + 1)), upto)
        self._bodies.headers.put(mailbox_id, Form.RAW, run, made)
        return made

    def _raw_headers(self, mailbox_id: int, uids: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        rows = {row.message_id: row for row in _HEADER_ENDS.rows(self._connection, uids, mailbox=mailbox_id)}
        for message_id, content in self._bodies.read_many(list(rows), self._kind(mailbox_id)):
            row = rows[message_id]
            require_digest(message_id, content, row.content_sha256)
            yield row.uid, as_shown(message_id, content, row)[: row.header_end]

    def _ids(self, mailbox_id: int, first: int, last: int) -> dict[str, int]:
        """UIDs by message, of those in between, both included."""
        rows = _MESSAGES.rows(self._connection, mailbox=mailbox_id, first=first, last=last)
        return {row.message_id: row.uid for row in rows}

    # --- searching ---

    def search_text(self, mailbox_id: int, needle: str, *, headers: bool, body: bool) -> set[int]:
        """UIDs whose case-folded text holds the needle.

        Raises:
            StoreError: the text of one is damaged: an answer without it would pass for a whole one.
        """
        wanted = _folded(needle)

        def holds(text: bytes) -> bool:
            head, _, rest = text.partition(BETWEEN.encode())
            return (headers and wanted in head) or (body and wanted in rest)

        return {uid for uid, text in self._search_texts(mailbox_id) if holds(text)} if headers or body else set()

    def search_header(self, mailbox_id: int, name: str, needle: str) -> set[int]:
        """UIDs that have a field of that name whose folded text holds the needle; an empty one asks for the field.

        Raises StoreError as :meth:`search_text`.
        """
        prefix, wanted = _folded(name) + b":", _folded(needle)
        if b"\n" in prefix + wanted:
            return set()  # No field holds one.
        pattern = field_pattern(prefix, wanted)
        upto = self._highest(mailbox_id)
        found: set[int] = set()
        for run in range(run_of(upto) + 1 if upto else 0):
            found.update(self._search_run(mailbox_id, run, upto).having(prefix, wanted, pattern))
        return found

    def _search_run(self, mailbox_id: int, run: int, upto: int) -> HeaderRun:
        known = self._bodies.headers.get(mailbox_id, Form.SEARCH, run, upto)
        if known is not None:
            return known
        first, last = span_of(run)
        rows = (
            (uid, searchable(text.partition(BETWEEN.encode())[0]))
            for uid, text in self._search_texts(mailbox_id, first, last)
        )
        made = HeaderRun(rows, min(last, upto))
        self._bodies.headers.put(mailbox_id, Form.SEARCH, run, made)
        return made

    def _search_texts(self, mailbox_id: int, first: int = 1, last: int = _MAX_32) -> Iterator[tuple[int, bytes]]:
        """UID and search text of every message in between, both included, as UTF-8; one at a time in memory."""
        uids = self._ids(mailbox_id, first, last)
        for message_id, text in self._bodies.read_many(list(uids), Kind.SEARCH):
            yield uids[message_id], text

    def _highest(self, mailbox_id: int) -> int:
        """The highest UID that the mailbox has used; 0 for none."""
        return int(_NEXT.scalar(self._connection, mailbox=mailbox_id) or 1) - 1


def _folded(text: str) -> bytes:
    """What is looked for, in the form of the search texts."""
    return clean(text.casefold()).encode()
