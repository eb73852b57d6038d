"""Reads SignedData (RFC 5652 section 5) into values; verifies nothing (that is ``signature.py``).

Guarantees: certificates, revocation lists and signers are bounded in number; content stays a slice of the input
where it lies in one piece. A SignerInfo that cannot be read does not hide its neighbours (AS-50): it is kept with
its defect, which verifying it raises. When all of them are defective, the first defect is raised at once.

What comes again in the messages of a correspondent is read once and then found by its octets, all of which are
compared: single structures, and all that stands before the signers. The memory for it is bounded in entries and bytes.
It says how octets are read, never that anything in them holds.

Failure modes: :class:`RejectionError` with ``MALFORMED`` or ``RESOURCE_LIMIT``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from gateway.core.errors import RejectionError
from gateway.sta.cms.ber import (
    ANY,
    CONSTRUCTED,
    CONTEXT,
    INTEGER,
    NULL,
    OCTET_STRING,
    OID,
    SEQUENCE,
    SET,
    Buffer,
    Cursor,
    Document,
    Element,
    Expected,
    malformed,
    too_much,
)
from gateway.sta.cms.content_info import SIGNED_DATA, ContentInfo, open_content
from gateway.sta.cms.identifiers import MAX_CERTIFICATE_BYTES, CertificateIdentifier, read_identifier
from gateway.sta.cms.signer_info import (
    AlgorithmIdentifier,
    Attribute,
    SignerForm,
    SignerInfo,
    form_of,
    new_each_time,
)

MAX_CERTIFICATES = 32
MAX_REVOCATION_LISTS = 32
MAX_DIGEST_ALGORITHMS = 32
MAX_SIGNERS = 8
MAX_SIGNED_ATTRIBUTES = 64
MAX_SIGNED_ATTRIBUTE_BYTES = 262_144
MAX_SIGNATURE_BYTES = 2048
MAX_REMEMBERED_BYTES = 256
"""Of an algorithm with its parameters, and of an attribute: larger ones are read each time."""
MAX_REMEMBERED_DIGESTS_BYTES = 64
"""Of the set of digest algorithms. So few bytes cannot hold more members than are allowed."""
MAX_REMEMBERED_OPENING_BYTES = 8_192
MAX_REMEMBERED_OPENINGS = 256
_SIGNERS_DEPTH = 5
"""A signer stands in the set of them, in the SignedData, in a tag, in the ContentInfo."""
_SIGNED_DATA: Expected = (
    (INTEGER, "the version"),
    (SET, "the digest algorithms"),
    (SEQUENCE, "the encapsulated content"),
)
_SIGNER: Expected = ((INTEGER, "a signer's version"), (ANY, "a signer's identifier"))
_SIGNATURE: Expected = ((ANY, "a signature algorithm"), (ANY, "a signature"))
_ATTRIBUTE: Expected = ((OID, "a signed attribute's type"), (SET, "a signed attribute's values"))


class SignedData(NamedTuple):
    """A SignedData as read. ``econtent`` is None when the signature is detached."""

    econtent_type: str
    econtent: bytes | memoryview | None
    certificates: tuple[bytes, ...]
    crls: tuple[bytes, ...]
    digest_algorithms: tuple[str, ...]
    signers: tuple[SignerInfo, ...]
    econtent_range: tuple[int, int] | None = None
    """Where the content lies in what was read, when it lies there in one piece."""


def read_signed_data(der: Buffer | ContentInfo) -> SignedData:
    """Read a SignedData ContentInfo, BER or DER. No signer at all is a value, not an error (s10).

    The outermost layer may have been read already.

    Raises:
        RejectionError: MALFORMED or RESOURCE_LIMIT.
    """
    if type(der) is bytes and (known := _opening_of(der)) is not None:
        return SignedData(known.econtent_type, None, *known.rest, _signers_behind(der, known))
    fields = open_content(der, SIGNED_DATA)[1].expect(SEQUENCE, "the signed data").open()
    _, digests, encapsulating = fields.take_each(_SIGNED_DATA)
    encapsulated = encapsulating.open()
    econtent_type = encapsulated.oid("the content type")
    wrapper = encapsulated.optional(CONTEXT | CONSTRUCTED)
    content = None if wrapper is None else _econtent(wrapper)
    encapsulated.finish("the encapsulated content")
    certificates = fields.optional(CONTEXT | CONSTRUCTED)
    crls = fields.optional(CONTEXT | CONSTRUCTED | 1)
    container = fields.take(SET, "the signers")
    infos = container.members(MAX_SIGNERS, "signers")
    fields.finish("the signed data")
    signers = _signers(infos)
    embedded = _plain_structures(certificates, MAX_CERTIFICATES, "certificates")
    if any(len(certificate) > MAX_CERTIFICATE_BYTES for certificate in embedded):
        raise too_much(f"a certificate is longer than {MAX_CERTIFICATE_BYTES} bytes")
    rest = embedded, _plain_structures(crls, MAX_REVOCATION_LISTS, "revocation lists"), _digest_algorithms(digests)
    if content is None:
        if type(der) is bytes:
            _remember_opening(der, container, econtent_type, rest)
        return SignedData(econtent_type, None, *rest, signers)
    pieces = content.pieces()
    lies_at = pieces[0] if len(pieces) == 1 else None
    return SignedData(econtent_type, content.octets(), *rest, signers, lies_at)


def _signers(infos: list[Element]) -> tuple[SignerInfo, ...]:
    signers = tuple(map(_signer, infos))
    if signers and all(signer.defect for signer in signers):
        raise signers[0].defect or malformed("the signer")
    return signers


_Rest = tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[str, ...]]
"""Certificates, revocation lists and digest algorithms."""


class _Opening(NamedTuple):
    """All that stands before the signers in a detached SignedData, and what it says.

    It is the same in every message of a correspondent. When every length in it is definite, where its elements lie
    follows from nothing but these octets: what begins with the same ones and is of the same length says the same.
    """

    encoded: bytes
    """Up to the first signer."""
    econtent_type: str
    rest: _Rest
    signer: SignerForm | None = None
    """What stood behind it last, when that was one signer of the usual form."""


_openings: dict[tuple[int, bytes], _Opening] = {}
"""By :func:`_opening_key`, which only finds them: the octets are compared in full."""


def _opening_key(der: bytes) -> tuple[int, bytes]:
    """The length, and where the serial number of the first certificate usually stands."""
    return len(der), der[48:112]


def _opening_of(der: bytes) -> _Opening | None:
    known = _openings.get(_opening_key(der))
    return known if known is not None and der.startswith(known.encoded) else None


def _signers_behind(der: bytes, known: _Opening) -> tuple[SignerInfo, ...]:
    """Read the signers behind an opening that is known."""
    signer = None if known.signer is None else known.signer.read(der)
    if signer is not None:
        return (signer,)
    document, start = Document(der), len(known.encoded)
    infos = Cursor(document, start, len(der), _SIGNERS_DEPTH).members(MAX_SIGNERS, "signers")
    signers = _signers(infos)
    if len(signers) == 1 and signers[0].defect is None and document.is_definite:
        _openings[_opening_key(der)] = known._replace(signer=form_of(infos[0], signers[0], start))
    return signers


def _remember_opening(der: bytes, signers: Element, econtent_type: str, rest: _Rest) -> None:
    opening = der[: signers.body]
    is_to_the_end = signers.body_end == len(der) and signers.depth == _SIGNERS_DEPTH - 1
    if is_to_the_end and len(opening) <= MAX_REMEMBERED_OPENING_BYTES and signers.document.is_definite:
        if len(_openings) >= MAX_REMEMBERED_OPENINGS:
            _openings.clear()
        _openings[_opening_key(der)] = _Opening(opening, econtent_type, rest)


def _econtent(wrapper: Element) -> Element:
    inside = wrapper.open()
    content = inside.next("the signed content")
    inside.finish("the signed content")
    if content.tag & ~CONSTRUCTED != OCTET_STRING:
        raise malformed("the signed content is no OCTET STRING")
    return content


def _plain_structures(container: Element | None, limit: int, what: str) -> tuple[bytes, ...]:
    """Return the X.509 members of a CertificateSet or RevocationInfoChoices; other kinds are stepped over."""
    if container is None:
        return ()
    return tuple([element.encoded for element in container.members(limit, what) if element.tag == SEQUENCE])


def _digest_algorithms(element: Element) -> tuple[str, ...]:
    if element.end - element.start > MAX_REMEMBERED_DIGESTS_BYTES:
        return _read_digest_algorithms(element)
    return _remembered_digest_algorithms(element.encoded)


@lru_cache(maxsize=64)
def _remembered_digest_algorithms(encoded: bytes) -> tuple[str, ...]:
    return _read_digest_algorithms(Document(encoded).root())


def _read_digest_algorithms(element: Element) -> tuple[str, ...]:
    return tuple([_algorithm(one).oid for one in element.members(MAX_DIGEST_ALGORITHMS, "digest algorithms")])


def _algorithm(element: Element) -> AlgorithmIdentifier:
    if element.end - element.start > MAX_REMEMBERED_BYTES:
        return _read_algorithm(element)
    return _remembered_algorithm(element.encoded)


@lru_cache(maxsize=256)
def _remembered_algorithm(encoded: bytes) -> AlgorithmIdentifier:
    """All messages name the same few algorithms."""
    return _read_algorithm(Document(encoded).root())


def _read_algorithm(element: Element) -> AlgorithmIdentifier:
    fields = element.expect(SEQUENCE, "an algorithm").open()
    name = fields.oid("an algorithm")
    if fields.peek() in (-1, NULL):
        return AlgorithmIdentifier(name, b"")
    parameters = fields.next("an algorithm's parameters")
    if len(parameters.raw) > 4096:
        raise too_much("an algorithm's parameters are longer than 4096 bytes")
    return AlgorithmIdentifier(name, parameters.encoded)


def _signer(element: Element) -> SignerInfo:
    identifier: CertificateIdentifier | None = None
    try:
        fields = element.expect(SEQUENCE, "a signer").open()
        _, named = fields.take_each(_SIGNER)
        identifier = read_identifier(named, "a signer's identifier")
        digest = _algorithm(fields.next("a signer's digest algorithm"))
        attributes = fields.optional(CONTEXT | CONSTRUCTED)
        signed_attributes = None if attributes is None else _attributes(attributes)
        algorithm, signature = fields.take_each(_SIGNATURE)
        signature_algorithm = _algorithm(algorithm)
        if signature.tag & ~CONSTRUCTED != OCTET_STRING:
            raise malformed("a signature is of the wrong type")
        if signature.body_end - signature.body > MAX_SIGNATURE_BYTES:
            raise too_much(f"a signature is longer than {MAX_SIGNATURE_BYTES} bytes")
        value = bytes(signature.octets())
        fields.optional(CONTEXT | CONSTRUCTED | 1)
        fields.finish("a signer")
    except RejectionError as error:
        # Its traceback would keep the whole message in memory as long as the signer.
        return SignerInfo(identifier, None, None, None, b"", error.with_traceback(None))
    return SignerInfo(identifier, digest, signed_attributes, signature_algorithm, value)


def _attributes(container: Element) -> tuple[Attribute, ...]:
    if container.body_end - container.body > MAX_SIGNED_ATTRIBUTE_BYTES:
        raise too_much(f"signed attributes are longer than {MAX_SIGNED_ATTRIBUTE_BYTES} bytes")
    return tuple([_attribute(element) for element in container.members(MAX_SIGNED_ATTRIBUTES, "signed attributes")])


def _attribute(element: Element) -> Attribute:
    encoded = element.encoded
    if (name := new_each_time(encoded)) is not None:
        return Attribute(name, (encoded[15:],), encoded)
    return _read_attribute(element) if len(encoded) > MAX_REMEMBERED_BYTES else _remembered_attribute(encoded)


@lru_cache(maxsize=512)
def _remembered_attribute(encoded: bytes) -> Attribute:
    """The content type, the capabilities of a program and the certificate of a correspondent come again."""
    return _read_attribute(Document(encoded).root())


def _read_attribute(element: Element) -> Attribute:
    name, values = element.expect(SEQUENCE, "a signed attribute").fields(_ATTRIBUTE, "a signed attribute")
    listed = values.members(MAX_SIGNED_ATTRIBUTES, "values of one attribute")
    dotted = name.oid("a signed attribute's type")
    return Attribute(dotted, tuple([value.encoded for value in listed]), element.encoded)
