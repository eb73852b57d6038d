"""Whole messages that can be broken at any layer and put together again around the damage.

The layers inside the encryption are encrypted anew, and those under the signature signed anew where a test wants the
damage itself to be signed, so that each reader is reached; a mutation of the outermost bytes alone would reach one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from tests.smime.clinic import SECRET, Clinic
from tests.support.der_forge import Node, read, seq, tlv
from tests.support.direct_messages import outer_message
from tests.support.forge_envelopes import Encrypted, cbc, chacha, enveloped, gcm, kari, oaep, v15
from tests.support.forge_names import der_of
from tests.support.forge_signatures import Signed, Signing, multipart_signed, opaque_entity, usual_attributes
from tests.support.mutations import Mutator
from tests.support.pki import Identity
from tests.unit.sta.trust_world import CA, RCPT, SENDER


class Layer(StrEnum):
    """Where the damage is done."""

    OUTER = "the message as it travels"
    ENVELOPE = "EnvelopedData or AuthEnvelopedData"
    MIME = "the decrypted MIME entity"
    SIGNED_DATA = "SignedData"
    CERTIFICATES = "the certificates and CRLs in it"
    ATTRIBUTES = "the signed attributes, signed anew"
    CERTIFICATE = "the signer's certificate, issued anew"
    CONTENT = "the content, signed anew"


@dataclass(frozen=True)
class Broken:
    """A mutated message, and what alone may be accepted of it."""

    raw: bytes
    signed: bytes
    """The entity that a trusted key signed."""
    certificate_is_new: bool = False
    """Whether the authority issued the mutated certificate."""


@dataclass
class Specimen:
    """One valid message in parts."""

    name: str
    clinic: Clinic
    kind: str
    """Of the recipient's key."""
    entry: bytes
    encrypt: Callable[[bytes, bytes], Encrypted]
    key: bytes
    signers: list[Signing]
    opaque: bool = False
    entity: bytes = b""
    others: list[bytes] = field(default_factory=list)
    """More certificates."""
    crls: list[bytes] = field(default_factory=list)

    def signed_data(self, entity: bytes, signers: list[Signing] | None = None) -> bytes:
        """The SignedData over an entity."""
        chosen = signers or self.signers
        certificates = [*dict.fromkeys(der_of(one.by) for one in chosen), *self.others]
        return Signed(entity, chosen, certificates, self.opaque, self.crls).der()

    @cached_property
    def valid_signed_data(self) -> bytes:
        return self.signed_data(self.entity)

    def mime(self, entity: bytes, signed_data: bytes) -> bytes:
        """The signed MIME entity."""
        return opaque_entity(signed_data) if self.opaque else multipart_signed(entity, signed_data)

    def envelope(self, content: bytes) -> bytes:
        return enveloped([self.entry], self.encrypt(self.key, content))

    def outer(self, envelope: bytes) -> bytes:
        return outer_message(envelope, SENDER, [RCPT])

    def valid(self) -> bytes:
        """The message as it should be."""
        return self.outer(self.envelope(self.mime(self.entity, self.valid_signed_data)))

    def broken(self, layer: Layer, mutator: Mutator) -> Broken:
        """The message with one layer damaged."""
        if layer is Layer.OUTER:
            return Broken(mutator.text(self.valid()), self.entity)
        if layer is Layer.ENVELOPE:
            envelope = self.envelope(self.mime(self.entity, self.valid_signed_data))
            return Broken(self.outer(mutator.der(envelope)), self.entity)
        if layer is Layer.MIME:
            content = mutator.text(self.mime(self.entity, self.valid_signed_data))
            return Broken(self.outer(self.envelope(content)), self.entity)
        entity, signed_data = self._signed(layer, mutator)
        return Broken(self.outer(self.envelope(self.mime(entity, signed_data))), entity, layer is Layer.CERTIFICATE)

    def _signed(self, layer: Layer, mutator: Mutator) -> tuple[bytes, bytes]:
        entity, signers = self.entity, self.signers
        if layer is Layer.SIGNED_DATA:
            return entity, mutator.der(self.valid_signed_data)
        if layer is Layer.CERTIFICATES:
            return entity, mutator.der(self.valid_signed_data, _certificates)
        if layer is Layer.CONTENT:
            entity = mutator.text(entity)
            return entity, self.signed_data(entity)
        if layer is Layer.ATTRIBUTES:
            mutated = mutator.der(tlv(0x31, *sorted(usual_attributes(entity, signers[0].digest))))
            try:
                attributes = [node.encode() for node in read(mutated).inside]
            except ValueError:
                attributes = [mutated]
            return entity, self.signed_data(entity, [Signing(signers[0].by, signers[0].digest, attributes=attributes)])
        return entity, self._with_certificate_issued_anew(mutator)

    def _with_certificate_issued_anew(self, mutator: Mutator) -> bytes:
        """The signer's certificate with a mutated body under a good signature of its authority."""
        own = der_of(self.signers[0].by)
        body, algorithm, _ = (node.encode() for node in read(own).inside)
        mutated = mutator.der(body)
        authority = self.clinic.world.community.identity
        signature = Signing(authority)._sign(mutated)
        anew = seq(mutated, algorithm, tlv(0x03, b"\0" + signature))
        infos = [signer.info(self.entity) for signer in self.signers]
        kept = [anew if one == own else one for one in [*(der_of(s.by) for s in self.signers), *self.others]]
        named = [signer.digest for signer in self.signers]
        return Signed(self.entity, infos, kept, self.opaque, self.crls, digests=named).der()


