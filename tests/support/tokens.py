"""An authority that issues access tokens: keys of each kind, its key set, and tokens right and wrong."""

from __future__ import annotations

import base64
import json
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.support.pki import ec_key, rsa_key

ISSUER = "https://login.example/realm"
AUDIENCE = "direct-gateway"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def key_of(algorithm: str) -> Key:
    """The key that the authority signs with."""
    if algorithm in {"RS256", "PS256"}:
        return rsa_key(41)
    return ec_key(41) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def public_jwk(key: Key, kid: str, **more: Any) -> dict[str, Any]:
    """A public key as the key set has it."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        found = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        found = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        found = OKPAlgorithm.to_jwk(public, as_dict=True)
    found.pop("key_ops", None)
    return {**found, "kid": kid, **more}


def key_set(*keys: dict[str, Any]) -> bytes:
    """The document behind the URL; without a word: one key for each algorithm, whose ``kid`` is its name."""
    known = keys or tuple(public_jwk(key_of(name), name, use="sig", alg=name) for name in ("RS256", "ES256", "EdDSA"))
    return json.dumps({"keys": list(known)}).encode()


def claims(login: str, **more: Any) -> dict[str, Any]:
    """What a good token says; None takes a claim out."""
    now = int(time.time())
    found = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "7", "iat": now, "exp": now + 300, "email": login, "client_id": "mua",
        **more,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def token(
    login: str,
    algorithm: str = "RS256",
    *,
    key: Any = None,
    header: dict[str, Any] | None = None,
    **more: Any,
) -> str:
    """A signed token; ``more`` are claims, ``header`` what differs in the header."""
    head = {"kid": algorithm, "typ": "at+jwt", **(header or {})}
    head = {name: value for name, value in head.items() if value is not None}
    return jwt.encode(claims(login, **more), key or key_of(algorithm), algorithm=algorithm, headers=head)


def forged(header: dict[str, Any], body: dict[str, Any], signature: bytes = b"") -> str:
    """A token that no library would make."""
    parts = [json.dumps(header).encode(), json.dumps(body).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
