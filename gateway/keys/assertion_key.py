"""The private key by which the gateway authenticates to a FHIR server (SMART Backend Services): PEM or JWK.

RSA of 2048 bits or more signs as RS384, a key of the curve P-384 as ES384: the two that SMART asks servers to know.

Failure modes: ConfigurationError that names the file; key material is in no text.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from gateway.core.errors import ConfigurationError

MIN_RSA_BITS = 2048
_MAX_FILE_BYTES = 65_536
_P384_BYTES = 48


class AssertionKey:
    """A key in memory that signs."""

    def __init__(self, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, kid: str) -> None:
        self._key = key
        self.kid = kid
        self.algorithm = "RS384" if isinstance(key, rsa.RSAPrivateKey) else "ES384"

    def sign(self, data: bytes) -> bytes:
        """The signature as a JWS has it (RFC 7518 sections 3.3 and 3.4)."""
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(data, padding.PKCS1v15(), hashes.SHA384())
        r, s = decode_dss_signature(self._key.sign(data, ec.ECDSA(hashes.SHA384())))
        return r.to_bytes(_P384_BYTES, "big") + s.to_bytes(_P384_BYTES, "big")


def read_assertion_key(path: Path) -> AssertionKey:
    """Read a key without a password.

    Raises:
        ConfigurationError: it cannot be read, or is none that can be used.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES)
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path} (key_file): {exc.strerror}") from None
    kid = ""
    try:
        if data.lstrip().startswith(b"{"):
            document = json.loads(data)
            kid = str(document.get("kid", ""))
            key: object = _from_jwk(document)
        else:
            key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, KeyError, UnsupportedAlgorithm, binascii.Error):
        raise ConfigurationError(f"{path} (key_file) holds no private key, PEM or JWK, without a password") from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return AssertionKey(key, kid)
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1):
        return AssertionKey(key, kid)
    raise ConfigurationError(f"{path} (key_file) must be RSA of {MIN_RSA_BITS} bits or more, or of the curve P-384")


def _from_jwk(document: Mapping[str, Any]) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None:
    def number(name: str) -> int:
        text = str(document[name])
        return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")

    if document.get("kty") == "EC" and document.get("crv") == "P-384":
        curve = ec.EllipticCurvePublicNumbers(number("x"), number("y"), ec.SECP384R1())
        return ec.EllipticCurvePrivateNumbers(number("d"), curve).private_key()
    if document.get("kty") != "RSA":
        return None
    n, e, d = number("n"), number("e"), number("d")
    p, q = (number("p"), number("q")) if "p" in document else rsa.rsa_recover_prime_factors(n, e, d)
    crt = (rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q))
    return rsa.RSAPrivateNumbers(p, q, d, *crt, rsa.RSAPublicNumbers(e, n)).private_key()
