"""Content decryption: AES-CBC, AES-GCM and ChaCha20-Poly1305 over bulk content.

Guarantees: decryption runs in place, in slices of 1 MiB with the interpreter lock released for each; nothing is
returned before padding (CBC) or tag (AEAD) has been checked. When the check fails, the content is encrypted again
with the same key, so that another key can be tried on it.

A CBC key that is wrong passes the padding check once in 256 times. Since a key that could not be recovered is
replaced by a random one (S/MIME rule 2), what CBC yields must also begin like the thing it claims to
be; the check is the same for every key, right or random, so that it tells nobody which of them it was.

Failure modes: :class:`RejectionError` for parameters; a wrong key or altered content yields None.
"""

from __future__ import annotations

import hmac
import re
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import AEADDecryptionContext, Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from gateway.sta.algorithm_policy import MAX_TAG_BYTES, MIN_TAG_BYTES, Algorithm, weak
from gateway.sta.cms.ber import INTEGER, OCTET_STRING, SEQUENCE, Cursor, malformed
from gateway.sta.cms.content_info import DATA

SLICE_BYTES = 1 << 20
FEW_BYTES = 65_536
BLOCK_BYTES = 16
GCM_NONCE_BYTES = range(8, 17)
_FIELD_NAME = re.compile(rb"[!-9;-~]+[ \t]*:")
_FIRST_BYTES = 32
_PRINTABLE = frozenset((9, 10, 13, *range(32, 127)))
_NO_CONTROL = frozenset((9, 10, 13, *range(32, 127), *range(128, 256)))


class ContentCipher(NamedTuple):
    """A content encryption algorithm with its parameters."""

    algorithm: Algorithm
    nonce: bytes
    tag_bytes: int = 0

    @property
    def authenticated(self) -> bool:
        """Whether it is an AEAD, whose result can be believed without a look."""
        return self.algorithm.family != "aes-cbc"


def read_cipher(algorithm: Algorithm, parameters: Cursor) -> ContentCipher:
    """Read the parameters of a content encryption algorithm (RFC 3565, RFC 5084, RFC 8103).

    Raises:
        RejectionError: MALFORMED, or WEAK_ALGORITHM for a tag that is too short (e05).
    """
    if algorithm.family == "aes-gcm":
        fields = parameters.take(SEQUENCE, "the GCM parameters").open()
        nonce = bytes(fields.take(OCTET_STRING, "the GCM nonce").octets())
        size = fields.optional(INTEGER)
        tag_bytes = MIN_TAG_BYTES if size is None else size.integer("the GCM tag length")
        if tag_bytes < MIN_TAG_BYTES:
            raise weak(f"a GCM tag of {tag_bytes} bytes is too short")
        if tag_bytes > MAX_TAG_BYTES or len(nonce) not in GCM_NONCE_BYTES:
            raise malformed("the GCM parameters are out of bounds")
        return ContentCipher(algorithm, nonce, tag_bytes)
    nonce = bytes(parameters.take(OCTET_STRING, "the initialisation vector").octets())
    chacha = algorithm.family == "chacha20-poly1305"
    if len(nonce) != (12 if chacha else BLOCK_BYTES):
        raise malformed("the initialisation vector has a wrong length")
    return ContentCipher(algorithm, nonce, MAX_TAG_BYTES if chacha else 0)


def _run(context: CipherContext, content: memoryview) -> None:
    """Pass the content through the context, in place.

    The library wants room for a block more than it writes, hence the last block takes the way through a copy; so do
    a few bytes altogether, for which that is quicker.
    """
    bulk = 0 if len(content) <= FEW_BYTES else (len(content) - BLOCK_BYTES) // BLOCK_BYTES * BLOCK_BYTES
    for start in range(0, bulk, SLICE_BYTES):
        context.update_into(content[start : min(start + SLICE_BYTES, bulk)], content[start:])
    content[bulk:] = context.update(content[bulk:])


