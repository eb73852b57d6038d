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
import hmac
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from gateway.core.errors import RejectionError
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
    Cursor,
    Element,
    malformed,
    too_much,
)
from gateway.sta.cms.content_cipher import ContentCipher, decrypt_aead, decrypt_cbc, read_cipher
from gateway.sta.cms.content_info import AUTH_ENVELOPED_DATA, ENVELOPED_DATA, open_content
from gateway.sta.cms.der import set_of, tlv
from gateway.sta.cms.recipients import Candidate, read_recipients
from gateway.sta.cms.rsa_bounds import check_rsa_public_key

MAX_PRIVATE_OPERATIONS = 8
"""Beyond as many entries for our keys the rest is not tried (an RSA operation costs a millisecond and more)."""
MAX_AUTHENTICATED_ATTRIBUTES = 64
_FALLBACK_SECRET = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Opened:
    """What was inside, and how it was hidden."""

    content: bytes | bytearray | memoryview
    content_encryption: str
    key_transport: str
    recipients: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Sealed:
    """The encrypted content with all that its decryption needs except the key."""

    content_type: str
    cipher: ContentCipher
    content: memoryview
    tag: bytes
    associated: tuple[bytes, ...]
    """The encodings of the authenticated attributes to be tried, the DER one first; one empty one when none."""

    def open(self, key: bytes) -> bytearray | bytes | None:
        if not self.cipher.authenticated:
            return decrypt_cbc(self.cipher, key, self.content, self.content_type)
        attempts = (decrypt_aead(self.cipher, key, self.content, self.tag, data) for data in self.associated)
        return next((plain for plain in attempts if plain is not None), None)


def open_enveloped(der: bytes | memoryview, keys: Sequence[KeyOps], policy: AlgorithmPolicy = DEFAULT_POLICY) -> Opened:
    """Decrypt an EnvelopedData or AuthEnvelopedData ContentInfo, BER or DER.

    Raises:
        RejectionError: see the module's header.
    """
    kind, content = open_content(der, ENVELOPED_DATA, AUTH_ENVELOPED_DATA)
    fields = content.expect(SEQUENCE, "the enveloped data").open()
    fields.take(INTEGER, "the version")
    fields.optional(CONTEXT | CONSTRUCTED)  # originatorInfo
    infos = fields.take(SET, "the recipients")
    encrypted = fields.take(SEQUENCE, "the encrypted content info").open()
    sealed = _authenticated(encrypted, fields, policy) if kind == AUTH_ENVELOPED_DATA else _plain(encrypted, policy)
    recipients = read_recipients(infos, keys, policy)
    allowed = list(_allowed(recipients.candidates, policy))
    if not allowed:
        refusal = recipients.refusal
        if recipients.candidates:
            raise weak(f"the message is encrypted to an RSA key of ours below {policy.min_rsa_bits} bits")
        raise refusal or RejectionError(Reason.CANNOT_DECRYPT, "no recipient entry is for a private key here")
    for candidate in islice(allowed, MAX_PRIVATE_OPERATIONS):
        plain = sealed.open(_content_key(candidate, sealed.cipher.algorithm.key_bytes))
        if plain is not None:
            return Opened(plain, sealed.cipher.algorithm.name, candidate.name, recipients.count, recipients.notes)
    raise RejectionError(Reason.CANNOT_DECRYPT, "no private key here opens the message")


def _allowed(candidates: Sequence[Candidate], policy: AlgorithmPolicy) -> Iterator[Candidate]:
    for candidate in candidates:
        try:
            check_rsa_public_key(candidate.key.certificate, policy)
        except RejectionError:
            continue
        yield candidate


def _content_key(candidate: Candidate, size: int) -> bytes:
    """Return the recovered key, or a random one that is the same for the same entry until the program ends."""
    fallback = hmac.digest(_FALLBACK_SECRET, hashlib.sha512(candidate.wrapped).digest(), "sha256")[:size]
    try:
        key = candidate.recover()
    except Exception:  # noqa: BLE001 - every failure, of a token or a driver too, must look the same
        key = b""
    return key if len(key) == size else fallback


def _encrypted_content(fields: Cursor) -> tuple[str, str, Cursor, memoryview]:
    content_type = fields.take(OID, "the encrypted content's type").oid("the encrypted content's type")
    parameters = fields.take(SEQUENCE, "the content encryption algorithm").open()
    oid = parameters.take(OID, "the content encryption algorithm").oid("the content encryption algorithm")
    content = fields.optional(CONTEXT, CONTEXT | CONSTRUCTED)
    if content is None:
        raise malformed("the encrypted content is absent")
    fields.finish("the encrypted content info")
    return content_type, oid, parameters, memoryview(content.octets())


def _plain(encrypted: Cursor, policy: AlgorithmPolicy) -> _Sealed:
    content_type, oid, parameters, content = _encrypted_content(encrypted)
    algorithm = policy.require(Role.CONTENT_ENCRYPTION, oid)
    if algorithm.family == "aes-gcm" and policy.gcm_in_enveloped_data:
        cipher = read_cipher(algorithm, parameters)
        split = max(len(content) - cipher.tag_bytes, 0)
        return _Sealed(content_type, cipher, content[:split], bytes(content[split:]), (b"",))
    if algorithm.family != "aes-cbc":
        raise weak(f"{algorithm.name} in EnvelopedData protects nothing; it belongs into AuthEnvelopedData")
    return _Sealed(content_type, read_cipher(algorithm, parameters), content, b"", ())


def _authenticated(encrypted: Cursor, fields: Cursor, policy: AlgorithmPolicy) -> _Sealed:
    content_type, oid, parameters, content = _encrypted_content(encrypted)
    algorithm = policy.require(Role.CONTENT_ENCRYPTION, oid)
    if algorithm.family == "aes-cbc":
        raise malformed(f"{algorithm.name} cannot stand in AuthEnvelopedData")
    cipher = read_cipher(algorithm, parameters)
    attributes = fields.optional(CONTEXT | CONSTRUCTED | 1)
    tag = bytes(fields.take(OCTET_STRING, "the authentication tag").octets())
    if len(tag) != cipher.tag_bytes:
        raise malformed(f"the authentication tag has {len(tag)} bytes where {cipher.tag_bytes} are announced")
    return _Sealed(content_type, cipher, content, tag, _associated(attributes))


def _associated(attributes: Element | None) -> tuple[bytes, ...]:
    if attributes is None:
        return (b"",)
    elements = list(islice(attributes.open(), MAX_AUTHENTICATED_ATTRIBUTES + 1))
    if len(elements) > MAX_AUTHENTICATED_ATTRIBUTES:
        raise too_much(f"more than {MAX_AUTHENTICATED_ATTRIBUTES} authenticated attributes")
    encoded = set_of(element.raw for element in elements)
    as_received = tlv(SET, *(element.raw for element in elements))
    return (encoded,) if encoded == as_received else (encoded, as_received)
