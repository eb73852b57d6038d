"""The bounds of public keys, read from a certificate before any arithmetic is done with them.

An RSA key of unusual size costs the verifier up to a hundredfold (S/MIME rule 15), hence the check stands
before the key is used, and reads the numbers' lengths with the bounded walker. A key of ours on a curve that the
matrix does not name opens nothing (AS-38).
"""

from __future__ import annotations

from functools import lru_cache

from gateway.sta.algorithm_policy import (
    AGREEMENT_CURVES,
    EC_PUBLIC_KEY,
    RSA_BITS_CEILING,
    RSA_ENCRYPTION,
    RSASSA_PSS,
    X25519,
    AlgorithmPolicy,
    weak,
)
from gateway.sta.cms.ber import BIT_STRING, INTEGER, OID, SEQUENCE, Document, Element, malformed, too_much
from gateway.sta.cms.identifiers import certificate_fields


@lru_cache(maxsize=256)
def public_key_algorithm(certificate: bytes) -> str:
    """Return the dotted identifier of the certificate's key algorithm.

    Raises:
        RejectionError: MALFORMED or RESOURCE_LIMIT.
    """
    key = Document(certificate_fields(certificate).public_key).root().open()
    algorithm = key.take(SEQUENCE, "a public key's algorithm").open()
    return algorithm.take(OID, "a public key's algorithm").oid("a public key's algorithm")


def check_rsa_public_key(certificate: bytes, policy: AlgorithmPolicy) -> None:
    """Check size and exponent of the certificate's key when it is an RSA key.

    Raises:
        RejectionError: MALFORMED, WEAK_ALGORITHM or RESOURCE_LIMIT.
    """
    if public_key_algorithm(certificate) in (RSA_ENCRYPTION, RSASSA_PSS):
        policy.require_rsa_key(*_bits_and_exponent(certificate))


@lru_cache(maxsize=256)
def _bits_and_exponent(certificate: bytes) -> tuple[int, int]:
    key = Document(certificate_fields(certificate).public_key).root().open()
    key.take(SEQUENCE, "a public key's algorithm")
    bits = key.take(BIT_STRING, "a public key's bits").bit_string()
    numbers = Document(bits).root().expect(SEQUENCE, "an RSA key").open()
    modulus = _number(numbers.take(INTEGER, "an RSA modulus"))
    exponent = _number(numbers.take(INTEGER, "an RSA exponent"))
    return modulus.bit_length(), exponent


def check_decryption_key(certificate: bytes, policy: AlgorithmPolicy) -> None:
    """Check that messages may be encrypted to the certificate's key: a fit RSA key, P-256, P-384 or X25519.

    Raises:
        RejectionError: WEAK_ALGORITHM when not, or MALFORMED, RESOURCE_LIMIT.
    """
    kind = public_key_algorithm(certificate)
    if kind in (RSA_ENCRYPTION, RSASSA_PSS):
        check_rsa_public_key(certificate, policy)
    elif kind == EC_PUBLIC_KEY:
        key = Document(certificate_fields(certificate).public_key).root().open()
        algorithm = key.take(SEQUENCE, "a public key's algorithm").open()
        algorithm.take(OID, "a public key's algorithm")
        curve = algorithm.next("a public key's curve")
        # A curve that is spelt out instead of named has another tag, and is none of the matrix either.
        named = curve.oid("a public key's curve") if curve.tag == OID else "without a name"
        if named not in AGREEMENT_CURVES:
            raise weak(f"the message is encrypted to a key of ours on the curve {named}, which is not allowed")
    elif kind != X25519:
        raise weak(f"the message is encrypted to a key of ours of the kind {kind}, which is not allowed")


def _number(element: Element) -> int:
    if len(element.content) > RSA_BITS_CEILING // 8 + 1:
        raise too_much("an RSA key is too large to be used")
    number = int.from_bytes(element.content, "big", signed=True)
    if number <= 0:
        raise malformed("an RSA key holds a number that is not positive")
    return number
