"""RecipientInfo: who may open an enveloped message, and how the content-encryption key is recovered.

Read here: KeyTransRecipientInfo with RSA PKCS#1 v1.5 and RSAES-OAEP (RFC 5652 6.2.1, RFC 4055), and
KeyAgreeRecipientInfo with ephemeral-static ECDH or X25519 (RFC 5753, RFC 8418) and AES key wrap. Other kinds and
those that cannot be read are stepped over, because another entry may be ours (e19); the count is bounded.

Failure modes: :class:`RejectionError` from :func:`read_recipients`; :meth:`Candidate.recover` may raise anything,
which its caller answers with a random key.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.ports import KeyOps
from gateway.sta.algorithm_policy import DIGESTS, MGF1, OAEP_DIGESTS, P_SPECIFIED, AlgorithmPolicy, Role, weak
from gateway.sta.cms.ber import (
    BIT_STRING,
    CONSTRUCTED,
    CONTEXT,
    INTEGER,
    NULL,
    OCTET_STRING,
    OID,
    SEQUENCE,
    Cursor,
    Document,
    Element,
    malformed,
    too_much,
)
from gateway.sta.cms.der import NULL as DER_NULL
from gateway.sta.cms.der import octet_string, sequence, tlv
from gateway.sta.cms.identifiers import (
    CertificateIdentifier,
    KeyIdentifier,
    certificate_fields,
    issuer_and_serial,
    key_identifier_value,
    read_identifier,
)
from gateway.sta.cms.key_index import KeyIndex
from gateway.sta.cms.key_transport_entry import (
    ENCRYPTED_KEY,
    RECIPIENT,
    known_beginning,
    only_entry,
    read_method,
)
from gateway.sta.hash_algorithms import HASHES

MAX_RECIPIENTS = 1000
MAX_WRAPPED_KEY_BYTES = 2048
MAX_UKM_BYTES = 1024
MAX_LABEL_BYTES = 1024


class _Transport(Protocol):
    """How one recipient's entry hides the key."""

    @property
    def name(self) -> str: ...

    def recover(self, key: KeyOps, wrapped: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _PKCS1:
    name: str = "rsa-pkcs1v15"

    def recover(self, key: KeyOps, wrapped: bytes) -> bytes:
        return key.decrypt_rsa_pkcs1v15(wrapped)


_PKCS1_V15: _Transport = _PKCS1()


@dataclass(frozen=True, slots=True)
class _OAEP:
    digest: str = "sha1"
    mgf_digest: str = "sha1"
    label: bytes = b""

    @property
    def name(self) -> str:
        return f"rsa-oaep-{self.digest}"

    def recover(self, key: KeyOps, wrapped: bytes) -> bytes:
        return key.decrypt_rsa_oaep(wrapped, digest=self.digest, mgf_digest=self.mgf_digest, label=self.label)


@dataclass(frozen=True, slots=True)
class _Agreement:
    """Ephemeral-static agreement: the originator's public key, a key derivation and a key wrap."""

    name: str
    originator_bits: bytes
    family: str
    digest: str
    wrap_algorithm: bytes
    wrap_key_bytes: int
    ukm: bytes | None

    def recover(self, key: KeyOps, wrapped: bytes) -> bytes:
        # The originator may leave the curve out or name it; agreement needs ours in any case, and a point that
        # is not on it is refused by the key.
        own = Document(certificate_fields(key.certificate).public_key).root().open()
        algorithm = own.take(SEQUENCE, "a public key's algorithm").raw
        secret = key.agree(sequence(algorithm, tlv(BIT_STRING, b"\0", self.originator_bits)))
        try:
            return aes_key_unwrap(self._derive(secret, self.wrap_algorithm), wrapped)
        except InvalidUnwrap:
            # Stacks disagree whether the key wrap has absent or NULL parameters where the key is derived. The wrap
            # has an integrity check, so the other reading can be tried without harm.
            name = Document(self.wrap_algorithm).root().open().next("a key wrap").raw
            plain, null = sequence(name), sequence(name, DER_NULL)
            other = null if self.wrap_algorithm == plain else plain
            return aes_key_unwrap(self._derive(secret, other), wrapped)

    def _derive(self, secret: bytes, wrap_algorithm: bytes) -> bytes:
        size_bits = (self.wrap_key_bytes * 8).to_bytes(4, "big")
        ukm = b"" if self.ukm is None else tlv(0xA0, octet_string(self.ukm))
        info = sequence(wrap_algorithm, ukm, tlv(0xA2, octet_string(size_bits)))
        digest = HASHES[self.digest]
        if self.family == "hkdf":
            return HKDF(digest, self.wrap_key_bytes, salt=None, info=info).derive(secret)
        return X963KDF(digest, self.wrap_key_bytes, sharedinfo=info).derive(secret)


class Candidate(NamedTuple):
    """One of our keys together with one entry that is meant for it."""

    key: KeyOps
    wrapped: bytes
    transport: _Transport

    @property
    def name(self) -> str:
        """How the key travels, for the evidence."""
        return self.transport.name

    def recover(self) -> bytes:
        """Return the content-encryption key; may raise anything."""
        return self.transport.recover(self.key, self.wrapped)


class Recipients(NamedTuple):
    """All entries of a message: how many there are, and those that one of our keys may open."""

    total: int
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]
    refusal: RejectionError | None
    """Why the policy refused an entry of ours, if it did."""


