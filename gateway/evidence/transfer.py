"""The content of a part, with the transfer encodings that senders of Direct Context use beside those of MIME.

``x-uuencode`` is no encoding of RFC 2045, but the tests of the reference implementation of Direct Context use it.

Guarantees: never raises, linear. Failure modes: a line that is not uuencoded is passed over, as decoders do.
"""

from __future__ import annotations

import binascii

from gateway.core.mime.encoding import decode_transfer
from gateway.core.mime.parts import Leaf

HEAD_BYTES = 4_096
"""Of a part as it is transferred, to recognise what it holds."""
_UUENCODE = frozenset({"x-uuencode", "x-uue", "uuencode", "x-uu"})


def decoded(leaf: Leaf) -> bytes:
    """The whole content of a part."""
    if leaf.part.encoding in _UUENCODE:
        return uudecoded(leaf.source[leaf.part.body_start : leaf.part.end])
    return leaf.data()


def head(leaf: Leaf) -> bytes:
    """The beginning of the content, some thousand bytes."""
    raw = leaf.source[leaf.part.body_start : min(leaf.part.end, leaf.part.body_start + HEAD_BYTES)]
    return uudecoded(raw) if leaf.part.encoding in _UUENCODE else decode_transfer(raw, leaf.part.encoding)


def uudecoded(data: bytes) -> bytes:
    """Undo uuencode: what stands between ``begin`` and ``end``."""
    pieces: list[bytes] = []
    is_begun = False
    for line in data.split(b"\n"):
        bare = line.rstrip(b"\r")
        if not is_begun:
            is_begun = bare.startswith(b"begin ")
        elif bare.strip() == b"end":
            break
        elif bare:
            # Some encoders leave the spaces at the end of a line out, others write more than the length says.
            wanted = ((bare[0] - 32 & 63) + 2) // 3 * 4 + 1
            try:
                pieces.append(binascii.a2b_uu(bare[:wanted].ljust(wanted)))
            except binascii.Error:
                continue
    return b"".join(pieces)
