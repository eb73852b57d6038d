"""The leaf parts of a message: what an importer files and what a reader sees.

Guarantees: never raises for what the message holds; what the structure shows is in exactly one leaf; a part is
decoded only when asked for. A file name is what the sender wrote, cleaned of nothing: it is never a path to be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core.mime.encoding import decode_encoded_words, decode_text, decode_transfer
from gateway.core.mime.html_text import html_to_text
from gateway.core.mime.structure import Part


@dataclass(frozen=True, slots=True)
class Leaf:
    """A part without parts of its own."""

    path: str
    """The IMAP part number, ``1.2``."""
    content_type: str
    """``type/subtype`` in lower case."""
    filename: str
    """Decoded (RFC 2231, RFC 2047); empty when the sender gave none. Never a path to be trusted."""
    is_attachment: bool
    """``Content-Disposition: attachment``, or a file name without any disposition."""
    enclosed: bool
    """Within an attached message."""
    part: Part = field(repr=False)
    source: bytes = field(repr=False)

    def data(self) -> bytes:
        """The content with its transfer encoding undone."""
        return decode_transfer(self.source[self.part.body_start : self.part.end], self.part.encoding)

    def text(self, limit: int | None = None) -> str:
        """The content as text in its charset; with ``limit``, of at least that many characters when there are."""
        # Six encoded bytes a character cover quoted-printable UTF-8 in all but contrived cases.
        stop = self.part.end if limit is None else min(self.part.end, self.part.body_start + 12 * limit)
        raw = decode_transfer(self.source[self.part.body_start : stop], self.part.encoding)
        return decode_text(raw, self.part.content_type.parameters.get("charset", ""))


def leaf_parts(data: bytes, root: Part) -> tuple[Leaf, ...]:
    """Every leaf in reading order, with those of attached messages.

    An attached message (``message/rfc822``) is not a leaf itself: its leaves follow in its place, numbered as IMAP
    does. One that could not be opened is a leaf.
    """
    leaves: list[Leaf] = []
    waiting: list[tuple[Part, tuple[int, ...], bool]] = [(root, () if root.children else (1,), False)]
    while waiting:
        part, path, enclosed = waiting.pop()
        if part.children:
            numbered = [(child, (*path, n), enclosed) for n, child in enumerate(part.children, 1)]
            waiting.extend(reversed(numbered))
        elif part.message is not None:
            inner = part.message
            waiting.append((inner, path if inner.children else (*path, 1), True))
        else:
            leaves.append(_leaf(data, part, path, enclosed=enclosed))
    return tuple(leaves)


def _leaf(data: bytes, part: Part, path: tuple[int, ...], *, enclosed: bool) -> Leaf:
    filename = file_name(part)
    attached = bool(filename) if part.disposition is None else part.disposition.maintype == "attachment"
    number = ".".join(map(str, path))
    return Leaf(number, part.content_type.full, filename, attached, enclosed, part, data)


def file_name(part: Part) -> str:
    """The file name of a part: of Content-Disposition, else ``name`` of Content-Type; decoded."""
    given = part.disposition.parameters.get("filename", "") if part.disposition else ""
    given = given or part.content_type.parameters.get("name", "")
    return decode_encoded_words(given).replace("\0", "").strip()


def main_text(data: bytes, root: Part) -> str:
    """What the sender wrote to the reader: the first plain text that is not attached, else HTML without its tags.

    Empty for a message that has no such part (AS-61).
    """
    shown = [leaf for leaf in leaf_parts(data, root) if not leaf.is_attachment and not leaf.enclosed]
    plain = next((leaf for leaf in shown if leaf.content_type == "text/plain"), None)
    if plain is not None and (text := plain.text().strip()):
        return text
    html = next((leaf for leaf in shown if leaf.content_type == "text/html"), None)
    return html_to_text(html.text()) if html is not None else ""
