"""Keys on a real PKCS#11 token: SoftHSM, filled with its own program, against messages of the openssl command."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.core.errors import RefusedError, RejectionError
from gateway.core.verdict import Reason
from gateway.keys.key_ring import HeldKey, KeyRing
from gateway.keys.loading import load_key_ring
from gateway.keys.token_connection import TokenOperationError
from gateway.keys.token_keys import TokenKey, _derive
from gateway.ports import KeyOps
from gateway.sta.cms.enveloped import open_enveloped
from gateway.sta.cms.writing import OutgoingSigner, encrypt, sign_detached
from tests.support.softhsm import SoftToken
from tests.unit.sta_cms.cms_samples import (
    NOW,
    RECIPIENT,
    SENDER,
    TEXT,
    OpenSSL,
    authority,
    file_key,
    identity,
    openssl_or_skip,
)


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSSL:
    folder = tmp_path / "openssl"
    folder.mkdir()
    return openssl_or_skip(folder)


def ring_of(token: SoftToken, directory: Path | None = None) -> KeyRing:
    return load_key_ring(directory, None, token.settings)


def only_key(ring: KeyRing) -> HeldKey:
    (key,) = ring.keys
    return key


def test_the_key_is_the_port(token: SoftToken) -> None:
    token.put(identity(RECIPIENT), "01")
    ring = ring_of(token)
    key: KeyOps = only_key(ring)
    assert isinstance(key, TokenKey)
    assert key.certificate == identity(RECIPIENT).certificate_der
    assert (key.names, key.may_sign, key.may_decrypt) == ((RECIPIENT,), True, True)
    assert list(ring.keys_for([RECIPIENT])) == list(ring.signers_for(RECIPIENT)) == [key]
    assert ring.names() == {RECIPIENT}


@pytest.mark.parametrize("cipher", ["aes-128-cbc", "aes-256-cbc", "aes-256-gcm"])
def test_rsa_v15_from_openssl(token: SoftToken, openssl: OpenSSL, cipher: str) -> None:
    token.put(identity(RECIPIENT), "01")
    certificate, _ = openssl.identity(identity(RECIPIENT), "r")
    opened = open_enveloped(openssl.encrypt(TEXT, f"-{cipher}", certificate), ring_of(token).keys)
    assert (bytes(opened.content), opened.key_transport) == (TEXT, "rsa-pkcs1v15")


def test_oaep_from_openssl_with_the_digests_that_the_token_has(token: SoftToken, openssl: OpenSSL) -> None:
    """SoftHSM 2.6 does SHA-1 alone; whatever it does not do is told at the start and fails as every failure does."""
    token.put(identity(RECIPIENT), "01")
    certificate, _ = openssl.identity(identity(RECIPIENT), "r")
    ring = ring_of(token)
    told = " ".join(ring.notes)
    assert "RSA-OAEP" not in " ".join(ring.warnings), "nothing that an operator can mend"
    for digest in ("sha1", "sha256", "sha384", "sha512"):
        options = ["-keyopt", "rsa_padding_mode:oaep", "-keyopt", f"rsa_oaep_md:{digest}"]
        der = openssl.encrypt(TEXT, "-aes256", "-recip", certificate, *options)
        if digest == "sha1" or digest not in told:
            assert open_enveloped(der, ring.keys).content == TEXT
        else:
            assert refusal(der, ring.keys) == "cannot_decrypt: no private key here opens the message"


@pytest.mark.parametrize("curve", ["p256", "p384"])
@pytest.mark.parametrize("kdf", ["sha1", "sha256", "sha384"])
def test_ecdh_from_openssl(token: SoftToken, openssl: OpenSSL, curve: str, kdf: str) -> None:
    token.put(identity(RECIPIENT, curve), "02", derive=True)
    certificate, _ = openssl.identity(identity(RECIPIENT, curve), "r")
    der = openssl.encrypt(TEXT, "-aes256", "-recip", certificate, "-keyopt", f"ecdh_kdf_md:{kdf}")
    opened = open_enveloped(der, ring_of(token).keys)
    assert opened.content == TEXT


@pytest.mark.parametrize("curve", ["p256", "p384"])
def test_the_secret_keeps_its_leading_zeros(token: SoftToken, curve: str) -> None:
    """RFC 5753 section 3: a secret that is one byte shorter would derive another key, once in 256 messages."""
    token.put(identity(RECIPIENT, curve), "02", derive=True)
    key = only_key(ring_of(token))
    in_memory = file_key(identity(RECIPIENT, curve))
    kind = ec.SECP256R1() if curve == "p256" else ec.SECP384R1()
    peers = (ec.derive_private_key(number, kind).public_key() for number in range(2, 100_000))
    encoded = (peer.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for peer in peers)
    short = next(one for one in encoded if in_memory.agree(one)[0] == 0)
    assert key.agree(short) == in_memory.agree(short)


def test_a_token_that_leaves_leading_zeros_out() -> None:
    class Secret:
        destroyed = False

        def __getitem__(self, attribute: object) -> bytes:
            return b"\x01" * 31

        def destroy(self) -> None:
            self.destroyed = True

    class Key:
        secret = Secret()

        def derive_key(self, *_: object, **__: object) -> Secret:
            return self.secret

    pytest.importorskip("pkcs11")
    key = Key()
    assert _derive(key, b"", 32) == b"\0" + b"\x01" * 31
    assert key.secret.destroyed


def test_no_session_object_is_left_behind(token: SoftToken) -> None:
    token.put(identity(RECIPIENT, "p256"), "02", derive=True)
    key = only_key(ring_of(token))
    assert isinstance(key, TokenKey)
    peer = ec.generate_private_key(ec.SECP256R1()).public_key()
    key.agree(peer.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    pkcs11 = importlib.import_module("pkcs11")
    secrets = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY}
    assert key.connection.objects(secrets, len) == 0


@pytest.mark.parametrize("kind", ["rsa2048", "rsa3072", "p256", "p384"])
def test_openssl_verifies_what_the_token_signs(token: SoftToken, openssl: OpenSSL, kind: str) -> None:
    token.put(identity(SENDER, kind), "03")
    (signer,) = ring_of(token).signers_for(SENDER, NOW)
    der = sign_detached(TEXT, OutgoingSigner.of(signer, signer.chain), NOW)
    openssl.file("ca.pem", authority().certificate_pem)
    openssl.file("signature", der)
    openssl.file("content", TEXT)
    openssl.run(
        *("cms", "-verify", "-binary", "-inform", "DER", "-in", "signature", "-content", "content"),
        *("-CAfile", "ca.pem", "-attime", str(int(NOW.timestamp()))),
    )


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_signatures_of_every_digest(token: SoftToken, digest: str) -> None:
    token.put(identity(SENDER), "03")
    token.put(identity(SENDER, "p256"), "04")
    algorithm = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}[digest]
    for key in ring_of(token).keys:
        signature = key.sign(b"data", digest=digest)
        public = x509.load_der_x509_certificate(key.certificate).public_key()
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, b"data", padding.PKCS1v15(), algorithm)
        else:
            assert isinstance(public, ec.EllipticCurvePublicKey)
            public.verify(signature, b"data", ec.ECDSA(algorithm))
        with pytest.raises(RefusedError, match="sha1 is not allowed"):
            key.sign(b"data", digest="sha1")


def refusal(der: bytes, keys: tuple[HeldKey, ...]) -> str:
    with pytest.raises(RejectionError) as caught:
        open_enveloped(der, keys)
    assert caught.value.reason is Reason.CANNOT_DECRYPT
    return str(caught.value)


def test_wrong_padding_and_wrong_keys_are_one_failure(token: SoftToken) -> None:
    """S/MIME rule 2: SoftHSM answers wrong padding with an error, which goes no further than the random key."""
    token.put(identity(RECIPIENT), "01")
    ring = ring_of(token)
    key = only_key(ring)
    good = encrypt(TEXT, [key.certificate])
    public = x509.load_der_x509_certificate(key.certificate).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    (wrapped,) = [part for part in (good[i : i + 256] for i in range(len(good) - 256)) if _opens(key, part)]
    texts = set()
    for other in (
        bytes([1]) * 256,
        public.encrypt(b"k" * 32, padding.PKCS1v15()),
        public.encrypt(b"k", padding.PKCS1v15()),
    ):
        texts.add(refusal(good.replace(wrapped, other), ring.keys))
    assert texts == {"cannot_decrypt: no private key here opens the message"}
    assert open_enveloped(good, ring.keys).content == TEXT


def _opens(key: HeldKey, part: bytes) -> bool:
    try:
        return len(key.decrypt_rsa_pkcs1v15(part)) == 32
    except TokenOperationError:
        return False
