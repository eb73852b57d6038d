"""Reading the outer message, the decrypted entity and the signed entity: strict, linear, by offsets.

Guarantees: a CMS object counts only when it is the *whole* body of its entity (S/MIME rule 1); the
signed range is a slice of the bytes as received (S/MIME rule 4); a structural header or parameter given twice is
refused (S/MIME rule 9); every limit passed is a RESOURCE_LIMIT. Nothing here knows keys or trust.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from gateway.core.errors import RejectionError
from gateway.core.mime.headers import (
    ContentType,
    HeaderBlock,
    ResourceLimitError,
    parse_content_type,
    scan_headers,
    unfold,
)
from gateway.core.verdict import Reason
from gateway.sta.mime.boundaries import encoding_of, split_multipart
from gateway.sta.mime.transfer_decoding import IDENTITY_ENCODINGS, Buffer, decode_base64, decode_quoted_printable

_SLICE_BYTES = 1 << 20
_MAX_REMEMBERED_BYTES = 256
"""Of a Content-Type and a transfer encoding: longer ones are read each time."""
_EMPTY_LINES = re.compile(rb"(?:[ \t]*\r?\n)*")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
_STRUCTURAL_PARAMETERS = frozenset({"boundary", "protocol", "smime-type"})
_PKCS7_MIME = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
_PKCS7_SIGNATURE = frozenset({"application/pkcs7-signature", "application/x-pkcs7-signature"})
_DEFAULT_TYPE = ContentType("text", "plain")
_new = tuple.__new__


def malformed(detail: str) -> RejectionError:
    """A MALFORMED rejection."""
    return RejectionError(Reason.MALFORMED, detail)


class Entity(NamedTuple):
    """One MIME entity in a buffer: ``data[start:end]``, whose body begins at ``headers.body_start``."""

    data: Buffer
    start: int
    end: int
    headers: HeaderBlock
    content_type: ContentType
    media_type: str
    """``type/subtype`` of the Content-Type."""
    encoding: str
    """The content transfer encoding in lower case; ``7bit`` when there is none."""

    @property
    def body(self) -> memoryview:
        """The body as a view: nothing is copied."""
        return memoryview(self.data)[self.headers.body_start : self.end]

    @property
    def whole(self) -> memoryview:
        """The entity, header block included."""
        return memoryview(self.data)[self.start : self.end]


def read_entity(
    data: Buffer, start: int = 0, end: int | None = None, *, what: str, headers: HeaderBlock | None = None
) -> Entity:
    """Read the header block of the entity at ``data[start:end]``; ``what`` names it in a refusal.

    ``headers`` is the block at ``start``, when it has been scanned already.

    Raises:
        RejectionError: MALFORMED for a doubled structural header or an unreadable Content-Type,
            RESOURCE_LIMIT for a header block beyond its limit.
    """
    stop = len(data) if end is None else end
    if headers is None:
        try:
            headers = scan_headers(data, start, stop)
        except ResourceLimitError as exc:
            raise RejectionError(Reason.RESOURCE_LIMIT, f"{what}: {exc}") from None
    fields, _, _, is_usual, values = headers
    if len(values) != len(fields):
        _check_structural_fields(headers, what)
    declared, transfer = values.get(b"content-type"), values.get(b"content-transfer-encoding")
    described = _remembered_description if is_usual or _is_short(declared, transfer) else _description
    return _new(Entity, (data, start, stop, headers, *described(declared, transfer, what)))


def _is_short(declared: bytes | None, transfer: bytes | None) -> bool:
    """Whether other messages may say the same; a boundary is a new one in each."""
    if declared is None or b"boundary" in declared:
        return False
    return len(declared) + len(transfer or b"") <= _MAX_REMEMBERED_BYTES


def _description(declared: bytes | None, transfer: bytes | None, what: str) -> tuple[ContentType, str, str]:
    """What the values of the fields say: the Content-Type, its ``type/subtype`` and the transfer encoding."""
    content_type: ContentType | None = _DEFAULT_TYPE
    if declared is not None:
        text = unfold(declared).decode("utf-8", "replace")
        # What is printable holds no control character: the pattern looks only at the rest.
        if not text.isprintable() and _CONTROL.search(declared):
            raise malformed(f"{what} has a control character in its Content-Type")
        content_type = parse_content_type(text.strip())
    if content_type is None or (declared is not None and not content_type.subtype):
        raise malformed(f"{what} has an unreadable Content-Type")
    doubled = _STRUCTURAL_PARAMETERS.intersection(content_type.duplicates) if content_type.duplicates else None
    if doubled:
        raise malformed(f"{what} gives the Content-Type parameter {min(doubled)} twice")
    return content_type, content_type.full, "7bit" if transfer is None else encoding_of(transfer)


_remembered_description = lru_cache(maxsize=512)(_description)


def _check_structural_fields(headers: HeaderBlock, what: str) -> None:
    """Check that there is at most one Content-Type and one Content-Transfer-Encoding (S/MIME rule 9)."""
    if len(headers.all(b"content-type")) > 1:
        raise malformed(f"{what} has two Content-Type fields")
    if len(headers.all(b"content-transfer-encoding")) > 1:
        raise malformed(f"{what} has two Content-Transfer-Encoding fields")


def is_cms(entity: Entity) -> bool:
    """Whether the entity says that its whole body is one CMS object (RFC 8551 3.2, 3.9).

    ``smime-type`` is optional (AS-47); ``application/octet-stream`` counts with a ``.p7m`` name.
    """
    full = entity.media_type
    if full in _PKCS7_MIME:
        return True
    return full == "application/octet-stream" and _file_name(entity).endswith(".p7m")


def is_multipart_signed(entity: Entity) -> bool:
    """Whether the entity is a ``multipart/signed`` of S/MIME (a missing protocol parameter is tolerated)."""
    return entity.media_type == "multipart/signed"


def _file_name(entity: Entity) -> str:
    disposition = parse_content_type(entity.headers.text(b"content-disposition"))
    named = disposition.parameters.get("filename", "") if disposition else ""
    return (named or entity.content_type.parameters.get("name", "")).strip().lower()


def decode_body(entity: Entity, *, what: str) -> bytes:
    """Undo the entity's transfer encoding (RFC 2045 section 6). What is returned is new: nobody else holds it.

    Raises:
        RejectionError: MALFORMED.
    """
    data, start, end = entity.data, entity.headers.body_start, entity.end
    if entity.encoding == "base64":
        return decode_base64(data, start, end, what)
    if entity.encoding in IDENTITY_ENCODINGS:
        return bytes(entity.body)
    if entity.encoding == "quoted-printable":
        return decode_quoted_printable(data, start, end, what)
    raise malformed(f"{what} has an unknown Content-Transfer-Encoding")


class SignedParts(NamedTuple):
    """The two parts of a ``multipart/signed``: where the signed range lies, and the decoded signature."""

    start: int
    end: int
    signature: bytes


def split_signed(entity: Entity) -> SignedParts:
    """Split a ``multipart/signed`` (RFC 1847 2.1) into its two parts. Preamble and epilogue are not looked at.

    Raises:
        RejectionError: MALFORMED unless there are exactly two parts, closed, the second a PKCS #7 signature.
    """
    protocol = entity.content_type.parameters.get("protocol", "").strip().lower()
    if protocol and protocol not in _PKCS7_SIGNATURE:
        raise malformed("the multipart/signed is not of S/MIME")
    if entity.encoding not in IDENTITY_ENCODINGS:
        raise malformed("a multipart may not have a transfer encoding")
    boundary = entity.content_type.parameters.get("boundary", "")
    parts = split_multipart(entity.data, entity.start, entity.headers.body_start, entity.end, boundary)
    if len(parts) != 2:
        raise malformed(f"a multipart/signed must have exactly 2 parts; this one has {len(parts)}")
    (start, end), (second_start, second_end) = parts
    second = read_entity(entity.data, second_start, second_end, what="the signature part")
    full = second.media_type
    if full not in _PKCS7_SIGNATURE and not (
        full == "application/octet-stream" and _file_name(second).endswith((".p7s", ".p7m"))
    ):
        raise malformed("the second part of the multipart/signed is not a PKCS #7 signature")
    return SignedParts(start, end, decode_body(second, what="the signature part"))


def canonical_line_ends(data: memoryview) -> bytes | None:
    """The bytes with every bare LF made CRLF (RFC 8551 3.1.1), or None when there is none to change.

    Works in slices: a large message in one piece would take several times its size for a moment.
    """
    out = bytearray()
    after_cr = False
    for offset in range(0, len(data), _SLICE_BYTES):
        chunk = bytes(data[offset : offset + _SLICE_BYTES])
        # An LF at the head of a slice belongs to the CR at the end of the slice before it.
        paired = after_cr and chunk.startswith(b"\n")
        after_cr = chunk.endswith(b"\r")
        rest = chunk[1:] if paired else chunk
        out += b"\n" if paired else b""
        out += rest.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return None if len(out) == len(data) else bytes(out)


def first_header_offset(data: Buffer, start: int = 0, end: int | None = None) -> int:
    """Where the headers of an enclosed message begin: empty lines before them are tolerated (AS-48)."""
    match = _EMPTY_LINES.match(data, start, len(data) if end is None else end)
    return match.end() if match else start
