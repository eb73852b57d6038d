"""Key files as other programs write them: PKCS#8 and PKCS#12, of today and of yesterday."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from gateway.core.errors import ConfigurationError
from gateway.keys.loading import load_key_ring
from gateway.sta.cms.enveloped import open_enveloped
from gateway.sta.cms.writing import encrypt
from tests.unit.sta_cms.cms_samples import RECIPIENT, SENDER, TEXT, OpenSSL, authority, identity, openssl_or_skip

PASSWORD = "pass wörd"
LEGACY = ("-provider", "legacy", "-provider", "default")


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSSL:
    folder = tmp_path / "openssl"
    folder.mkdir()
    made = openssl_or_skip(folder)
    made.identity(identity(RECIPIENT), "nurse")
    made.file("ca.pem", authority().certificate_pem)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "identities"
    made.mkdir()
    return made


def check(folder: Path) -> None:
    ring = load_key_ring(folder, PASSWORD.encode())
    assert open_enveloped(encrypt(TEXT, [identity(RECIPIENT).certificate_der]), ring.keys).content == TEXT
    with pytest.raises(ConfigurationError) as caught:
        load_key_ring(folder, b"another")
    assert "password" in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "protection",
    [
        ("-v2", "aes-256-cbc"),
        ("-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA512"),
        ("-scrypt",),
        ("-v2", "des3"),
        ("-v1", "PBE-SHA1-3DES"),
    ],
)
def test_encrypted_pkcs8(openssl: OpenSSL, folder: Path, protection: tuple[str, ...]) -> None:
    openssl.run(
        "pkcs8", "-topk8", "-in", "nurse.key.pem", "-out", "out.pem", *protection, "-passout", f"pass:{PASSWORD}"
    )
    (folder / "nurse.cert.pem").write_bytes(identity(RECIPIENT).certificate_pem)
    key = folder / "nurse.key.pem"
    key.write_bytes((openssl.directory / "out.pem").read_bytes())
    key.chmod(0o600)
    check(folder)


@pytest.mark.parametrize(
    "protection",
    [
        (),  # PBES2 with AES-256 and a MAC of SHA-256, as of OpenSSL 3
        ("-keypbe", "aes-128-cbc", "-certpbe", "aes-128-cbc", "-macalg", "sha512"),
        (
            "-keypbe",
            "PBE-SHA1-3DES",
            "-certpbe",
            "PBE-SHA1-3DES",
            "-macalg",
            "sha1",
        ),  # Windows up to 2016
    ],
)
def test_pkcs12_of_other_programs(openssl: OpenSSL, folder: Path, protection: tuple[str, ...]) -> None:
    export(openssl, folder, *protection)
    check(folder)


def export(openssl: OpenSSL, folder: Path, *options: str) -> None:
    openssl.run(
        *("pkcs12", "-export", "-inkey", "nurse.key.pem", "-in", "nurse.cert.pem", "-certfile", "ca.pem"),
        *("-out", "out.p12", "-passout", f"pass:{PASSWORD}", *options),
    )
    file = folder / "nurse.p12"
    file.write_bytes((openssl.directory / "out.p12").read_bytes())
    file.chmod(0o600)


def test_pkcs12_with_rc2_as_windows_wrote_it(openssl: OpenSSL, folder: Path) -> None:
    """The installed library may still read it or not; either the key works or the text says how to convert the file."""
    try:
        export(openssl, folder, "-legacy")
    except AssertionError:
        pytest.skip("this openssl cannot write RC2")
    try:
        check(folder)
    except ConfigurationError as error:
        assert "openssl pkcs12 -legacy" in str(error)  # noqa: PT017 - either way is right


def test_a_form_that_the_library_does_not_read_comes_with_the_way_to_convert_it(
    openssl: OpenSSL, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(openssl, folder)

    def unsupported(data: bytes, password: bytes | None) -> Any:
        raise UnsupportedAlgorithm("RC2")

    monkeypatch.setattr(pkcs12, "load_key_and_certificates", unsupported)
    with pytest.raises(ConfigurationError) as caught:
        load_key_ring(folder, PASSWORD.encode())
    first, second = "pkcs12 -legacy -in nurse.p12 -out between.pem", "pkcs12 -export -in between.pem -out new.p12"
    assert f"openssl {first}; openssl {second}" in str(caught.value)


def test_the_advice_converts(openssl: OpenSSL, folder: Path) -> None:
    """What the error text says is run as it stands, with the passwords that the programs would ask for."""
    try:
        export(openssl, folder, "-legacy")
    except AssertionError:
        pytest.skip("this openssl cannot write RC2")
    secret = f"pass:{PASSWORD}"
    openssl.run("pkcs12", "-legacy", "-in", "out.p12", "-out", "between.pem", "-passin", secret, "-passout", secret)
    openssl.run("pkcs12", "-export", "-in", "between.pem", "-out", "new.p12", "-passin", secret, "-passout", secret)
    assert b"ENCRYPTED PRIVATE KEY" in (openssl.directory / "between.pem").read_bytes()
    (folder / "nurse.p12").write_bytes((openssl.directory / "new.p12").read_bytes())
    check(folder)


@pytest.mark.parametrize("leaf_first", [True, False])
def test_pkcs12_with_many_certificates_in_any_order(folder: Path, *, leaf_first: bool) -> None:
    """The leaf is the certificate of the key, wherever it stands and whether it is marked or not."""
    intermediate = authority().intermediate("Issuing CA")
    leaf = intermediate.issue_address(RECIPIENT, key_pem=identity(RECIPIENT).key_pem)
    pems = [leaf.certificate_pem, intermediate.certificate_pem, authority().certificate_pem]
    loaded = [x509.load_pem_x509_certificate(pem) for pem in (pems if leaf_first else reversed(pems))]
    key = serialization.load_pem_private_key(leaf.key_pem, None)
    # Without a certificate of its own the key is not marked as belonging to any.
    data = pkcs12.serialize_key_and_certificates(b"name", key, None, loaded, serialization.NoEncryption())  # type: ignore[arg-type]
    (folder / "nurse.p12").write_bytes(data)
    (held,) = load_key_ring(folder).keys
    assert held.certificate == leaf.certificate_der
    assert set(held.chain) == {intermediate.certificate_der, authority().certificate_der}


def test_pkcs12_with_the_certificates_of_others_only(folder: Path) -> None:
    key = serialization.load_pem_private_key(identity(RECIPIENT).key_pem, None)
    others = [x509.load_pem_x509_certificate(identity(SENDER).certificate_pem)]
    data = pkcs12.serialize_key_and_certificates(b"name", key, None, others, serialization.NoEncryption())  # type: ignore[arg-type]
    (folder / "nurse.p12").write_bytes(data)
    with pytest.raises(ConfigurationError, match="does not belong"):
        load_key_ring(folder)


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519"])
def test_pkcs12_of_every_kind_of_key(folder: Path, kind: str) -> None:
    issued = identity(RECIPIENT, kind)
    key = serialization.load_pem_private_key(issued.key_pem, None)
    leaf = x509.load_pem_x509_certificate(issued.certificate_pem)
    sealed = serialization.BestAvailableEncryption(PASSWORD.encode())
    (folder / "nurse.pfx").write_bytes(pkcs12.serialize_key_and_certificates(b"n", key, leaf, None, sealed))  # type: ignore[arg-type]
    (folder / "nurse.pfx").chmod(0o600)
    ring = load_key_ring(folder, PASSWORD.encode())
    assert [held.certificate for held in ring.signers_for(RECIPIENT)] == [issued.certificate_der]
