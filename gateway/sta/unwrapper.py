"""From the raw message to the signed bytes: through the layers of encryption and signature (AS-42, AS-47).

Accepted shapes: encrypted around signed; the triple wrap (signed, encrypted, signed), whose outer signature decides
nothing; and double encryption. Each layer must be the whole body of its entity (S/MIME rule 1). What comes out is
decrypted but **not verified**: only ``signers`` and the steps after it may look at it (AS-59).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.ports import KeyOps
from gateway.sta.cms.content_info import content_type
from gateway.sta.cms.enveloped import open_enveloped
from gateway.sta.cms.signed import SignedData, read_signed_data
from gateway.sta.evidence import Evidence
from gateway.sta.mime_entity import (
    Buffer,
    Entity,
    decode_body,
    is_cms,
    is_multipart_signed,
    malformed,
    read_entity,
    split_signed,
)

MAX_LAYERS = 4
MAX_ENVELOPES = 2
ID_DATA = "1.2.840.113549.1.7.1"
_ENVELOPED = frozenset({"enveloped-data", "auth-enveloped-data"})


@dataclass(frozen=True, slots=True)
class SignedContent:
    """The signed entity ``data[start:end]`` as received, its signatures, and the entity that carried them."""

    data: Buffer
    start: int
    end: int
    signatures: SignedData
    detached: bool
    carrier: Entity
    """Its header block was inside the encryption, but no signature covers it."""

    @property
    def signed(self) -> memoryview:
        """The signed bytes as received."""
        return memoryview(self.data)[self.start : self.end]


@dataclass
class _Layers:
    keys: Sequence[KeyOps]
    evidence: Evidence
    layers: int = 0
    envelopes: int = 0

    def unwrap(self, entity: Entity) -> SignedContent:
        while True:
            if is_multipart_signed(entity):
                signed = self._detached(entity)
            elif is_cms(entity):
                der = decode_body(entity, what="the CMS body")
                kind = content_type(der)
                if kind in _ENVELOPED:
                    entity = self._decrypt(der)
                    continue
                signed = self._opaque(entity, der, kind)
            else:
                raise self._unprotected(entity)
            inner = _enveloped_inside(signed)
            if inner is None:
                return self._finished(signed)
            self.evidence.noted("structure", "a signature around the encryption is not looked at")
            entity = inner

    def _count_layer(self) -> None:
        self.layers += 1
        if self.layers > MAX_LAYERS:
            raise RejectionError(Reason.RESOURCE_LIMIT, f"the message has more than {MAX_LAYERS} layers")

    def _decrypt(self, der: bytes) -> Entity:
        self._count_layer()
        self.envelopes += 1
        if self.envelopes > MAX_ENVELOPES:
            raise RejectionError(Reason.RESOURCE_LIMIT, f"the message is encrypted more than {MAX_ENVELOPES} times")
        opened = open_enveloped(der, self.keys)
        self.evidence.algorithms["content_encryption"] = opened.content_encryption
        self.evidence.algorithms["key_transport"] = opened.key_transport
        self.evidence.passed("decryption", f"{opened.recipients} recipient entries")
        for note in opened.notes:
            self.evidence.noted("decryption", note)
        content: Buffer = bytes(opened.content) if isinstance(opened.content, memoryview) else opened.content
        entity = read_entity(content, what="the decrypted entity")
        if not entity.headers.fields and not _is_text(content):
            # Without authentication a wrong key can yield bytes that look padded: that is no message of anybody.
            raise RejectionError(Reason.CANNOT_DECRYPT, "no private key here opens the message")
        return entity

    def _detached(self, entity: Entity) -> SignedContent:
        self._count_layer()
        parts = split_signed(entity)
        signatures = read_signed_data(parts.signature)
        if signatures.econtent is not None:
            raise malformed("the signature of a multipart/signed brings content of its own")
        return SignedContent(parts.data, parts.start, parts.end, signatures, detached=True, carrier=entity)

    def _opaque(self, entity: Entity, der: bytes, kind: str) -> SignedContent:
        self._count_layer()
        if kind == "compressed-data":
            if not self.envelopes:
                raise RejectionError(Reason.NOT_ENCRYPTED, "the message is compressed, not encrypted")
            raise RejectionError(Reason.RESOURCE_LIMIT, "compressed content is not opened")
        if kind != "signed-data":
            if not self.envelopes:
                raise RejectionError(Reason.NOT_ENCRYPTED, f"the CMS object is {kind}, which is not encrypted")
            raise RejectionError(Reason.NOT_SIGNED, f"the decrypted content is {kind}, which is not signed")
        signatures = read_signed_data(der)
        if signatures.econtent is None:
            if signatures.signers:
                raise malformed("the signed data has neither content nor a detached part")
            raise self._unsigned()
        content = bytes(signatures.econtent)
        return SignedContent(content, 0, len(content), signatures, detached=False, carrier=entity)

    def _finished(self, signed: SignedContent) -> SignedContent:
        if not self.envelopes:
            raise RejectionError(Reason.NOT_ENCRYPTED, "the message is signed, not encrypted")
        if not signed.signatures.signers:
            raise self._unsigned()
        if signed.signatures.econtent_type != ID_DATA:
            raise malformed("the signed content is not of type data")
        return signed

    def _unsigned(self) -> RejectionError:
        if not self.envelopes:
            return RejectionError(Reason.NOT_ENCRYPTED, "the message is not encrypted")
        return RejectionError(Reason.NOT_SIGNED, "the signed data holds no signature")

    def _unprotected(self, entity: Entity) -> RejectionError:
        if self.envelopes:
            return RejectionError(Reason.NOT_SIGNED, f"the decrypted content is {entity.content_type.full}, not signed")
        if not entity.headers.fields:
            return malformed("this is no mail message: it has no header field")
        return RejectionError(Reason.NOT_ENCRYPTED, f"the message is {entity.content_type.full}, not encrypted")


def unwrap(outer: Entity, keys: Sequence[KeyOps], evidence: Evidence) -> SignedContent:
    """Open the layers of the message and return the innermost signed content, not verified.

    Raises:
        RejectionError: NOT_ENCRYPTED, NOT_SIGNED, CANNOT_DECRYPT, WEAK_ALGORITHM, MALFORMED or RESOURCE_LIMIT.
    """
    return _Layers(keys, evidence).unwrap(outer)


def _enveloped_inside(signed: SignedContent) -> Entity | None:
    """The signed entity, when it is itself an encrypted CMS object (the triple wrap of RFC 2634)."""
    try:
        entity = read_entity(signed.data, signed.start, signed.end, what="the signed entity")
        if is_cms(entity) and content_type(decode_body(entity, what="the signed entity")) in _ENVELOPED:
            return entity
    except RejectionError:
        # Whether the signed entity is readable is decided after its signature, not here.
        return None
    return None


def _is_text(content: Buffer) -> bool:
    head = bytes(content[:512])
    return not any(byte < 0x20 and byte not in b"\t\r\n" for byte in head) and b"\x7f" not in head
