"""The verified bytes as a message: wrapped or not, who sent it to whom, and what is delivered (AS-43, AS-48, AS-62).

Call only with bytes whose signature has been verified. A wrapped message is delivered exactly as it was enclosed.
An unwrapped entity has no From of its own: the headers that name the sender stand outside the signature. The block
inside the encryption, when it has a From, counts before the outer one (AS-62). Either way the signer's certificate
must bind to that From, so an altered one refuses the message; only To, Subject and Date of an unwrapped message are
nobody's word.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from gateway.core.errors import RejectionError
from gateway.core.mime.headers import Field, HeaderBlock, ResourceLimitError, decode_words, scan_headers
from gateway.core.verdict import Reason
from gateway.sta.cms.private_buffer import Span
from gateway.sta.identity import Mailbox, named_recipients, optional_sender_field, the_sender
from gateway.sta.mime.boundaries import check_structure
from gateway.sta.mime.mime_entity import Entity, decode_body, first_header_offset, malformed, read_entity
from gateway.sta.mime.transfer_decoding import IDENTITY_ENCODINGS

_WRAPPERS = frozenset({"message/rfc822", "message/global"})
_CARRIED_FIELDS = (
    b"from",
    b"sender",
    b"reply-to",
    b"to",
    b"cc",
    b"date",
    b"message-id",
    b"in-reply-to",
    b"references",
    b"subject",
)
_SINGLE_FIELDS = (b"from", b"sender", b"message-id", b"content-type", b"content-transfer-encoding")
MAX_SHOWN_CHARS = 998


@dataclass(frozen=True)
class InnerMessage:
    """What the signature protects, and the message that may be delivered."""

    wrapped: bool
    prefix: bytes
    """Fields of the unprotected block of record that an unwrapped message lacks; they are delivered before it."""
    span: Span
    """The exact bytes of the innermost message that the signature protects."""
    headers: HeaderBlock
    """The header block of record: its From, To and Cc are authoritative."""
    is_notification: bool

    @property
    def sha256(self) -> str:
        """Digest of the protected bytes; computed for each call."""
        return hashlib.sha256(self.span.view).hexdigest()

    @cached_property
    def sender(self) -> Mailbox:
        """The one address of From. Raises RejectionError (MALFORMED)."""
        return the_sender(self.headers)

    @cached_property
    def sender_field(self) -> Mailbox | None:
        """The address of Sender, if any. Raises RejectionError (MALFORMED)."""
        return optional_sender_field(self.headers)

    @cached_property
    def recipients(self) -> tuple[str, ...]:
        """The normalised addresses of To and Cc."""
        return named_recipients(self.headers)

    @property
    def message_id(self) -> str:
        """The Message-ID as text."""
        return shown(self.headers, b"message-id")

    @property
    def subject(self) -> str:
        """The Subject, decoded."""
        return shown(self.headers, b"subject")


def shown(headers: HeaderBlock, name: bytes) -> str:
    """A header value for people: decoded, on one line, without control characters, at most MAX_SHOWN_CHARS."""
    text = decode_words(headers.text(name)[: 4 * MAX_SHOWN_CHARS])
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return text.strip()[:MAX_SHOWN_CHARS]


def open_inner(span: Span, carrier: HeaderBlock, outer: HeaderBlock, head: HeaderBlock | None = None) -> InnerMessage:
    """Read the signed entity as a message. ``head`` is its header block, when it has been scanned already.

    Raises:
        RejectionError: MALFORMED or RESOURCE_LIMIT.
    """
    entity = read_entity(span.buffer.data, span.start, span.end, what="the signed entity", headers=head)
    if entity.media_type in _WRAPPERS:
        return _wrapped(_enclosed(entity, span))
    return _unwrapped(span, entity, carrier, outer)


def _enclosed(entity: Entity, span: Span) -> Span:
    """The body of the entity without its transfer encoding: in place, when it has none."""
    if entity.encoding in IDENTITY_ENCODINGS:
        return Span(span.buffer, entity.headers.body_start, span.end)
    return Span.whole(decode_body(entity, what="the wrapped message"))


def _wrapped(span: Span) -> InnerMessage:
    message, start, end = span.buffer.data, span.start, span.end
    offset = first_header_offset(message, start, end)
    try:
        headers = scan_headers(message, offset, end)
    except ResourceLimitError as exc:
        raise RejectionError(Reason.RESOURCE_LIMIT, f"the wrapped message: {exc}") from None
    if not headers.is_each_once:
        _check_single_fields(headers)
    check_structure(message, start, end, headers if offset == start else None)
    inner = read_entity(message, offset, end, what="the wrapped message", headers=headers)
    return InnerMessage(
        wrapped=True,
        prefix=b"",
        span=span,
        headers=headers,
        is_notification=inner.media_type == "multipart/report",
    )


def _check_single_fields(headers: HeaderBlock) -> None:
    for name in _SINGLE_FIELDS:
        if len(headers.all(name)) > 1:
            raise malformed(f"the wrapped message has two {name.decode().title()} fields")


def _unwrapped(span: Span, entity: Entity, carrier: HeaderBlock, outer: HeaderBlock) -> InnerMessage:
    check_structure(entity.data, span.start, span.end, entity.headers)
    if entity.headers.first(b"from"):
        record = entity.headers
    elif carrier is not outer and carrier.first(b"from"):
        record = carrier
    else:
        record = outer
    return InnerMessage(
        wrapped=False,
        prefix=_carried(record, entity.headers),
        span=span,
        headers=record,
        is_notification=entity.media_type == "multipart/report",
    )


def _carried(record: HeaderBlock, own: HeaderBlock) -> bytes:
    """The fields that an unwrapped entity lacks, from the block of record: each once, clean, as it was written."""
    lines: list[bytes] = []
    for name in _CARRIED_FIELDS:
        field = record.first(name)
        if field is not None and own.first(name) is None:
            lines.append(name.title().replace(b"-Id", b"-ID") + b":" + _clean(field) + b"\r\n")
    if own.first(b"mime-version") is None:
        lines.append(b"MIME-Version: 1.0\r\n")
    return b"".join(lines)


def _clean(field: Field) -> bytes:
    """The value with CRLF folding; a NUL or a bare CR could begin a field of its own elsewhere (S/MIME rule 9).

    Raises:
        RejectionError: MALFORMED.
    """
    value = field.value.replace(b"\r\n", b"\n")
    if b"\x00" in value or b"\r" in value:
        raise malformed(f"the {field.name.decode().title()} field holds a control character")
    lines = value.split(b"\n")
    # A fold of blanks only would read as the end of the headers to some programs.
    return b"\r\n".join([lines[0], *(line for line in lines[1:] if line.strip())])
