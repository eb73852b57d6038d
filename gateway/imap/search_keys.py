"""SEARCH: its keys as values, and their parser.

RFC 3501 6.4.4, ESEARCH of RFC 4731, SEARCHRES of RFC 5182, MODSEQ of RFC 7162, EMAILID and THREADID of RFC 8474.

Guarantees: depth and number of keys are bounded, so that neither parsing nor evaluating can exhaust the stack.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from gateway.imap.scanner import MAX_MODSEQ, ParseError, Ranges, Scanner

MAX_DEPTH = 100
MAX_KEYS = 500
CHARSETS = frozenset({"US-ASCII", "UTF-8", "ASCII", "UTF8"})
RETURN_OPTIONS = frozenset({"MIN", "MAX", "ALL", "COUNT", "SAVE"})


class BadCharsetError(Exception):
    """The SEARCH names a charset that is not supported. ``save``: its result was to be saved."""

    def __init__(self, *, save: bool) -> None:
        super().__init__()
        self.save = save


@dataclass(frozen=True, slots=True)
class AllKey:
    """Every message."""


@dataclass(frozen=True, slots=True)
class NothingKey:
    """No message: none is in a thread that has an id."""


@dataclass(frozen=True, slots=True)
class RecentKey:
    r"""The message is \Recent in this session."""


@dataclass(frozen=True, slots=True)
class EmailKey:
    """The message with this id of the store."""

    message_id: str


@dataclass(frozen=True, slots=True)
class FlagKey:
    """A flag is set, or not. ``flag`` as written."""

    flag: str
    present: bool


@dataclass(frozen=True, slots=True)
class SetKey:
    """Message numbers or UIDs."""

    ranges: Ranges
    uid: bool


@dataclass(frozen=True, slots=True)
class DateKey:
    """``relation`` is ``<``, ``=`` or ``>=``; the internal date, or the Date field when ``sent``."""

    relation: str
    day: date
    sent: bool


@dataclass(frozen=True, slots=True)
class SizeKey:
    """Larger or smaller than so many octets."""

    larger: bool
    octets: int


@dataclass(frozen=True, slots=True)
class TextKey:
    """Text in the header or body; ``name`` restricts it to one (lower-case) header field."""

    needle: str
    headers: bool
    body: bool
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ModSeqKey:
    """Changed at this MODSEQ or later."""

    modseq: int


@dataclass(frozen=True, slots=True)
class NotKey:
    key: SearchKey


@dataclass(frozen=True, slots=True)
class OrKey:
    left: SearchKey
    right: SearchKey


@dataclass(frozen=True, slots=True)
class AndKey:
    keys: tuple[SearchKey, ...]


Leaf = AllKey | NothingKey | RecentKey | EmailKey | FlagKey | SetKey | DateKey | SizeKey | TextKey | ModSeqKey
SearchKey = Leaf | NotKey | OrKey | AndKey


@dataclass(frozen=True, slots=True)
class SearchArguments:
    """A whole SEARCH. ``returns`` is None for the classic answer, else the ESEARCH options without SAVE."""

    key: SearchKey
    returns: tuple[str, ...] | None = None
    uses_modseq: bool = False
    save: bool = False
    """Whether ``$`` is to stand for what is found."""


_OBJECT_ID = re.compile(rb"[A-Za-z0-9_-]{1,255}")
_FIXED: dict[str, SearchKey] = {
    "ALL": AllKey(),
    "OLD": NotKey(RecentKey()),
    "NEW": AndKey((RecentKey(), FlagKey("\\Seen", present=False))),
    "RECENT": RecentKey(),
    **{
        name.upper(): FlagKey("\\" + name, present=True) for name in ("Answered", "Deleted", "Draft", "Flagged", "Seen")
    },
    **{
        "UN" + name.upper(): FlagKey("\\" + name, present=False)
        for name in ("Answered", "Deleted", "Draft", "Flagged", "Seen")
    },
}
_DATES = {
    "BEFORE": ("<", False),
    "ON": ("=", False),
    "SINCE": (">=", False),
    "SENTBEFORE": ("<", True),
    "SENTON": ("=", True),
    "SENTSINCE": (">=", True),
}
_FIELDS = frozenset({"BCC", "CC", "FROM", "SUBJECT", "TO"})


def parse_search(scanner: Scanner) -> SearchArguments:
    """Parse what follows the word SEARCH.

    Raises:
        ParseError: bad syntax, too deep or too many keys.
        BadCharsetError: another charset than US-ASCII or UTF-8.
    """
    scanner.space()
    returns, save = None, False
    if _word_ahead(scanner, "RETURN"):
        scanner.keyword()
        scanner.space()
        returns = scanner.keywords_in_parentheses() or ("ALL",)
        if not RETURN_OPTIONS.issuperset(returns):
            raise ParseError("Unknown search return option")
        save = "SAVE" in returns
        returns = tuple(option for option in dict.fromkeys(returns) if option != "SAVE")
        scanner.space()
    if _word_ahead(scanner, "CHARSET"):
        scanner.keyword()
        scanner.space()
        if scanner.astring().decode("ascii", "replace").upper() not in CHARSETS:
            raise BadCharsetError(save=save)
        scanner.space()
    keys = _Keys(scanner)
    key = keys.sequence(0)
    scanner.end()
    return SearchArguments(key, returns, keys.uses_modseq, save)


def _word_ahead(scanner: Scanner, word: str) -> bool:
    end = scanner.position + len(word)
    ahead = scanner.data[scanner.position : end].upper() == word.encode("ascii")
    return ahead and scanner.data[end : end + 1] == b" "


class _Keys:
    """The recursive part, bounded by MAX_DEPTH and MAX_KEYS."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._count = 0
        self.uses_modseq = False

    def sequence(self, depth: int) -> SearchKey:
        keys = [self.key(depth)]
        while self._scanner.accept(b" "):
            keys.append(self.key(depth))
        return keys[0] if len(keys) == 1 else AndKey(tuple(keys))

    def key(self, depth: int) -> SearchKey:
        scanner = self._scanner
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_KEYS:
            raise ParseError("Search too complex")
        if scanner.accept(b"("):
            inner = self.sequence(depth + 1)
            scanner.expect(b")")
            return inner
        if scanner.next.isdigit() or scanner.next in {b"*", b"$"}:
            return SetKey(scanner.sequence_set(), uid=False)
        word = scanner.keyword()
        if word in _FIXED:
            return _FIXED[word]
        scanner.space()
        if word == "NOT":
            return NotKey(self.key(depth + 1))
        if word == "OR":
            left = self.key(depth + 1)
            scanner.space()
            return OrKey(left, self.key(depth + 1))
        return self._with_argument(word)

    def _with_argument(self, word: str) -> SearchKey:
        scanner = self._scanner
        if word in _DATES:
            relation, sent = _DATES[word]
            return DateKey(relation, scanner.date(), sent)
        if word in _FIELDS:
            return TextKey(self._text(), headers=True, body=False, name=word.lower())
        readers: dict[str, Callable[[], SearchKey]] = {
            "BODY": lambda: TextKey(self._text(), headers=False, body=True),
            "TEXT": lambda: TextKey(self._text(), headers=True, body=True),
            "HEADER": self._header,
            "KEYWORD": lambda: FlagKey(scanner.atom().decode("ascii"), present=True),
            "UNKEYWORD": lambda: FlagKey(scanner.atom().decode("ascii"), present=False),
            "LARGER": lambda: SizeKey(larger=True, octets=scanner.number()),
            "SMALLER": lambda: SizeKey(larger=False, octets=scanner.number()),
            "UID": lambda: SetKey(scanner.sequence_set(), uid=True),
            "MODSEQ": self._modseq,
            "EMAILID": lambda: EmailKey(self._object_id()),
            "THREADID": self._thread,
        }
        reader = readers.get(word)
        if reader is None:
            raise ParseError("Unknown search key")
        return reader()

    def _header(self) -> SearchKey:
        try:
            name = self._scanner.astring().decode("ascii").lower()
        except UnicodeDecodeError:
            raise ParseError("Invalid header field name") from None
        self._scanner.space()
        return TextKey(self._text(), headers=True, body=False, name=name)

    def _modseq(self) -> SearchKey:
        if self._scanner.next == b'"':
            # RFC 7162 lets a server without per-flag mod-sequences ignore the entry name and type.
            self._scanner.string()
            self._scanner.space()
            if self._scanner.keyword() not in {"PRIV", "SHARED", "ALL"}:
                raise ParseError("Unknown entry type")
            self._scanner.space()
        self.uses_modseq = True
        return ModSeqKey(self._scanner.number(0, MAX_MODSEQ))

    def _object_id(self) -> str:
        found = self._scanner.atom()
        if not _OBJECT_ID.fullmatch(found):
            raise ParseError("Expected an object id")
        return found.decode("ascii")

    def _thread(self) -> SearchKey:
        self._object_id()
        return NothingKey()

    def _text(self) -> str:
        # US-ASCII is a part of UTF-8, and clients that name no charset send UTF-8 when they send 8-bit text.
        try:
            return self._scanner.astring().decode("utf-8")
        except UnicodeDecodeError:
            raise ParseError("Search text is not valid in its charset") from None
