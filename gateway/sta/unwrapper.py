"""From the raw message to the signed bytes: through the layers of encryption and signature (AS-42, AS-47).

Accepted shapes: encrypted around signed; the triple wrap (signed, encrypted, signed), whose outer signature decides
nothing; and double encryption. Each layer must be the whole body of its entity (S/MIME rule 1). What comes out is
decrypted but **not verified**: only ``signers`` and the steps after it may look at it (AS-59).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.core.errors import RejectionError
from gateway.core.mime.headers import HeaderBlock, ResourceLimitError, scan_headers
from gateway.core.verdict import Reason
from gateway.ports import KeyOps
from gateway.sta.algorithm_policy import DEFAULT_POLICY, AlgorithmPolicy
from gateway.sta.cms.content_info import ContentInfo, content_type, read_content_info
from gateway.sta.cms.enveloped import open_enveloped
from gateway.sta.cms.key_index import KeyIndex
from gateway.sta.cms.private_buffer import PrivateBuffer, Span
from gateway.sta.cms.signed import SignedData, read_signed_data
from gateway.sta.evidence import Evidence
from gateway.sta.mime.mime_entity import (
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


class SignedContent(NamedTuple):
    """The signed entity as received, its signatures, and the headers of what carried it.

    Nothing here holds the bytes but the span, so that they can be cut out of their buffer without a copy.
    """

    span: Span
    head: HeaderBlock | None
    """The header block of the signed entity; None when it cannot be read."""
    signatures: SignedData
    detached: bool
    carrier: HeaderBlock
    """Of the entity that was signed; inside the encryption, but no signature covers it."""


@dataclass
class _Layers:
    keys: Sequence[KeyOps] | KeyIndex
    evidence: Evidence
    policy: AlgorithmPolicy
    layers: int = 0
    envelopes: int = 0

    def unwrap(self, entity: Entity) -> SignedContent:
        buffer = PrivateBuffer(entity.data)
        while True:
            if is_multipart_signed(entity):
                signed = self._detached(entity, buffer)
            elif is_cms(entity):
                # What has been opened is let go at once: it may be as large as the message.
                carrier, buffer = entity.headers, PrivateBuffer(decode_body(entity, what="the CMS body"))
                del entity
                signatures, span = self._open(buffer)
                if signatures is None:
                    entity, buffer = _decrypted_entity(span), span.buffer
                    continue
                signed = SignedContent(span, _head(span), signatures, detached=False, carrier=carrier)
            else:
                raise self._unprotected(entity)
            inner = _enveloped_inside(signed)
            if inner is None:
                return self._finished(signed)
            self.evidence.noted("structure", "a signature around the encryption is not looked at")
            entity, buffer = inner, signed.span.buffer

    def _count_layer(self) -> None:
        self.layers += 1
        if self.layers > MAX_LAYERS:
            raise RejectionError(Reason.RESOURCE_LIMIT, f"the message has more than {MAX_LAYERS} layers")

    def _open(self, body: PrivateBuffer) -> tuple[SignedData | None, Span]:
        """Open one CMS object: its signatures, None when it was encrypted, and its content."""
        # Views of the buffer end here: as long as there is one, its bytes cannot be had without a copy.
        with body.writable() as view:
            info = read_content_info(view)
            self._count_layer()
            if info.name in _ENVELOPED:
                return None, self._decrypt(body, info)
            return self._opaque(body, info)

    def _decrypt(self, body: PrivateBuffer, info: ContentInfo) -> Span:
        self.envelopes += 1
        if self.envelopes > MAX_ENVELOPES:
            raise RejectionError(Reason.RESOURCE_LIMIT, f"the message is encrypted more than {MAX_ENVELOPES} times")
        opened = open_enveloped(body, self.keys, self.policy, info)
        self.evidence.algorithms["content_encryption"] = opened.content_encryption
        self.evidence.algorithms["key_transport"] = opened.key_transport
        self.evidence.passed("decryption", f"{opened.recipients} recipient entries")
        for note in opened.notes:
            self.evidence.noted("decryption", note)
        return opened.span

    def _detached(self, entity: Entity, buffer: PrivateBuffer) -> SignedContent:
        self._count_layer()
        parts = split_signed(entity)
        signatures = read_signed_data(parts.signature)
        if signatures.econtent is not None:
            raise malformed("the signature of a multipart/signed brings content of its own")
        span = Span(buffer, parts.start, parts.end)
        return SignedContent(span, _head(span), signatures, detached=True, carrier=entity.headers)

    def _opaque(self, body: PrivateBuffer, info: ContentInfo) -> tuple[SignedData, Span]:
        kind = info.name
        if kind == "compressed-data":
            if not self.envelopes:
                raise RejectionError(Reason.NOT_ENCRYPTED, "the message is compressed, not encrypted")
            raise RejectionError(Reason.RESOURCE_LIMIT, "compressed content is not opened")
        if kind != "signed-data":
            if not self.envelopes:
                raise RejectionError(Reason.NOT_ENCRYPTED, f"the CMS object is {kind}, which is not encrypted")
            raise RejectionError(Reason.NOT_SIGNED, f"the decrypted content is {kind}, which is not signed")
        signatures = read_signed_data(info)
        content, lies_at = signatures.econtent, signatures.econtent_range
        if content is None:
            if signatures.signers:
                raise malformed("the signed data has neither content nor a detached part")
            raise self._unsigned()
        span = Span.whole(content) if lies_at is None else Span(body, *lies_at)
        # The content is in the span, and a view of it must not stay.
        return signatures._replace(econtent=None), span

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
            return RejectionError(Reason.NOT_SIGNED, f"the decrypted content is {entity.media_type}, not signed")
        if not entity.headers.fields:
            return malformed("this is no mail message: it has no header field")
        return RejectionError(Reason.NOT_ENCRYPTED, f"the message is {entity.media_type}, not encrypted")


def unwrap(
    outer: Entity, keys: Sequence[KeyOps] | KeyIndex, evidence: Evidence, policy: AlgorithmPolicy = DEFAULT_POLICY
) -> SignedContent:
    """Open the layers of the message and return the innermost signed content, not verified.

    Raises:
        RejectionError: NOT_ENCRYPTED, NOT_SIGNED, CANNOT_DECRYPT, WEAK_ALGORITHM, MALFORMED or RESOURCE_LIMIT.
    """
    return _Layers(keys, evidence, policy).unwrap(outer)


def _decrypted_entity(span: Span) -> Entity:
    entity = read_entity(span.buffer.data, span.start, span.end, what="the decrypted entity")
    if not entity.headers.fields and not _is_text(span):
        # Without authentication a wrong key can yield bytes that look padded: that is no message of anybody.
        raise RejectionError(Reason.CANNOT_DECRYPT, "no private key here opens the message")
    declared = entity.headers.first(b"content-type")
    if declared is not None and not declared.value.isascii():
        # No signature covers this field, and CBC lets it be garbled; a program that makes it writes ASCII (RFC 2045).
        raise malformed("the decrypted entity has a Content-Type that is not ASCII")
    return entity


def _head(span: Span) -> HeaderBlock | None:
    try:
        return scan_headers(span.buffer.data, span.start, span.end)
    except ResourceLimitError:
        # Whether the signed entity is readable is decided after its signature, not here.
        return None


def _enveloped_inside(signed: SignedContent) -> Entity | None:
    """The signed entity, when it is itself an encrypted CMS object (the triple wrap of RFC 2634)."""
    if signed.head is None:
        return None
    span, what = signed.span, "the signed entity"
    try:
        entity = read_entity(span.buffer.data, span.start, span.end, what=what, headers=signed.head)
        if is_cms(entity) and content_type(decode_body(entity, what=what)) in _ENVELOPED:
            return entity
    except RejectionError:
        # As above: that is for later.
        return None
    return None


def _is_text(span: Span) -> bool:
    head = bytes(span.view[:512])
    return not any(byte < 0x20 and byte not in b"\t\r\n" for byte in head) and b"\x7f" not in head
