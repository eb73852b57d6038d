"""Address lists of RFC 5322 3.4, for ENVELOPE, display and comparison.

Guarantees: never raises, linear time. Quoting and comments are removed, encoded words stay as they are. Where the
syntax is broken, more addresses are returned rather than fewer; only what stands before an address in angle
brackets is always its display name, even when it has an ``@`` (``jane@example.org <jane@example.org>``).

Failure modes: an address without ``@`` becomes a mailbox with an empty ``host``; what is neither is skipped.
This reader is tolerant on purpose; who signs for whom is decided by the Security/Trust Agent with a strict one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.core.mime.encoding import decode_encoded_words, header_text

MAX_ADDRESSES = 10_000
"""In one field; the rest is left out."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One mailbox. ``route`` is the obsolete source route (``@a,@b``) or empty; ``name`` is the display name."""

    name: str
    route: str
    mailbox: str
    host: str

    @property
    def addr_spec(self) -> str:
        """``mailbox@host``, or the mailbox alone when there is no host."""
        return f"{self.mailbox}@{self.host}" if self.host else self.mailbox

    @property
    def display_name(self) -> str:
        """The display name with its encoded words decoded."""
        return decode_encoded_words(self.name)


@dataclass(frozen=True, slots=True)
class Group:
    """A named group of mailboxes, possibly of none (``undisclosed-recipients:;``)."""

    name: str
    members: tuple[Mailbox, ...]


def parse_address_list(value: bytes) -> tuple[Mailbox | Group, ...]:
    """Parse the raw value of an address field, folding included."""
    return _parse(header_text(value))


def addr_specs(text: str) -> tuple[str, ...]:
    """Every ``local@domain`` in an address list, groups included, in order and as written.

    These are candidates: ``gateway.core.address.normalise`` still refuses one that is no Direct address.
    """
    found: list[str] = []
    for entry in _parse(text):
        members = entry.members if isinstance(entry, Group) else (entry,)
        found.extend(m.addr_spec for m in members if m.mailbox and m.host)
    return tuple(found)


# --- words ---

_ATOM = "atom"
_QUOTED = "quoted"
_LITERAL = "literal"
_COMMENT = "comment"
_PLAIN = re.compile(r'[^\s()<>@,;:"\[\\]+')
_WHITE = re.compile(r"\s+")
_QUOTED_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_DOMAIN_LITERAL = re.compile(r"\[[^\[\]\\\s<>,;@]*\]")
_PARENTHESIS = re.compile(r"\\.|[()]", re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)

Word = tuple[str, str]
"""Kind and text; a special character is its own kind."""


def _words(text: str) -> list[Word]:
    """Split into words. A quote or parenthesis that is never closed is an ordinary character.

    Once one was found open, no other is looked for: each search for the end happens at most once in vain.
    """
    words: list[Word] = []
    position = 0
    quotes = comments = True
    while position < len(text):
        if plain := _PLAIN.match(text, position):
            words.append((_ATOM, plain.group()))
            position = plain.end()
            continue
        if white := _WHITE.match(text, position):
            position = white.end()
            continue
        char = text[position]
        if char == '"' and quotes:
            if quoted := _QUOTED_STRING.match(text, position):
                words.append((_QUOTED, _QUOTED_PAIR.sub(r"\1", quoted.group(1))))
                position = quoted.end()
                continue
            quotes = False
        elif char == "(" and comments:
            end = _comment_end(text, position)
            if end:
                words.append((_COMMENT, _QUOTED_PAIR.sub(r"\1", text[position + 1 : end - 1]).strip()))
                position = end
                continue
            comments = False
        elif char == "[" and (literal := _DOMAIN_LITERAL.match(text, position)):
            words.append((_LITERAL, literal.group()))
            position = literal.end()
            continue
        if char == "\\" and position + 1 < len(text):
            words.append((_ATOM, text[position + 1]))
            position += 2
            continue
        words.append((char, char) if char in "<>@,;:" else (_ATOM, char))
        position += 1
    return words


def _comment_end(text: str, position: int) -> int:
    """Offset after the comment that opens at ``position``, or 0 when it is never closed."""
    depth = 0
    for match in _PARENTHESIS.finditer(text, position):
        depth += {"(": 1, ")": -1}.get(match.group(), 0)
        if depth == 0:
            return match.end()
    return 0


# --- grammar ---


