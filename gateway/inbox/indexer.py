"""Computes once, at filing, everything that IMAP answers from: ENVELOPE, BODY, BODYSTRUCTURE, offsets, search text.

Guarantees: ``index`` never raises for what the message holds; every value is valid IMAP and can be sent as it is
(see ``imap_text`` for how values are spelt); linear time. The message itself is not changed.

Failure modes: a structure that would not fit MAX_STRUCTURE_BYTES, or that a defect here cannot read, is shown as one
text part: the message stays readable and is filed in any case.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from gateway.core.mime.addresses import addr_specs, parse_address_list
from gateway.core.mime.encoding import decode_encoded_words, decode_guessed, header_text
from gateway.core.mime.headers import ContentType, Field, read_headers
from gateway.core.mime.html_text import html_to_text
from gateway.core.mime.parts import leaf_parts
from gateway.core.mime.structure import OPAQUE, TEXT_PLAIN, Part, parse_structure, single_text_part
from gateway.inbox.imap_text import NIL, addresses, nstring, parameters, string, text_nstring
from gateway.inbox.sections import encode_sections, moved
from gateway.observability.log import get_log
from gateway.ports import IndexedMessage

MAX_STRUCTURE_BYTES = 512 * 1024
"""Of BODYSTRUCTURE; a real one has a few hundred, and clients give up on lines of a million."""
MAX_SEARCH_TEXT_CHARS = 500_000
"""Of one message, all textual parts together; what is beyond is not found by SEARCH BODY."""
MAX_DATE_CHARS = 100

_log = get_log("inbox")
_NO_ENVELOPE = b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"
_BLANKS = str.maketrans("\r\n\t", "   ")
_ADDRESS_FIELDS = frozenset({b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc"})
_SPREAD = re.compile(rb"[(\\]|[\s\"]@|@\s")
"""An address that may not stand in one piece in its field."""
_HTML = frozenset({"text/html", "text/xhtml"})


class Indexer:
    """See :class:`gateway.ports.MessageIndexer`."""

    def index(self, content: bytes) -> IndexedMessage:
        """Compute the index row of a message. Never raises for what the message holds."""
        try:
            return _index(content)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not keep a verified message from its inbox
            _log.fault("index_fallback", error)
            return _fallback(content)

    def with_fields(self, indexed: IndexedMessage, fields: bytes) -> IndexedMessage:
        """The index row of the message with fields of the gateway in front of it.

        They change neither the envelope nor the structure: everything else moves on by their length.
        """
        return replace(
            indexed,
            size_bytes=indexed.size_bytes + len(fields),
            header_end=indexed.header_end + len(fields),
            sections=moved(indexed.sections, len(fields)),
            search_headers=_header_lines(read_headers(fields).fields) + indexed.search_headers,
        )


def _index(content: bytes) -> IndexedMessage:
    root = parse_structure(content)
    try:
        body, extended = _Structure().spell(root)
    except _TooLargeError:
        root = single_text_part(content)
        body, extended = _Structure().spell(root)
    return IndexedMessage(
        size_bytes=len(content),
        header_end=root.body_start,
        envelope=envelope(root.fields),
        body=body,
        bodystructure=extended,
        sections=encode_sections(root),
        search_headers=_header_lines(root.fields),
        search_text=_search_text(content, root),
        sent_at=_sent_at(root.fields),
    )


def _fallback(content: bytes) -> IndexedMessage:
    """The message as one text part without a header, by nothing that could fail."""
    root = Part(0, 0, len(content), TEXT_PLAIN, None, None, None, "8bit", None, (), None, content.count(b"\n"))
    body, extended = _Structure().spell(root)
    return IndexedMessage(
        size_bytes=len(content),
        header_end=0,
        envelope=_NO_ENVELOPE,
        body=body,
        bodystructure=extended,
        sections=encode_sections(root),
        search_headers="",
        search_text=_storable(decode_guessed(content[:MAX_SEARCH_TEXT_CHARS])),
        sent_at=None,
    )


# --- ENVELOPE (RFC 3501 7.4.2) ---


def envelope(fields: tuple[Field, ...]) -> bytes:
    """The ENVELOPE of a header. A field that is absent is NIL; text that is present but empty is ``""``."""
    values: dict[bytes, list[bytes]] = {}
    for field in fields:
        values.setdefault(field.name, []).append(field.value)

    def text(name: bytes) -> str | None:
        return header_text(values[name][0]) if name in values else None

    def people(name: bytes) -> bytes:
        # A field given twice is malformed; showing all of its addresses hides no one.
        return addresses([entry for value in values.get(name, ()) for entry in parse_address_list(value)])

    sender = people(b"from")
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        nstring(text(b"date")),
        text_nstring(text(b"subject")),
        sender,
        _or_default(people(b"sender"), sender),
        _or_default(people(b"reply-to"), sender),
        people(b"to"),
        people(b"cc"),
        people(b"bcc"),
        text_nstring(text(b"in-reply-to")),
        text_nstring(text(b"message-id")),
    )


def _or_default(spelt: bytes, default: bytes) -> bytes:
    return default if spelt == NIL else spelt


# --- BODY and BODYSTRUCTURE ---


class _TooLargeError(Exception):
    """The structure would not fit MAX_STRUCTURE_BYTES."""


class _Structure:
    """Spells BODY and BODYSTRUCTURE side by side; the depth is bounded by the parser.

    The size is counted on the way, so that thousands of addresses in hundreds of attached messages cost nothing.
    """

    def __init__(self) -> None:
        self._room = MAX_STRUCTURE_BYTES

    def spell(self, part: Part) -> tuple[bytes, bytes]:
        """BODY and BODYSTRUCTURE of a part. Raises _TooLargeError."""
        if part.children:
            return self._multipart(part)
        kind = part.content_type
        if kind.full == "message/rfc822" and part.message is None:
            # Clients read an envelope after this type; there is none when the message is encoded or too deep.
            kind = OPAQUE
        basic = self._counted(
            b"%b %b %b %b %b %b %d"
            % (
                string(kind.maintype),
                string(kind.subtype),
                parameters(part.content_type.given),
                nstring(part.content_id),
                text_nstring(part.description),
                string(part.encoding),
                part.size,
            )
        )
        extension = self._counted(b"%b %b" % (nstring(part.md5), _extension(part)))
        if part.message is not None:
            inner = self._counted(envelope(part.message.fields))
            body, extended = self.spell(part.message)
            return (
                b"(%b %b %b %d)" % (basic, inner, body, part.lines),
                b"(%b %b %b %d %b)" % (basic, inner, extended, part.lines, extension),
            )
        if kind.maintype == "text":
            basic = b"%b %d" % (basic, part.lines)
        return b"(%b)" % basic, b"(%b %b)" % (basic, extension)

    def _multipart(self, part: Part) -> tuple[bytes, bytes]:
        inner = [self.spell(child) for child in part.children]
        subtype = string(part.content_type.subtype)
        bodies = b"".join(body for body, _ in inner)
        extended = b"".join(extended for _, extended in inner)
        rest = self._counted(b"%b %b" % (parameters(part.content_type.given), _extension(part)))
        return b"(%b %b)" % (bodies, subtype), b"(%b %b %b)" % (extended, subtype, rest)

    def _counted(self, spelt: bytes) -> bytes:
        self._room -= len(spelt)
        if self._room < 0:
            raise _TooLargeError
        return spelt


def _extension(part: Part) -> bytes:
    """Disposition, language and location."""
    language = b"(%b)" % b" ".join(string(tag) for tag in part.language) if part.language else NIL
    return b"%b %b %b" % (_disposition(part.disposition), language, nstring(part.location))


def _disposition(disposition: ContentType | None) -> bytes:
    if disposition is None:
        return NIL
    return b"(%b %b)" % (string(disposition.maintype), parameters(disposition.given))


# --- search and date ---


def _header_lines(fields: tuple[Field, ...]) -> str:
    """``name: value`` lines, unfolded, decoded and case-folded.

    An address that is written with comments or spaces within it is there as people write it, too.
    """
    lines: list[str] = []
    for field in fields:
        value = decode_encoded_words(header_text(field.value)).translate(_BLANKS)
        if field.name in _ADDRESS_FIELDS and _SPREAD.search(field.value):
            value = " ".join([value, *addr_specs(header_text(field.value))])
        lines.append(f"{field.name.decode('ascii')}: {value}\n")
    return _storable("".join(lines))


def _search_text(content: bytes, root: Part) -> str:
    """The text of all textual parts, headers of attached messages included, case-folded and capped."""
    pieces: list[str] = []
    room = MAX_SEARCH_TEXT_CHARS
    for message in _enclosed(root):
        if room <= 0:
            break
        pieces.append(_header_lines(message.fields))
        room -= len(pieces[-1])
    for leaf in leaf_parts(content, root):
        if room <= 0:
            break
        if leaf.content_type.startswith("text/"):
            text = leaf.text(room)
            pieces.append((html_to_text(text) if leaf.content_type in _HTML else text)[:room])
            room -= len(pieces[-1])
    return _storable("\n".join(pieces))[:MAX_SEARCH_TEXT_CHARS]


def _enclosed(root: Part) -> list[Part]:
    found: list[Part] = []
    waiting = [root]
    while waiting:
        part = waiting.pop()
        waiting.extend(reversed(part.children))
        if part.message is not None:
            found.append(part.message)
            waiting.append(part.message)
    return found


def _storable(text: str) -> str:
    """Case-folded text without NUL, at which some databases end a string."""
    return text.replace("\0", " ").casefold()


def _sent_at(fields: tuple[Field, ...]) -> datetime | None:
    """The first Date field; None when there is none that can be read.

    Day and time are those that are written, whatever the zone: SEARCH disregards it (RFC 3501 6.4.4).
    """
    value = next((field.value for field in fields if field.name == b"date"), None)
    if value is None or len(value) > MAX_DATE_CHARS:
        return None
    try:
        sent = parsedate_to_datetime(header_text(value))
        return sent.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError):
        return None
