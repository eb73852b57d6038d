"""Opens EnvelopedData (RFC 5652 section 6) and AuthEnvelopedData (RFC 5083) with our private keys.

Guarantees: every RecipientInfo is considered and each of our keys that an entry names is tried, within a bound on
private-key operations. A key that cannot be recovered is replaced by a random one of the right length and the
content is decrypted all the same, so that every failure takes one path to one error (S/MIME rule 2).
Nothing is returned before padding or tag has been checked. Unprotected attributes and originatorInfo are ignored.

What this module returns is decrypted but *not* verified: nobody may see it before the signature inside and its
path have been checked (AS-59).

Failure modes: :class:`RejectionError` with ``MALFORMED``, ``RESOURCE_LIMIT``, ``WEAK_ALGORITHM`` (forbidden
content encryption) or ``CANNOT_DECRYPT``.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from gateway.core.errors import KeyUnavailableError, RejectionError
from gateway.core.verdict import Reason
from gateway.ports import KeyOps
from gateway.sta.algorithm_policy import DEFAULT_POLICY, AlgorithmPolicy, Role, weak
from gateway.sta.cms.ber import (
    CONSTRUCTED,
    CONTEXT,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    SET,
    Buffer,
    Cursor,
    Element,
    Expected,
    dotted,
    malformed,
    too_much,
)
from gateway.sta.cms.content_cipher import ContentCipher, open_aead, open_cbc, read_cipher
from gateway.sta.cms.content_info import (
    AUTH_ENVELOPED_DATA,
    ENVELOPED_DATA,
    ContentInfo,
    open_content,
    read_content_info,
)
from gateway.sta.cms.der import set_of, tlv
from gateway.sta.cms.key_index import KeyIndex
from gateway.sta.cms.private_buffer import PrivateBuffer, Span
from gateway.sta.cms.recipients import Candidate, Recipients, read_recipients
from gateway.sta.cms.rsa_bounds import check_decryption_key

MAX_PRIVATE_OPERATIONS = 8
"""Beyond as many entries for our keys the rest is not tried (an RSA operation costs a millisecond and more)."""
MAX_AUTHENTICATED_ATTRIBUTES = 64
_RECIPIENTS_AND_CONTENT: Expected = ((SET, "the recipients"), (SEQUENCE, "the encrypted content info"))
_ENCRYPTED_CONTENT: Expected = (
    (OID, "the encrypted content's type"),
    (SEQUENCE, "the content encryption algorithm"),
)
_USUAL_RECIPIENTS = re.compile(rb"\x02\x01.(\x31\x82(..))", re.DOTALL)
"""The version, and what stands before the entries."""
_LENGTH = rb"(\x82..|\x83...|\x84....)"
_USUAL_CONTENT = re.compile(
    rb"\x30" + _LENGTH + rb"\x06\x09(.{9})\x30\x1d\x06\x09(.{9})\x04\x10(.{16})\x80" + _LENGTH, re.DOTALL
)
"""A content type, an algorithm with an initialisation vector, and content in one piece."""
_FALLBACK_SECRET = secrets.token_bytes(32)
_new = tuple.__new__


class Opened(NamedTuple):
    """What was inside, and how it was hidden."""

    span: Span
    content_encryption: str
    key_transport: str
    recipients: int
    notes: tuple[str, ...]

    @property
    def content(self) -> memoryview:
        """The decrypted bytes."""
        return self.span.view


class _Sealed(NamedTuple):
    """The encrypted content with all that its decryption needs except the key."""

    content_type: str
    cipher: ContentCipher
    pieces: list[tuple[int, int]]
    """Where the content lies in the buffer."""
    tag: bytes | None
    """None when it stands at the end of the content, or there is none."""
    associated: tuple[bytes, ...]
    """The encodings of the authenticated attributes to be tried, the DER one first; one empty one when none."""

    def gather(self, view: memoryview) -> int:
        """Move the pieces together in the buffer, to where the first one begins; return their size.

        Nothing else in the structure lies between them, and nothing is read from it any more.
        """
        end = self.pieces[0][1] if self.pieces else 0
        for start, stop in self.pieces[1:]:
            view[end : end + stop - start] = view[start:stop]
            end += stop - start
        return end - self.start

    @property
    def start(self) -> int:
        """Where the first piece begins, and later the plaintext."""
        return self.pieces[0][0] if self.pieces else 0

    def open(self, key: bytes, view: memoryview, size: int) -> int | None:
        """Decrypt the gathered content in place; return the size of the plaintext, or None when the key is wrong."""
        room = view[self.start :]
        if not self.cipher.authenticated:
            return open_cbc(self.cipher, key, room[:size], self.content_type)
        tag = self.tag
        if tag is None:
            size = max(size - self.cipher.tag_bytes, 0)
            tag = bytes(room[size : size + self.cipher.tag_bytes])
        attempts = (open_aead(self.cipher, key, room, size, tag=tag, associated=data) for data in self.associated)
        return next((found for found in attempts if found is not None), None)


def open_enveloped(
    der: PrivateBuffer | Buffer,
    keys: Sequence[KeyOps] | KeyIndex,
    policy: AlgorithmPolicy = DEFAULT_POLICY,
    info: ContentInfo | None = None,
) -> Opened:
    """Decrypt an EnvelopedData or AuthEnvelopedData ContentInfo, BER or DER.

    A private buffer is decrypted in place, whatever comes of it: afterwards it is good for nothing but the span that
    is returned. Any other buffer stays as it is. ``info`` is the outermost layer, when it has been read from the
    buffer already.

    Raises:
        RejectionError: see the module's header.
        KeyUnavailableError: nothing opened it, and a key that may open it lies on a token that does not work now.
    """
    buffer = der if isinstance(der, PrivateBuffer) else PrivateBuffer(der)
    index = keys if isinstance(keys, KeyIndex) else KeyIndex(keys)
    with buffer.writable() as view:
        start, size, algorithm, candidate, recipients = _open(info or read_content_info(view), view, index, policy)
    span = Span(buffer, start, start + size)
    return Opened(span, algorithm, candidate.name, recipients.total, recipients.notes)


def _open(
    info: ContentInfo, view: memoryview, keys: KeyIndex, policy: AlgorithmPolicy
) -> tuple[int, int, str, Candidate, Recipients]:
    """Decrypt in place; return offset and size of the plaintext, the cipher's name, and who opened it."""
    kind, content = open_content(info, ENVELOPED_DATA, AUTH_ENVELOPED_DATA)
    content.expect(SEQUENCE, "the enveloped data")
    usual = _usual(content, policy) if kind == ENVELOPED_DATA else None
    infos, sealed = _walked(kind, content.open(), policy) if usual is None else usual
    recipients = read_recipients(infos, keys, policy)
    allowed, unfit = _allowed(recipients.candidates, policy)
    if not allowed:
        nobody = RejectionError(Reason.CANNOT_DECRYPT, "no recipient entry is for a private key here")
        raise unfit or recipients.refusal or nobody
    size = sealed.gather(view)
    attempts = allowed[:MAX_PRIVATE_OPERATIONS]
    opened = _try_each(sealed, attempts, view, size, final=False)
    if opened is None and _worth_repeating(attempts):
        opened = _try_each(sealed, attempts, view, size, final=True)
    if opened is None:
        raise RejectionError(Reason.CANNOT_DECRYPT, "no private key here opens the message")
    candidate, found = opened
    return sealed.start, found, sealed.cipher.algorithm.name, candidate, recipients


