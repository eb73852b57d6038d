"""The algorithm matrix through the whole agent, row by row: what is received, what is refused and by which name.

Every accepted content encryption meets every way in which its key may travel and every kind of signature
(AS-31..41; RFC 8551 section 2). The messages are made from primitives, not by the gateway's own writer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.verdict import Judgement, Reason
from tests.smime.clinic import SECRET, Clinic
from tests.support.forge_envelopes import Encrypted, cbc, chacha, gcm, kari, oaep, v15
from tests.support.forge_signatures import Signing

Cipher = tuple[int, Callable[[bytes, bytes], Encrypted]]
CIPHERS: dict[str, Cipher] = {
    "aes-128-cbc": (16, cbc),
    "aes-192-cbc": (24, cbc),
    "aes-256-cbc": (32, cbc),
    "aes-128-gcm": (16, gcm),
    "aes-192-gcm": (24, gcm),
    "aes-256-gcm": (32, gcm),
    "chacha20-poly1305": (32, chacha),
}
Transport = tuple[str, Callable[[Any, bytes], bytes]]


def _agreement(kind: str, kdf: str, wrap: int) -> Transport:
    return kind, lambda to, key: kari(to, key, kdf=kdf, wrap_bytes=wrap)


TRANSPORTS: dict[str, Transport] = {
    "rsa-pkcs1v15": ("rsa", v15),
    **{
        f"rsa-oaep-{digest}": ("rsa", lambda to, key, digest=digest: oaep(to, key, digest))  # type: ignore[misc]
        for digest in ("sha1", "sha256", "sha384", "sha512")
    },
    "ecdh-sha1kdf+aes-128-wrap": _agreement("p256", "sha1", 16),
    "ecdh-sha256kdf+aes-128-wrap": _agreement("p256", "sha256", 16),
    "ecdh-sha256kdf+aes-256-wrap": _agreement("p256", "sha256", 32),
    "ecdh-sha384kdf+aes-256-wrap": _agreement("p384", "sha384", 32),
    "ecdh-sha512kdf+aes-256-wrap": _agreement("p384", "sha512", 32),
    "ecdh-hkdf-sha256+aes-128-wrap": _agreement("x25519", "sha256", 16),
    "ecdh-hkdf-sha256+aes-256-wrap": _agreement("x25519", "sha256", 32),
    "ecdh-hkdf-sha512+aes-256-wrap": _agreement("x25519", "sha512", 32),
}
SIGNATURES: dict[str, tuple[str, dict[str, Any]]] = {
    "rsa-pkcs1v15-sha256": ("rsa", {"digest": "sha256"}),
    "rsa-pkcs1v15-sha384": ("rsa", {"digest": "sha384"}),
    "rsa-pkcs1v15-sha512": ("rsa", {"digest": "sha512"}),
    "rsa-pss-sha256": ("rsa", {"digest": "sha256", "pss": True}),
    "rsa-pss-sha384": ("rsa", {"digest": "sha384", "pss": True, "salt": 20}),
    "rsa-pss-sha512": ("rsa", {"digest": "sha512", "pss": True, "salt": 0}),
    "ecdsa-p256-sha256": ("p256", {"digest": "sha256"}),
    "ecdsa-p384-sha384": ("p384", {"digest": "sha384"}),
    "ecdsa-p384-sha256": ("p384", {"digest": "sha256"}),
    "ed25519": ("ed25519", {"digest": "sha512"}),
}


def test_the_table_here_names_every_row_that_may_be_received() -> None:
    """7 ciphers, 13 ways of the key, 10 signatures: 910 combinations, each of them judged below."""
    assert (len(CIPHERS), len(TRANSPORTS), len(SIGNATURES)) == (7, 13, 10)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("cipher", CIPHERS)
def test_every_combination_that_the_matrix_allows_is_accepted(clinic: Clinic, cipher: str, transport: str) -> None:
    size, encrypt = CIPHERS[cipher]
    kind, hide = TRANSPORTS[transport]
    agent = clinic.agent(kind)
    for number, (signature, (signer, options)) in enumerate(SIGNATURES.items()):
        content = clinic.signed(Signing(clinic.sender(signer), **options), opaque=bool(number % 2))
        entry = hide(clinic.recipient(kind), SECRET[:size])
        judgement = clinic.world.judge(clinic.sealed(content, [entry], encrypt(SECRET[:size], content)), agent)
        assert (judgement.reason, judgement.detail, judgement.content) == (Reason.OK, "", clinic.inner), signature
        assert judgement.algorithms == {
            "content_encryption": cipher,
            "key_transport": transport,
            "digest": options["digest"],
            "signature": signature,
        }


def refused(judgement: Judgement, *words: str) -> None:
    """Refused for its algorithm, which the detail names, and nothing got out."""
    assert judgement.reason is Reason.WEAK_ALGORITHM, (judgement.reason, judgement.detail)
    for word in words:
        assert word in judgement.detail.lower(), judgement.detail
    assert judgement.content is None
