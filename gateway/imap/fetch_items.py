"""FETCH: its data items as values, and their parser (RFC 3501 6.4.5, modifiers of RFC 7162, RFC 8474)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.imap.scanner import MAX_MODSEQ, MAX_NUMBER, ParseError, Ranges, Scanner

MAX_ITEMS = 100
MAX_PART_DEPTH = 100
MAX_HEADER_NAMES = 200
_PART = re.compile(rb"[1-9]\d{0,9}(?:\.[1-9]\d{0,9})*")
_WORD = re.compile(rb"[A-Za-z0-9.]+")
_FIELD_NAME = re.compile(rb"[!-9;-~]+")
_PARTIAL = re.compile(rb"<(\d{1,10})\.(\d{1,10})>")
_PLAIN_NAME = re.compile(rb'[^\x00-\x20(){%*"\\\]\x7f-\xff]+')


@dataclass(frozen=True, slots=True)
class FetchItem:
    """One data item.

    ``name`` is FLAGS, UID, INTERNALDATE, RFC822.SIZE, ENVELOPE, BODY, BODYSTRUCTURE, MODSEQ, EMAILID, THREADID or
    SECTION; the other attributes belong to SECTION only. ``label`` is how the answer names the item.
    """

    name: str
    label: bytes
    peek: bool = True
    path: tuple[int, ...] = ()
    kind: str = ""
    """``""`` (the whole), HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT or MIME."""
    fields: tuple[str, ...] = ()
    partial: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class FetchArguments:
    """A whole FETCH."""

    ranges: Ranges
    items: tuple[FetchItem, ...]
    changed_since: int | None = None
    vanished: bool = False
    """Whether the client wants to be told what left after ``changed_since`` (RFC 7162 3.2.6)."""


def _simple(name: str) -> FetchItem:
    return FetchItem(name, name.encode("ascii"))


_SIMPLE = {
    name: _simple(name)
    for name in (
        "FLAGS",
        "UID",
        "INTERNALDATE",
        "RFC822.SIZE",
        "ENVELOPE",
        "BODY",
        "BODYSTRUCTURE",
        "MODSEQ",
        "EMAILID",
        "THREADID",
    )
}
_OLD_SECTIONS = {
    "RFC822": FetchItem("SECTION", b"RFC822", peek=False),
    "RFC822.HEADER": FetchItem("SECTION", b"RFC822.HEADER", peek=True, kind="HEADER"),
    "RFC822.TEXT": FetchItem("SECTION", b"RFC822.TEXT", peek=False, kind="TEXT"),
}
_FAST = tuple(_SIMPLE[name] for name in ("FLAGS", "INTERNALDATE", "RFC822.SIZE"))
_MACROS = {
    "FAST": _FAST,
    "ALL": (*_FAST, _SIMPLE["ENVELOPE"]),
    "FULL": (*_FAST, _SIMPLE["ENVELOPE"], _SIMPLE["BODY"]),
}


def parse_fetch(scanner: Scanner) -> FetchArguments:
    """Parse what follows the word FETCH. Raises ParseError."""
    scanner.space()
    ranges = scanner.sequence_set()
    scanner.space()
    items: list[FetchItem] = []
    if scanner.accept(b"("):
        items.append(_item(scanner))
        while not scanner.accept(b")"):
            scanner.space()
            items.append(_item(scanner))
            if len(items) > MAX_ITEMS:
                raise ParseError("Too many fetch items")
    else:
        items.extend(_macro_or_item(scanner))
    changed_since, vanished = _modifiers(scanner)
    scanner.end()
    return FetchArguments(ranges, tuple(dict.fromkeys(items)), changed_since, vanished)


def _modifiers(scanner: Scanner) -> tuple[int | None, bool]:
    """CHANGEDSINCE and VANISHED, in either order (RFC 4466, RFC 7162)."""
    changed_since, vanished = None, False
    if not scanner.accept(b" "):
        return None, False
    scanner.expect(b"(")
    while True:
        word = scanner.keyword()
        if word == "CHANGEDSINCE" and changed_since is None:
            scanner.space()
            changed_since = scanner.number(0, MAX_MODSEQ)
        elif word == "VANISHED" and not vanished:
            vanished = True
        else:
            raise ParseError("Unknown or repeated fetch modifier")
        if scanner.accept(b")"):
            break
        scanner.space()
    if vanished and changed_since is None:
        raise ParseError("VANISHED needs CHANGEDSINCE")
    return changed_since, vanished


def _word(scanner: Scanner) -> str:
    match = _WORD.match(scanner.data, scanner.position)
    if match is None:
        raise ParseError("Expected a fetch item")
    scanner.position = match.end()
    return match.group().decode("ascii").upper()


def _macro_or_item(scanner: Scanner) -> tuple[FetchItem, ...]:
    start = scanner.position
    word = _word(scanner)
    if word in _MACROS:
        return _MACROS[word]
    scanner.position = start
    return (_item(scanner),)


def _item(scanner: Scanner) -> FetchItem:
    word = _word(scanner)
    if word in {"BODY", "BODY.PEEK"} and scanner.accept(b"["):
        return _section(scanner, peek=word == "BODY.PEEK")
    item = _SIMPLE.get(word) or _OLD_SECTIONS.get(word)
    if item is None:
        raise ParseError("Unknown fetch item")
    return item


def _section(scanner: Scanner, *, peek: bool) -> FetchItem:
    path = _part_path(scanner)
    kind = ""
    fields: tuple[bytes, ...] = ()
    if scanner.next != b"]":
        if path:
            scanner.expect(b".")
        kind = _word(scanner)
        if kind not in {"HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "TEXT", "MIME"} or (
            kind == "MIME" and not path
        ):
            raise ParseError("Unknown section")
        if kind.startswith("HEADER.FIELDS"):
            scanner.space()
            fields = _header_names(scanner)
    scanner.expect(b"]")
    partial, suffix = _partial(scanner)
    names = b" (" + b" ".join(_label_name(name) for name in fields) + b")" if fields else b""
    spec = ".".join([*map(str, path), *([kind] if kind else [])]).encode("ascii")
    return FetchItem(
        "SECTION",
        b"BODY[" + spec + names + b"]" + suffix,
        peek=peek,
        path=path,
        kind=kind,
        fields=tuple(name.decode("ascii").lower() for name in fields),
        partial=partial,
    )


def _part_path(scanner: Scanner) -> tuple[int, ...]:
    match = _PART.match(scanner.data, scanner.position)
    if match is None:
        return ()
    scanner.position = match.end()
    numbers = tuple(int(number) for number in match.group().split(b"."))
    if len(numbers) > MAX_PART_DEPTH or max(numbers) > MAX_NUMBER:
        raise ParseError("Part number out of range")
    return numbers


def _header_names(scanner: Scanner) -> tuple[bytes, ...]:
    scanner.expect(b"(")
    names = [scanner.astring()]
    while not scanner.accept(b")"):
        scanner.space()
        names.append(scanner.astring())
        if len(names) > MAX_HEADER_NAMES:
            raise ParseError("Too many header fields")
    if not all(_FIELD_NAME.fullmatch(name) for name in names):
        raise ParseError("Invalid header field name")
    return tuple(names)


def _label_name(name: bytes) -> bytes:
    """A header name as an astring; what an atom cannot hold is quoted (a field name has no CR, LF or 8-bit)."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    return b'"' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _partial(scanner: Scanner) -> tuple[tuple[int, int] | None, bytes]:
    if scanner.next != b"<":
        return None, b""
    match = _PARTIAL.match(scanner.data, scanner.position)
    if match is None:
        raise ParseError("Invalid partial")
    scanner.position = match.end()
    start, count = int(match.group(1)), int(match.group(2))
    if start > MAX_NUMBER or not 0 < count <= MAX_NUMBER:
        raise ParseError("Partial out of range")
    return (start, count), b"<%d>" % start
