"""One signer of a SignedData as a value, and the form in which a correspondent's program writes it.

Programs write the same octets again and again: of a signer, only the digest, the time and the signature are new. A
:class:`SignerForm` remembers one signer that the walker has read, without those three. What agrees with it in every
other octet has the same elements in the same places, because all lengths and tags are among the octets compared: it is
read without the walker, and says the same. It says how octets are read, never that anything in them holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gateway.core.errors import RejectionError
from gateway.sta.cms.ber import CONSTRUCTED, CONTEXT, OCTET_STRING, SEQUENCE, SET, Element
from gateway.sta.cms.der import oid
from gateway.sta.cms.identifiers import CertificateIdentifier, certificate_fields

MAX_FORM_ATTRIBUTES = 16
MAX_FORM_BYTES = 4_096
_NEW_EACH_TIME = {oid(name): name for name in ("1.2.840.113549.1.9.4", "1.2.840.113549.1.9.5")}
"""messageDigest and signingTime, by their encodings."""
_USUAL_VALUES = (OCTET_STRING, 0x17, 0x18)
"""Of those two: a digest, or one of the two forms of a time."""
_VALUE_AT = 17
"""Where the content of such a value begins in its attribute, when each length takes one octet."""
_new = tuple.__new__


class AlgorithmIdentifier(NamedTuple):
    """An algorithm and its parameters as encoded, empty when they are absent or NULL."""

    oid: str
    parameters: bytes


class Attribute(NamedTuple):
    """One signed attribute: its type, its values and itself as encoded on the wire."""

    oid: str
    values: tuple[bytes, ...]
    raw: bytes


class SignerInfo(NamedTuple):
    """One signature. ``signed_attributes`` is None when the message has none."""

    identifier: CertificateIdentifier | None
    digest: AlgorithmIdentifier | None
    signed_attributes: tuple[Attribute, ...] | None
    signature_algorithm: AlgorithmIdentifier | None
    signature: bytes
    defect: RejectionError | None = None
    """Why this SignerInfo cannot be read; then only ``identifier`` may be set."""
    form: SignerForm | None = None
    """What it has in common with others, when it was read by that."""

    def matches(self, certificate: bytes) -> bool:
        """Whether the sid names that certificate (DER). Never raises: an unreadable certificate does not match."""
        if self.identifier is None:
            return False
        try:
            return self.identifier.matches(certificate_fields(certificate))
        except RejectionError:
            return False

    def __str__(self) -> str:
        return f"signer with {self.identifier}" if self.identifier else "unreadable signer"


def new_each_time(encoded: bytes) -> str | None:
    """The type of a messageDigest or signingTime attribute in its usual form, whose value is ``encoded[15:]``.

    None for all else. There is no use in remembering these two.
    """
    name = _NEW_EACH_TIME.get(encoded[2:13])
    size = len(encoded)
    if name is not None and _VALUE_AT < size < 0x82 and encoded[15] in _USUAL_VALUES:
        lengths = encoded[0], encoded[1], encoded[13], encoded[14], encoded[16]
        if lengths == (SEQUENCE, size - 2, SET, size - 15, size - _VALUE_AT):
            # One value of the usual type, and each length takes one octet: it is where the walker would find it.
            return name
    return None


@dataclass(frozen=True, slots=True, eq=False)
class SignerForm:
    """A signer without what is new in each message. All offsets count from the start of the SignedData."""

    size: int
    """Of the whole SignedData, of which the signer is the end."""
    fixed: tuple[tuple[int, int, bytes], ...]
    """From where to where the octets stand that every signer of this form has, and the octets."""
    fresh: tuple[tuple[int, int, int], ...]
    """The attributes that are new each time: which they are, and from where to where they stand."""
    signature: tuple[int, int]
    signer: SignerInfo
    """The one that was read first."""

    def read(self, der: bytes) -> SignerInfo | None:
        """The signer at the end of that SignedData; None when it is not of this form."""
        if len(der) != self.size:
            return None
        for start, end, octets in self.fixed:
            if der[start:end] != octets:
                return None
        identifier, digest, known, algorithm, _, _, _ = self.signer
        if known is None:
            return None
        attributes = list(known)
        for index, start, end in self.fresh:
            encoded = der[start:end]
            attributes[index] = _new(Attribute, (attributes[index].oid, (encoded[15:],), encoded))
        start, end = self.signature
        return _new(SignerInfo, (identifier, digest, tuple(attributes), algorithm, der[start:end], None, self))

    def new_values(self, signer: SignerInfo) -> Mapping[str, bytes]:
        """By type the values of those attributes of a signer of this form that are new each time."""
        attributes = signer.signed_attributes or ()
        return {attributes[index].oid: attributes[index].values[0] for index, _, _ in self.fresh}


def form_of(element: Element, signer: SignerInfo, start: int) -> SignerForm | None:
    """The form of a signer that was read from that element; None when it is no usual one.

    ``start`` is where the octets begin that the form compares. All lengths in the document must be definite.
    """
    size = len(element.document.data)
    fields = element.members(7, "fields of a signer")
    # A sid may have the tag of the signed attributes, and stands before them.
    attributes = next((one for one in reversed(fields) if one.tag == CONTEXT | CONSTRUCTED), None)
    has_few = signer.signed_attributes is not None and len(signer.signed_attributes) <= MAX_FORM_ATTRIBUTES
    if attributes is None or not has_few:
        return None
    listed = attributes.members(MAX_FORM_ATTRIBUTES, "signed attributes")
    signature = next((one for one in reversed(fields) if one.tag == OCTET_STRING), None)
    if signature is None or element.end != size or size - start > MAX_FORM_BYTES:
        return None
    fresh = [(n, one.start, one.end) for n, one in enumerate(listed) if new_each_time(one.encoded) is not None]
    gaps = [(begin + _VALUE_AT, end) for _, begin, end in fresh] + [(signature.body, signature.body_end)]
    fixed: list[tuple[int, int, bytes]] = []
    position = start
    for begin, end in gaps:
        fixed.append((position, begin, bytes(element.document.source[position:begin])))
        position = end
    fixed.append((position, size, bytes(element.document.source[position:size])))
    return SignerForm(size, tuple(fixed), tuple(fresh), gaps[-1], signer._replace(signature=b""))
