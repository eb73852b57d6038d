"""A writer of DER, as small as sending Direct messages and rebuilding signed structures needs.

Guarantees: definite, minimal lengths; SET OF sorted as X.690 11.6 asks. Inputs come from this program only.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.sta.cms.ber import Buffer


def tlv(tag: int, *parts: Buffer) -> bytes:
    """Return one element of that identifier octet around the joined parts."""
    size = sum(map(len, parts))
    if size < 0x80:
        return b"".join((bytes((tag, size)), *parts))
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return b"".join((bytes((tag, 0x80 | len(octets))), octets, *parts))


def sequence(*parts: Buffer) -> bytes:
    """Return a SEQUENCE of ready elements."""
    return tlv(0x30, *parts)


def set_of(elements: Iterable[Buffer], tag: int = 0x31) -> bytes:
    """Return a SET OF ready elements in DER order, under another (implicit) tag when asked."""
    return tlv(tag, *sorted(bytes(element) for element in elements))


def integer(value: int) -> bytes:
    """Return an INTEGER."""
    # The sign takes a bit of its own; of a negative number the complement says how many others there are.
    bits = (value if value >= 0 else ~value).bit_length()
    return tlv(0x02, value.to_bytes(bits // 8 + 1, "big", signed=True))


def octet_string(value: Buffer) -> bytes:
    """Return an OCTET STRING."""
    return tlv(0x04, value)


def oid(dotted: str) -> bytes:
    """Return an OBJECT IDENTIFIER."""
    first, second, *rest = map(int, dotted.split("."))
    return tlv(0x06, b"".join(map(_arc, (first * 40 + second, *rest))))


def _arc(value: int) -> bytes:
    octets = [value & 0x7F]
    while value := value >> 7:
        octets.append(0x80 | value & 0x7F)
    return bytes(reversed(octets))


NULL = b"\x05\x00"
