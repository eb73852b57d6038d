"""DER written down by hand, and read back into a tree that can be bent: nothing of the gateway's own code.

:class:`Node` keeps what a strict reader throws away: how the length was written, whether the form is indefinite, so
that a structure can be changed in one place and everything around it made right again, or left wrong on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

CONSTRUCTED = 0x20


def tlv(tag: int, *parts: bytes) -> bytes:
    """One element around the joined parts."""
    body = b"".join(parts)
    return bytes((tag,)) + length(len(body)) + body


def length(size: int, octets: int = 0) -> bytes:
    """The length octets; more than needed when ``octets`` says so (BER)."""
    if size < 0x80 and not octets:
        return bytes((size,))
    needed = max((size.bit_length() + 7) // 8, octets, 1)
    return bytes((0x80 | needed,)) + size.to_bytes(needed, "big")


def seq(*parts: bytes) -> bytes:
    return tlv(0x30, *parts)


def set_of(*parts: bytes, tag: int = 0x31) -> bytes:
    """A SET OF in DER order."""
    return tlv(tag, *sorted(parts))


def integer(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def octets(value: bytes) -> bytes:
    return tlv(0x04, value)


def oid(dotted: str) -> bytes:
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    body = bytearray()
    for arc in (first * 40 + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        body += bytes(reversed(groups))
    return tlv(0x06, bytes(body))


NULL = b"\x05\x00"


def algorithm(dotted: str, *parameters: bytes) -> bytes:
    """An AlgorithmIdentifier."""
    return seq(oid(dotted), *parameters)


@dataclass
class Node:
    """One element of a tree: ``inside`` when it was read as constructed, else ``value``."""

    tag: int
    value: bytes = b""
    inside: list[Node] = field(default_factory=list)
    wraps: bool = False
    """Whether ``inside`` counts: of a primitive string it is the DER that the string holds."""
    prefix: bytes = b""
    """What stands before the DER inside a BIT STRING."""
    indefinite: bool = False
    size_octets: int = 0
    wrong_size: int = 0
    """Added to the true length on purpose."""
    behind: bytes = b""

    def encode(self) -> bytes:
        """The element, with the lengths of everything inside made right."""
        body = self.prefix + b"".join(node.encode() for node in self.inside) if self.wraps else self.value
        if self.indefinite and self.tag & CONSTRUCTED:
            return bytes((self.tag, 0x80)) + body + b"\0\0" + self.behind
        size = max(len(body) + self.wrong_size, 0)
        return bytes((self.tag,)) + length(size, self.size_octets) + body + self.behind

    def copy(self) -> Node:
        """A tree of its own."""
        return Node(
            self.tag,
            self.value,
            [node.copy() for node in self.inside],
            self.wraps,
            self.prefix,
            self.indefinite,
            self.size_octets,
            self.wrong_size,
            self.behind,
        )

    def walk(self) -> Iterator[Node]:
        """This node and all below it, top down."""
        yield self
        for node in self.inside:
            yield from node.walk()


def read(der: bytes, *, into_strings: bool = False, small: int = 100_000) -> Node:
    """Read one definite-length element; with ``into_strings`` also what small strings hold, when that is DER."""
    node, end = _read(der, 0, into_strings, small)
    if end != len(der):
        raise ValueError("bytes stand behind the element")
    return node


def _read(der: bytes, pos: int, into_strings: bool, small: int) -> tuple[Node, int]:
    if len(der) - pos < 2:
        raise ValueError("cut short")
    tag, size, body = der[pos], der[pos + 1], pos + 2
    if tag & 0x1F == 0x1F or size == 0x80:
        raise ValueError("long tags and indefinite lengths are not read here")
    if size > 0x80:
        count = size & 0x7F
        size = int.from_bytes(der[body : body + count], "big")
        body += count
    end = body + size
    if end > len(der):
        raise ValueError("longer than what holds it")
    node = Node(tag, der[body:end])
    if tag & CONSTRUCTED:
        node.wraps = True
        while body < end:
            child, body = _read(der[:end], body, into_strings, small)
            node.inside.append(child)
    elif into_strings and tag in (0x03, 0x04) and 4 < size < small:
        _look_inside(node, into_strings, small)
    return node, end


def _look_inside(node: Node, into_strings: bool, small: int) -> None:
    # Only what keys and extensions hold: a digest or a point that looks like DER by chance must not change the tree,
    # or the same seed would draw other mutations with other keys.
    prefix, likely = (node.value[:1], (0x30,)) if node.tag == 0x03 else (b"", (0x30, 0x03, 0x04))
    rest = node.value[len(prefix) :]
    if rest[0] not in likely:
        return
    try:
        child, end = _read(rest, 0, into_strings, small)
    except ValueError:
        return
    if end == len(rest):
        node.inside, node.wraps, node.prefix = [child], True, prefix


def children(der: bytes) -> list[bytes]:
    """The elements inside a DER element."""
    return [node.encode() for node in read(der).inside]