def read_recipients(infos: Element, keys: KeyIndex, policy: AlgorithmPolicy) -> Recipients:
    """Read the SET OF RecipientInfo and pair its entries with our keys.

    Raises:
        RejectionError: MALFORMED, or RESOURCE_LIMIT for more than MAX_RECIPIENTS entries.
    """
    only = _only_recipient(infos, keys, policy)
    if only is not None:
        return only
    entries = infos.members(MAX_RECIPIENTS, "recipients")
    candidates: list[Candidate] = []
    notes: dict[str, None] = {}
    refusal: RejectionError | None = None
    count = 0
    for entry in entries:
        try:
            if entry.tag == SEQUENCE:
                count += 1
                candidates += _key_transport(entry, keys, policy)
            elif entry.tag == CONTEXT | CONSTRUCTED | 1:
                found, size = _key_agreement(entry.open(), keys, policy)
                count += size
                candidates += found
            else:
                count += 1
                notes[f"a recipient entry of kind [{entry.tag & 0x1F}] was skipped"] = None
        except RejectionError as error:
            if error.reason is Reason.RESOURCE_LIMIT:
                raise
            if error.reason is Reason.WEAK_ALGORITHM:
                refusal = error
            notes[f"a recipient entry was skipped: {error.detail}"] = None
        if count > MAX_RECIPIENTS:
            raise too_much(f"the message has more than {MAX_RECIPIENTS} recipients")
    return Recipients(count, tuple(candidates), tuple(islice(notes, 8)), refusal)


def _only_recipient(infos: Element, keys: KeyIndex, policy: AlgorithmPolicy) -> Recipients | None:
    """The one entry that there is, when its beginning is known and it is for a key of ours that the policy allows."""
    encoded = only_entry(infos)
    known = None if encoded is None else known_beginning(encoded)
    if known is None:
        return None
    beginning, wrapped = known
    matching = keys.matching(beginning.identifier)
    try:
        candidates = _candidates(matching, beginning.method, beginning.oid, wrapped, policy) if matching else ()
    except RejectionError:
        return None
    return Recipients(1, tuple(candidates), (), None)


def _key_transport(entry: Element, keys: KeyIndex, policy: AlgorithmPolicy) -> list[Candidate]:
    known = known_beginning(entry.encoded)
    if known is not None:
        beginning, wrapped = known
        matching = keys.matching(beginning.identifier)
        return _candidates(matching, beginning.method, beginning.oid, wrapped, policy) if matching else []
    cursor = entry.open()
    _, named = cursor.take_each(RECIPIENT)
    matching = keys.matching(read_identifier(named, "a recipient's identifier"))
    if not matching:
        return []
    method, encrypted_key = cursor.take_each(ENCRYPTED_KEY)
    return _candidates(matching, method, read_method(method), _wrapped_key(encrypted_key), policy)


def _candidates(
    matching: list[KeyOps], method: Element | bytes, oid: str, wrapped: bytes, policy: AlgorithmPolicy
) -> list[Candidate]:
    transport = _PKCS1_V15
    if policy.require(Role.KEY_TRANSPORT, oid).family == "rsa-oaep":
        transport = _oaep(Document(method).root() if isinstance(method, bytes) else method)
    return [Candidate(key, wrapped, transport) for key in matching]


def _wrapped_key(element: Element) -> bytes:
    if element.body_end - element.body > MAX_WRAPPED_KEY_BYTES:
        raise too_much(f"an encrypted key is longer than {MAX_WRAPPED_KEY_BYTES} bytes")
    return bytes(element.octets())


