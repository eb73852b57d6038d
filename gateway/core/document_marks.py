"""By what a message, and each clinical document in it, is known when it comes again (matching policy 6, S47).

=================  ====================================================================
kind               the digest is SHA-256 of
=================  ====================================================================
``message``        the verified sender and the Message-ID (RFC 5322 3.6.4)
``document``       the bytes of a clinical document
``document_id``    the id of a C-CDA: root and extension
=================  ====================================================================

Only documents that evidence is read from have marks: a logo or a covering note that comes with every message would tell
nothing. Guarantees: pure values; a digest holds no text of anybody, and can be kept and compared for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final

from gateway.core.claims import Document

MAX_MARKS: Final = 200
"""Of one message; what is beyond is not looked for."""


class MarkKind(StrEnum):
    """What was recognised. The words are stored."""

    MESSAGE = "message"
    DOCUMENT = "document"
    DOCUMENT_ID = "document_id"


@dataclass(frozen=True, slots=True)
class DocumentMark:
    """A thing that would be known again."""

    kind: MarkKind
    sha256: str
    """Hexadecimal."""
    path: str
    """Of the document in its message, as in :class:`gateway.core.claims.Document`; empty: the message."""


def marks_of(sender: str, rfc822_message_id: str, documents: Iterable[Document]) -> tuple[DocumentMark, ...]:
    """The marks of a message, each digest of a kind once.

    Args:
        sender: whom the signature was bound to, normalised.
        rfc822_message_id: as the message has it; may be empty.
        documents: of its evidence.
    """
    found: dict[tuple[MarkKind, str], DocumentMark] = {}
    for mark in _marks(sender, rfc822_message_id, documents):
        found.setdefault((mark.kind, mark.sha256), mark)
    return tuple(islice(found.values(), MAX_MARKS))


def _marks(sender: str, rfc822_message_id: str, documents: Iterable[Document]) -> Iterator[DocumentMark]:
    if sender and rfc822_message_id.strip():
        yield DocumentMark(MarkKind.MESSAGE, _digest(sender, rfc822_message_id.strip()), "")
    for document in documents:
        yield DocumentMark(MarkKind.DOCUMENT, document.sha256, document.path)
        if document.id_root:
            digest = _digest(document.id_root.strip().lower(), document.id_extension.strip())
            yield DocumentMark(MarkKind.DOCUMENT_ID, digest, document.path)


def _digest(*values: str) -> str:
    whole = b"\0".join(value.encode("utf-8", "replace") for value in values)
    return hashlib.sha256(whole).hexdigest()
