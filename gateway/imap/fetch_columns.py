"""The lines of FETCH answers, made for a batch at a time: one list for each item, and one format for all messages.

A mail client asks for the flags, the envelopes or some header fields of a whole mailbox, and waits. So nothing is
decided for each message here: what an item is and how it stands in a line is settled once for the command.

Guarantees: the flags of a message and its MODSEQ in one line are of one moment; a literal has exactly the length that
it is announced with. Nothing is read here: who calls has read what the items need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, timedelta
from datetime import datetime as moment
from functools import lru_cache

from gateway.imap.fetch_items import FetchItem
from gateway.imap.responses import flag_list
from gateway.imap.scanner import MONTHS
from gateway.imap.view import MailboxView
from gateway.inbox.sections import header_fields, section
from gateway.ports import IndexedMessage

_EPOCH = moment(1970, 1, 1, tzinfo=UTC).date()
_SECOND = 1_000_000
_DAY_SECONDS = 86_400
_LITERAL = b"{%d}\r\n%b"
"""Stands for a length and the bytes. A section that a message may lack is spelt in its column instead, with NIL."""


@dataclass(slots=True)
class Batch:
    """Some messages, by their slots, with what was read of them."""

    indexes: Sequence[int]
    uids: Sequence[int]
    """Of those slots, in the same order. What follows is by UID."""
    indexed: Mapping[int, IndexedMessage] = field(default_factory=dict)
    contents: Mapping[int, bytes] = field(default_factory=dict)
    headers: Mapping[int, bytes] = field(default_factory=dict)
    """Of a plan that asks for no more of the messages than their headers."""
    ids: Mapping[int, str] = field(default_factory=dict)


Column = Callable[[Batch], Iterable[object]]
"""The values of one item, one for each message. Those of a literal are its bytes."""


class Lines:
    """Makes the lines of one command."""

    def __init__(self, view: MailboxView, items: Sequence[FetchItem]) -> None:
        self._view = view
        made = [_section_column(item) if item.name == "SECTION" else _column(item.name, view) for item in items]
        self._columns = [column for _, column in made]
        self._literals = [form == _LITERAL for form, _ in made]
        spelt = [item.label.replace(b"%", b"%%") + b" " + form for item, (form, _) in zip(items, made, strict=True)]
        self._format = b"* %d FETCH (" + b" ".join(spelt) + b")\r\n"
        together = zip(items, spelt, self._columns, strict=True)
        self._plain = [(form, column) for item, form, column in together if item.name != "SECTION"]

    def of(self, batch: Batch) -> Iterator[bytes]:
        """The lines, in order. Flags are those of now, also when a line is taken later."""
        view = self._view
        numbers = [index + 1 for index in batch.indexes] if view.slots is None else map(view.number, batch.indexes)
        values: list[Iterable[object]] = []
        for column, is_literal in zip(self._columns, self._literals, strict=True):
            found = list(column(batch))
            values += ([map(len, found), found]) if is_literal else [found]  # type: ignore[arg-type]
        return map(self._format.__mod__, zip(numbers, *values, strict=True))

    def plain(self, batch: Batch) -> list[bytes]:
        """Of a single message every item that is no section, with its label, in order."""
        return [form % value for form, column in self._plain for value in column(batch)]


def _column(name: str, view: MailboxView) -> tuple[bytes, Column]:
    """How an item other than a section stands in a line, and its values."""
    mailbox = view.mailbox
    details = mailbox.details

    def flags(batch: Batch) -> Iterable[object]:
        if view.recent:
            return [flag_list(view.message(index).flags) for index in batch.indexes]
        return map(flag_list, map(mailbox.flags.__getitem__, batch.indexes))

    columns: dict[str, tuple[bytes, Column]] = {
        "UID": (b"%d", lambda batch: batch.uids),
        "FLAGS": (b"%b", flags),
        "INTERNALDATE": (b"%b", lambda batch: map(date_of, map(details.internal_microseconds, batch.indexes))),
        "RFC822.SIZE": (b"%d", lambda batch: map(details.size_bytes, batch.indexes)),
        "MODSEQ": (b"(%d)", lambda batch: [max(1, mailbox.modseqs[index]) for index in batch.indexes]),
        "EMAILID": (b"(%b)", lambda batch: [batch.ids[uid].encode("ascii") for uid in batch.uids]),
        "THREADID": (b"%b", lambda batch: [b"NIL"] * len(batch.uids)),
        "ENVELOPE": (b"%b", lambda batch: [batch.indexed[uid].envelope for uid in batch.uids]),
        "BODY": (b"%b", lambda batch: [batch.indexed[uid].body for uid in batch.uids]),
        "BODYSTRUCTURE": (b"%b", lambda batch: [batch.indexed[uid].bodystructure for uid in batch.uids]),
    }
    return columns[name]


def is_header(item: FetchItem) -> bool:
    """Whether a section is the header of the message itself, or fields of it."""
    return not item.path and item.kind.startswith("HEADER")


def _section_column(item: FetchItem) -> tuple[bytes, Column]:
    only_header = _of_header(item) if is_header(item) else None

    def values(batch: Batch) -> Iterable[object]:
        if only_header is not None and batch.headers:
            return [_part(only_header(batch.headers[uid]), item) for uid in batch.uids]
        found = [section_of(item, batch.indexed.get(uid), batch.contents[uid]) for uid in batch.uids]
        if not item.path:
            return [_part(one, item) for one in found if one is not None]
        return [b"NIL" if one is None else _LITERAL % (len(part := _part(one, item)), part) for one in found]

    # The message itself has a header and a text, whatever it is.
    return b"%b" if item.path else _LITERAL, values


def _of_header(item: FetchItem) -> Callable[[bytes], bytes]:
    if item.kind == "HEADER":
        return bytes
    return header_fields(item.fields, negated=item.kind == "HEADER.FIELDS.NOT")


def section_of(item: FetchItem, row: IndexedMessage | None, content: bytes) -> bytes | None:
    """The bytes of a section, without regard to a partial; None when the message has none such."""
    if row is None or not (item.path or item.kind):
        return content
    return section(row.sections, content, item.path, item.kind, item.fields)


def _part(found: bytes, item: FetchItem) -> bytes:
    if item.partial is None:
        return found
    start, count = item.partial
    return found[start : start + count]


def date_of(microseconds: int) -> bytes:
    """A quoted date-time in UTC, in exactly the form of RFC 3501, of microseconds since 1970."""
    days, seconds = divmod(microseconds // _SECOND, _DAY_SECONDS)
    return b'%b%02d:%02d:%02d +0000"' % (_day(days), seconds // 3600, seconds // 60 % 60, seconds % 60)


@lru_cache(maxsize=4_096)
def _day(days: int) -> bytes:
    day: date = _EPOCH + timedelta(days=days)
    return f'"{day.day:2d}-{MONTHS[day.month - 1]}-{day.year:04d} '.encode("ascii")
