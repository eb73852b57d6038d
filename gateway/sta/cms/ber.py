"""One bounded BER and DER walker over a memoryview.

Purpose: read ASN.1 that anybody may have sent. Definite and indefinite lengths, primitive and chunked strings;
bulk content is handed out as slices, never copied byte by byte.

Guarantees: iterative, never recursive; linear time, because the end of an indefinite element is found once and
remembered; depth, lengths, tags and the number of elements are bounded (S/MIME rule 11).

Failure modes: every fault of the input raises :class:`RejectionError` with ``MALFORMED`` or ``RESOURCE_LIMIT``,
and nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason

MAX_DEPTH = 16
MAX_OID_BYTES = 64
MAX_INTEGER_BYTES = 64
MAX_LENGTH_OCTETS = 8
MAX_TAG_OCTETS = 3
FREE_CHUNKS = 10_000
"""So many chunks of a string may be of any size; beyond them the average must reach MIN_AVERAGE_CHUNK_BYTES."""
MIN_AVERAGE_CHUNK_BYTES = 64
FREE_ELEMENTS = 50_000
"""So many elements may be visited in any document; a longer one earns one more for every 48 bytes."""

INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
NULL = 0x05
OID = 0x06
SEQUENCE = 0x30
SET = 0x31
CONSTRUCTED = 0x20
CONTEXT = 0x80
ANY = -1
"""Where elements are expected by their tags: one of whatever tag."""

Buffer = bytes | bytearray | memoryview
Expected = tuple[tuple[int, str], ...]
"""The tags of elements that stand one after another, and how a refusal names each."""


def malformed(detail: str) -> RejectionError:
    """Return the error for input that breaks the syntax."""
    return RejectionError(Reason.MALFORMED, detail)


def too_much(detail: str) -> RejectionError:
    """Return the error for input beyond a named limit."""
    return RejectionError(Reason.RESOURCE_LIMIT, detail)


def _header(data: bytes | memoryview, pos: int, limit: int) -> tuple[int, int, int]:
    """Return (tag, offset of the body, length); the length is -1 for the indefinite form.

    The tag is the identifier octet as on the wire; of a tag number above 30 the number stands shifted left by 8.
    """
    if limit - pos < 2:
        raise malformed("ASN.1 element is cut short")
    tag = data[pos]
    pos += 1
    if tag & 0x1F == 0x1F:
        tag, pos = _long_tag(data, pos, limit, tag)
    elif tag == 0:
        raise malformed("ASN.1 end-of-contents octets where an element must stand")
    length = data[pos]
    pos += 1
    if length >= 0x80:
        if length == 0x80:
            if not tag & CONSTRUCTED:
                raise malformed("ASN.1 primitive element of indefinite length")
            return tag, pos, -1
        octets = length & 0x7F
        if octets > MAX_LENGTH_OCTETS or octets > limit - pos:
            raise malformed("ASN.1 length is out of bounds")
        length = int.from_bytes(data[pos : pos + octets], "big")
        pos += octets
    if length > limit - pos:
        raise malformed("ASN.1 element is longer than what holds it")
    return tag, pos, length


def _long_tag(data: bytes | memoryview, pos: int, limit: int, first: int) -> tuple[int, int]:
    number = 0
    for _ in range(MAX_TAG_OCTETS):
        if pos >= limit:
            break
        octet = data[pos]
        pos += 1
        number = number << 7 | octet & 0x7F
        if not octet & 0x80:
            if pos >= limit:
                break
            return first | number << 8, pos
    raise malformed("ASN.1 tag is out of bounds")


_new = tuple.__new__
"""Makes an Element in half the time that its own constructor takes."""


class Document:
    """One buffer being read, with its budget and the ends of indefinite elements found so far."""

    __slots__ = ("_budget", "_ends", "data", "source")

    def __init__(self, data: Buffer) -> None:
        view = memoryview(data)
        self.data = view if view.format == "B" and view.ndim == 1 else view.cast("B")
        self.source = data if type(data) is bytes else self.data
        """The same octets. Single ones are had from ``bytes`` in half the time that a view takes."""
        self._ends: dict[int, int] = {}
        self._budget = FREE_ELEMENTS + len(self.data) // 48

    @property
    def is_definite(self) -> bool:
        """Whether no element of indefinite length has been met so far."""
        return not self._ends

    def root(self) -> Element:
        """Return the only element; padding of zero octets or line ends behind it is tolerated.

        Raises:
            RejectionError: MALFORMED, RESOURCE_LIMIT.
        """
        size = len(self.data)
        element = self.element(0, size, 1)
        end = element.end
        if end != size and (size - end > 1024 or bytes(self.data[end:]).strip(b"\0\r\n")):
            raise malformed("bytes stand after the ASN.1 structure")
        return element

    def element(self, pos: int, limit: int, depth: int) -> Element:
        """Return the element that begins at ``pos`` and ends at ``limit`` at the latest."""
        tag, body, body_end, end = self.extent(pos, limit, depth)
        return _new(Element, (self, tag, pos, body, body_end, end, depth))

    def extent(self, pos: int, limit: int, depth: int) -> tuple[int, int, int, int]:
        """Return tag, body, end of the body and end of that element: an Element that is not wanted costs time."""
        if depth > MAX_DEPTH:
            raise too_much(f"ASN.1 is nested deeper than {MAX_DEPTH}")
        self._budget -= 1
        if self._budget < 0:
            raise too_much("ASN.1 holds too many elements")
        source = self.source
        if limit - pos > 3:
            # Nearly all elements have a tag of one octet and a length of one or three: they are read without a call.
            tag = source[pos]
            length = source[pos + 1]
            body = pos + 2
            if length == 0x82:
                length = source[body] << 8 | source[body + 1]
                body += 2
            elif length >= 0x80:
                length = limit
            end = body + length
            if end <= limit and tag and tag & 0x1F != 0x1F:
                return tag, body, end, end
        tag, body, length = _header(source, pos, limit)
        if length >= 0:
            end = body + length
            return tag, body, end, end
        end = self.end_of_contents(body, limit, depth)
        return tag, body, end, end + 2

    def elements(self, pos: int, limit: int, depth: int, expected: Expected) -> list[Element]:
        """Return the elements that stand one after another from ``pos`` on: one for each that is expected.

        Raises:
            RejectionError: MALFORMED when one is missing or of another tag; RESOURCE_LIMIT.
        """
        if depth > MAX_DEPTH:
            raise too_much(f"ASN.1 is nested deeper than {MAX_DEPTH}")
        self._budget -= len(expected)
        if self._budget < 0:
            raise too_much("ASN.1 holds too many elements")
        source = self.source
        found: list[Element] = []
        for wanted, what in expected:
            if limit - pos > 3:
                # As in extent: each call that is saved here is saved several times for each message.
                tag = source[pos]
                length = source[pos + 1]
                body = pos + 2
                if length == 0x82:
                    length = source[body] << 8 | source[body + 1]
                    body += 2
                elif length >= 0x80:
                    length = limit
                end = body + length
                if end <= limit and (tag == wanted or (wanted == ANY and tag and tag & 0x1F != 0x1F)):
                    found.append(_new(Element, (self, tag, pos, body, end, end, depth)))
                    pos = end
                    continue
            if pos >= limit:
                raise malformed(f"{what} is missing")
            element = self.element(pos, limit, depth)
            if wanted not in (element.tag, ANY):
                raise malformed(f"{what} is missing or of the wrong type")
            found.append(element)
            pos = element.end
        return found

    def members(self, pos: int, end: int, depth: int, limit: int, what: str) -> list[Element]:
        """Return all elements from ``pos`` to ``end``; raises RESOURCE_LIMIT for more than ``limit``.

        ``what`` names them in that refusal.
        """
        found: list[Element] = []
        while pos < end:
            if len(found) >= limit:
                raise too_much(f"the message has more than {limit} {what}")
            tag, body, body_end, behind = self.extent(pos, end, depth)
            found.append(_new(Element, (self, tag, pos, body, body_end, behind, depth)))
            pos = behind
        return found

    def end_of_contents(self, body: int, limit: int, depth: int) -> int:
        """Return where the end-of-contents octets of the indefinite element with that body stand.

        Every indefinite element met on the way is remembered, so that a document is scanned once however
        deeply its reader descends. Elements of definite length are stepped over unseen.
        """
        known = self._ends.get(body)
        if known is not None:
            return known
        data = self.source
        open_bodies = [body]
        pos = body
        while open_bodies:
            if limit - pos >= 2 and data[pos] == 0 and data[pos + 1] == 0:
                self._ends[open_bodies.pop()] = pos
                pos += 2
                continue
            self._spend()
            _, inner, length = _header(data, pos, limit)
            if length >= 0:
                pos = inner + length
                continue
            if depth + len(open_bodies) > MAX_DEPTH:
                raise too_much(f"ASN.1 is nested deeper than {MAX_DEPTH}")
            open_bodies.append(inner)
            pos = inner
        return pos - 2

    def _spend(self) -> None:
        self._budget -= 1
        if self._budget < 0:
            raise too_much("ASN.1 holds too many elements")


class Element(NamedTuple):
    """One element: its tag and where it lies. All offsets count from the start of the document."""

    document: Document
    tag: int
    start: int
    body: int
    body_end: int
    end: int
    """Behind the end-of-contents octets, where there are any."""
    depth: int

    @property
    def raw(self) -> memoryview:
        """The whole element as on the wire."""
        return self.document.data[self.start : self.end]

    @property
    def content(self) -> memoryview:
        """The content octets as on the wire, end-of-contents octets excluded."""
        return self.document.data[self.body : self.body_end]

    @property
    def encoded(self) -> bytes:
        """A copy of the whole element as on the wire."""
        return bytes(self.document.source[self.start : self.end])

    def expect(self, tag: int, what: str) -> Element:
        """Return this element; raises MALFORMED when it has another tag."""
        if self.tag != tag:
            raise malformed(f"{what} is missing or of the wrong type")
        return self

    def open(self) -> Cursor:
        """Return a cursor over the elements inside; raises MALFORMED when this element is primitive."""
        if not self.tag & CONSTRUCTED:
            raise malformed("ASN.1 element must be constructed")
        return Cursor(self.document, self.body, self.body_end, self.depth + 1)

    def members(self, limit: int, what: str) -> list[Element]:
        """Return all elements inside; raises RESOURCE_LIMIT for more than ``limit``, and names them ``what``."""
        document, tag, _, body, body_end, _, depth = self
        if not tag & CONSTRUCTED:
            raise malformed("ASN.1 element must be constructed")
        return document.members(body, body_end, depth + 1, limit, what)

    def fields(self, expected: Expected, what: str) -> list[Element]:
        """Return the elements inside, which must be the expected ones and no more; ``what`` names this element."""
        document, tag, _, body, body_end, _, depth = self
        if not tag & CONSTRUCTED:
            raise malformed("ASN.1 element must be constructed")
        found = document.elements(body, body_end, depth + 1, expected)
        if found[-1].end < body_end:
            raise malformed(f"{what} holds more than it may")
        return found

    def octets(self) -> memoryview | bytes:
        """Return the value of an OCTET STRING (or one tagged implicitly), chunks joined.

        A slice of the document when it lies there in one piece; otherwise one new buffer, made in linear time.
        """
        data = self.document.data
        if not self.tag & CONSTRUCTED:
            return data[self.body : self.body_end]
        pieces = self.pieces()
        if len(pieces) == 1:
            return data[slice(*pieces[0])]
        return b"".join([data[start:end] for start, end in pieces])

    def pieces(self) -> list[tuple[int, int]]:
        """Return where the value of an OCTET STRING (or one tagged implicitly) lies: the offsets of its chunks."""
        if not self.tag & CONSTRUCTED:
            return [(self.body, self.body_end)]
        data = self.document.data
        chunks: list[tuple[int, int]] = []
        total = seen = 0
        open_ends = [(self.body_end, self.end)]
        pos = self.body
        while open_ends:
            end, behind = open_ends[-1]
            if pos >= end:
                open_ends.pop()
                pos = behind
                continue
            tag, body, length = _header(data, pos, end)
            seen += 1
            if seen > FREE_CHUNKS and total < seen * MIN_AVERAGE_CHUNK_BYTES:
                raise too_much("a string is cut into too many small chunks")
            if tag == OCTET_STRING:
                chunks.append((body, body + length))
                total += length
                pos = body + length
            elif tag == OCTET_STRING | CONSTRUCTED:
                inner = self.document.element(pos, end, self.depth + len(open_ends))
                open_ends.append((inner.body_end, inner.end))
                pos = inner.body
            else:
                raise malformed("a chunk of a string is no OCTET STRING")
        return chunks

    def bit_string(self) -> memoryview:
        """Return the octets of a primitive BIT STRING of whole octets."""
        self.expect(BIT_STRING, "a bit string")
        if self.body_end == self.body or self.document.data[self.body]:
            raise malformed("a bit string does not hold whole octets")
        return self.document.data[self.body + 1 : self.body_end]

    def integer(self, what: str) -> int:
        """Return the value of an INTEGER of at most MAX_INTEGER_BYTES."""
        self.expect(INTEGER, what)
        size = self.body_end - self.body
        if not size:
            raise malformed(f"{what} is empty")
        if size > MAX_INTEGER_BYTES:
            raise too_much(f"{what} is longer than {MAX_INTEGER_BYTES} bytes")
        return int.from_bytes(self.content, "big", signed=True)

    def oid(self, what: str) -> str:
        """Return an OBJECT IDENTIFIER in dotted form."""
        document, tag, _, body, body_end, _, _ = self
        if tag != OID:
            raise malformed(f"{what} is missing or of the wrong type")
        if body_end - body > MAX_OID_BYTES:
            raise too_much(f"{what} is longer than {MAX_OID_BYTES} bytes")
        return _dotted(bytes(document.source[body:body_end]))


def short_value(encoded: bytes, tag: int) -> bytes | None:
    """Return the content octets of an encoding that is one short primitive element of that tag and nothing else.

    None for all else, which only a Document can read: most values of attributes are of this form.
    """
    size = len(encoded) - 2
    return encoded[2:] if 0 <= size < 0x80 and encoded[0] == tag and encoded[1] == size else None


def dotted(content: bytes, what: str) -> str:
    """Return the dotted form of an OBJECT IDENTIFIER with those content octets; an error names it ``what``."""
    if len(content) > MAX_OID_BYTES:
        raise too_much(f"{what} is longer than {MAX_OID_BYTES} bytes")
    return _dotted(content)


@lru_cache(maxsize=512)
def _dotted(content: bytes) -> str:
    arcs: list[int] = []
    value = 0
    fresh = True
    for octet in content:
        if fresh and octet == 0x80:
            raise malformed("an object identifier is padded")
        value = value << 7 | octet & 0x7F
        fresh = not octet & 0x80
        if fresh:
            arcs.append(value)
            value = 0
    if not fresh or not arcs:
        raise malformed("an object identifier is cut short")
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


class Cursor:
    """Reads the elements inside a constructed one, in order."""

    __slots__ = ("_depth", "_document", "_limit", "_pos")

    def __init__(self, document: Document, pos: int, limit: int, depth: int) -> None:
        self._document = document
        self._pos = pos
        self._limit = limit
        self._depth = depth

    @property
    def more(self) -> bool:
        """Whether anything is left."""
        return self._pos < self._limit

    def peek(self) -> int:
        """Return the identifier octet of what comes next, or -1 at the end."""
        return self._document.source[self._pos] if self._pos < self._limit else -1

    def next(self, what: str) -> Element:
        """Return the next element, whatever it is; raises MALFORMED at the end."""
        pos = self._pos
        if pos >= self._limit:
            raise malformed(f"{what} is missing")
        document, depth = self._document, self._depth
        tag, body, body_end, end = document.extent(pos, self._limit, depth)
        self._pos = end
        return _new(Element, (document, tag, pos, body, body_end, end, depth))

    def take(self, tag: int, what: str) -> Element:
        """Return the next element, which must have that tag."""
        pos = self._pos
        if pos >= self._limit:
            raise malformed(f"{what} is missing")
        document, depth = self._document, self._depth
        found, body, body_end, end = document.extent(pos, self._limit, depth)
        if found != tag:
            raise malformed(f"{what} is missing or of the wrong type")
        self._pos = end
        return _new(Element, (document, tag, pos, body, body_end, end, depth))

    def skip(self, tag: int, what: str) -> None:
        """Step over the next element, which must have that tag. Nothing in it is looked at."""
        if self._pos >= self._limit:
            raise malformed(f"{what} is missing")
        found, _, _, end = self._document.extent(self._pos, self._limit, self._depth)
        if found != tag:
            raise malformed(f"{what} is missing or of the wrong type")
        self._pos = end

    def oid(self, what: str) -> str:
        """Return the next element, an OBJECT IDENTIFIER, in dotted form."""
        if self._pos >= self._limit:
            raise malformed(f"{what} is missing")
        document = self._document
        tag, body, body_end, end = document.extent(self._pos, self._limit, self._depth)
        if tag != OID:
            raise malformed(f"{what} is missing or of the wrong type")
        self._pos = end
        if body_end - body > MAX_OID_BYTES:
            raise too_much(f"{what} is longer than {MAX_OID_BYTES} bytes")
        return _dotted(bytes(document.source[body:body_end]))

    def take_each(self, expected: Expected) -> list[Element]:
        """Return the next elements, one for each that is expected."""
        found = self._document.elements(self._pos, self._limit, self._depth, expected)
        self._pos = found[-1].end
        return found

    def optional(self, *tags: int) -> Element | None:
        """Return the next element when it has one of those tags, else None and stay."""
        return self.next("an optional element") if self.peek() in tags else None

    def members(self, limit: int, what: str) -> list[Element]:
        """Return all that is left; raises RESOURCE_LIMIT for more than ``limit``, and names them ``what``."""
        found = self._document.members(self._pos, self._limit, self._depth, limit, what)
        self._pos = self._limit
        return found

    def finish(self, what: str) -> None:
        """Raise MALFORMED when anything is left."""
        if self._pos < self._limit:
            raise malformed(f"{what} holds more than it may")

    def __iter__(self) -> Iterator[Element]:
        while self._pos < self._limit:
            yield self.next("an element")
