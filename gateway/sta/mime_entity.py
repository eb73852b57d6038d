"""Reading the outer message, the decrypted entity and the signed entity: strict, linear, by offsets.

Guarantees: a CMS object counts only when it is the *whole* body of its entity (S/MIME rule 1); the
signed range is a slice of the bytes as received (S/MIME rule 4); a structural header or parameter given twice is
refused (S/MIME rule 9); every limit passed is a RESOURCE_LIMIT. Nothing here knows keys or trust.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field

import pybase64

from gateway.core.errors import RejectionError
from gateway.core.mime.headers import (
    ContentType,
    HeaderBlock,
    ResourceLimitError,
    parse_content_type,
    scan_headers,
)
from gateway.core.verdict import Reason

MAX_MIME_DEPTH = 20
MAX_MIME_PARTS = 1_000
MAX_BOUNDARY_CHARS = 70
MAX_PART_HEADER_BYTES = 4 * 1024 * 1024
"""All parts of a message together."""
_SLICE_BYTES = 1 << 20
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]\Z")
_STRUCTURAL = (b"content-type", b"content-transfer-encoding")
_STRUCTURAL_PARAMETERS = frozenset({"boundary", "protocol", "smime-type"})
_PKCS7_MIME = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
_PKCS7_SIGNATURE = frozenset({"application/pkcs7-signature", "application/x-pkcs7-signature"})
_IDENTITY_ENCODINGS = frozenset({"7bit", "8bit", "binary"})
_WHITE = b" \t\r\n"
_DEFAULT_TYPE = ContentType("text", "plain")


Buffer = bytes | bytearray
"""What can be searched in place; a memoryview has no ``find``."""


def malformed(detail: str) -> RejectionError:
    """A MALFORMED rejection."""
    return RejectionError(Reason.MALFORMED, detail)


@dataclass(frozen=True, slots=True)
class Entity:
    """One MIME entity in a buffer: ``data[start:end]``, whose body begins at ``headers.body_start``."""

    data: Buffer
    start: int
    end: int
    headers: HeaderBlock
    content_type: ContentType
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


def read_entity(data: Buffer, start: int = 0, end: int | None = None, *, what: str) -> Entity:
    """Read the header block of the entity at ``data[start:end]``; ``what`` names it in a refusal.

    Raises:
        RejectionError: MALFORMED for a doubled structural header or an unreadable Content-Type,
            RESOURCE_LIMIT for a header block beyond its limit.
    """
    stop = len(data) if end is None else end
    try:
        headers = scan_headers(memoryview(data), start, stop)
    except ResourceLimitError as exc:
        raise RejectionError(Reason.RESOURCE_LIMIT, f"{what}: {exc}") from None
    for name in _STRUCTURAL:
        if len(headers.all(name)) > 1:
            raise malformed(f"{what} has two {name.decode().title()} fields")
    declared = headers.first(b"content-type")
    content_type: ContentType | None = _DEFAULT_TYPE
    if declared is not None:
        if b"\x00" in declared.value:
            raise malformed(f"{what} has a NUL in its Content-Type")
        content_type = parse_content_type(declared.text)
    if content_type is None or (declared is not None and not content_type.subtype):
        raise malformed(f"{what} has an unreadable Content-Type")
    doubled = _STRUCTURAL_PARAMETERS.intersection(content_type.duplicates)
    if doubled:
        raise malformed(f"{what} gives the Content-Type parameter {min(doubled)} twice")
    return Entity(data, start, stop, headers, content_type, _encoding(headers))


def _encoding(headers: HeaderBlock) -> str:
    text = headers.text(b"content-transfer-encoding").partition(";")[0].partition("(")[0].strip().lower()
    return text or "7bit"


def is_cms(entity: Entity) -> bool:
    """Whether the entity says that its whole body is one CMS object (RFC 8551 3.2, 3.9).

    ``smime-type`` is optional (AS-47); ``application/octet-stream`` counts with a ``.p7m`` name.
    """
    full = entity.content_type.full
    if full in _PKCS7_MIME:
        return True
    return full == "application/octet-stream" and _file_name(entity).endswith(".p7m")


def is_multipart_signed(entity: Entity) -> bool:
    """Whether the entity is a ``multipart/signed`` of S/MIME (a missing protocol parameter is tolerated)."""
    return entity.content_type.full == "multipart/signed"


def _file_name(entity: Entity) -> str:
    disposition = parse_content_type(entity.headers.text(b"content-disposition"))
    named = disposition.parameters.get("filename", "") if disposition else ""
    return (named or entity.content_type.parameters.get("name", "")).strip().lower()


def decode_body(entity: Entity, *, what: str) -> bytes:
    """Undo the entity's transfer encoding (RFC 2045 section 6).

    Base64 tolerates white space and line ends of any kind; any other stray character refuses the message.

    Raises:
        RejectionError: MALFORMED.
    """
    if entity.encoding in _IDENTITY_ENCODINGS:
        return bytes(entity.body)
    if entity.encoding == "base64":
        return _decode_base64(entity.body, what)
    if entity.encoding == "quoted-printable":
        return _decode_quoted_printable(entity.body, what)
    raise malformed(f"{what} has an unknown Content-Transfer-Encoding")


def _decode_base64(body: memoryview, what: str) -> bytes:
    """Decode in slices, so that the peak is the input and the output and not two more copies of the input."""
    out = bytearray()
    rest = b""
    padded = False
    for offset in range(0, len(body), _SLICE_BYTES):
        chunk = rest + bytes(body[offset : offset + _SLICE_BYTES]).translate(None, _WHITE)
        usable = len(chunk) - len(chunk) % 4
        rest = chunk[usable:]
        if usable:
            if padded:
                raise malformed(f"{what} has bytes after the end of its base64")
            padded = chunk[usable - 1] == 0x3D
            try:
                out += pybase64.b64decode(chunk[:usable], validate=True)
            except (binascii.Error, ValueError):
                raise malformed(f"{what} is not valid base64") from None
    if rest:
        raise malformed(f"{what} ends within a base64 group")
    return bytes(out)


_BAD_QUOTED_PRINTABLE = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]*\r?\n|[ \t]*\Z)")


def _decode_quoted_printable(body: memoryview, what: str) -> bytes:
    if _BAD_QUOTED_PRINTABLE.search(body):
        raise malformed(f"{what} is not valid quoted-printable")
    # quopri.decodestring does the same, but only for a copy of the body.
    return binascii.a2b_qp(body)


@dataclass(frozen=True, slots=True)
class SignedParts:
    """The two parts of a ``multipart/signed``: the exact signed range and the decoded signature."""

    data: Buffer
    start: int
    end: int
    signature: bytes

    @property
    def signed(self) -> memoryview:
        """The signed bytes as received."""
        return memoryview(self.data)[self.start : self.end]


def split_signed(entity: Entity) -> SignedParts:
    """Split a ``multipart/signed`` (RFC 1847 2.1) into its two parts. Preamble and epilogue are not looked at.

    A boundary line is ``--boundary`` at the start of a line, with nothing but blanks until the line ends: a nested
    boundary that merely begins with ours is none of ours (m08). The line end before it belongs to the boundary.

    Raises:
        RejectionError: MALFORMED unless there are exactly two parts, closed, the second a PKCS #7 signature.
    """
    protocol = entity.content_type.parameters.get("protocol", "").strip().lower()
    if protocol and protocol not in _PKCS7_SIGNATURE:
        raise malformed("the multipart/signed is not of S/MIME")
    if entity.encoding not in _IDENTITY_ENCODINGS:
        raise malformed("a multipart may not have a transfer encoding")
    parts = split_multipart(entity)
    if len(parts) != 2:
        raise malformed(f"a multipart/signed must have exactly 2 parts; this one has {len(parts)}")
    (start, end), (second_start, second_end) = parts
    second = read_entity(entity.data, second_start, second_end, what="the signature part")
    full = second.content_type.full
    if full not in _PKCS7_SIGNATURE and not (
        full == "application/octet-stream" and _file_name(second).endswith((".p7s", ".p7m"))
    ):
        raise malformed("the second part of the multipart/signed is not a PKCS #7 signature")
    return SignedParts(entity.data, start, end, decode_body(second, what="the signature part"))


def split_multipart(entity: Entity) -> list[tuple[int, int]]:
    """Offsets of the parts of a closed multipart.

    Raises:
        RejectionError: MALFORMED without a usable boundary or close delimiter; RESOURCE_LIMIT for too many parts.
    """
    boundary = entity.content_type.parameters.get("boundary", "")
    if not _BOUNDARY.match(boundary):
        raise malformed("the multipart has no usable boundary")
    line = _boundary_line((boundary.encode("ascii"),))
    parts: list[tuple[int, int]] = []
    part_start = -1
    # A boundary line begins after a line end; the body may begin with one, after the empty line above it.
    position = max(entity.headers.body_start - 1, entity.start)
    while (found := line.search(entity.data, position, entity.end)) is not None:
        if part_start >= 0:
            parts.append((part_start, _before_line_end(entity.data, part_start, found.start() + 1)))
            if len(parts) > MAX_MIME_PARTS:
                raise RejectionError(Reason.RESOURCE_LIMIT, "the multipart has too many parts")
        if found.group(2):
            return parts
        part_start = min(found.end() + 1, entity.end)
        position = found.end()
    raise malformed("the multipart is not closed")


def _boundary_line(boundaries: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """A whole line that is the delimiter (group 2 empty) or close delimiter of one of the boundaries (group 1).

    Lines that merely begin like one are passed over inside the regular expression engine, so that a message made
    of them costs linear time.
    """
    any_of = b"|".join(re.escape(boundary) for boundary in boundaries)
    return re.compile(rb"\n--(" + any_of + rb")(--)?[ \t]*\r?(?=\n|\Z)")


def _before_line_end(data: Buffer, start: int, hit: int) -> int:
    """Where a part ends: the line end before its boundary belongs to the boundary (RFC 2046 5.1.1)."""
    end = hit
    if end > start and data[end - 1] == 0x0A:
        end -= 1
        if end > start and data[end - 1] == 0x0D:
            end -= 1
    return end


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


def first_header_offset(data: Buffer) -> int:
    """Where the headers of an enclosed message begin: empty lines before them are tolerated (AS-48)."""
    match = re.match(rb"(?:[ \t]*\r?\n)*", data)
    return match.end() if match else 0


def check_structure(data: Buffer) -> None:
    """Refuse a MIME tree that is too deep or has too many parts, in one linear pass (S/MIME rule 14).

    The pass follows multiparts and identity-encoded ``message/rfc822`` parts with an explicit stack; what is
    hidden in a transfer encoding is a leaf for everybody else too.

    Raises:
        RejectionError: RESOURCE_LIMIT.
    """
    tree = _Tree(data)
    position = tree.enter(0)
    while tree.stack:
        found = _boundary_line(tuple(tree.stack)).search(data, max(position - 1, 0))
        if found is None:
            return
        level = tree.stack.index(found.group(1))
        if found.group(2):
            del tree.stack[level:]
            position = found.end()
            continue
        del tree.stack[level + 1 :]
        tree.parts += 1
        if tree.parts > MAX_MIME_PARTS:
            raise RejectionError(Reason.RESOURCE_LIMIT, "the message has too many parts")
        position = tree.enter(min(found.end() + 1, len(data)))


@dataclass
class _Tree:
    """Where a walk through the parts stands: the open boundaries, and what has been spent."""

    data: Buffer
    stack: list[bytes] = field(default_factory=list)
    parts: int = 1
    header_bytes: int = 0

    def enter(self, start: int) -> int:
        """Read the headers of the part at ``start``, push its boundary, step through enclosed messages."""
        for _ in range(MAX_MIME_DEPTH + 1):
            headers = self._headers(start)
            content_type = parse_content_type(headers.text(b"content-type"))
            if content_type is None:
                return headers.body_start
            if content_type.maintype == "multipart":
                boundary = content_type.parameters.get("boundary", "").encode("utf-8", "replace").rstrip(_WHITE)
                if boundary:
                    self.stack.append(boundary)
                if len(self.stack) > MAX_MIME_DEPTH:
                    raise RejectionError(Reason.RESOURCE_LIMIT, "the message is nested too deeply")
                return headers.body_start
            if content_type.full not in {"message/rfc822", "message/global"}:
                return headers.body_start
            if _encoding(headers) not in _IDENTITY_ENCODINGS:
                return headers.body_start
            start = headers.body_start
        raise RejectionError(Reason.RESOURCE_LIMIT, "the message is nested too deeply")

    def _headers(self, start: int) -> HeaderBlock:
        try:
            headers = scan_headers(memoryview(self.data), start)
        except ResourceLimitError as exc:
            raise RejectionError(Reason.RESOURCE_LIMIT, f"a part of the message: {exc}") from None
        self.header_bytes += headers.body_start - start
        if self.header_bytes > MAX_PART_HEADER_BYTES:
            raise RejectionError(Reason.RESOURCE_LIMIT, "the headers of the parts are too large together")
        return headers