def _worth_repeating(attempts: Sequence[Candidate]) -> bool:
    """Ask every key that did not open the message, whatever it was that went wrong (see KeyOps.recheck)."""
    answers = [key.recheck() for key in {id(attempt.key): attempt.key for attempt in attempts}.values()]
    return any(answers)


def _try_each(
    sealed: _Sealed, candidates: Sequence[Candidate], view: memoryview, size: int, *, final: bool
) -> tuple[Candidate, int] | None:
    """The first of the candidates that opens the content, with the size of the plaintext; None when none does.

    Raises:
        KeyUnavailableError: in the final attempt, when a key's token cannot be reached. Before that the others are
            tried without it: one of them may open the message.
    """
    for candidate in candidates:
        try:
            key = _content_key(candidate, sealed.cipher.algorithm.key_bytes)
        except KeyUnavailableError:
            if final:
                raise
            continue
        found = sealed.open(key, view, size)
        if found is not None:
            return candidate, found
    return None


def _allowed(candidates: Sequence[Candidate], policy: AlgorithmPolicy) -> tuple[list[Candidate], RejectionError | None]:
    """Those with a key that the matrix allows, and why the last of the others was left out."""
    allowed: list[Candidate] = []
    unfit: RejectionError | None = None
    for candidate in candidates:
        try:
            check_decryption_key(candidate.key.certificate, policy)
        except RejectionError as fault:
            unfit = fault
        else:
            allowed.append(candidate)
    return allowed, unfit


def _content_key(candidate: Candidate, size: int) -> bytes:
    """Return the recovered key, or a random one that is the same for the same entry until the program ends."""
    fallback = hashlib.blake2b(candidate.wrapped, key=_FALLBACK_SECRET, digest_size=size).digest()
    try:
        key = candidate.recover()
    except KeyUnavailableError:
        raise  # The token is gone, which no message is the cause of: see KeyOps.recheck.
    except Exception:  # noqa: BLE001 - every failure, of a token or a driver too, must look the same
        key = b""
    return key if len(key) == size else fallback


