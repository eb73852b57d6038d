"""Commands about messages: STAT, LIST, UIDL, RETR, TOP, DELE, RSET (RFC 1939)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.pop3.session import POP3Session, RefusalError, SyntaxRefusalError, no_argument
from gateway.pop3.wire import stuffed, top

_NUMBER = re.compile(rb"\d{1,10}\Z", re.ASCII)
_DELETED = "The message is marked as deleted"


def _number(word: bytes) -> int:
    if not _NUMBER.match(word.strip(b" ")):
        raise SyntaxRefusalError("A number is expected")
    return int(word)


def _message(session: POP3Session, word: bytes) -> int:
    """The number of a message that is there and not marked as deleted."""
    number = _number(word)
    session.maildrop.slot(number)
    if number in session.deleted:
        raise RefusalError(_DELETED)
    return number


def _listed(session: POP3Session, numbers: range) -> Iterator[int]:
    deleted = session.deleted
    return (number for number in numbers if number not in deleted)


async def stat(session: POP3Session, arguments: bytes) -> str:
    no_argument(arguments)
    return f"{len(session.maildrop) - len(session.deleted)} {await session.listed_bytes()}"


async def list_(session: POP3Session, arguments: bytes) -> str | None:
    """The sizes are those of the messages as they are, before dots are doubled."""
    maildrop = session.maildrop
    if arguments:
        number = _message(session, arguments)
        await maildrop.need_sizes(range(number, number + 1))
        return f"{number} {maildrop.size_bytes(number)}"
    total = await session.listed_bytes()
    await session.begin_lines(f"{len(maildrop) - len(session.deleted)} messages ({total} octets)")
    for numbers in maildrop.portions():
        lines = (b"%d %d\r\n" % (number, maildrop.size_bytes(number)) for number in _listed(session, numbers))
        await session.send_lines([b"".join(lines)])
    await session.end_lines()
    return None


async def uidl(session: POP3Session, arguments: bytes) -> str | None:
    maildrop = session.maildrop
    if arguments:
        number = _message(session, arguments)
        return f"{number} {maildrop.unique_id(number)}"
    await session.begin_lines("Unique-id listing follows")
    for numbers in maildrop.portions():
        lines = (f"{number} {maildrop.unique_id(number)}\r\n" for number in _listed(session, numbers))
        await session.send_lines(["".join(lines).encode("ascii")])
    await session.end_lines()
    return None


async def retr(session: POP3Session, arguments: bytes) -> None:
    number = _message(session, arguments)
    content = await session.maildrops.read(session.maildrop, number)
    await session.begin_lines(f"{len(content)} octets")
    await session.send_lines(stuffed(content))
    await session.end_lines()


async def top_(session: POP3Session, arguments: bytes) -> None:
    word, _, count = arguments.partition(b" ")
    number, lines = _message(session, word), _number(count)
    content = top(await session.maildrops.look(session.maildrop, number, into_body=lines > 0), lines)
    await session.begin_lines("Top of message follows")
    await session.send_lines(stuffed(content))
    await session.end_lines()


async def dele(session: POP3Session, arguments: bytes) -> str:
    """The attempt is written down at once; it takes effect with QUIT, in the POP3 listing only (EP-29)."""
    number = _message(session, arguments)
    await session.maildrop.need_sizes(range(number, number + 1))
    await session.maildrops.record_deletion(session.maildrop, number)
    session.deleted.add(number)
    return "Marked as deleted"


async def rset(session: POP3Session, arguments: bytes) -> str:
    no_argument(arguments)
    session.deleted.clear()
    return f"{len(session.maildrop)} messages"
