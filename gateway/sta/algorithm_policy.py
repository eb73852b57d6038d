"""Which algorithms a Direct message may use: the algorithm matrix as data (AS-31..41; RFC 8551 section 2).

Guarantees: what is not in a table as allowed is refused. The tables are the floor of the Applicability Statement
v1.3: a policy can refuse more (:attr:`AlgorithmPolicy.refused`), and only the two named tolerances loosen
anything, neither of which lowers the floor. There is no setting that admits MD5, SHA-1, 3DES or RSA below 2048.

Failure modes: :class:`RejectionError` with ``WEAK_ALGORITHM`` for a message, :class:`ConfigurationError` for a
policy below the floor.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.core.errors import ConfigurationError, RejectionError
from gateway.core.verdict import FORBIDDEN_HERE, Reason

POLICY_VERSION = "direct-1.3/2"
"""Kept with each verdict; it changes whenever a table or a floor below changes."""

RSA_BITS_FLOOR = 2048
RSA_BITS_CEILING = 8192
RSA_EXPONENT_BITS = range(17, 65)
"""An exponent below is unsafe, one above only costs the verifier time (S/MIME rule 15)."""
MIN_TAG_BYTES = 12
MAX_TAG_BYTES = 16


class Role(StrEnum):
    """What an algorithm does in a message."""

    DIGEST = "digest"
    SIGNATURE = "signature"
    KEY_TRANSPORT = "key_transport"
    KEY_AGREEMENT = "key_agreement"
    KEY_WRAP = "key_wrap"
    CONTENT_ENCRYPTION = "content_encryption"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One row of the matrix.

    ``family`` says how it is computed and ``digest`` the hash that the identifier fixes, empty when parameters or
    another field tell it; ``key_bytes`` is the length of a symmetric key, 0 where there is none.
    """

    oid: str
    name: str
    role: Role
    allowed: bool
    family: str = ""
    digest: str = ""
    key_bytes: int = 0


def _table(role: Role, *rows: tuple[str, str, bool, str, str, int]) -> Mapping[str, Algorithm]:
    return {
        oid: Algorithm(oid, name, role, allowed, family, digest, key_bytes)
        for oid, name, allowed, family, digest, key_bytes in rows
    }


DIGESTS = _table(
    Role.DIGEST,
    ("2.16.840.1.101.3.4.2.1", "sha256", True, "sha2", "sha256", 0),
    ("2.16.840.1.101.3.4.2.2", "sha384", True, "sha2", "sha384", 0),
    ("2.16.840.1.101.3.4.2.3", "sha512", True, "sha2", "sha512", 0),
    ("2.16.840.1.101.3.4.2.4", "sha224", False, "sha2", "sha224", 0),
    ("1.3.14.3.2.26", "sha1", False, "sha1", "sha1", 0),
    ("1.2.840.113549.2.2", "md2", False, "md5", "md2", 0),
    ("1.2.840.113549.2.5", "md5", False, "md5", "md5", 0),
    # Named only so that the refusal can say what it refuses.
    ("2.16.840.1.101.3.4.2.5", "sha512-224", False, "sha2", "", 0),
    ("2.16.840.1.101.3.4.2.6", "sha512-256", False, "sha2", "", 0),
    ("2.16.840.1.101.3.4.2.7", "sha3-224", False, "sha3", "", 0),
    ("2.16.840.1.101.3.4.2.8", "sha3-256", False, "sha3", "", 0),
    ("2.16.840.1.101.3.4.2.9", "sha3-384", False, "sha3", "", 0),
    ("2.16.840.1.101.3.4.2.10", "sha3-512", False, "sha3", "", 0),
)

RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
RSASSA_PSS = "1.2.840.113549.1.1.10"
EC_PUBLIC_KEY = "1.2.840.10045.2.1"
ED25519 = "1.3.101.112"
MGF1 = "1.2.840.113549.1.1.8"
P_SPECIFIED = "1.2.840.113549.1.1.9"

