"""Undoing content transfer encodings (RFC 2045 section 6) where every byte counts: strict, linear, and fast.

Base64 may hold white space and line ends of any kind and in any place. Anything else in it that is no part of the
data refuses the message, padding in the wrong place included: a decoder that skips what it does not know would
let two programs read two different messages.

Failure modes: ``RejectionError`` MALFORMED.
"""

from __future__ import annotations

import binascii
import re

import pybase64

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason

Buffer = bytes | bytearray
"""What can be searched in place; a memoryview has no ``find``."""
IDENTITY_ENCODINGS = frozenset({"7bit", "8bit", "binary"})
_WHITE = b" \t\r\n"
_LONGEST_LINE = 1_024
_SHORTEST_LINE = 16
_FEW_BYTES = 1_024
_BAD_QUOTED_PRINTABLE = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]*\r?\n|[ \t]*\Z)")


def decode_base64(data: Buffer, start: int, end: int, what: str) -> bytes:
    """Decode ``data[start:end]``; ``what`` names it in a refusal.

    The decoder used here is the one that skips foreign characters, since it alone runs over line ends at full speed.
    How much it skipped follows from how much it returned: n groups of four characters, padding included, give the
    output, so all else was skipped. When there are exactly as many white-space characters, nothing else was.

    Raises:
        RejectionError: MALFORMED.
    """
    try:
        decoded = pybase64.b64decode(memoryview(data)[start:end])
    except (binascii.Error, ValueError):
        raise _not_base64(what) from None
    skipped = end - start - 4 * ((len(decoded) + 2) // 3)
    if (
        skipped
        and (end - start <= _FEW_BYTES or _in_regular_lines(data, start, end) != skipped)
        and not _is_white(data, start, end, skipped)
    ):
        raise _not_base64(what)
    return decoded


def decode_quoted_printable(data: Buffer, start: int, end: int, what: str) -> bytes:
    """Decode ``data[start:end]``; ``what`` names it in a refusal.

    Raises:
        RejectionError: MALFORMED.
    """
    body = memoryview(data)[start:end]
    if _BAD_QUOTED_PRINTABLE.search(body):
        raise RejectionError(Reason.MALFORMED, f"{what} is not valid quoted-printable")
    # quopri.decodestring does the same, but only for a copy of the body.
    return binascii.a2b_qp(body)


def _not_base64(what: str) -> RejectionError:
    return RejectionError(Reason.MALFORMED, f"{what} is not valid base64")


def _is_white(data: Buffer, start: int, end: int, skipped: int) -> bool:
    """Whether that many characters of ``data[start:end]`` are white space; there are no more than that."""
    left = skipped
    for character in b"\n\r \t":
        left -= data.count(character, start, end)
        if left <= 0:
            break
    return left == 0


def _in_regular_lines(data: Buffer, start: int, end: int) -> int:
    """The number of white-space characters when all lines but the last few are of one length, else -1.

    Encoders make such lines, and then the line ends stand at known places: looking only there is several times
    faster than looking at every byte.
    """
    width = data.find(b"\n", start, min(end, start + _LONGEST_LINE)) + 1 - start
    lines = (end - start) // width if width >= _SHORTEST_LINE else 0
    if not lines:
        return -1
    rest = start + lines * width
    first = start + width - 1
    # A slice with a stride of the bytes themselves: the one of a view takes six times as long.
    if data[first:rest:width] != b"\n" * lines:
        return -1
    at_ends = lines
    if data[first - 1] == 0x0D:
        if data[first - 1 : rest : width] != b"\r" * lines:
            return -1
        at_ends = 2 * lines
    tail = bytes(data[rest:end])
    return at_ends + len(tail) - len(tail.translate(None, _WHITE))