def open_cbc(cipher: ContentCipher, key: bytes, content: memoryview, content_type: str) -> int | None:
    """Decrypt in place and return the length of the plaintext, which stands at the front.

    None when padding or beginning are not those of that content type; then the content is as it was.
    """
    size = len(content)
    if not size or size % BLOCK_BYTES:
        return None
    _run(Cipher(algorithms.AES(key), modes.CBC(cipher.nonce)).decryptor(), content)
    padding = content[-1]
    if 1 <= padding <= BLOCK_BYTES and hmac.compare_digest(content[-padding:], bytes((padding,)) * padding):
        size -= padding
        if _begins_well(bytes(content[: min(_FIRST_BYTES, size)]), content_type):
            return size
    _run(Cipher(algorithms.AES(key), modes.CBC(cipher.nonce)).encryptor(), content)
    return None


def decrypt_cbc(cipher: ContentCipher, key: bytes, content: memoryview, content_type: str) -> bytes | None:
    """Like :func:`open_cbc` for a copy: return the plaintext or None."""
    out = bytearray(content)
    with memoryview(out) as view:
        size = open_cbc(cipher, key, view, content_type)
    return None if size is None else bytes(out[:size])


def _begins_well(start: bytes, content_type: str) -> bool:
    """Whether this can be the beginning of a MIME entity (of id-data) or of an ASN.1 value (of anything else).

    An entity begins with a header field, whose name is printable ASCII, or with an empty line. What the field holds,
    a NUL for instance, is for those to refuse who read the entity: they can name the fault.
    """
    if content_type != DATA:
        return start[:1] == b"\x30"
    if _FIELD_NAME.match(start):
        return True
    # Text without a header: a wrong key hits upon a line end at once too often for the first line alone to tell.
    return _PRINTABLE.issuperset(start[:4]) and _NO_CONTROL.issuperset(start)


def open_aead(
    cipher: ContentCipher, key: bytes, room: memoryview, size: int, *, tag: bytes, associated: bytes
) -> int | None:
    """Decrypt ``room[:size]`` in place and return the size; behind it the room must reach for a tag.

    None when the tag does not fit; then the content is as it was.
    """
    if len(tag) != cipher.tag_bytes:
        return None
    content = room[:size]
    if cipher.algorithm.family == "chacha20-poly1305":
        return _open_chacha(cipher, key, room[: size + len(tag)], tag, associated)
    mode = modes.GCM(cipher.nonce, tag, min_tag_length=MIN_TAG_BYTES)
    context: AEADDecryptionContext = Cipher(algorithms.AES(key), mode).decryptor()
    context.authenticate_additional_data(associated)
    _run(context, content)
    try:
        context.finalize()
    except InvalidTag:
        _run(Cipher(algorithms.AES(key), modes.GCM(cipher.nonce)).encryptor(), content)
        return None
    return size


def _open_chacha(cipher: ContentCipher, key: bytes, room: memoryview, tag: bytes, associated: bytes) -> int | None:
    content = room[: -len(tag)]
    # The library wants the tag behind the content; in the message it stands in an element of its own.
    room[len(content) :] = tag
    try:
        ChaCha20Poly1305(key).decrypt_into(cipher.nonce, room, associated, content)
    except InvalidTag:
        # RFC 8439 2.8: the content is encrypted from block 1 on.
        from_block_1 = algorithms.ChaCha20(key, (1).to_bytes(4, "little") + cipher.nonce)
        _run(Cipher(from_block_1, None).encryptor(), content)
        return None
    return len(content)


def decrypt_aead(cipher: ContentCipher, key: bytes, content: memoryview, tag: bytes, associated: bytes) -> bytes | None:
    """Like :func:`open_aead` for a copy: return the plaintext, or None when the tag does not fit."""
    out = bytearray(content) + bytes(MAX_TAG_BYTES)
    with memoryview(out) as view:
        size = open_aead(cipher, key, view, len(content), tag=tag, associated=associated)
    return None if size is None else bytes(out[:size])