SIGNATURES = _table(
    Role.SIGNATURE,
    (RSA_ENCRYPTION, "rsa-pkcs1v15", True, "rsa-pkcs1v15", "", 0),
    ("1.2.840.113549.1.1.11", "rsa-pkcs1v15", True, "rsa-pkcs1v15", "sha256", 0),
    ("1.2.840.113549.1.1.12", "rsa-pkcs1v15", True, "rsa-pkcs1v15", "sha384", 0),
    ("1.2.840.113549.1.1.13", "rsa-pkcs1v15", True, "rsa-pkcs1v15", "sha512", 0),
    (RSASSA_PSS, "rsa-pss", True, "rsa-pss", "", 0),
    (EC_PUBLIC_KEY, "ecdsa", True, "ecdsa", "", 0),
    ("1.2.840.10045.4.3.2", "ecdsa", True, "ecdsa", "sha256", 0),
    ("1.2.840.10045.4.3.3", "ecdsa", True, "ecdsa", "sha384", 0),
    ("1.2.840.10045.4.3.4", "ecdsa", True, "ecdsa", "sha512", 0),
    (ED25519, "ed25519", True, "ed25519", "", 0),
    ("1.2.840.113549.1.1.2", "rsa-pkcs1v15-md2", False, "rsa-pkcs1v15", "md2", 0),
    ("1.2.840.113549.1.1.4", "rsa-pkcs1v15-md5", False, "rsa-pkcs1v15", "md5", 0),
    ("1.2.840.113549.1.1.5", "rsa-pkcs1v15-sha1", False, "rsa-pkcs1v15", "sha1", 0),
    ("1.3.14.3.2.29", "rsa-pkcs1v15-sha1", False, "rsa-pkcs1v15", "sha1", 0),
    ("1.2.840.113549.1.1.14", "rsa-pkcs1v15-sha224", False, "rsa-pkcs1v15", "sha224", 0),
    ("1.2.840.10045.4.1", "ecdsa-sha1", False, "ecdsa", "sha1", 0),
    ("1.2.840.10045.4.3.1", "ecdsa-sha224", False, "ecdsa", "sha224", 0),
    ("1.2.840.10040.4.1", "dsa", False, "dsa", "", 0),
    ("1.2.840.10040.4.3", "dsa-sha1", False, "dsa", "sha1", 0),
    ("2.16.840.1.101.3.4.3.1", "dsa-sha224", False, "dsa", "sha224", 0),
    ("2.16.840.1.101.3.4.3.2", "dsa-sha256", False, "dsa", "sha256", 0),
    ("2.16.840.1.101.3.4.3.3", "dsa-sha384", False, "dsa", "sha384", 0),
    ("2.16.840.1.101.3.4.3.4", "dsa-sha512", False, "dsa", "sha512", 0),
    ("2.16.840.1.101.3.4.3.9", "ecdsa-sha3-224", False, "ecdsa", "", 0),
    ("2.16.840.1.101.3.4.3.10", "ecdsa-sha3-256", False, "ecdsa", "", 0),
    ("2.16.840.1.101.3.4.3.11", "ecdsa-sha3-384", False, "ecdsa", "", 0),
    ("2.16.840.1.101.3.4.3.12", "ecdsa-sha3-512", False, "ecdsa", "", 0),
    ("2.16.840.1.101.3.4.3.13", "rsa-pkcs1v15-sha3-224", False, "rsa-pkcs1v15", "", 0),
    ("2.16.840.1.101.3.4.3.14", "rsa-pkcs1v15-sha3-256", False, "rsa-pkcs1v15", "", 0),
    ("2.16.840.1.101.3.4.3.15", "rsa-pkcs1v15-sha3-384", False, "rsa-pkcs1v15", "", 0),
    ("2.16.840.1.101.3.4.3.16", "rsa-pkcs1v15-sha3-512", False, "rsa-pkcs1v15", "", 0),
    ("1.3.101.113", "ed448", False, "ed448", "", 0),
)

KEY_TRANSPORTS = _table(
    Role.KEY_TRANSPORT,
    (RSA_ENCRYPTION, "rsa-pkcs1v15", True, "rsa-pkcs1v15", "", 0),
    ("1.2.840.113549.1.1.7", "rsa-oaep", True, "rsa-oaep", "", 0),
    ("1.2.840.113549.1.9.16.3.14", "rsa-kem", False, "rsa-kem", "", 0),
)

# SHA-1 is allowed inside OAEP and a key derivation: collisions do not matter there, and AS-36 asks for it.
OAEP_DIGESTS = frozenset({"sha1", "sha256", "sha384", "sha512"})