def _certificates(root: Node) -> Node:
    """The [0] certificates or the [1] CRLs of a SignedData."""
    body = root.inside[-1].inside[0] if root.inside and root.inside[-1].inside else root
    found = [node for node in body.inside if node.tag in (0xA0, 0xA1) and node.inside]
    return found[0] if found else root


def specimens(clinic: Clinic) -> list[Specimen]:
    """Messages that differ in all that the matrix lets differ."""
    world = clinic.world
    below = world.community.below("Issuing CA", 54)
    chained = below.issue(SENDER, slot=56)
    unwrapped = b"Content-Type: text/plain; charset=utf-8\r\n\r\nThe patient is well.\r\n"
    return [
        _specimen(clinic, "v1.5, CBC, detached, SHA-256", "rsa", v15, cbc, 32, [Signing(clinic.sender())]),
        _specimen(
            clinic, "OAEP, GCM, opaque, PSS", "rsa", oaep, gcm, 16, [Signing(clinic.sender(), pss=True)], opaque=True
        ),
        _specimen(
            clinic, "ECDH, CBC, ECDSA by key identifier", "p256", kari, cbc, 16, [Signing(clinic.sender("p256"))]
        ),
        _specimen(clinic, "X25519, ChaCha20, Ed25519", "x25519", kari, chacha, 32, [_ed25519(clinic)], opaque=True),
        _specimen(clinic, "a chain and a CRL", "rsa", v15, cbc, 32, [Signing(chained)], others=[below], crl=below),
        _specimen(clinic, "two signers", "rsa", v15, cbc, 24, [_stranger(clinic), Signing(clinic.sender())]),
        _specimen(clinic, "unwrapped", "rsa", v15, cbc, 32, [Signing(clinic.sender())], entity=unwrapped),
    ]


def _ed25519(clinic: Clinic) -> Signing:
    return Signing(clinic.sender("ed25519"), "sha512")


def _stranger(clinic: Clinic) -> Signing:
    return Signing(clinic.world.stranger.issue(slot=53))


def _specimen(  # noqa: PLR0917 - a row of a table
    clinic: Clinic,
    name: str,
    kind: str,
    hide: Callable[[Identity, bytes], bytes],
    encrypt: Callable[[bytes, bytes], Encrypted],
    size: int,
    signers: list[Signing],
    *,
    opaque: bool = False,
    entity: bytes | None = None,
    others: list[CA] | None = None,
    crl: CA | None = None,
) -> Specimen:
    key = SECRET[:size]
    entry = hide(clinic.recipient(kind), key)
    certificates = [der_of(ca.identity) for ca in others or ()]
    crls = [crl.crl()] if crl else []
    signed = clinic.entity if entity is None else entity
    return Specimen(name, clinic, kind, entry, encrypt, key, signers, opaque, signed, certificates, crls)
