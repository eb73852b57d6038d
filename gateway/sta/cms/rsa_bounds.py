"""The bounds of RSA public keys, read from a certificate before any arithmetic is done with it.

A key of unusual size costs the verifier up to a hundredfold (S/MIME rule 15), hence the check stands
before the key is used, and reads the numbers' lengths with the bounded walker.
"""

from __future__ import annotations

from gateway.sta.algorithm_policy import RSA_BITS_CEILING, RSA_ENCRYPTION, RSASSA_PSS, AlgorithmPolicy
from gateway.sta.cms.ber import BIT_STRING, INTEGER, OID, SEQUENCE, Document, Element, malformed, too_much
from gateway.sta.cms.identifiers import certificate_fields


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
    if public_key_algorithm(certificate) not in (RSA_ENCRYPTION, RSASSA_PSS):
        return
    key = Document(certificate_fields(certificate).public_key).root().open()
    key.take(SEQUENCE, "a public key's algorithm")
    bits = key.take(BIT_STRING, "a public key's bits").bit_string()
    numbers = Document(bits).root().expect(SEQUENCE, "an RSA key").open()
    modulus = _number(numbers.take(INTEGER, "an RSA modulus"))
    exponent = _number(numbers.take(INTEGER, "an RSA exponent"))
    policy.require_rsa_key(modulus.bit_length(), exponent)


def _number(element: Element) -> int:
    if len(element.content) > RSA_BITS_CEILING // 8 + 1:
        raise too_much("an RSA key is too large to be used")
    number = int.from_bytes(element.content, "big", signed=True)
    if number <= 0:
        raise malformed("an RSA key holds a number that is not positive")
    return number
