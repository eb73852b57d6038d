"""How a signature is computed: what a SignerInfo says of its algorithms, read and held against the matrix.

Failure modes: :class:`RejectionError` with ``WEAK_ALGORITHM``, ``MALFORMED`` or ``RESOURCE_LIMIT``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from gateway.sta.algorithm_policy import DIGESTS, MGF1, Algorithm, AlgorithmPolicy, Role, weak
from gateway.sta.cms.ber import INTEGER, OID, SEQUENCE, Document, Element, malformed
from gateway.sta.cms.signer_info import AlgorithmIdentifier

_MAX_SALT_BYTES = 512
MAX_REMEMBERED_BYTES = 256
"""Of the parameters of a signature algorithm: longer ones are read each time."""


class Scheme(NamedTuple):
    """How a signature is computed: the row of the matrix, the hash, and for PSS its parameters."""

    row: Algorithm
    digest: str
    mgf_digest: str = ""
    salt_bytes: int = 0


def _read_schemes(
    digest_oid: str, identifier: AlgorithmIdentifier, policy: AlgorithmPolicy
) -> tuple[str, Scheme, tuple[str, ...]]:
    """The digest, the scheme of the signature, and what is to be noted of them."""
    notes: list[str] = []
    digest = policy.require(Role.DIGEST, digest_oid).name
    return digest, _scheme(identifier, digest, policy, notes), tuple(notes)


_remembered_schemes = lru_cache(maxsize=256)(_read_schemes)


def schemes_of(
    digest_oid: str, identifier: AlgorithmIdentifier, policy: AlgorithmPolicy
) -> tuple[str, Scheme, tuple[str, ...]]:
    """Return the name of the digest, the scheme of the signature, and what is to be noted of them.

    Raises:
        RejectionError: see the module's header.
    """
    # They depend on nothing else. All messages name the same few; only PSS has parameters, and short ones.
    known = _remembered_schemes if len(identifier.parameters) <= MAX_REMEMBERED_BYTES else _read_schemes
    return known(digest_oid, identifier, policy)


def _scheme(identifier: AlgorithmIdentifier, digest: str, policy: AlgorithmPolicy, notes: list[str]) -> Scheme:
    row = policy.require(Role.SIGNATURE, identifier.oid)
    if row.family == "rsa-pss":
        scheme = read_pss(identifier.parameters, row, policy)
    elif row.family == "ed25519":
        # RFC 8419 section 3 asks for SHA-512; another allowed digest is no weaker than the rest of the matrix.
        if digest != "sha512":
            notes.append(f"Ed25519 with {digest} instead of sha512")
        return Scheme(row, digest)
    elif row.digest in {"", digest}:
        # The digest of the message, which has been found allowed.
        return Scheme(row, digest)
    else:
        scheme = Scheme(row, policy.require_digest(row.digest, "signature digest"))
    if scheme.digest != digest:
        notes.append(f"the signature uses {scheme.digest}, the message digest {digest}")
    return scheme


def read_pss(encoded: bytes, row: Algorithm, policy: AlgorithmPolicy) -> Scheme:
    """Read RSASSA-PSS-params (RFC 4055 section 3.1); what is absent has its default, SHA-1, which is refused."""
    digest = mgf_digest = "sha1"
    salt = 20
    trailer = 1
    if encoded:
        parameters = Document(encoded).root().expect(SEQUENCE, "the PSS parameters").open()
        if (found := parameters.optional(0xA0)) is not None:
            digest = _digest_name(found.open().take(SEQUENCE, "the PSS digest"))
        if (found := parameters.optional(0xA1)) is not None:
            mgf = found.open().take(SEQUENCE, "the PSS mask generation").open()
            if mgf.take(OID, "the PSS mask generation").oid("the PSS mask generation") != MGF1:
                raise weak("the PSS mask generation is not allowed")
            if mgf.more:
                mgf_digest = _digest_name(mgf.take(SEQUENCE, "the PSS mask digest"))
        if (found := parameters.optional(0xA2)) is not None:
            salt = found.open().take(INTEGER, "the PSS salt length").integer("the PSS salt length")
        if (found := parameters.optional(0xA3)) is not None:
            trailer = found.open().take(INTEGER, "the PSS trailer").integer("the PSS trailer")
    if not 0 <= salt <= _MAX_SALT_BYTES or trailer != 1:
        raise malformed("the PSS parameters are out of bounds")
    digest = policy.require_digest(digest, "PSS digest")
    return Scheme(row, digest, policy.require_digest(mgf_digest, "PSS mask digest"), salt)


def _digest_name(algorithm: Element) -> str:
    row = DIGESTS.get(algorithm.open().take(OID, "a digest").oid("a digest"))
    return "" if row is None else row.name
