"""Mutations that know the structure they break: DER trees and MIME text, each drawn from a seeded generator.

Random bytes stop at the first layer. Here every change is made in a parsed tree and written out again, so that what
lies around it stays right, and the damage is found where it was done.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.support.der_forge import CONSTRUCTED, Node, oid, read

_TAGS = (0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0C, 0x13, 0x17, 0x18, 0x1F, 0x24, 0x30, 0x31)
_CONTEXT_TAGS = (0x80, 0x81, 0x82, 0x83, 0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xBF)
_NUMBERS = (
    b"\x00",
    b"\x01",
    b"\x7f",
    b"\xff",
    b"\x80",
    b"\x02",
    b"\x03",
    b"\x10",
    b"\x0c",
    b"",
    b"\x7f" * 9,
    b"\xff" * 70,
)
_NAMED = tuple(
    oid(dotted)[2:]
    for dotted in (
        "1.2.840.113549.1.7.1",
        "1.2.840.113549.1.7.2",
        "1.2.840.113549.1.7.3",
        "1.2.840.113549.1.9.3",
        "1.2.840.113549.1.9.4",
        "1.2.840.113549.1.9.5",
        "1.2.840.113549.1.9.16.1.23",
        "1.2.840.113549.1.9.16.1.9",
        "1.2.840.113549.1.9.16.2.47",
        "1.2.840.113549.1.9.52",
        "1.2.840.113549.1.1.1",
        "1.2.840.113549.1.1.5",
        "1.2.840.113549.1.1.7",
        "1.2.840.113549.1.1.8",
        "1.2.840.113549.1.1.10",
        "1.2.840.113549.1.1.11",
        "1.2.840.113549.2.5",
        "1.2.840.10045.2.1",
        "1.2.840.10045.4.3.2",
        "1.2.840.10045.3.1.7",
        "1.3.14.3.2.26",
        "1.3.101.110",
        "1.3.101.112",
        "1.3.132.0.34",
        "2.16.840.1.101.3.4.1.2",
        "2.16.840.1.101.3.4.1.6",
        "2.16.840.1.101.3.4.1.42",
        "2.16.840.1.101.3.4.1.45",
        "2.16.840.1.101.3.4.2.1",
        "2.16.840.1.101.3.4.2.3",
        "2.5.29.14",
        "2.5.29.15",
        "2.5.29.17",
        "2.5.29.19",
        "2.5.29.30",
        "2.5.29.31",
        "2.5.29.32",
        "2.5.29.37",
        "1.3.6.1.5.5.7.1.1",
    )
)
_LINES = (
    b"Content-Type: text/plain",
    b"Content-Type: multipart/signed; boundary=x",
    b"Content-Type: application/pkcs7-mime",
    b"Content-Transfer-Encoding: base64",
    b"Content-Transfer-Encoding: quoted-printable",
    b"Content-Transfer-Encoding: x-unknown",
    b"From: eve@evil.example",
    b"Sender: eve@evil.example",
    b"To: eve@evil.example",
    b"MIME-Version: 1.0",
    b" folded",
    b"",
    b"--",
    b"no colon here",
    b": no name",
    b"\xff\xfe\x00",
)


class Mutator:
    """Draws mutations; the same seed draws the same ones."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def der(self, der: bytes, within: Callable[[Node], Node] | None = None) -> bytes:
        """One to three changes of the structure; ``within`` picks the part of the tree that is hit."""
        root = read(der, into_strings=True)
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            self._change(within(root) if within else root)
        return root.encode()

    def text(self, data: bytes) -> bytes:
        """One to three changes of lines and characters."""
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            data = self.random.choice(
                (
                    self._line_gone,
                    self._line_twice,
                    self._lines_swapped,
                    self._line_new,
                    self._bytes,
                    self._cut,
                    self._ends,
                )
            )(data)
        return data

    # --- trees ---

    def _change(self, root: Node) -> None:
        holders = [node for node in root.walk() if node.inside]
        if holders and self.random.random() < 0.4:
            self._rearrange(self.random.choice(holders))
            return
        everything = list(root.walk())
        node = self.random.choice(everything)
        self.random.choice(
            (
                self._retag,
                self._flip,
                self._resize,
                self._value,
                self._length,
                self._nest,
                self._behind,
                self._chunks,
                self._name,
            )
        )(node)

    def _rearrange(self, holder: Node) -> None:
        inside, at = holder.inside, self.random.randrange(len(holder.inside))
        action = self.random.choice(("drop", "double", "many", "swap", "reverse", "move", "empty", "lift"))
        if action == "drop":
            del inside[at]
        elif action == "double":
            inside.insert(self.random.randrange(len(inside) + 1), inside[at].copy())
        elif action == "many":
            inside[at:at] = [inside[at].copy() for _ in range(self.random.choice((8, 33, 70)))]
        elif action == "swap":
            other = self.random.randrange(len(inside))
            inside[at], inside[other] = inside[other], inside[at]
        elif action == "reverse":
            inside.reverse()
        elif action == "move":
            inside.append(inside.pop(at))
        elif action == "empty":
            inside.clear()
        elif inside[at].inside:
            inside[at : at + 1] = inside[at].inside

    def _retag(self, node: Node) -> None:
        node.tag = self.random.choice((*_TAGS, *_CONTEXT_TAGS, node.tag ^ CONSTRUCTED, node.tag + 1 & 0xFF))

    def _flip(self, node: Node) -> None:
        node.value, node.wraps = self._flipped(self._body(node)), False

    def _flipped(self, body: bytes) -> bytes:
        changed = bytearray(body)
        for _ in range(self.random.choice((1, 1, 2, 8))):
            if changed:
                changed[self.random.randrange(len(changed))] ^= 1 << self.random.randrange(8)
        return bytes(changed)

    def _resize(self, node: Node) -> None:
        body = self._body(node)
        at = self.random.randrange(len(body) + 1)
        node.value = self.random.choice((body[:at], body[at:], body + body[:at], b"", body + bytes(5_000)))
        node.wraps = False

    def _value(self, node: Node) -> None:
        node.value, node.wraps = self.random.choice(_NUMBERS), False

    def _length(self, node: Node) -> None:
        choice = self.random.randrange(4)
        if choice == 0:
            node.wrong_size = self.random.choice((-2, -1, 1, 2, 40, 1 << 30))
        elif choice == 1:
            node.size_octets = self.random.choice((1, 2, 4, 8, 9, 126))
        else:
            for one in node.walk() if choice == 2 else (node,):
                one.indefinite = True

    def _nest(self, node: Node) -> None:
        inner = node.copy()
        for _ in range(self.random.choice((0, 0, 1, 20))):
            inner = Node(inner.tag | CONSTRUCTED, inside=[inner], wraps=True)
        node.tag, node.inside, node.wraps, node.prefix = node.tag | CONSTRUCTED, [inner], True, b""

    def _behind(self, node: Node) -> None:
        node.behind = self.random.choice((b"\0", b"\0\0", b"\x05\x00", b"\x30\x00", b"\r\n", bytes(2_000), b"x" * 30))

    def _chunks(self, node: Node) -> None:
        """A string in pieces, as BER allows."""
        body, size = self._body(node), self.random.choice((1, 16, 1_000))
        pieces = [body[at : at + size] for at in range(0, len(body), size)][:20_000]
        node.tag |= CONSTRUCTED
        node.inside = [Node(0x04, piece) for piece in pieces]
        node.wraps, node.prefix, node.indefinite = True, b"", self.random.random() < 0.5

    def _name(self, node: Node) -> None:
        names = [one for one in node.walk() if one.tag == 0x06]
        if names:
            self.random.choice(names).value = self.random.choice(_NAMED)
        else:
            self._flip(node)

    @staticmethod
    def _body(node: Node) -> bytes:
        return node.prefix + b"".join(one.encode() for one in node.inside) if node.wraps else node.value

    # --- text ---

    def _lines(self, data: bytes) -> list[bytes]:
        return data.split(b"\n")

    def _near(self, lines: list[bytes]) -> int:
        """A line, most often one of those that matter: near the top, or one of a boundary or a header."""
        telling = [at for at, line in enumerate(lines) if at < 12 or line.startswith(b"--") or b": " in line[:40]]
        return self.random.choice(telling) if self.random.random() < 0.8 else self.random.randrange(len(lines))

    def _line_gone(self, data: bytes) -> bytes:
        lines = self._lines(data)
        del lines[self._near(lines)]
        return b"\n".join(lines)

    def _line_twice(self, data: bytes) -> bytes:
        lines = self._lines(data)
        lines.insert(self._near(lines), lines[self._near(lines)])
        return b"\n".join(lines)

    def _lines_swapped(self, data: bytes) -> bytes:
        lines = self._lines(data)
        one, other = self._near(lines), self._near(lines)
        lines[one], lines[other] = lines[other], lines[one]
        return b"\n".join(lines)

    def _line_new(self, data: bytes) -> bytes:
        lines = self._lines(data)
        lines.insert(self._near(lines), self.random.choice(_LINES) + b"\r")
        return b"\n".join(lines)

    def _bytes(self, data: bytes) -> bytes:
        lines = self._lines(data)
        at = self._near(lines)
        lines[at] = self._flipped(lines[at])
        return b"\n".join(lines)

    def _cut(self, data: bytes) -> bytes:
        start = self.random.randrange(len(data) + 1)
        stop = min(len(data), start + self.random.choice((1, 2, 10, 1_000, len(data))))
        return data[:start] + data[stop:]

    def _ends(self, data: bytes) -> bytes:
        action = self.random.randrange(5)
        if action == 0:
            return data.replace(b"\r\n", b"\n")
        if action == 1:
            return data.replace(b"\r\n", b"\r")
        if action == 2:
            return data.rstrip()
        lines = self._lines(data)
        at = self._near(lines)
        lines[at] = lines[at].rstrip(b"\r") + (b"" if action == 3 else b" \t\r")
        return b"\n".join(lines)
