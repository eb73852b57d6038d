"""Private keys in files (AS-5..7, AS-9, AS-14, AS-49)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import pkcs12

from gateway.core.errors import ConfigurationError, RefusedError
from gateway.keys.development_pki import DevelopmentCA, Issued
from gateway.keys.file_key import FileKey
from gateway.keys.key_ring import KeyRing
from gateway.keys.loading import load_key_ring
from gateway.ports import KeyOps
from gateway.ports import KeyRing as KeyRingPort

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NURSE = "nurse@clinic.example.org"
Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@cache
def authority() -> DevelopmentCA:
    return DevelopmentCA.create("Test CA", now=NOW)


@cache
def issued(name: str = NURSE, key_type: str = "rsa2048") -> Issued:
    return authority().issue_address(name, key_type=key_type) if "@" in name else authority().issue_domain(name)


def put(folder: Path, name: str, identity: Issued, key_pem: bytes | None = None) -> None:
    (folder / f"{name}.cert.pem").write_bytes(identity.certificate_pem)
    key = folder / f"{name}.key.pem"
    key.write_bytes(identity.key_pem if key_pem is None else key_pem)
    key.chmod(0o600)


def private(identity: Issued) -> Private:
    key = serialization.load_pem_private_key(identity.key_pem, None)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return key


def encode(identity: Issued, form: serialization.PrivateFormat, password: bytes | None) -> bytes:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        protection = serialization.BestAvailableEncryption(password)
    return private(identity).private_bytes(serialization.Encoding.PEM, form, protection)


def test_the_ring_is_the_port(tmp_path: Path) -> None:
    put(tmp_path, "nurse", issued())
    ring: KeyRingPort = load_key_ring(tmp_path)
    keys: list[KeyOps] = list(ring.keys_for([NURSE]))
    assert [key.certificate for key in keys] == [issued().certificate_der]
    assert keys[0].names == (NURSE,)
    assert ring.names() == {NURSE}


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("password", [None, b"secret"])
@pytest.mark.parametrize("key_type", ["rsa2048", "p256"])
def test_forms_of_key_files(
    tmp_path: Path, form: serialization.PrivateFormat, password: bytes | None, key_type: str
) -> None:
    identity = issued(key_type=key_type)
    put(tmp_path, "nurse", identity, encode(identity, form, password))
    for given in {password, b"secret"}:
        assert len(load_key_ring(tmp_path, given).keys_for([NURSE])) == 1


def test_password_missing_or_wrong(tmp_path: Path) -> None:
    put(tmp_path, "nurse", issued(), encode(issued(), serialization.PrivateFormat.PKCS8, b"secret"))
    with pytest.raises(ConfigurationError, match=r"nurse\.key\.pem is encrypted; set trust\.key_password_file"):
        load_key_ring(tmp_path)
    with pytest.raises(ConfigurationError, match=r"nurse\.key\.pem .* is the password right"):
        load_key_ring(tmp_path, b"wrong")


def make_p12(identity: Issued, password: bytes | None, *, with_key: bool = True) -> bytes:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        protection = serialization.BestAvailableEncryption(password)
    leaf = x509.load_pem_x509_certificate(identity.certificate_pem)
    chain = [x509.load_pem_x509_certificate(authority().certificate_pem)]
    key = private(identity) if with_key else None
    return pkcs12.serialize_key_and_certificates(b"name", key, leaf, chain, protection)


@pytest.mark.parametrize("password", [None, b"secret"])
def test_pkcs12(tmp_path: Path, password: bytes | None) -> None:
    (tmp_path / "nurse.p12").write_bytes(make_p12(issued(), password))
    (key,) = load_key_ring(tmp_path, password).keys_for([NURSE])
    assert key.chain == (authority().certificate_der,)


def test_unusable_pkcs12(tmp_path: Path) -> None:
    path = tmp_path / "nurse.p12"
    path.write_bytes(make_p12(issued(), b"secret"))
    for password in (None, b"wrong"):
        with pytest.raises(ConfigurationError, match=r"nurse\.p12 cannot be opened"):
            load_key_ring(tmp_path, password)
    path.write_bytes(b"rubbish")
    with pytest.raises(ConfigurationError, match=r"nurse\.p12 cannot be opened"):
        load_key_ring(tmp_path)
    path.write_bytes(make_p12(issued(), b"secret", with_key=False))
    with pytest.raises(ConfigurationError, match=r"nurse\.p12 must hold a private key"):
        load_key_ring(tmp_path, b"secret")


def test_a_p12_may_stand_beside_its_certificate(tmp_path: Path) -> None:
    identity = issued()
    (tmp_path / "nurse.cert.pem").write_bytes(identity.certificate_pem)
    (tmp_path / "nurse.p12").write_bytes(make_p12(identity, None))
    assert [key.certificate for key in load_key_ring(tmp_path).keys] == [identity.certificate_der]


def test_chain_behind_the_leaf(tmp_path: Path) -> None:
    put(tmp_path, "nurse", issued())
    (tmp_path / "nurse.cert.pem").write_bytes(issued().certificate_pem + authority().certificate_pem)
    (key,) = load_key_ring(tmp_path).keys_for([NURSE])
    assert key.certificate == issued().certificate_der
    assert key.chain == (authority().certificate_der,)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no folder of keys"):
        load_key_ring(tmp_path / "nowhere")


def test_empty_folder_and_other_files(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("nothing here")
    (tmp_path / "sub").mkdir()
    assert load_key_ring(tmp_path).names() == frozenset()


def break_certificate(folder: Path) -> None:
    (folder / "nurse.cert.pem").write_text("rubbish")


def break_key(folder: Path) -> None:
    (folder / "nurse.key.pem").write_text("rubbish")


def drop_certificate(folder: Path) -> None:
    (folder / "nurse.cert.pem").unlink()


def drop_key(folder: Path) -> None:
    (folder / "nurse.key.pem").unlink()


def other_key(folder: Path) -> None:
    (folder / "nurse.key.pem").write_bytes(issued("other@clinic.example.org").key_pem)


def huge_key(folder: Path) -> None:
    (folder / "nurse.key.pem").write_bytes(b"x" * 2_000_000)


def damaged_key(folder: Path) -> None:
    """The public half is right, and the private one is not."""
    whole = private(issued())
    assert isinstance(whole, rsa.RSAPrivateKey)
    numbers = whole.private_numbers()
    broken = rsa.RSAPrivateNumbers(
        p=numbers.p,
        q=numbers.q,
        d=numbers.d ^ (1 << 300),
        dmp1=numbers.dmp1 ^ (1 << 300),
        dmq1=numbers.dmq1,
        iqmp=numbers.iqmp,
        public_numbers=numbers.public_numbers,
    ).private_key(unsafe_skip_rsa_key_validation=True)
    pem = broken.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "nurse.key.pem").write_bytes(pem)


def unsupported_key(folder: Path) -> None:
    key = dsa.generate_private_key(2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "nurse.key.pem").write_bytes(pem)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (break_certificate, r"nurse\.cert\.pem holds no readable"),
        (break_key, r"nurse\.key\.pem holds no readable"),
        (drop_certificate, r"nurse\.key\.pem has no certificate beside it.*nurse\.cert\.pem"),
        (drop_key, r"nurse\.cert\.pem has no key beside it.*nurse\.key\.pem"),
        (other_key, r"nurse\.key\.pem does not belong to .*nurse\.cert\.pem"),
        (damaged_key, r"nurse\.key\.pem does not belong to .*nurse\.cert\.pem, or is damaged"),
        (huge_key, r"nurse\.key\.pem is too large"),
        (unsupported_key, r"nurse\.key\.pem .*neither RSA, EC"),
    ],
)
def test_errors_name_the_file_and_the_mend(tmp_path: Path, damage: Callable[[Path], None], text: str) -> None:
    put(tmp_path, "nurse", issued())
    damage(tmp_path)
    with pytest.raises(ConfigurationError, match=text) as caught:
        load_key_ring(tmp_path)
    assert "PRIVATE KEY" not in str(caught.value)


def test_readable_by_others_is_a_warning(tmp_path: Path) -> None:
    put(tmp_path, "nurse", issued())
    assert load_key_ring(tmp_path).warnings == ()
    (tmp_path / "nurse.key.pem").chmod(0o644)
    (warning,) = load_key_ring(tmp_path).warnings
    assert "chmod 600" in warning


def test_names_come_from_the_san_alone(tmp_path: Path) -> None:
    """AS-5, AS-6, AS-7, AS-9."""
    names = [
        x509.RFC822Name("Nurse@Clinic.Example.ORG"),
        x509.DNSName("CLINIC.example.org"),
        x509.DNSName("*.example.org"),
        x509.UniformResourceIdentifier("https://elsewhere.example.org"),
    ]
    put(tmp_path, "nurse", authority().issue_address(NURSE, common_name="boss@clinic.example.org", san=names))
    ring = load_key_ring(tmp_path)
    assert ring.names() == {NURSE, "clinic.example.org"}
    assert len(ring.warnings) == 1
    assert ring.keys_for(["boss@clinic.example.org"])  # by its domain
    assert not ring.keys_for(["x@sub.clinic.example.org", "x@example.org", "rubbish", ""])


def test_a_certificate_without_names_is_kept_but_never_used(tmp_path: Path) -> None:
    put(tmp_path, "nurse", authority().issue_address(NURSE, san=()))
    ring = load_key_ring(tmp_path)
    assert ring.names() == frozenset()
    assert len(ring.keys) == 1
    assert "names no address" in ring.warnings[0]


def test_order_address_first_then_domain_newest_first(tmp_path: Path) -> None:
    """AS-14: rollover."""
    ages = {"old": 30, "new": 1, "middle": 10}
    for name, days in ages.items():
        put(tmp_path, name, authority().issue_address(NURSE, not_before=NOW - timedelta(days=days)))
    put(tmp_path, "domain", authority().issue_domain("clinic.example.org", not_before=NOW))
    ring = load_key_ring(tmp_path)
    sources = [key.source for key in ring.keys_for(["NURSE@clinic.example.org", NURSE])]
    assert sources == ["new.cert.pem", "middle.cert.pem", "old.cert.pem", "domain.cert.pem"]
    assert [key.source for key in ring.keys_for(["doctor@clinic.example.org"])] == ["domain.cert.pem"]


def test_expired_certificates_still_decrypt(tmp_path: Path) -> None:
    past = NOW - timedelta(days=900)
    put(tmp_path, "nurse", authority().issue_address(NURSE, not_before=past, not_after=past + timedelta(days=1)))
    (key,) = load_key_ring(tmp_path).keys_for([NURSE])
    assert key.decrypt_rsa_pkcs1v15(rsa_of(key).encrypt(b"k" * 32, padding.PKCS1v15())) == b"k" * 32


def rsa_of(key: KeyOps) -> rsa.RSAPublicKey:
    public = x509.load_der_x509_certificate(key.certificate).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    return public


def test_oaep(tmp_path: Path) -> None:
    put(tmp_path, "nurse", issued())
    (key,) = load_key_ring(tmp_path).keys_for([NURSE])
    mode = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA512(), b"label")
    wrapped = rsa_of(key).encrypt(b"k" * 16, mode)
    assert key.decrypt_rsa_oaep(wrapped, digest="sha512", mgf_digest="sha256", label=b"label") == b"k" * 16
    for arguments in (
        {"digest": "sha512", "mgf_digest": "sha256", "label": b""},
        {"digest": "sha512", "mgf_digest": "sha512", "label": b"label"},
        {"digest": "sha1", "mgf_digest": "sha256", "label": b"label"},
    ):
        with pytest.raises(ValueError, match=r".*"):
            key.decrypt_rsa_oaep(wrapped, **arguments)  # type: ignore[arg-type]


def test_implicit_rejection(tmp_path: Path) -> None:
    """The library must answer wrong padding with random bytes, not with an error (S/MIME rule 2)."""
    put(tmp_path, "nurse", issued())
    (key,) = load_key_ring(tmp_path).keys_for([NURSE])
    for number in range(20):
        key.decrypt_rsa_pkcs1v15(bytes([1, number]) + bytes(254))


def test_agreement(tmp_path: Path) -> None:
    put(tmp_path, "nurse", issued(key_type="p256"))
    (key,) = load_key_ring(tmp_path).keys_for([NURSE])
    peer = ec.generate_private_key(ec.SECP256R1())
    own = x509.load_der_x509_certificate(key.certificate).public_key()
    assert isinstance(own, ec.EllipticCurvePublicKey)
    assert key.agree(spki(peer.public_key())) == peer.exchange(ec.ECDH(), own)
    for stranger in (
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        x25519.X25519PrivateKey.generate().public_key(),
    ):
        with pytest.raises(RefusedError):
            key.agree(spki(stranger))


def spki(key: ec.EllipticCurvePublicKey | x25519.X25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_x25519(tmp_path: Path) -> None:
    own, peer = x25519.X25519PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    ca_key = private(Issued(authority().certificate_pem, authority().key_pem))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.load_pem_x509_certificate(authority().certificate_pem).subject)
        .public_key(own.public_key())
        .serial_number(5)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(NURSE)]), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    pem = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    put(tmp_path, "nurse", Issued(certificate.public_bytes(serialization.Encoding.PEM), pem))
    (key,) = load_key_ring(tmp_path).keys_for([NURSE])
    assert key.agree(spki(peer.public_key())) == peer.exchange(own.public_key())


def test_a_signing_key_is_loaded_but_cannot_decrypt(tmp_path: Path) -> None:
    put(tmp_path, "nurse", issued(key_type="ed25519"))
    (key,) = load_key_ring(tmp_path).keys_for([NURSE])
    with pytest.raises(RefusedError):
        key.decrypt_rsa_pkcs1v15(b"x" * 256)
    with pytest.raises(RefusedError):
        key.decrypt_rsa_oaep(b"x" * 256, digest="sha1", mgf_digest="sha1", label=b"")
    with pytest.raises(RefusedError):
        key.agree(spki(x25519.X25519PrivateKey.generate().public_key()))


def test_a_small_key_is_a_warning(tmp_path: Path) -> None:
    put(tmp_path, "nurse", issued(key_type="rsa1024"))
    assert "below 2048" in load_key_ring(tmp_path).warnings[0]


def test_one_certificate_twice_is_one_key(tmp_path: Path) -> None:
    put(tmp_path, "nurse", issued())
    (tmp_path / "nurse.p12").write_bytes(make_p12(issued(), None))
    assert len(load_key_ring(tmp_path).keys) == 1


def test_nothing_secret_in_a_representation() -> None:
    assert "PRIVATE" not in repr(issued())
    key = FileKey(issued().certificate_der, (), (), NOW, "nurse.cert.pem", private(issued()))
    assert repr(key) == "FileKey('nurse.cert.pem')"
    assert KeyRing([key]).keys == (key,)
