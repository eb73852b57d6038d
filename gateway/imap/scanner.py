"""The tokens of RFC 3501 section 9, read from the bytes of one command.

Guarantees: strict and bounded. A scanner only moves forward; every list, number and set has a limit; nothing is
recursive. Whatever the bytes are, only :class:`ParseError` is raised, and its text is fixed: it never repeats
what the client sent, which may be a password.

Literals stand in the command as they came: ``{n}`` CRLF and n octets.
"""

from __future__ import annotations

import re
from datetime import date

from gateway.imap.mailbox_names import MAX_NAME_BYTES, NO_NAME, decode_mailbox_name

MAX_LIST_ITEMS = 500
MAX_SET_ITEMS = 10_000
MAX_NUMBER = 2**32 - 1
MAX_MODSEQ = 2**63 - 1
STAR = 0
"""``*`` in a sequence set: the last message."""

Ranges = tuple[tuple[int, int], ...]
"""A sequence set as written: pairs of first and last, where STAR stands for ``*``."""
SAVED: Ranges = ((-1, -1),)
"""``$`` (RFC 5182): the messages that the last SEARCH RETURN (SAVE) found."""

_ATOM = re.compile(rb'[^\x00-\x20(){%*"\\\]\x7f-\xff]+')
_ASTRING = re.compile(rb'[^\x00-\x20(){%*"\\\x7f-\xff]+')
_TAG = re.compile(rb'[^\x00-\x20(){%*"\\+\x7f-\xff]{1,200}')
_PATTERN = re.compile(rb'[^\x00-\x20(){"\\\x7f-\xff]+')
_QUOTED = re.compile(rb'"((?:[^"\\\r\n\x00]|\\["\\])*)"')
_ESCAPED = re.compile(rb'\\(["\\])')
_LITERAL = re.compile(rb"\{(\d{1,9})\+?\}\r\n")
_DIGITS = re.compile(rb"\d{1,19}")
_SET = re.compile(rb"[0-9*:,]+")
_SET_ITEM = re.compile(rb"(\*|[1-9]\d{0,9})(?::(\*|[1-9]\d{0,9}))?")
_DATE = re.compile(rb'("?)(\d{1,2})-([A-Za-z]{3})-(\d{4})\1')
_FLAG = re.compile(rb'\\?[^\x00-\x20(){%*"\\\]\x7f-\xff]+')
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBER = {name.lower().encode(): number for number, name in enumerate(MONTHS, 1)}


class ParseError(Exception):
    """The command is not one of RFC 3501. The text is fit to be sent."""