def _oaep(method: Element) -> _OAEP:
    """Read RSAES-OAEP-params (RFC 4055 section 4.1); what is absent has its default, which is SHA-1."""
    algorithm = method.open()
    algorithm.next("a key encryption algorithm")
    if algorithm.peek() in (-1, NULL):
        return _OAEP()
    parameters = algorithm.take(SEQUENCE, "the OAEP parameters").open()
    digest = mgf_digest = "sha1"
    label = b""
    if (found := parameters.optional(0xA0)) is not None:
        digest = _oaep_digest(found.open().take(SEQUENCE, "the OAEP digest"))
    if (found := parameters.optional(0xA1)) is not None:
        mgf = found.open().take(SEQUENCE, "the OAEP mask generation").open()
        if mgf.take(OID, "the OAEP mask generation").oid("the OAEP mask generation") != MGF1:
            raise malformed("the OAEP mask generation is unknown")
        if mgf.more:
            mgf_digest = _oaep_digest(mgf.take(SEQUENCE, "the OAEP mask digest"))
    if (found := parameters.optional(0xA2)) is not None:
        source = found.open().take(SEQUENCE, "the OAEP label").open()
        if source.take(OID, "the OAEP label").oid("the OAEP label") != P_SPECIFIED:
            raise malformed("the OAEP label is of an unknown kind")
        if source.more:
            label = bytes(source.next("the OAEP label").octets())
            if len(label) > MAX_LABEL_BYTES:
                raise too_much(f"an OAEP label is longer than {MAX_LABEL_BYTES} bytes")
    return _OAEP(digest, mgf_digest, label)


def _oaep_digest(algorithm: Element) -> str:
    oid = algorithm.open().take(OID, "the OAEP digest").oid("the OAEP digest")
    row = DIGESTS.get(oid)
    if row is None or row.name not in OAEP_DIGESTS:
        raise weak(f"OAEP digest {row.name if row else oid} is not allowed")
    return row.name


def _key_agreement(cursor: Cursor, keys: KeyIndex, policy: AlgorithmPolicy) -> tuple[list[Candidate], int]:
    cursor.take(INTEGER, "a recipient's version")
    originator = cursor.take(CONTEXT | CONSTRUCTED, "a key agreement's originator").open().next("the originator")
    ukm = cursor.optional(CONTEXT | CONSTRUCTED | 1)
    scheme = cursor.take(SEQUENCE, "a key agreement's algorithm").open()
    listed = cursor.take(SEQUENCE, "a key agreement's recipients").members(MAX_RECIPIENTS, "recipients")
    wanted: list[tuple[KeyOps, bytes]] = []
    for recipient in listed:
        fields = recipient.expect(SEQUENCE, "a key agreement's recipient").open()
        matching = keys.matching(agreement_identifier(fields))
        if matching:
            wrapped = _wrapped_key(fields.take(OCTET_STRING, "an encrypted key"))
            wanted += [(key, wrapped) for key in matching]
    if not wanted:
        return [], len(listed)
    transport = _agreement(originator, ukm, scheme, policy)
    return [Candidate(key, wrapped, transport) for key, wrapped in wanted], len(listed)


def agreement_identifier(fields: Cursor) -> CertificateIdentifier:
    """Read a KeyAgreeRecipientIdentifier (RFC 5652 6.2.2)."""
    element = fields.next("a recipient's identifier")
    if element.tag == CONTEXT | CONSTRUCTED:
        return KeyIdentifier(key_identifier_value(element.open().take(OCTET_STRING, "a recipient's key identifier")))
    return issuer_and_serial(element.expect(SEQUENCE, "a recipient's identifier"))


def _agreement(originator: Element, ukm: Element | None, scheme: Cursor, policy: AlgorithmPolicy) -> _Agreement:
    if originator.tag != CONTEXT | CONSTRUCTED | 1:
        raise weak("static key agreement is not allowed")
    public_key = originator.open()
    public_key.take(SEQUENCE, "the originator's algorithm")
    point = bytes(public_key.take(BIT_STRING, "the originator's public key").bit_string())
    agreement = policy.require(
        Role.KEY_AGREEMENT, scheme.take(OID, "a key agreement's algorithm").oid("a key agreement's algorithm")
    )
    wrap = scheme.take(SEQUENCE, "a key agreement's key wrap")
    wrap_oid = wrap.open().take(OID, "a key agreement's key wrap").oid("a key agreement's key wrap")
    key_wrap = policy.require(Role.KEY_WRAP, wrap_oid)
    material = None
    if ukm is not None:
        material = bytes(ukm.open().take(OCTET_STRING, "user keying material").octets())
        if len(material) > MAX_UKM_BYTES:
            raise too_much(f"user keying material is longer than {MAX_UKM_BYTES} bytes")
    return _Agreement(
        f"{agreement.name}+{key_wrap.name}",
        point,
        agreement.family,
        agreement.digest,
        bytes(wrap.raw),
        key_wrap.key_bytes,
        material,
    )
