r"""HL7 v2 messages in ER7, the encoding of bars and hats: reading (HL7 2.5.1 chapter 2; HL7-1 to HL7-3).

Reading: the delimiters are those that MSH-1 and MSH-2 name, whatever they are; the character set is that of MSH-18.
Segments end with CR; LF and CRLF are taken as well. Escape sequences are undone where a value is asked for, never
before: an escaped delimiter separates nothing. A sequence that is not known stays as it was written, because a name
that silently lost a piece would be another name.

Guarantees

* No input makes anything but :class:`HL7Error` be raised, and its text names a segment and a field, never a value.
* The work is linear in the message: a message is cut into segments and those into fields once, with limits by name.
  What is below a field is cut when it is asked for.

Failure modes: HL7Error, with the place and the code of table 0357 that an acknowledgement carries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.core.errors import InputError

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
MAX_SEGMENTS = 20_000
MAX_FIELDS = 1_000
"""Of one segment."""
MAX_REPETITIONS = 1_000
"""Of one field."""
MAX_PARTS = 1_000
"""Components of one repetition, subcomponents of one component."""
MAX_ESCAPE_CHARS = 256
"""What may stand between two escape characters; a longer run is text."""
MAX_MESSAGES = 1_000
"""Of one file or batch."""

REQUIRED_FIELD_MISSING = "101"
DATA_TYPE_ERROR = "102"
UNSUPPORTED_MESSAGE_TYPE = "200"
UNSUPPORTED_VERSION = "203"
UNKNOWN_KEY = "204"
SEGMENT_SEQUENCE_ERROR = "100"
TABLE_VALUE_NOT_FOUND = "103"
APPLICATION_ERROR = "207"
"""Codes of table 0357, as ERR-3 carries them."""

NULL = '""'
"""What a sender writes into a field whose value is to be deleted; an empty field says nothing of the value."""

_CODECS = {
    "": "utf-8",
    "ASCII": "ascii",
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    "8859/1": "iso8859-1",
    "8859/2": "iso8859-2",
    "8859/3": "iso8859-3",
    "8859/4": "iso8859-4",
    "8859/5": "iso8859-5",
    "8859/6": "iso8859-6",
    "8859/7": "iso8859-7",
    "8859/8": "iso8859-8",
    "8859/9": "iso8859-9",
    "8859/15": "iso8859-15",
}
"""Table 0211. A message that names none should be ASCII; as UTF-8, ASCII is the same and the rest is checked."""
_SEGMENT_ENDS = re.compile(r"\r\n?|\n")
_SEGMENT_NAME = re.compile(r"[A-Z][A-Z0-9]{2}\Z", re.ASCII)
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+\Z", re.ASCII)
_LINE_COMMAND = re.compile(r"\.(br|ce|sp\s*\+?\s*(\d{0,2}))\Z", re.ASCII)
_LAYOUT_COMMAND = re.compile(r"\.(?:fi|nf|(?:in|ti)\s*[+-]?\s*\d{1,3})\Z", re.ASCII)
_BAD_DELIMITERS = frozenset("\r\n\t \0")


class HL7Error(InputError):
    """A message or a value of it cannot be used. The text names the place, never what stands there."""

    def __init__(self, text: str, *, segment: str = "", field: int = 0, code: str = APPLICATION_ERROR) -> None:
        super().__init__(text)
        self.segment = segment
        """Name of the segment; empty when it is the message as a whole."""
        self.field = field
        """Number of the field; 0 when it is the segment as a whole."""
        self.code = code
        """Of table 0357."""


@dataclass(frozen=True, slots=True)
class Delimiters:
    """What MSH-1 and MSH-2 say. ``truncation`` is empty when the message names none (HL7 2.7)."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    truncation: str = ""

    def msh_2(self) -> str:
        """The encoding characters as MSH-2 has them."""
        return self.component + self.repetition + self.escape + self.subcomponent + self.truncation


