"""Which key of a token goes with which certificate, and what an operator is told (AS-12..14)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import ConfigurationError, RefusedError
from gateway.keys.development_pki import Issued
from gateway.keys.key_ring import KeyRing
from gateway.keys.loading import TokenSettings, load_key_ring
from gateway.keys.token_identities import _missing_oaep, parse_key_uri
from gateway.sta.cms.enveloped import open_enveloped
from gateway.sta.cms.writing import encrypt
from tests.support.softhsm import LABEL, PIN, SoftToken, forget_connections
from tests.unit.sta_cms.cms_samples import NOW, RECIPIENT, SENDER, TEXT, authority, identity


def ring_of(token: SoftToken, directory: Path | None = None) -> KeyRing:
    return load_key_ring(directory, None, token.settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "identities"
    made.mkdir()
    return made


def refer(folder: Path, issued: Issued, text: str, name: str = "nurse") -> None:
    (folder / f"{name}.cert.pem").write_bytes(issued.certificate_pem)
    (folder / f"{name}.pkcs11").write_text(text)


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:object=clinic%202026\n",
        "pkcs11:id=%0a%01",
        "pkcs11:id=%0A%01;object=clinic%202026;type=private;token=clinic",
    ],
)
def test_a_certificate_in_a_file_names_its_key(token: SoftToken, folder: Path, uri: str) -> None:
    token.put(identity(SENDER), "0a01", label="other", certificate=False)
    token.put(identity(RECIPIENT), "0a02", label="clinic 2026", certificate=False)
    refer(folder, identity(SENDER if uri.endswith("%01") else RECIPIENT), uri.replace("%01;", "%02;"))
    (folder / "nurse.cert.pem").write_bytes((folder / "nurse.cert.pem").read_bytes() + authority().certificate_pem)
    ring = ring_of(token, folder)
    (key,) = ring.keys
    assert key.chain == (authority().certificate_der,)
    assert key.source == "nurse.cert.pem"
    assert open_enveloped(encrypt(TEXT, [key.certificate]), ring.keys).content == TEXT
    assert any("1 private keys on token clinic have no certificate" in warning for warning in ring.warnings)


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("", "must hold one line like pkcs11:object=LABEL"),
        ("object=key", "must hold one line like"),
        ("pkcs11:", "must hold one line like"),
        ("pkcs11:type=private", "must hold one line like"),
        ("pkcs11:type=cert;object=key", "another kind of object or another token"),
        ("pkcs11:token=other;object=key", "another token than 'clinic'"),
        ("pkcs11:object=key?pin-value=4711", "a PIN belongs into trust.pkcs11_pin_file"),
        ("pkcs11:object=a;object=b", "'object' cannot stand there"),
        ("pkcs11:manufacturer=x;object=key", "'manufacturer' cannot stand there"),
        ("pkcs11:object=a\npkcs11:object=b", "must hold one line like"),
    ],
)
def test_uris_that_are_refused(uri: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=r"nurse\.cert\.pem") as caught:
        parse_key_uri(uri, LABEL, "nurse.cert.pem")
    assert complaint in str(caught.value)
    assert "4711" not in str(caught.value)


def test_parts_of_a_uri() -> None:
    assert parse_key_uri(" pkcs11:id=%00%FF;object=%C3%A4 \n", LABEL, "x") == (b"\x00\xff", "ä")
    assert parse_key_uri("pkcs11:object=a%3Bb", LABEL, "x") == (b"", "a;b")


def missing(token: SoftToken) -> Issued:
    token.put(identity(RECIPIENT), "01", label="other", certificate=False)
    return identity(RECIPIENT)


def twice(token: SoftToken) -> Issued:
    token.put(identity(RECIPIENT), "01", label="wanted", certificate=False)
    token.put(identity(SENDER), "02", label="wanted", certificate=False)
    return identity(RECIPIENT)


def another(token: SoftToken) -> Issued:
    token.put(identity(SENDER), "01", label="wanted", certificate=False)
    return identity(RECIPIENT)


def another_curve_key(token: SoftToken) -> Issued:
    token.put(identity(SENDER, "p256"), "01", label="wanted", certificate=False, derive=True)
    return identity(RECIPIENT, "p256")


def another_signing_key(token: SoftToken) -> Issued:
    token.put(identity(SENDER, "p256"), "01", label="wanted", certificate=False)
    return identity(RECIPIENT, "p256")


def another_kind(token: SoftToken) -> Issued:
    token.put(identity(SENDER, "p256"), "01", label="wanted", certificate=False)
    return identity(RECIPIENT)


def idle(token: SoftToken) -> Issued:
    token.put(identity(RECIPIENT), "01", label="wanted", certificate=False)
    token.set_attributes("01", DECRYPT=False, SIGN=False)
    return identity(RECIPIENT)


@pytest.mark.parametrize(
    ("prepare", "complaint"),
    [
        (missing, "has no private key of the kind"),
        (twice, "has 2 private keys of the kind"),
        (another, "its key is another one than the certificate's"),
        (another_curve_key, "its key is another one than the certificate's"),
        (another_signing_key, "its key is another one than the certificate's"),
        (another_kind, "has no private key of the kind"),
        (idle, "neither decrypts nor signs"),
    ],
)
def test_a_reference_that_does_not_fit(
    token: SoftToken, folder: Path, prepare: Callable[[SoftToken], Issued], complaint: str
) -> None:
    refer(folder, prepare(token), "pkcs11:object=wanted")
    with pytest.raises(ConfigurationError, match=r"nurse\.cert\.pem") as caught:
        ring_of(token, folder)
    assert complaint in str(caught.value)


def test_the_same_faults_on_the_token_are_warnings(token: SoftToken) -> None:
    """A token may serve others too: what is wrong there must not keep the gateway from its mail."""
    token.put(identity(SENDER), "01", certificate=False)
    token.put_certificate(identity(RECIPIENT).certificate_der, "01")
    token.put(identity(RECIPIENT), "02", certificate=False)
    token.put_certificate(b"rubbish", "02")
    token.put(identity(SENDER, "p256"), "03", certificate=False)
    token.put_certificate(identity(SENDER, "ed25519").certificate_der, "03")
    token.put_certificate(authority().certificate_der, "04")
    ring = ring_of(token)
    assert ring.keys == ()
    told = "\n".join(ring.warnings)
    assert "certificate 01 on token clinic is left out: its key is another one" in told
    assert "certificate 02 on token clinic cannot be read" in told
    assert "certificate 03 on token clinic is left out: on a token only RSA, P-256 and P-384" in told
    assert "certificate 04" not in told
    assert "have no certificate" not in told


def test_one_key_may_have_several_certificates_and_one_name_several_keys(token: SoftToken) -> None:
    """AS-14: a renewed certificate for the same key, and a new key for the same name."""
    older = authority().issue_address(
        RECIPIENT, not_before=NOW - timedelta(days=90), key_pem=identity(RECIPIENT).key_pem
    )
    token.put(identity(RECIPIENT), "01")
    token.put_certificate(older.certificate_der, "01")
    newest = authority().issue_address(RECIPIENT, key_type="p256", not_before=NOW)
    token.put(newest, "02", derive=True)
    ring = ring_of(token)
    keys = ring.keys_for([RECIPIENT])
    assert [key.certificate for key in keys] == [
        newest.certificate_der, identity(RECIPIENT).certificate_der, older.certificate_der,
    ]  # fmt: skip
    for key in keys:
        assert open_enveloped(encrypt(TEXT, [key.certificate]), ring.keys).content == TEXT


def test_signing_and_encryption_apart(token: SoftToken) -> None:
    """AS-13: by the certificate, and by what the token allows."""
    signing = authority().issue_address(RECIPIENT, key_usage=["digital_signature"], not_before=NOW)
    sealing = authority().issue_address(RECIPIENT, key_usage=["key_encipherment"])
    token.put(signing, "01")
    token.put(sealing, "02")
    token.set_attributes("01", DECRYPT=False)
    ring = ring_of(token)
    assert [key.certificate for key in ring.signers_for(RECIPIENT)] == [signing.certificate_der]
    first, second = ring.keys_for([RECIPIENT])
    assert (first.certificate, first.may_decrypt, first.may_sign) == (sealing.certificate_der, True, False)
    assert (second.certificate, second.may_decrypt, second.may_sign) == (signing.certificate_der, False, True)
    with pytest.raises(RefusedError):
        first.sign(b"x", digest="sha256")
    with pytest.raises(RefusedError):
        second.decrypt_rsa_pkcs1v15(b"x" * 256)
    assert not second.recheck()


def test_a_key_that_asks_at_every_use_is_left_out(token: SoftToken) -> None:
    pkcs11: Any = importlib.import_module("pkcs11")
    attribute = pkcs11.Attribute
    with token.session() as session:
        session.generate_keypair(
            pkcs11.KeyType.RSA, 2048, id=b"\x07", store=True,
            private_template={attribute.ALWAYS_AUTHENTICATE: True},
        )  # fmt: skip
    token.put_certificate(identity(RECIPIENT).certificate_der, "07")
    ring = ring_of(token)
    assert ring.keys == ()
    assert any("asks for the PIN at every use" in warning for warning in ring.warnings)


def test_files_and_token_together(token: SoftToken, folder: Path) -> None:
    token.put(identity(RECIPIENT), "01")
    (folder / "doctor.cert.pem").write_bytes(identity(SENDER).certificate_pem)
    (folder / "doctor.key.pem").write_bytes(identity(SENDER).key_pem)
    (folder / "doctor.key.pem").chmod(0o600)
    ring = ring_of(token, folder)
    assert ring.names() == {RECIPIENT, SENDER}
    der = encrypt(TEXT, [identity(SENDER).certificate_der, identity(RECIPIENT).certificate_der])
    for name in (RECIPIENT, SENDER):
        assert open_enveloped(der, ring.keys_for([name])).content == TEXT


def test_a_reference_without_a_token(folder: Path) -> None:
    refer(folder, identity(RECIPIENT), "pkcs11:object=key")
    with pytest.raises(ConfigurationError, match=r"nurse\.cert\.pem lies on a token; set trust\.pkcs11_module"):
        load_key_ring(folder)
    (folder / "nurse.cert.pem").unlink()
    with pytest.raises(ConfigurationError, match=r"nurse\.pkcs11 has no certificate beside it"):
        load_key_ring(folder)


def test_settings_of_a_token(token: SoftToken, tmp_path: Path) -> None:
    token.put(identity(RECIPIENT), "01")
    good = token.settings
    pin = tmp_path / "pin"

    def complaint(**changes: Any) -> str:
        given = {"module": good.module, "label": good.label, "pin_file": good.pin_file, **changes}
        with pytest.raises(ConfigurationError) as caught:
            load_key_ring(None, None, TokenSettings(**given))
        assert PIN not in str(caught.value)
        return str(caught.value)

    assert "set trust.pkcs11_token" in complaint(label="")
    assert "no token is labelled 'other'; the library has 'clinic'" in complaint(label="other")
    assert "set trust.pkcs11_pin_file" in complaint(pin_file=None)
    assert "cannot read trust.pkcs11_pin_file" in complaint(pin_file=tmp_path / "nothing")
    assert "no PKCS#11 library at" in complaint(module=tmp_path / "nothing.so")
    for text in (b"", b"\n", b"\xff\xfe\n"):
        pin.write_bytes(text)
        assert "must have the PIN" in complaint()
    not_a_library = tmp_path / "text.so"
    not_a_library.write_text("no library")
    pin.write_text(PIN)
    assert "cannot be loaded as a PKCS#11 library" in complaint(module=not_a_library)
    token.make()
    forget_connections()
    assert "2 tokens are labelled 'clinic'" in complaint()


def test_a_pin_that_others_can_read_is_a_warning(token: SoftToken) -> None:
    token.put(identity(RECIPIENT), "01")
    settings = token.settings
    assert settings.pin_file is not None
    settings.pin_file.chmod(0o644)
    assert any("chmod 600" in warning for warning in load_key_ring(None, None, settings).warnings)


@pytest.mark.parametrize(
    ("plain", "labelled", "told"),
    [
        (["sha256", "sha384", "sha512"], ["sha1"], "sha256, sha384 or sha512, nor with sha1 together with a label"),
        (["sha512"], [], "sha512"),
        (["sha1", "sha256"], ["sha1"], "sha1 or sha256"),
        ([], ["sha1"], "sha1 together with a label"),
    ],
)
def test_what_a_token_lacks_of_oaep_reads_as_a_sentence(plain: list[str], labelled: list[str], told: str) -> None:
    assert _missing_oaep(plain, labelled) == told
