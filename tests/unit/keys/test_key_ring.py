"""Which keys are offered, in which order, and how fast (AS-12..14, AS-49, AS-76)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.core.errors import InputError, RefusedError
from gateway.keys.development_pki import Issued
from gateway.keys.file_key import FileKey, file_key_from_pem, make_file_key
from gateway.keys.key_ring import KeyRing
from gateway.ports import KeyRing as KeyRingPort
from gateway.sta.cms.enveloped import open_enveloped
from gateway.sta.cms.writing import encrypt
from tests.unit.sta_cms.cms_samples import NOW, RECIPIENT, SENDER, TEXT, authority, identity

DOMAIN = "clinic.example.org"
DAY = timedelta(days=1)


def key_of(issued: Issued, source: str = "") -> FileKey:
    return file_key_from_pem(issued.certificate_pem, issued.key_pem, source=source)


def issue(
    name: str = RECIPIENT, *, usage: Sequence[str] | None = None, age: int = 0, kind: str = "p256", life: int = 800
) -> FileKey:
    options = {} if usage is None else {"key_usage": usage}
    make = authority().issue_address if "@" in name else authority().issue_domain
    begins = NOW - age * DAY
    key_pem = identity(RECIPIENT, kind).key_pem  # One key will do: the ring looks at certificates.
    return key_of(make(name, not_before=begins, not_after=begins + life * DAY, key_pem=key_pem, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "usage", "signs", "decrypts"),
    [
        ("rsa2048", None, True, True),
        ("rsa2048", (), True, True),
        ("rsa2048", ("digital_signature",), True, False),
        ("rsa2048", ("content_commitment",), True, False),
        ("rsa2048", ("key_encipherment",), False, True),
        ("rsa2048", ("key_agreement", "data_encipherment"), False, False),
        ("p256", None, True, True),
        ("p256", (), True, True),
        ("p256", ("digital_signature",), True, False),
        ("p256", ("key_agreement",), False, True),
        ("p256", ("key_encipherment",), False, False),
        ("ed25519", None, True, False),
        ("ed25519", (), True, False),
    ],
)
def test_what_a_certificate_lets_its_key_do(
    kind: str, usage: Sequence[str] | None, *, signs: bool, decrypts: bool
) -> None:
    """AS-12, RFC 5280 section 4.2.1.3."""
    key = issue(kind=kind, usage=usage)
    assert (key.may_sign, key.may_decrypt) == (signs, decrypts)
    ring = KeyRing([key])
    assert bool(ring.signers_for(RECIPIENT)) is signs
    assert list(ring.keys_for([RECIPIENT])) == [key]
    if signs:
        assert key.sign(b"data", digest="sha256")
    else:
        with pytest.raises(RefusedError, match="may not sign"):
            key.sign(b"data", digest="sha256")


def test_a_key_that_is_not_for_decryption_is_offered_last_but_opens_all_the_same() -> None:
    """AS-49: a peer may have encrypted to the wrong certificate; its mail is not lost for it."""
    signing = issue(usage=["digital_signature"], age=0)
    sealing = issue(usage=["key_agreement"], age=30)
    older = issue(usage=["key_agreement"], age=60)
    ring = KeyRing([signing, older, sealing])
    assert list(ring.keys_for([RECIPIENT])) == [sealing, older, signing]
    assert list(ring.signers_for(RECIPIENT)) == [signing]
    assert ring.warnings == ()
    assert open_enveloped(encrypt(TEXT, [signing.certificate]), ring.keys_for([RECIPIENT])).content == TEXT


def test_names_that_nobody_can_encrypt_to_are_a_warning() -> None:
    ring = KeyRing([key_of(identity(RECIPIENT, "ed25519"), "nurse.cert.pem"), issue(SENDER)])
    (warning,) = ring.warnings
    assert warning.startswith("nurse.cert.pem may not decrypt, and no other key of its names may")


def test_order_over_several_recipients() -> None:
    """Those of addresses first, then those of domains; within each the ones for decryption, newest first."""
    first = issue("a@clinic.example.org", age=30)
    second = issue("b@clinic.example.org", age=10)
    signing = issue("b@clinic.example.org", usage=["digital_signature"], age=1)
    domain = issue(DOMAIN, age=0)
    elsewhere = issue("practice.example.com", age=20)
    ring = KeyRing([domain, signing, first, elsewhere, second])
    asked = [
        "A@clinic.example.org",
        "b@CLINIC.example.org",
        "c@practice.example.com",
        "rubbish",
        "a@clinic.example.org",
    ]
    assert list(ring.keys_for(asked)) == [second, first, signing, domain, elsewhere]
    assert list(ring.keys_for(["a@clinic.example.org"])) == [first, domain]
    assert list(ring.keys_for([DOMAIN, "x@sub.clinic.example.org", "x@example.org"])) == []


def test_signers_by_address_then_domain_newest_first() -> None:
    """AS-13, AS-14, AS-76."""
    old, new = issue(age=300, life=250), issue(age=10)
    coming = issue(age=-5)
    domain = issue(DOMAIN, age=1)
    ring: KeyRing = KeyRing([domain, old, coming, new])
    port: KeyRingPort = ring
    assert list(port.signers_for(RECIPIENT.upper())) == [coming, new, old, domain]
    assert list(ring.signers_for(RECIPIENT, NOW)) == [new, domain]
    assert list(ring.signers_for(RECIPIENT, NOW + 6 * DAY)) == [coming, new, domain]
    assert list(ring.signers_for(RECIPIENT, NOW + 4000 * DAY)) == []
    assert list(ring.signers_for("other@clinic.example.org", NOW)) == [domain]
    assert list(ring.signers_for("nobody@example.com", NOW)) == list(ring.signers_for("rubbish")) == []


def test_validity_holds_at_both_ends() -> None:
    key = issue(age=10)
    for moment, valid in ((key.not_before, True), (key.not_after, True), (key.not_after + timedelta(seconds=1), False)):
        assert bool(KeyRing([key]).signers_for(RECIPIENT, moment)) is valid


def test_names_and_domains() -> None:
    ring = KeyRing([issue(), issue(SENDER), issue(DOMAIN)])
    assert ring.names() == {RECIPIENT, SENDER, DOMAIN}
    assert ring.domains() == {DOMAIN, "practice.example.com"}
    assert ring.names() is ring.names()
    assert ring.domains() is ring.domains()
    assert KeyRing(()).names() == KeyRing(()).domains() == frozenset()


@dataclass(frozen=True)
class Stub:
    """A key that is only looked for: ten thousand real ones take minutes to make."""

    certificate: bytes
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    chain: tuple[bytes, ...] = ()
    source: str = "stub"
    may_sign: bool = True
    may_decrypt: bool = True

    def decrypt_rsa_pkcs1v15(self, encrypted_key: bytes) -> bytes:
        raise NotImplementedError

    def decrypt_rsa_oaep(self, encrypted_key: bytes, *, digest: str, mgf_digest: str, label: bytes) -> bytes:
        raise NotImplementedError

    def agree(self, peer_public_key: bytes) -> bytes:
        raise NotImplementedError

    def sign(self, data: bytes, *, digest: str) -> bytes:
        raise NotImplementedError

    def recheck(self) -> bool:
        return False


def test_ten_thousand_identities_cost_no_more_than_ten() -> None:
    """In CPU time, with room for a busy machine: a search through all keys would be some hundred times slower."""

    def ring_of(count: int) -> KeyRing:
        return KeyRing(
            [Stub(b"%d" % n, (f"user{n}@clinic{n % 500}.example.org",), NOW - n * DAY) for n in range(count)]
        )

    def cost(ring: KeyRing) -> float:
        best = float("inf")
        for _ in range(5):
            start = time.process_time()
            for _ in range(300):
                assert len(ring.keys_for(["user7@clinic7.example.org"])) == 1
                assert len(ring.signers_for("user7@clinic7.example.org", NOW)) == 1
                ring.names()
                ring.domains()
            best = min(best, time.process_time() - start)
        return best

    assert cost(ring_of(10_000)) < 5 * cost(ring_of(10)) + 0.005


def test_signing_with_ed25519_and_encryption_with_x25519() -> None:
    """One name, two certificates of modern kinds (AS-13)."""
    signing = key_of(identity(RECIPIENT, "ed25519"))
    own, peer = x25519.X25519PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    sealing = make_file_key(certificate_for(own.public_key()), own, source="x25519")
    ring = KeyRing([signing, sealing])
    assert list(ring.keys_for([RECIPIENT])) == [sealing, signing]
    assert list(ring.signers_for(RECIPIENT, NOW)) == [signing]
    public = x509.load_der_x509_certificate(signing.certificate).public_key()
    assert isinstance(public, ed25519.Ed25519PublicKey)
    public.verify(signing.sign(b"data", digest="sha512"), b"data")
    spki = peer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert sealing.agree(spki) == peer.exchange(own.public_key())
    with pytest.raises(RefusedError):
        sealing.sign(b"data", digest="sha256")


def certificate_for(key: x25519.X25519PublicKey) -> x509.Certificate:
    issuer = file_key_from_pem(authority().certificate_pem, authority().key_pem)
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=True, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.load_der_x509_certificate(issuer.certificate).subject)
        .public_key(key)
        .serial_number(77)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(RECIPIENT)]), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer._key, hashes.SHA256())  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("certificate", "key", "complaint"),
    [
        (b"rubbish", identity(SENDER).key_pem, "cannot be read"),
        (identity(SENDER).certificate_pem, b"rubbish", "cannot be read"),
        (identity(SENDER).certificate_pem, identity(RECIPIENT).key_pem, "does not belong"),
    ],
)
def test_an_identity_from_pem_that_does_not_hold_together(certificate: bytes, key: bytes, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        file_key_from_pem(certificate, key)
    assert "PRIVATE" not in str(caught.value)


def test_digests_that_no_signature_may_use() -> None:
    for kind in ("rsa2048", "p256"):
        with pytest.raises(RefusedError, match="md5 is not allowed"):
            issue(kind=kind).sign(b"data", digest="md5")