KEY_AGREEMENTS = _table(
    Role.KEY_AGREEMENT,
    ("1.3.133.16.840.63.0.2", "ecdh-sha1kdf", True, "x963", "sha1", 0),
    ("1.3.132.1.11.0", "ecdh-sha224kdf", False, "x963", "sha224", 0),
    ("1.3.132.1.11.1", "ecdh-sha256kdf", True, "x963", "sha256", 0),
    ("1.3.132.1.11.2", "ecdh-sha384kdf", True, "x963", "sha384", 0),
    ("1.3.132.1.11.3", "ecdh-sha512kdf", True, "x963", "sha512", 0),
    # The cofactor of P-256 and P-384 is 1, so that cofactor agreement is the same computation.
    ("1.3.133.16.840.63.0.3", "ecdh-sha1kdf", True, "x963", "sha1", 0),
    ("1.3.132.1.14.1", "ecdh-sha256kdf", True, "x963", "sha256", 0),
    ("1.3.132.1.14.2", "ecdh-sha384kdf", True, "x963", "sha384", 0),
    ("1.3.132.1.14.3", "ecdh-sha512kdf", True, "x963", "sha512", 0),
    ("1.2.840.113549.1.9.16.3.19", "ecdh-hkdf-sha256", True, "hkdf", "sha256", 0),
    ("1.2.840.113549.1.9.16.3.20", "ecdh-hkdf-sha384", True, "hkdf", "sha384", 0),
    ("1.2.840.113549.1.9.16.3.21", "ecdh-hkdf-sha512", True, "hkdf", "sha512", 0),
    ("1.2.840.113549.1.9.16.3.5", "dh-ephemeral-static", False, "dh", "sha1", 0),
    ("1.2.840.113549.1.9.16.3.10", "dh-static-static", False, "dh", "sha1", 0),
    ("1.3.133.16.840.63.0.16", "mqv-sha1kdf", False, "mqv", "sha1", 0),
    ("1.3.132.1.15.0", "mqv-sha224kdf", False, "mqv", "sha224", 0),
    ("1.3.132.1.15.1", "mqv-sha256kdf", False, "mqv", "sha256", 0),
    ("1.3.132.1.15.2", "mqv-sha384kdf", False, "mqv", "sha384", 0),
    ("1.3.132.1.15.3", "mqv-sha512kdf", False, "mqv", "sha512", 0),
)

KEY_WRAPS = _table(
    Role.KEY_WRAP,
    ("2.16.840.1.101.3.4.1.5", "aes-128-wrap", True, "aes-wrap", "", 16),
    ("2.16.840.1.101.3.4.1.25", "aes-192-wrap", True, "aes-wrap", "", 24),
    ("2.16.840.1.101.3.4.1.45", "aes-256-wrap", True, "aes-wrap", "", 32),
    ("1.2.840.113549.1.9.16.3.6", "3des-wrap", False, "3des-wrap", "", 24),
    ("1.2.840.113549.1.9.16.3.7", "rc2-wrap", False, "rc2-wrap", "", 16),
)

CONTENT_ENCRYPTIONS = _table(
    Role.CONTENT_ENCRYPTION,
    ("2.16.840.1.101.3.4.1.2", "aes-128-cbc", True, "aes-cbc", "", 16),
    ("2.16.840.1.101.3.4.1.22", "aes-192-cbc", True, "aes-cbc", "", 24),
    ("2.16.840.1.101.3.4.1.42", "aes-256-cbc", True, "aes-cbc", "", 32),
    ("2.16.840.1.101.3.4.1.6", "aes-128-gcm", True, "aes-gcm", "", 16),
    ("2.16.840.1.101.3.4.1.26", "aes-192-gcm", True, "aes-gcm", "", 24),
    ("2.16.840.1.101.3.4.1.46", "aes-256-gcm", True, "aes-gcm", "", 32),
    ("1.2.840.113549.1.9.16.3.18", "chacha20-poly1305", True, "chacha20-poly1305", "", 32),
    ("1.2.840.113549.3.7", "3des-cbc", False, "3des", "", 24),
    ("1.2.840.113549.3.2", "rc2-cbc", False, "rc2", "", 16),
    ("1.2.840.113549.3.4", "rc4", False, "rc4", "", 16),
    ("1.3.14.3.2.7", "des-cbc", False, "des", "", 8),
    ("2.16.840.1.101.3.4.1.1", "aes-128-ecb", False, "aes-ecb", "", 16),
    ("2.16.840.1.101.3.4.1.21", "aes-192-ecb", False, "aes-ecb", "", 24),
    ("2.16.840.1.101.3.4.1.41", "aes-256-ecb", False, "aes-ecb", "", 32),
    ("2.16.840.1.101.3.4.1.3", "aes-128-ofb", False, "aes-ofb", "", 16),
    ("2.16.840.1.101.3.4.1.4", "aes-128-cfb", False, "aes-cfb", "", 16),
    ("2.16.840.1.101.3.4.1.7", "aes-128-ccm", False, "aes-ccm", "", 16),
    ("2.16.840.1.101.3.4.1.27", "aes-192-ccm", False, "aes-ccm", "", 24),
    ("2.16.840.1.101.3.4.1.47", "aes-256-ccm", False, "aes-ccm", "", 32),
)