class Scanner:
    """A position in the bytes of one command."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = position

    @property
    def next(self) -> bytes:
        """The next octet, or nothing at the end."""
        return self.data[self.position : self.position + 1]

    def accept(self, token: bytes) -> bool:
        """Pass over these octets when they come next."""
        if self.data.startswith(token, self.position):
            self.position += len(token)
            return True
        return False

    def expect(self, token: bytes) -> None:
        """Pass over these octets, which must come next."""
        if not self.accept(token):
            raise ParseError("Missing or misplaced separator")

    def space(self) -> None:
        """Pass over exactly one space."""
        if not self.accept(b" "):
            raise ParseError("Missing argument")

    def end(self) -> None:
        """Nothing may follow."""
        if self.position != len(self.data):
            raise ParseError("Unexpected text after the command")

    def _match(self, pattern: re.Pattern[bytes], what: str) -> re.Match[bytes]:
        match = pattern.match(self.data, self.position)
        if match is None:
            raise ParseError(f"Expected {what}")
        self.position = match.end()
        return match

    def tag(self) -> bytes:
        """The tag of a command."""
        return self._match(_TAG, "a tag").group()

    def atom(self) -> bytes:
        """An atom."""
        return self._match(_ATOM, "an atom").group()

    def keyword(self) -> str:
        """An atom that is a word of the protocol, in upper case."""
        return self.atom().decode("ascii").upper()

    def astring(self) -> bytes:
        """An atom (``]`` allowed) or a string."""
        if self.next in {b'"', b"{"}:
            return self.string()
        return self._match(_ASTRING, "a string").group()

    def string(self) -> bytes:
        """A quoted string or a literal."""
        if self.next == b"{":
            return self._literal()
        return _ESCAPED.sub(rb"\1", self._match(_QUOTED, "a string").group(1))

    def _literal(self) -> bytes:
        size = int(self._match(_LITERAL, "a literal").group(1))
        start, stop = self.position, self.position + size
        if stop > len(self.data):
            raise ParseError("Literal too short")
        self.position = stop
        content = self.data[start:stop]
        if b"\x00" in content:
            raise ParseError("NUL in a literal")
        return content

    def nstring(self) -> bytes | None:
        """A string or NIL."""
        if self.next in {b'"', b"{"}:
            return self.string()
        if self.keyword() != "NIL":
            raise ParseError("Expected a string or NIL")
        return None

    def number(self, low: int = 0, high: int = MAX_NUMBER) -> int:
        """A number within bounds."""
        value = int(self._match(_DIGITS, "a number").group())
        if not low <= value <= high or self.next.isdigit():
            raise ParseError("Number out of range")
        return value

    def sequence_set(self) -> Ranges:
        """A sequence set of message numbers or UIDs, or ``$``."""
        return SAVED if self.accept(b"$") else self.written_set()

    def known_set(self) -> Ranges:
        """A sequence set of what a client knows (RFC 7162 3.2.5): neither ``*`` nor ``$`` is in it."""
        ranges = self.written_set()
        if any(STAR in pair for pair in ranges):
            raise ParseError("Invalid message set")
        return ranges

    def written_set(self) -> Ranges:
        """A sequence set of numbers and ``*``."""
        items = self._match(_SET, "a message set").group().split(b",")
        if len(items) > MAX_SET_ITEMS:
            raise ParseError("Message set too long")
        return tuple(_range(item) for item in items)

    def mailbox(self) -> str:
        """A mailbox name, decoded."""
        return decode_mailbox(self.astring())

    def list_pattern(self) -> str:
        """A mailbox name with wildcards, decoded."""
        if self.next in {b'"', b"{"}:
            return decode_mailbox(self.string())
        return decode_mailbox(self._match(_PATTERN, "a mailbox pattern").group())

    def flag(self) -> str:
        """A flag or keyword as written."""
        return self._match(_FLAG, "a flag").group().decode("ascii")

    def flags(self) -> frozenset[str]:
        """Flags with or without parentheses."""
        if self.accept(b"("):
            if self.accept(b")"):
                return frozenset()
            found = [self.flag()]
            while not self.accept(b")"):
                self.space()
                found.append(self.flag())
                self.check_items(len(found))
            return frozenset(found)
        found = [self.flag()]
        while self.accept(b" "):
            found.append(self.flag())
            self.check_items(len(found))
        return frozenset(found)

    def keywords_in_parentheses(self) -> tuple[str, ...]:
        """``(A B C)`` in upper case, possibly empty."""
        self.expect(b"(")
        if self.accept(b")"):
            return ()
        found = [self.keyword()]
        while not self.accept(b")"):
            self.space()
            found.append(self.keyword())
            self.check_items(len(found))
        return tuple(found)

    def check_items(self, count: int) -> None:
        """Raise when a list has grown beyond its limit."""
        if count > MAX_LIST_ITEMS:
            raise ParseError("List too long")

    def date(self) -> date:
        """``1-Feb-2024``, quoted or not."""
        match = self._match(_DATE, "a date")
        month = _MONTH_NUMBER.get(match.group(3).lower())
        if month is None:
            raise ParseError("No such month")
        try:
            return date(int(match.group(4)), month, int(match.group(2)))
        except ValueError:
            raise ParseError("No such day") from None


def _range(item: bytes) -> tuple[int, int]:
    match = _SET_ITEM.fullmatch(item)
    if match is None:
        raise ParseError("Invalid message set")
    first = _set_number(match.group(1))
    return first, first if match.group(2) is None else _set_number(match.group(2))


def _set_number(text: bytes) -> int:
    if text == b"*":
        return STAR
    number = int(text)
    if number > MAX_NUMBER:
        raise ParseError("Number out of range")
    return number


def decode_mailbox(name: bytes) -> str:
    """Decode a mailbox name or pattern of the wire; what is no modified UTF-7 is the name of no mailbox.

    Raises ParseError: it is too long, or not ASCII.
    """
    if len(name) > MAX_NAME_BYTES or not name.isascii():
        raise ParseError("Mailbox name is too long or not in modified UTF-7")
    try:
        return decode_mailbox_name(name)
    except ValueError:
        return NO_NAME
