"""The arguments of the commands that change which messages and mailboxes there are: APPEND, COPY, MOVE, CREATE.

The message of an APPEND need not be in the command: when the client waits for leave to send it, the command is looked
at first (:func:`awaits_message`), and then :attr:`AppendArguments.content` is None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

from gateway.imap.scanner import MONTHS, ParseError, Ranges, Scanner

_LITERAL = re.compile(rb"\{(\d{1,10})\+?\}")
_DATE_TIME = re.compile(rb'"([ \d]\d)-([A-Za-z]{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)([0-5]\d)"')
_MONTHS = [month.lower().encode("ascii") for month in MONTHS]
_APPEND = re.compile(rb'[^\x00-\x20(){%*"\\+\x7f-\xff]{1,200} APPEND(?= )', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AppendArguments:
    """``size`` octets are the message; ``content`` is None when they are still to come."""

    mailbox: str
    flags: frozenset[str]
    internal_date: datetime | None
    size: int
    content: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class CopyArguments:
    """Of COPY and MOVE."""

    ranges: Ranges
    mailbox: str


@dataclass(frozen=True, slots=True)
class CreateArguments:
    """``parameters``: whether something of RFC 4466 follows the name."""

    mailbox: str
    parameters: bool


def awaits_message(raw: bytes) -> bool:
    """Whether a command that ends in an announced literal is an APPEND that has come as far as its message."""
    start = _APPEND.match(raw)
    if start is None:
        return False
    scanner = Scanner(raw, start.end())
    try:
        scanner.space()
        scanner.mailbox()
    except ParseError:
        return False
    return True


def parse_append(scanner: Scanner) -> AppendArguments:
    """Parse what follows the word APPEND (RFC 3501 6.3.11). Raises ParseError, also for a second message."""
    scanner.space()
    mailbox = scanner.mailbox()
    scanner.space()
    flags = frozenset[str]()
    if scanner.next == b"(":
        flags = scanner.flags()
        scanner.space()
    internal_date = None
    if scanner.next == b'"':
        internal_date = _date_time(scanner)
        scanner.space()
    size, content = _message(scanner)
    scanner.end()
    return AppendArguments(mailbox, flags, internal_date, size, content)


def _date_time(scanner: Scanner) -> datetime:
    match = _DATE_TIME.match(scanner.data, scanner.position)
    if match is None or match.group(2).lower() not in _MONTHS:
        raise ParseError("Expected a date and time")
    scanner.position = match.end()
    day, _, year, hour, minute, second, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == b"-" else 1)
    month = _MONTHS.index(match.group(2).lower()) + 1
    try:
        clock = (int(hour), int(minute), min(int(second), 59))
        # A leap second is the one before it: there is no other way to keep it.
        if int(second) > 60:
            raise ParseError("No such time")
        return datetime(int(year), month, int(day), *clock, tzinfo=timezone(offset)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ParseError("No such date and time") from None


def _message(scanner: Scanner) -> tuple[int, bytes | None]:
    match = _LITERAL.match(scanner.data, scanner.position)
    if match is None:
        raise ParseError("Expected a literal with the message")
    size = int(match.group(1))
    if match.end() == len(scanner.data):
        scanner.position = match.end()
        return size, None
    return size, scanner.string()


def parse_copy(scanner: Scanner) -> CopyArguments:
    """Parse what follows COPY or MOVE. Raises ParseError."""
    scanner.space()
    ranges = scanner.sequence_set()
    scanner.space()
    mailbox = scanner.mailbox()
    scanner.end()
    return CopyArguments(ranges, mailbox)


def parse_create(scanner: Scanner) -> CreateArguments:
    """Parse what follows CREATE. Parameters are not looked into: none is offered. Raises ParseError."""
    scanner.space()
    mailbox = scanner.mailbox()
    parameters = scanner.accept(b" (")
    if not parameters:
        scanner.end()
    elif not scanner.data.endswith(b")"):
        raise ParseError("Missing or misplaced separator")
    return CreateArguments(mailbox, parameters)
