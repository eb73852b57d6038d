"""Header blocks of RFC 5322 and MIME, on the bytes as they came.

Guarantees: linear time; nothing outside the header block is touched; a limit that is passed raises
``ResourceLimitError``. What is malformed is reported (``defects``), never repaired, so that a strict caller can
refuse and a lenient one can show.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from gateway.core.mime.encoding import decode_encoded_words, decode_text

MAX_HEADER_BLOCK_BYTES = 65_536
MAX_HEADER_FIELDS = 1_000
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_FIELDS = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)\n?|[^\n]+\n?|\n")
"""A field with its continuation lines; or else one line without a name, so that no octet is passed over."""
_EMPTY_LINE = (b"\r\n", b"\n")
_MAX_REMEMBERED_BYTES = 256
_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")


class ResourceLimitError(ValueError):
    """A header block, a part count or a depth is beyond its named limit."""


_new = tuple.__new__


class Field(NamedTuple):
    """One header field. ``value`` is the raw bytes after the colon, folding included, line end excluded."""

    name: bytes
    """Lower case."""
    value: bytes

    @property
    def text(self) -> str:
        """The value unfolded and stripped, as text; bytes that are not UTF-8 become U+FFFD."""
        return unfold(self.value).decode("utf-8", "replace").strip()


class HeaderBlock(NamedTuple):
    """The fields of one entity, in order, and where its body begins."""

    fields: tuple[Field, ...]
    body_start: int
    defects: tuple[str, ...] = ()
    is_usual: bool = False
    """Whether other messages are likely to have the very same fields, so that it pays to remember what they say."""
    values: Mapping[bytes, bytes] = MappingProxyType({})
    """The value of the first field of each name."""

    @property
    def is_each_once(self) -> bool:
        """Whether no name stands twice."""
        return len(self.values) == len(self.fields)

    def all(self, name: bytes) -> tuple[Field, ...]:
        """Every field of that (lower-case) name, in order."""
        return tuple([f for f in self.fields if f.name == name]) if name in self.values else ()

    def first(self, name: bytes) -> Field | None:
        """The first field of that (lower-case) name, or None."""
        value = self.values.get(name)
        return None if value is None else _new(Field, (name, value))

    def text(self, name: bytes) -> str:
        """The unfolded text of the first field of that name, or the empty string."""
        value = self.values.get(name)
        return "" if value is None else unfold(value).decode("utf-8", "replace").strip()


@dataclass(frozen=True, slots=True)
class ContentType:
    """A parsed Content-Type or Content-Disposition: lower-case type and parameter names.

    ``duplicates`` names the parameters given more than once, or in several of the forms of RFC 2231 (an ambiguity,
    vector m06).
    """

    maintype: str
    subtype: str
    parameters: dict[str, str] = field(default_factory=dict)
    duplicates: tuple[str, ...] = ()
    given: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """The parameters in order and as written (``filename*0*``), with quoting removed: what IMAP passes on."""

    @property
    def full(self) -> str:
        """``type/subtype``."""
        return f"{self.maintype}/{self.subtype}"


def unfold(value: bytes) -> bytes:
    """Remove the line breaks of folding (RFC 5322 2.2.3); the white space stays."""
    return value.replace(b"\r\n", b"").replace(b"\n", b"") if b"\n" in value else value


def scan_headers(data: bytes | bytearray, start: int = 0, end: int | None = None) -> HeaderBlock:
    """Scan the header block that begins at ``start``.

    Line ends are CRLF or bare LF. The body begins after the first empty line; a buffer without one is all header.
    A line that is neither a field nor a continuation ends up in ``defects`` and is skipped.

    Raises:
        ResourceLimitError: the block is larger than MAX_HEADER_BLOCK_BYTES or has too many fields.
    """
    stop = len(data) if end is None else end
    limit = start + MAX_HEADER_BLOCK_BYTES + 4
    if limit > stop:  # noqa: PLR1730 - a call of min takes longer, and this runs for each part
        limit = stop
    if data.startswith(_EMPTY_LINE, start, limit):
        return HeaderBlock((), start + 1 + (data[start] == 0x0D))
    mixed = data.find(b"\n\r\n", start, limit)
    bare = data.find(b"\n\n", start, limit if mixed < 0 else mixed + 1)
    # The first empty line after a line ends the block.
    if bare >= 0:
        body_start = bare + 2
    elif mixed >= 0:
        body_start = mixed + 3
    elif limit - start > MAX_HEADER_BLOCK_BYTES:
        raise ResourceLimitError("header block too large")
    else:
        body_start = max(limit, start)
    head = bytes(data[start:body_start])
    # Programs describe the parts of their messages in the same few words; other heads are new each time.
    is_usual = len(head) <= _MAX_REMEMBERED_BYTES and head.startswith(b"Content-") and b"boundary" not in head
    fields, defects, values = _remembered_fields(head) if is_usual else _split_fields(head)
    return _new(HeaderBlock, (fields, body_start, defects, is_usual, values))


def read_headers(data: bytes, start: int = 0, end: int | None = None) -> HeaderBlock:
    """Scan like :func:`scan_headers`, but never raise: of a block beyond its limits the first fields are kept.

    ``body_start`` is right in any case; ``defects`` says that the rest was left out.
    """
    stop = len(data) if end is None else end
    try:
        return scan_headers(data, start, stop)
    except ResourceLimitError:
        close = _END_OF_HEADERS.search(data, start, stop)
        body_start = stop if close is None else close.end()
        window = data[start : min(body_start, start + MAX_HEADER_BLOCK_BYTES)]
        lines = window[: window.rfind(b"\n") + 1].split(b"\n")[:MAX_HEADER_FIELDS]
        fields, defects, values = _split_fields(b"".join(line + b"\n" for line in lines))
        return HeaderBlock(fields, body_start, (*defects, "header block beyond its limit"), values=values)


_Split = tuple[tuple[Field, ...], tuple[str, ...], Mapping[bytes, bytes]]
"""Fields and defects of a block, and the first value of each name."""


def _split_fields(head: bytes) -> _Split:
    """Split a block that may end with the empty line; what is no clean sequence of fields goes line by line."""
    # The empty line at the end is none of the fields; what else is none is found with an empty name.
    close = -2 if head.endswith(b"\n\r\n") else -1 if head.endswith(b"\n\n") else None
    found = _FIELDS.findall(head[:close])
    if 0 < len(found) <= MAX_HEADER_FIELDS:
        named = tuple([_new(Field, (name.lower(), value.rstrip(b"\r\n"))) for name, value in found])
        first = dict(named[::-1])
        if b"" not in first:
            return named, (), first
    fields, defects = _split_lines(head)
    return fields, defects, dict(fields[::-1])


_remembered_fields = lru_cache(maxsize=512)(_split_fields)


def _split_lines(head: bytes) -> tuple[tuple[Field, ...], tuple[str, ...]]:
    fields: list[Field] = []
    defects: list[str] = []
    lines = head.splitlines(keepends=True) if b"\r" not in head.replace(b"\r\n", b"") else _lf_lines(head)
    current: tuple[bytes, list[bytes]] | None = None

    def flush() -> None:
        if current is not None:
            fields.append(Field(current[0], b"".join(current[1]).rstrip(b"\r\n")))

    for line in lines:
        if line in {b"\r\n", b"\n"}:
            break
        if line[:1] in {b" ", b"\t"}:
            if current is None:
                defects.append("continuation before the first field")
            else:
                current[1].append(line)
        else:
            flush()
            match = _FIELD.match(line)
            if match:
                current = (match.group(1).lower(), [line[match.end() :]])
            else:
                current = None
                defects.append("line without a field name")
            if len(fields) >= MAX_HEADER_FIELDS:
                raise ResourceLimitError("too many header fields")
    flush()
    return tuple(fields), tuple(defects)


def _lf_lines(head: bytes) -> list[bytes]:
    """Split at LF only: a bare CR (or any other control character) is part of the line."""
    return [line + b"\n" for line in head.split(b"\n")[:-1]] + ([tail] if (tail := head.split(b"\n")[-1]) else [])


_MAX_REMEMBERED_CHARS = 256
_TOKEN = re.compile(r"[^\s()<>@,;:\\\"/\[\]?=]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_PARAMETER_NAME = re.compile(r"([^=;]*)=\s*")
_PLAIN_PARAMETER = re.compile(r"""\s*([^\s=;"]+)=(?:"([^"\\]*)"|([^\s;"]+))\s*(?:;|\Z)""")
"""A parameter as programs write it."""
_SECTION = re.compile(r"[0-9]{1,4}\*?")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")


def parse_content_type(value: str) -> ContentType | None:
    """Parse ``type/subtype; name=value`` (RFC 2045 5.1, RFC 2231), or a disposition (no slash).

    Returns None when the value has no readable type. Comments are skipped; an unreadable parameter is dropped.
    """
    if len(value) > _MAX_REMEMBERED_CHARS or "boundary" in value:
        return _last_content_type(value)
    return _remembered_content_type(value)


@lru_cache(maxsize=512)
def _remembered_content_type(value: str) -> ContentType | None:
    """Most fields of all messages hold one of few values; a boundary is a new one each time."""
    return _parse_content_type(value)


@lru_cache(maxsize=1)
def _last_content_type(value: str) -> ContentType | None:
    """Who checks the structure of a message and who reads it ask one after the other."""
    return _parse_content_type(value)


def _parse_content_type(value: str) -> ContentType | None:
    head, _, rest = _strip_comments(value).strip().partition(";")
    maintype, slash, subtype = head.partition("/")
    maintype, subtype = maintype.strip().lower(), subtype.strip().lower()
    if not _TOKEN.fullmatch(maintype) or (slash and not _TOKEN.fullmatch(subtype)):
        return None
    duplicates: list[str] = []
    given = _parameters(rest)
    plain = dict(given)
    if len(plain) < len(given):
        plain = {}
        for name, content in given:
            if name in plain:
                duplicates.append(name)
            else:
                plain[name] = content
    if "*" in rest:
        duplicates.extend(_in_two_forms(plain))
        plain = _join_rfc2231(plain)
    return ContentType(maintype, subtype, plain, tuple(duplicates), tuple(given))


def _strip_comments(value: str) -> str:
    """Remove RFC 5322 comments outside quoted strings."""
    if "(" not in value:
        return value
    out: list[str] = []
    depth = 0
    quoted = escaped = False
    for char in value:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"' and depth == 0:
            quoted = not quoted
        elif char == "(" and not quoted:
            depth += 1
        elif char == ")" and depth and not quoted:
            depth -= 1
            continue
        if depth == 0:
            out.append(char)
    return "".join(out)


def _parameters(rest: str) -> list[tuple[str, str]]:
    """Split ``name=value; name="value"`` in one pass; a piece without ``=`` is dropped."""
    found: list[tuple[str, str]] = []
    position = 0
    size = len(rest)
    while position < size and (plain := _PLAIN_PARAMETER.match(rest, position)) is not None:
        name, quoted_text, token = plain.groups()
        found.append((name.lower(), token or quoted_text))
        position = plain.end()
    if position < size:
        found += _odd_parameters(rest, position)
    return found


def _odd_parameters(rest: str, position: int) -> list[tuple[str, str]]:
    """Split what begins at the position, whatever it is."""
    found: list[tuple[str, str]] = []
    open_quote = False
    while position < len(rest):
        named = _PARAMETER_NAME.match(rest, position)
        if named is None:
            position = rest.find(";", position) + 1
            if position == 0:
                break
            continue
        offset = named.end()
        quoted = None
        if rest.startswith('"', offset) and not open_quote:
            quoted = _QUOTED.match(rest, offset)
            # A quote that is never closed is not looked for again: that keeps the time linear.
            open_quote = quoted is None
        after = rest.find(";", offset if quoted is None else quoted.end())
        if quoted is not None:
            content = quoted.group(1)
            if "\\" in content:
                content = _QUOTED_PAIR.sub(r"\1", content)
        else:
            content = rest[offset : len(rest) if after < 0 else after].strip()
        if name := named.group(1).strip().lower():
            found.append((name, content))
        position = len(rest) if after < 0 else after + 1
    return found


def _in_two_forms(plain: dict[str, str]) -> list[str]:
    """Names given as ``name`` and as ``name*`` or ``name*0``: readers differ in which one they take."""
    forms: dict[str, set[str]] = {}
    for name in plain:
        base, star, index = name.partition("*")
        forms.setdefault(base, set()).add("plain" if not star else "sections" if index else "extended")
    return [base for base, kinds in forms.items() if len(kinds) > 1]


def _join_rfc2231(plain: dict[str, str]) -> dict[str, str]:
    """Join continuations (``name*0``, ``name*1*``) and decode extended values.

    An extended value wins over a plain one of the same name (RFC 5987 3.2.2 gives the reason: it is the exact one).
    """
    joined: dict[str, str] = {}
    sections: dict[str, list[tuple[int, str, bool]]] = {}
    for name, content in plain.items():
        base, star, index = name.partition("*")
        if not star:
            joined.setdefault(name, content)
        elif index == "":
            joined[base] = _extended(content)
        elif _SECTION.fullmatch(index):
            sections.setdefault(base, []).append((int(index.rstrip("*")), content, index.endswith("*")))
    for base, pieces in sections.items():
        pieces.sort()
        joined[base] = _join_sections([(content, extended) for _, content, extended in pieces])
    return joined


def _join_sections(pieces: list[tuple[str, bool]]) -> str:
    """Join the sections of one value; only those marked with ``*`` are percent-encoded (RFC 2231 4.1)."""
    charset = ""
    first, extended = pieces[0]
    if extended and first.count("'") >= 2:
        charset, _, first = first.split("'", 2)
        pieces = [(first, True), *pieces[1:]]
    raw = b"".join(_percent_decode(text) if encoded else _to_bytes(text) for text, encoded in pieces)
    return decode_text(raw, charset)


def _extended(content: str) -> str:
    charset, _, rest = content.partition("'")
    _, mark, text = rest.partition("'")
    return decode_text(_percent_decode(text), charset) if mark else content


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _percent_decode(text: str) -> bytes:
    return _PERCENT.sub(lambda match: bytes([int(match.group(1), 16)]), _to_bytes(text))


def decode_words(text: str) -> str:
    """Decode RFC 2047 encoded words for display; a word that cannot be decoded is left as it is."""
    return decode_encoded_words(text)
