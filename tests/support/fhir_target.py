"""A target of kind ``fhir`` for tests: its settings, its keys, and what must stand on the server for a link."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.core.import_settings import ImporterSettings, completed
from gateway.importers.fhir.importer import FHIRImporter
from gateway.importers.fhir.resources import SYSTEM, keys_of
from gateway.keys.assertion_key import read_assertion_key
from gateway.observability.clock import SystemClock
from gateway.ports import ImportRequest
from tests.support.fhir_server import FHIRServer

STEPS = {"transaction": False}
"""Conditional creates, one after the other."""
BARE = {
    "transaction": False, "conditional": False, "binary_put": False, "without": ["Communication"],
    "provenance_params": ["target"],
}  # fmt: skip
"""Not even that: what is there is searched for."""


def settings_for(server: FHIRServer, **changes: Any) -> ImporterSettings:
    told: dict[str, Any] = {"name": "ehr", "kind": "fhir", "url": server.url, "allow": ("127.0.0.1",), **changes}
    return completed(ImporterSettings(**told), Path("/"))


def importer_for(server: FHIRServer, **changes: Any) -> FHIRImporter:
    return FHIRImporter(settings_for(server, **changes), SystemClock(), read_assertion_key)


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def client_of(
    folder: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings of the target, what the server must know) for a client of SMART Backend Services."""
    path = folder / "client.pem"
    pem = serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, serialization.NoEncryption()))
    path.chmod(0o600)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    algorithm = "RS384" if isinstance(key, rsa.RSAPrivateKey) else "ES384"
    known = {"id": "direct-gateway", "key": public.decode(), "kid": "key-1", "alg": algorithm}
    return {"client_id": "direct-gateway", "key_file": path, "kid": "key-1"}, known


def jwk_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, kid: str) -> str:
    def text(number: int) -> str:
        data = number.to_bytes((number.bit_length() + 7) // 8, "big")
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    if isinstance(key, rsa.RSAPrivateKey):
        told = key.private_numbers()
        public = told.public_numbers
        numbers = {"n": public.n, "e": public.e, "d": told.d, "p": told.p, "q": told.q}
        return json.dumps({"kty": "RSA", "kid": kid, **{name: text(one) for name, one in numbers.items()}})
    of_ec = key.private_numbers()
    numbers = {"x": of_ec.public_numbers.x, "y": of_ec.public_numbers.y, "d": of_ec.private_value}
    return json.dumps({"kty": "EC", "crv": "P-384", "kid": kid, **{name: text(one) for name, one in numbers.items()}})


def violations(server: FHIRServer, requests: Sequence[ImportRequest], variant: dict[str, Any]) -> list[str]:
    """What contradicts *exactly one set of resources for each link, and nothing else*."""
    communicates = "Communication" not in variant.get("without", [])
    wanted: Counter[str] = Counter()
    for asked in requests:
        wanted += Counter(
            f"DocumentReference {key}" for key in keys_of(asked) if not communicates or not key.endswith(".text")
        )
        wanted += Counter({f"Communication {asked.link.id}": int(communicates)})
    there = Counter(
        f"{kind} {one['value']}"
        for kind in ("DocumentReference", "Communication")
        for resource in server.resources(kind)
        for one in resource["identifier"]
        if one["system"] == SYSTEM
    )
    found = [
        f"{name}: {there[name]} and not {wanted[name]}" for name in {*wanted, *there} if wanted[name] != there[name]
    ]
    for kind, count in (("Provenance", len(requests)), ("Binary", len(requests) * variant.get("binary_put", True))):
        made = len(server.resources(kind))
        found += [f"{made} {kind} and not {count}"] if made != count else []
    return found