_TABLES: Mapping[Role, Mapping[str, Algorithm]] = {
    Role.DIGEST: DIGESTS,
    Role.SIGNATURE: SIGNATURES,
    Role.KEY_TRANSPORT: KEY_TRANSPORTS,
    Role.KEY_AGREEMENT: KEY_AGREEMENTS,
    Role.KEY_WRAP: KEY_WRAPS,
    Role.CONTENT_ENCRYPTION: CONTENT_ENCRYPTIONS,
}

SIGNING_CURVES: Mapping[str, str] = {"secp256r1": "p256", "secp384r1": "p384"}
X25519 = "1.3.101.110"
AGREEMENT_CURVES: Mapping[str, str] = {"1.2.840.10045.3.1.7": "p256", "1.3.132.0.34": "p384"}
"""By dotted identifier; what a key of ours must lie on if a message may be encrypted to it (RFC 5753, AS-38)."""


@dataclass(frozen=True, slots=True)
class AlgorithmPolicy:
    """The matrix as one gateway applies it.

    Raises:
        ConfigurationError: the policy would lie below the floor.
    """

    refused: frozenset[str] = frozenset()
    """Names of rows that this gateway refuses on top."""
    min_rsa_bits: int = RSA_BITS_FLOOR
    gcm_in_enveloped_data: bool = False
    """Tolerate AES-GCM, the tag behind the ciphertext, in EnvelopedData, where no RFC puts it (AS-93)."""
    signed_attributes_in_wire_order: bool = True
    """Try the signed attributes as they came when they do not verify sorted, and note it (s09)."""

    def __post_init__(self) -> None:
        if not RSA_BITS_FLOOR <= self.min_rsa_bits <= RSA_BITS_CEILING:
            raise ConfigurationError(
                f"trust.min_rsa_bits must be between {RSA_BITS_FLOOR} and {RSA_BITS_CEILING}; it is {self.min_rsa_bits}"
            )
        known = {row.name for table in _TABLES.values() for row in table.values()}
        unknown = self.refused - known
        if unknown:
            # A misspelt name would refuse nothing, and nobody would notice.
            name = min(unknown)
            raise ConfigurationError(
                f"trust.refuse_algorithms: {name!r} is no algorithm of the matrix, so it cannot be refused"
                + _near(name, known)
            )

    def require(self, role: Role, oid: str) -> Algorithm:
        """Return the algorithm of that role.

        Raises:
            RejectionError: WEAK_ALGORITHM when it is unknown or refused.
        """
        found = _TABLES[role].get(oid)
        if found is None:
            raise weak(f"{role.replace('_', ' ')} algorithm {oid} is not allowed")
        if not found.allowed:
            raise weak(f"{role.replace('_', ' ')} algorithm {found.name} is not allowed")
        if found.name in self.refused:
            raise weak(f"{role.replace('_', ' ')} algorithm {found.name} is not allowed: {FORBIDDEN_HERE}")
        return found

    def require_digest(self, name: str, what: str) -> str:
        """Return the name of an allowed digest; raises WEAK_ALGORITHM otherwise."""
        if not any(row.name == name and row.allowed for row in DIGESTS.values()):
            raise weak(f"{what} {name or 'of an unknown kind'} is not allowed")
        if name in self.refused:
            raise weak(f"{what} {name} is not allowed: {FORBIDDEN_HERE}")
        return name

    def require_rsa_key(self, bits: int, exponent: int) -> None:
        """Check the size of an RSA public key (AS-35).

        Raises:
            RejectionError: WEAK_ALGORITHM, or RESOURCE_LIMIT when verifying would cost too much.
        """
        if bits < self.min_rsa_bits:
            raise weak(f"RSA key of {bits} bits is below {self.min_rsa_bits}{self.why_rsa(bits)}")
        if bits > RSA_BITS_CEILING or exponent.bit_length() > RSA_EXPONENT_BITS[-1]:
            raise RejectionError(Reason.RESOURCE_LIMIT, "RSA key is too large to be used")
        if exponent.bit_length() < RSA_EXPONENT_BITS[0] or not exponent & 1:
            raise weak("RSA public exponent is not allowed")

    def why_rsa(self, bits: int) -> str:
        """What to add to a refusal of an RSA key of that size when only this gateway's setting refuses it."""
        return f": {FORBIDDEN_HERE}" if RSA_BITS_FLOOR <= bits < self.min_rsa_bits else ""


def _near(name: str, known: Collection[str]) -> str:
    near = sorted(one for one in known if name and one.startswith(name))
    near = near or difflib.get_close_matches(name.lower(), sorted(known), n=5)
    return f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(sorted(known))}"


DEFAULT_POLICY = AlgorithmPolicy()


def weak(detail: str) -> RejectionError:
    """Return the error for an algorithm below the floor."""
    return RejectionError(Reason.WEAK_ALGORITHM, detail)
