"""Content decryption: AES-CBC, AES-GCM and ChaCha20-Poly1305 over bulk content.

Guarantees: decryption runs in slices of 1 MiB into one private buffer, with the interpreter lock released for
each; nothing of the buffer is returned before padding (CBC) or tag (AEAD) has been checked.

A CBC key that is wrong passes the padding check once in 256 times. Since a key that could not be recovered is
replaced by a random one (S/MIME rule 2), what CBC yields must also begin like the thing it claims to
be; the check is the same for every key, right or random, so that it tells nobody which of them it was.

Failure modes: :class:`RejectionError` for parameters; a wrong key or altered content yields None.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import AEADDecryptionContext, Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from gateway.sta.algorithm_policy import MAX_TAG_BYTES, MIN_TAG_BYTES, Algorithm, weak
from gateway.sta.cms.ber import INTEGER, OCTET_STRING, SEQUENCE, Cursor, malformed
from gateway.sta.cms.content_info import DATA

SLICE_BYTES = 1 << 20
BLOCK_BYTES = 16
GCM_NONCE_BYTES = range(8, 17)
_FIELD_NAME = re.compile(rb"[!-9;-~]+[ \t]*:")
_FIRST_BYTES = 32
_PRINTABLE = frozenset((9, 10, 13, *range(32, 127)))
_NO_CONTROL = frozenset((9, 10, 13, *range(32, 127), *range(128, 256)))


@dataclass(frozen=True, slots=True)
class ContentCipher:
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


def _run(context: CipherContext, content: memoryview, out: bytearray) -> int:
    """Pass the content through the context; return how many bytes of ``out`` were written."""
    written = 0
    with memoryview(out) as target:
        for start in range(0, len(content), SLICE_BYTES):
            with target[written:] as rest:
                written += context.update_into(content[start : start + SLICE_BYTES], rest)
    return written


def decrypt_cbc(cipher: ContentCipher, key: bytes, content: memoryview, content_type: str) -> bytearray | None:
    """Return the plaintext, or None when padding or beginning are not those of that content type."""
    if not content or len(content) % BLOCK_BYTES:
        return None
    out = bytearray(len(content) + BLOCK_BYTES)
    context = Cipher(algorithms.AES(key), modes.CBC(cipher.nonce)).decryptor()
    written = _run(context, content, out)
    context.finalize()
    del out[written:]
    padding = out[-1]
    if not 1 <= padding <= BLOCK_BYTES or not hmac.compare_digest(out[-padding:], bytes((padding,)) * padding):
        return None
    del out[-padding:]
    return out if _begins_well(out[:_FIRST_BYTES], content_type) else None


def _begins_well(start: bytearray, content_type: str) -> bool:
    """Whether this can be the beginning of a MIME entity (of id-data) or of an ASN.1 value (of anything else).

    An entity begins with a header field, whose name is printable ASCII, or with an empty line. What the field holds,
    a NUL for instance, is for those to refuse who read the entity: they can name the fault.
    """
    if content_type != DATA:
        return start[:1] == b"\x30"
    if _FIELD_NAME.match(start):
        return True
    first_line, _, _ = start.partition(b"\n")
    return _PRINTABLE.issuperset(first_line[:4]) and _NO_CONTROL.issuperset(first_line)


def decrypt_aead(
    cipher: ContentCipher, key: bytes, content: memoryview, tag: bytes, associated: bytes
) -> bytearray | bytes | None:
    """Return the plaintext, or None when the tag does not fit."""
    try:
        if cipher.algorithm.family == "chacha20-poly1305":
            return ChaCha20Poly1305(key).decrypt(cipher.nonce, b"".join((content, tag)), associated)
        mode = modes.GCM(cipher.nonce, tag, min_tag_length=MIN_TAG_BYTES)
        context: AEADDecryptionContext = Cipher(algorithms.AES(key), mode).decryptor()
        context.authenticate_additional_data(associated)
        out = bytearray(len(content) + BLOCK_BYTES)
        written = _run(context, content, out)
        context.finalize()
    except InvalidTag:
        return None
    del out[written:]
    return out