def _encrypted_content(fields: Cursor) -> tuple[str, str, Cursor, list[tuple[int, int]]]:
    kind, algorithm = fields.take_each(_ENCRYPTED_CONTENT)
    content_type = kind.oid("the encrypted content's type")
    parameters = algorithm.open()
    oid = parameters.oid("the content encryption algorithm")
    content = fields.optional(CONTEXT, CONTEXT | CONSTRUCTED)
    if content is None:
        raise malformed("the encrypted content is absent")
    fields.finish("the encrypted content info")
    return content_type, oid, parameters, content.pieces()


def _usual(enveloped: Element, policy: AlgorithmPolicy) -> tuple[Element, _Sealed] | None:
    """Recipients and content in the form in which nearly all programs write AES-CBC; None when it is of another."""
    document, _, _, body, end, _, depth = enveloped
    source = document.source
    head = _USUAL_RECIPIENTS.match(source, body, end)
    if head is None:
        return None
    first, behind = head.end(), head.end() + int.from_bytes(head[2], "big")
    found = _USUAL_CONTENT.match(source, behind, end)
    if found is None:
        return None
    whole, kind, name, nonce, size = found.groups()
    start = found.end()
    if start + int.from_bytes(size[1:], "big") != end or found.end(1) + int.from_bytes(whole[1:], "big") != end:
        return None
    content_type = dotted(kind, "the encrypted content's type")
    algorithm = policy.require(Role.CONTENT_ENCRYPTION, dotted(name, "the content encryption algorithm"))
    if algorithm.family != "aes-cbc":
        return None
    infos = _new(Element, (document, SET, head.start(1), first, behind, behind, depth + 1))
    cipher = _new(ContentCipher, (algorithm, nonce, 0))
    return infos, _new(_Sealed, (content_type, cipher, [(start, end)], None, ()))


def _walked(kind: str, fields: Cursor, policy: AlgorithmPolicy) -> tuple[Element, _Sealed]:
    """The same in any form."""
    fields.skip(INTEGER, "the version")
    fields.optional(CONTEXT | CONSTRUCTED)  # originatorInfo
    infos, encrypted_info = fields.take_each(_RECIPIENTS_AND_CONTENT)
    if kind == AUTH_ENVELOPED_DATA:
        return infos, _authenticated(encrypted_info.open(), fields, policy)
    return infos, _plain(encrypted_info.open(), policy)


def _plain(encrypted: Cursor, policy: AlgorithmPolicy) -> _Sealed:
    content_type, oid, parameters, pieces = _encrypted_content(encrypted)
    algorithm = policy.require(Role.CONTENT_ENCRYPTION, oid)
    if algorithm.family == "aes-gcm" and policy.gcm_in_enveloped_data:
        return _Sealed(content_type, read_cipher(algorithm, parameters), pieces, None, (b"",))
    if algorithm.family != "aes-cbc":
        raise weak(f"{algorithm.name} in EnvelopedData protects nothing; it belongs into AuthEnvelopedData")
    return _Sealed(content_type, read_cipher(algorithm, parameters), pieces, None, ())


def _authenticated(encrypted: Cursor, fields: Cursor, policy: AlgorithmPolicy) -> _Sealed:
    content_type, oid, parameters, pieces = _encrypted_content(encrypted)
    algorithm = policy.require(Role.CONTENT_ENCRYPTION, oid)
    if algorithm.family == "aes-cbc":
        raise malformed(f"{algorithm.name} cannot stand in AuthEnvelopedData")
    cipher = read_cipher(algorithm, parameters)
    attributes = fields.optional(CONTEXT | CONSTRUCTED | 1)
    tag = bytes(fields.take(OCTET_STRING, "the authentication tag").octets())
    if len(tag) != cipher.tag_bytes:
        raise malformed(f"the authentication tag has {len(tag)} bytes where {cipher.tag_bytes} are announced")
    return _Sealed(content_type, cipher, pieces, tag, _associated(attributes))


def _associated(attributes: Element | None) -> tuple[bytes, ...]:
    if attributes is None:
        return (b"",)
    elements = list(islice(attributes.open(), MAX_AUTHENTICATED_ATTRIBUTES + 1))
    if len(elements) > MAX_AUTHENTICATED_ATTRIBUTES:
        raise too_much(f"more than {MAX_AUTHENTICATED_ATTRIBUTES} authenticated attributes")
    encoded = set_of(element.raw for element in elements)
    as_received = tlv(SET, *(element.raw for element in elements))
    return (encoded,) if encoded == as_received else (encoded, as_received)
