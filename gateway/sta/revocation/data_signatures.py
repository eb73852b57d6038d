"""Signatures on revocation lists and OCSP answers: with which key, and whether they hold.

Guarantees: what cannot be checked does not hold, and is told apart from what is wrong; nothing is raised. Whether an
algorithm is allowed is not asked here (``path_validation.ChainAlgorithms``).
"""

from __future__ import annotations

from typing import Any

from asn1crypto import keys as asn1_keys
from cryptography.exceptions import InvalidSignature
from pyhanko_certvalidator.sig_validate import DEFAULT_SIGNATURE_VALIDATOR

from gateway.sta.paths.path_building import Path


def is_signed(public_key: bytes, algorithm: Any, signature: bytes, body: bytes) -> bool | None:
    """Whether the key (SubjectPublicKeyInfo, DER) made the signature on the body by that algorithm (asn1crypto).

    None: it could not be checked, which proves as little as False, but is no finding to keep.
    """
    try:
        DEFAULT_SIGNATURE_VALIDATOR.validate_signature(
            signature=signature,
            signed_data=body,
            public_key_info=asn1_keys.PublicKeyInfo.load(public_key, strict=True),
            signature_algorithm=algorithm,
        )
    except InvalidSignature:
        return False
    except Exception:  # noqa: BLE001 - whatever the library raises: the signature is not verified
        return None
    return True


def working_public_key(path: Path) -> bytes:
    """The key of the first certificate, with the parameters that a DSA key takes over from above (RFC 3279 2.3.2).

    Nothing is weakened by reading such a key: whether DSA is allowed is a matter of the algorithm policy (AS-38).
    """
    first = path[0]
    try:
        if first.asn1.public_key.algorithm != "dsa":
            return first.public_key_der
        for above in path:
            key = above.asn1.public_key
            if key.algorithm != "dsa":
                break
            parameters = key["algorithm"]["parameters"]
            if parameters.native is not None:
                whole = asn1_keys.PublicKeyInfo.load(first.public_key_der)
                whole["algorithm"]["parameters"] = parameters.copy()
                return bytes(whole.dump(force=True))
    except Exception:  # noqa: BLE001 - asn1crypto raises many types on hostile input; such a key verifies nothing
        return first.public_key_der
    return first.public_key_der