STANDARD = Delimiters()


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment. ``fields[0]`` is field 1, as it was written; use the methods."""

    name: str
    fields: tuple[str, ...]
    delimiters: Delimiters
    codec: str = "utf-8"

    def raw(self, field: int) -> str:
        """The field as it was written; empty when the segment is shorter."""
        return self.fields[field - 1] if 0 < field <= len(self.fields) else ""

    def is_null(self, field: int) -> bool:
        """Whether the sender deletes the value of the field (``""``)."""
        return self.raw(field) == NULL

    def repetitions(self, field: int) -> list[Repetition]:
        """What the field holds, without empty repetitions and deletions. Raises HL7Error: too many."""
        text = self.raw(field)
        if not text or text == NULL:
            return []
        if self.name in {"MSH", "FHS", "BHS"} and field <= 2:
            # These two are what the others are cut by.
            return [Repetition(text, self, field)]
        pieces = _cut(text, self.delimiters.repetition, MAX_REPETITIONS, self.name, field)
        return [Repetition(piece, self, field) for piece in pieces if piece and piece != NULL]

    def text(self, field: int, component: int = 1, subcomponent: int = 1) -> str:
        """A value of the first repetition that has any, unescaped; empty when there is none. Raises HL7Error."""
        for repetition in self.repetitions(field):
            return repetition.text(component, subcomponent)
        return ""


@dataclass(frozen=True, slots=True)
class Repetition:
    """One repetition of a field."""

    raw: str
    segment: Segment
    field: int

    def text(self, component: int = 1, subcomponent: int = 1) -> str:
        """A value, unescaped; empty when it is missing or a deletion. Raises HL7Error: too many parts."""
        parts = self._parts(self.raw, self.segment.delimiters.component)
        if component > len(parts):
            return ""
        whole = parts[component - 1]
        values = self._parts(whole, self.segment.delimiters.subcomponent)
        if subcomponent > len(values) or values[subcomponent - 1] == NULL:
            return ""
        return unescape(values[subcomponent - 1], self.segment.delimiters, self.segment.codec)

    def whole(self) -> str:
        """The repetition as one text (ST, TX, FT), unescaped. Components that should not be there are kept."""
        return unescape(self.raw, self.segment.delimiters, self.segment.codec)

    def _parts(self, text: str, delimiter: str) -> list[str]:
        return _cut(text, delimiter, MAX_PARTS, self.segment.name, self.field)


@dataclass(frozen=True, slots=True)
class Message:
    """A message. The first segment is its MSH."""

    segments: tuple[Segment, ...]
    delimiters: Delimiters
    codec: str

    @property
    def msh(self) -> Segment:
        return self.segments[0]

    def first(self, name: str) -> Segment | None:
        """The first segment of that name."""
        return next((segment for segment in self.segments if segment.name == name), None)

    def all(self, name: str) -> list[Segment]:
        """Every segment of that name, in order."""
        return [segment for segment in self.segments if segment.name == name]

    def kind(self) -> tuple[str, str]:
        """Message code and trigger event of MSH-9, in upper case: ``("ADT", "A08")``. Raises HL7Error."""
        return self.msh.text(9, 1).strip().upper(), self.msh.text(9, 2).strip().upper()


def read_message(data: bytes, *, max_bytes: int = MAX_MESSAGE_BYTES) -> Message:
    """Read one message.

    Args:
        data: begins with MSH; a byte order mark and white space before it are passed over.
        max_bytes: a longer message is refused.

    Raises:
        HL7Error: it cannot be read, is beyond a limit, or says that it is in a character set that it is not in.
    """
    if len(data) > max_bytes:
        raise HL7Error(f"the message has more than {max_bytes} bytes")
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    delimiters = _delimiters(start)
    codec = _codec(start, delimiters)
    try:
        text = start.decode(codec)
    except UnicodeDecodeError:
        raise HL7Error(
            "the bytes are not in the character set that MSH-18 names", segment="MSH", field=18, code=DATA_TYPE_ERROR
        ) from None
    segments: list[Segment] = []
    for line in _lines(text):
        if len(segments) >= MAX_SEGMENTS:
            raise HL7Error(f"the message has more than {MAX_SEGMENTS} segments")
        segments.append(_segment(line, delimiters, codec, first=not segments))
    return Message(tuple(segments), delimiters, codec)


def split_messages(data: bytes, *, max_bytes: int = MAX_MESSAGE_BYTES) -> list[bytes]:
    """The messages of a file, which may be a batch (FHS, BHS, BTS, FTS around them); each begins with MSH.

    Raises:
        HL7Error: no message at all, or beyond a limit.
    """
    if len(data) > max_bytes:
        raise HL7Error(f"the file has more than {max_bytes} bytes")
    found: list[list[bytes]] = []
    for line in re.split(rb"\r\n?|\n", data.removeprefix(b"\xef\xbb\xbf")):
        # Framing bytes of MLLP are left in some files.
        stripped = line.lstrip(b" \t\x0b").rstrip(b"\x1c")
        if stripped.startswith(b"MSH"):
            if len(found) >= MAX_MESSAGES:
                raise HL7Error(f"the file has more than {MAX_MESSAGES} messages")
            found.append([stripped])
        elif found and stripped and stripped[:3] not in {b"FHS", b"BHS", b"BTS", b"FTS"}:
            found[-1].append(stripped)
    if not found:
        raise HL7Error("no MSH segment", segment="MSH", code=SEGMENT_SEQUENCE_ERROR)
    return [b"\r".join(lines) + b"\r" for lines in found]


def unescape(text: str, delimiters: Delimiters, codec: str = "utf-8") -> str:
    r"""Undo the escape sequences of a value (HL7 2.5.1 section 2.7).

    ``\F\ \S\ \T\ \R\ \E\ \P\`` are the delimiters, ``\Xhh..\`` bytes of the message's character set, ``\.br\``,
    ``\.sp\`` and ``\.ce\`` line ends; highlighting and indents vanish. Whatever else stands there stays as it is.
    """
    escape = delimiters.escape
    if not escape or escape not in text:
        return text
    pieces: list[str] = []
    at = 0
    while (start := text.find(escape, at)) >= 0:
        end = text.find(escape, start + 1, start + 2 + MAX_ESCAPE_CHARS)
        if end < 0:
            pieces.append(text[at : start + 1])
            at = start + 1
            continue
        meant = _sequence(text[start + 1 : end], delimiters, codec)
        if meant is None:
            # Not a sequence: its end may be the beginning of one.
            pieces.append(text[at:end])
            at = end
        else:
            pieces += (text[at:start], meant)
            at = end + 1
    pieces.append(text[at:])
    return "".join(pieces)


def _sequence(body: str, delimiters: Delimiters, codec: str) -> str | None:
    """What stands for an escape sequence; None for one that is not known."""
    named = {
        "F": delimiters.field,
        "S": delimiters.component,
        "T": delimiters.subcomponent,
        "R": delimiters.repetition,
        "E": delimiters.escape,
        "P": delimiters.truncation or "#",
        "H": "",
        "N": "",
    }.get(body)
    if named is not None:
        return named
    if body[:1] == "X" and _HEX.match(body, 1):
        try:
            return bytes.fromhex(body[1:]).decode(codec)
        except UnicodeDecodeError:
            return None
    if found := _LINE_COMMAND.match(body):
        return "\n" * max(1, int(found[2] or 1))
    return "" if _LAYOUT_COMMAND.match(body) else None


# --- cutting ---


def _delimiters(start: bytes) -> Delimiters:
    head = start[:9].decode("latin-1")
    if not head.startswith("MSH"):
        raise HL7Error("the message does not begin with MSH", segment="MSH", code=SEGMENT_SEQUENCE_ERROR)
    separator = head[3:4]
    encoding = head[4:9].partition(separator)[0] if separator else ""
    # At least component and repetition must be named; what an old sender leaves out has its usual character.
    usual = STANDARD.msh_2()
    named = encoding if len(encoding) >= 4 else encoding + usual[len(encoding) :]
    chosen = separator + named
    wrong = (
        not separator
        or len(encoding) < 2
        or len(set(chosen)) != len(chosen)
        or any(char.isalnum() or char in _BAD_DELIMITERS or not " " < char < "\x7f" for char in chosen)
    )
    if wrong or (len(encoding) == 5 and start[9:10] not in {separator.encode("latin-1"), b"\r", b"\n", b""}):
        raise HL7Error("MSH-1 and MSH-2 do not name usable delimiters", segment="MSH", field=2, code=DATA_TYPE_ERROR)
    return Delimiters(separator, *named)


def _codec(start: bytes, delimiters: Delimiters) -> str:
    """The codec of MSH-18, whose name is ASCII whatever the rest is in."""
    line = re.split(rb"[\r\n]", start, maxsplit=1)[0].decode("latin-1")
    fields = line.split(delimiters.field, MAX_FIELDS)
    named = fields[17].split(delimiters.repetition)[0].strip().upper() if len(fields) > 17 else ""
    codec = _CODECS.get("" if named == NULL else named)
    if codec is None:
        raise HL7Error(
            "MSH-18 names a character set that is not supported; supported are ASCII, UNICODE UTF-8 and 8859/1",
            segment="MSH",
            field=18,
            code=TABLE_VALUE_NOT_FOUND,
        )
    return codec


def _lines(text: str) -> Iterator[str]:
    at = 0
    for found in _SEGMENT_ENDS.finditer(text):
        if found.start() > at:
            yield text[at : found.start()]
        at = found.end()
    if at < len(text):
        yield text[at:]


def _segment(line: str, delimiters: Delimiters, codec: str, *, first: bool) -> Segment:
    name = line[:3]
    if not _SEGMENT_NAME.match(name) or line[3:4] not in {delimiters.field, ""} or (name == "MSH") != first:
        raise HL7Error("a line is no segment of this message", code=SEGMENT_SEQUENCE_ERROR)
    parts = _cut(line[4:], delimiters.field, MAX_FIELDS, name, 0)
    if first:
        parts.insert(0, delimiters.field)
    return Segment(name, tuple(parts), delimiters, codec)


def _cut(text: str, delimiter: str, most: int, segment: str, field: int) -> list[str]:
    parts = text.split(delimiter, most)
    if len(parts) > most:
        raise HL7Error(f"more than {most} parts where a message has a few", segment=segment, field=field)
    return parts