class _Reader:
    """Collects the words of one address until something ends it."""

    def __init__(self) -> None:
        self.entries: list[Mailbox | Group] = []
        self._group: str | None = None
        self._members: list[Mailbox] = []
        self._count = 0
        self._clear()

    def _clear(self) -> None:
        self._phrase: list[Word] = []
        self._comment = ""
        self._angle = False

    def read(self, words: list[Word]) -> tuple[Mailbox | Group, ...]:
        position = 0
        closers = _next_closers(words)
        while position < len(words) and self._count < MAX_ADDRESSES:
            kind, text = words[position]
            position += 1
            if kind == "<":
                stop = closers[position - 1]
                closed = stop < len(words) and words[stop][0] == ">"
                if closed or stop > position:  # A stray "<" alone is no address, "<>" is an empty one.
                    self._read_angle(words[position:stop])
                position = stop + 1 if closed else stop
            elif kind == ",":
                self._end_mailbox()
            elif kind == ";":
                self._end_mailbox()
                self._end_group()
            elif kind == ":" and self._group is None and not self._has_at():
                self._group = _join(self._phrase)
                self._clear()
            elif kind == _COMMENT:
                self._comment = self._comment or text
            elif kind != ">":
                self._phrase.append((kind, text))
        self._end_mailbox()
        self._end_group()
        return tuple(self.entries)

    def _has_at(self) -> bool:
        return any(kind == "@" for kind, _ in self._phrase)

    def _read_angle(self, inside: list[Word]) -> None:
        if self._angle:
            self._end_mailbox()  # "<a@b> c@d <e@f>" holds three addresses.
        route, spec = _split_route([word for word in inside if word[0] != _COMMENT])
        mailbox, host = _split_spec(spec)
        self._add(Mailbox(_join(self._phrase) or self._comment, route, mailbox, host))
        self._clear()
        self._angle = True

    def _end_mailbox(self) -> None:
        """Finish an address that stands without angle brackets."""
        phrase, comment, angle = self._phrase, self._comment, self._angle
        self._clear()
        if not phrase or (angle and not any(kind == "@" for kind, _ in phrase)):
            return
        name, spec = _split_name(phrase)
        mailbox, host = _split_spec(spec)
        self._add(Mailbox(_join(name) or comment, "", mailbox, host))

    def _end_group(self) -> None:
        if self._group is not None:
            self.entries.append(Group(self._group, tuple(self._members)))
        self._group = None
        self._members = []

    def _add(self, mailbox: Mailbox) -> None:
        self._count += 1
        if self._group is None:
            self.entries.append(mailbox)
        else:
            self._members.append(mailbox)


def _parse(text: str) -> tuple[Mailbox | Group, ...]:
    return _Reader().read(_words(text))


def _next_closers(words: list[Word]) -> dict[int, int]:
    """For each ``<`` the index at which its address ends: the next ``>``, or else the next ``<``, ``,`` or ``;``."""
    closers: dict[int, int] = {}
    close = separator = len(words)
    for index in range(len(words) - 1, -1, -1):
        kind = words[index][0]
        if kind == ">":
            close = index
        elif kind == "<":
            closers[index] = close if close < len(words) else separator
            close, separator = len(words), index
        elif kind in {",", ";"}:
            separator = index
    return closers


def _join(words: list[Word]) -> str:
    """The words of a phrase with one space between them; ``@`` and ``:`` stick to their neighbours."""
    out: list[str] = []
    glue = True
    for kind, text in words:
        special = kind in {"@", ":"}
        if not glue and not special:
            out.append(" ")
        out.append(text)
        glue = special
    return "".join(out)


def _split_route(words: list[Word]) -> tuple[str, list[Word]]:
    """Split ``@a,@b:local@host`` into its route and the rest (RFC 5322 4.4)."""
    if words and words[0][0] == "@":
        for index, (kind, _) in enumerate(words):
            if kind == ":":
                return "".join(text for _, text in words[:index]), words[index + 1 :]
    return "", words


def _split_name(words: list[Word]) -> tuple[list[Word], list[Word]]:
    """Split off the display name of an address that lacks its angle brackets: ``Jane Doe jane@example.org``."""
    at = next((index for index, (kind, _) in enumerate(words) if kind == "@"), None)
    if at is None:
        return [], words
    first = max(at - 1, 0)
    # The obsolete syntax allows white space around the dots of a local part.
    while first > 0 and (words[first][1].startswith(".") or words[first - 1][1].endswith(".")):
        first -= 1
    return words[:first], words[first:]


def _split_spec(words: list[Word]) -> tuple[str, str]:
    """Split at the last ``@``. Without one, all of it is the mailbox."""
    at = next((index for index in range(len(words) - 1, -1, -1) if words[index][0] == "@"), None)
    if at is None:
        return _join(words), ""
    return "".join(text for _, text in words[:at]), "".join(text for _, text in words[at + 1 :])
