"""Opening EnvelopedData and AuthEnvelopedData (AS-14, AS-33, AS-34, AS-36, AS-37, AS-39, AS-49, AS-93)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms, core
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric import rsa as rsa_keys
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from gateway.core.errors import ConfigurationError, RejectionError
from gateway.core.verdict import Reason
from gateway.keys.file_key import FileKey
from gateway.sta.algorithm_policy import AlgorithmPolicy
from gateway.sta.cms import enveloped
from gateway.sta.cms.content_info import content_type
from gateway.sta.cms.enveloped import Opened, open_enveloped
from gateway.sta.cms.writing import encrypt
from tests.support.der_forge import NULL, algorithm
from tests.support.forge_envelopes import cbc, ktri
from tests.support.forge_envelopes import enveloped as enveloped_by_hand
from tests.support.forge_names import RSA
from tests.unit.sta_cms.cms_samples import (
    RECIPIENT,
    SENDER,
    TEXT,
    OpenSSL,
    children,
    file_key,
    identity,
    indefinite,
    tlv,
)

BIG = b"Content-Type: text/plain\r\n\r\n" + bytes(range(256)) * 20_000


def rejection(der: bytes, keys: Sequence[Any], policy: AlgorithmPolicy | None = None) -> RejectionError:
    with pytest.raises(RejectionError) as caught:
        open_enveloped(der, keys, policy or AlgorithmPolicy())
    return caught.value


@pytest.fixture(scope="module")
def rsa() -> FileKey:
    return file_key(identity(RECIPIENT))


@pytest.fixture(scope="module")
def p256() -> FileKey:
    return file_key(identity(RECIPIENT, "p256"))


# --- what openssl makes ---


_CIPHERS = ["aes-128-cbc", "aes-192-cbc", "aes-256-cbc"]


@pytest.mark.parametrize(
    ("cipher", "stream"),
    [
        *((cipher, stream) for cipher in _CIPHERS for stream in ((), ("-stream",))),
        ("aes-128-gcm", ()),  # the openssl command cannot stream AuthEnvelopedData
        ("aes-256-gcm", ()),
    ],
)
@pytest.mark.parametrize("content", [TEXT, BIG], ids=["small", "big"])
def test_content_encryption(
    openssl: OpenSSL, rsa: FileKey, cipher: str, content: bytes, stream: tuple[str, ...]
) -> None:
    certificate, _ = openssl.identity(identity(RECIPIENT), "r")
    der = openssl.encrypt(content, f"-{cipher}", *stream, certificate)
    opened = open_enveloped(der, [rsa])
    assert opened == Opened(opened.span, cipher, "rsa-pkcs1v15", 1, ())
    assert opened.content == content
    assert content_type(der) == ("auth-enveloped-data" if cipher.endswith("gcm") else "enveloped-data")
    if stream:
        assert der[1] == 0x80


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize("mgf", ["sha1", "sha256"])
def test_oaep_reads_hash_mask_and_label(openssl: OpenSSL, rsa: FileKey, digest: str, mgf: str) -> None:
    certificate, _ = openssl.identity(identity(RECIPIENT), "r")
    options = ["rsa_padding_mode:oaep", f"rsa_oaep_md:{digest}", f"rsa_mgf1_md:{mgf}", "rsa_oaep_label:616263"]
    arguments = [word for option in options for word in ("-keyopt", option)]
    der = openssl.encrypt(TEXT, "-aes256", "-recip", certificate, *arguments)
    opened = open_enveloped(der, [rsa])
    assert opened.content == TEXT
    assert opened.key_transport == f"rsa-oaep-{digest}"


def test_recipient_by_key_identifier(openssl: OpenSSL, rsa: FileKey) -> None:
    certificate, _ = openssl.identity(identity(RECIPIENT), "r")
    assert open_enveloped(openssl.encrypt(TEXT, "-aes256", "-keyid", certificate), [rsa]).content == TEXT


@pytest.mark.parametrize("kdf", ["sha1", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize("cipher", ["aes128", "aes192", "aes256"])
@pytest.mark.parametrize("curve", ["p256", "p384"])
def test_key_agreement(openssl: OpenSSL, curve: str, cipher: str, kdf: str) -> None:
    issued = identity(RECIPIENT, curve)
    certificate, _ = openssl.identity(issued, "r")
    for by_key in ((), ("-keyid",)):
        der = openssl.encrypt(TEXT, f"-{cipher}", *by_key, "-recip", certificate, "-keyopt", f"ecdh_kdf_md:{kdf}")
        opened = open_enveloped(der, [file_key(issued)])
        assert opened.content == TEXT
        assert opened.key_transport == f"ecdh-{kdf}kdf+aes-{cipher[3:]}-wrap"


@pytest.mark.parametrize("order", [("r", "e"), ("e", "r")])
def test_mixed_recipients_in_any_order(openssl: OpenSSL, rsa: FileKey, p256: FileKey, order: tuple[str, str]) -> None:
    openssl.identity(identity(RECIPIENT), "r")
    openssl.identity(identity(RECIPIENT, "p256"), "e")
    der = openssl.encrypt(TEXT, "-aes256", *(f"{name}.cert.pem" for name in order))
    for keys in ([rsa], [p256], [p256, rsa], [file_key(identity(SENDER)), rsa]):
        opened = open_enveloped(der, keys)
        assert opened.content == TEXT
        assert opened.recipients == 2


def test_password_recipient_is_skipped(openssl: OpenSSL, rsa: FileKey) -> None:
    certificate, _ = openssl.identity(identity(RECIPIENT), "r")
    der = openssl.encrypt(TEXT, "-aes256", "-pwri_password", "secret", certificate)
    opened = open_enveloped(der, [rsa])
    assert opened.content == TEXT
    assert opened.recipients == 2
    assert any("skipped" in note for note in opened.notes)


@pytest.mark.parametrize("cipher", ["des3", "des"])
def test_weak_content_encryption_is_refused_by_name(openssl: OpenSSL, rsa: FileKey, cipher: str) -> None:
    """AS-34."""
    certificate, _ = openssl.identity(identity(RECIPIENT), "r")
    options = ("-provider", "default", "-provider", "legacy") if cipher == "des" else ()
    error = rejection(openssl.encrypt(TEXT, f"-{cipher}", *options, certificate), [rsa])
    assert error.reason is Reason.WEAK_ALGORITHM
    assert "des" in error.detail


# --- keys ---


def test_no_key_of_ours(rsa: FileKey) -> None:
    der = encrypt(TEXT, [identity(SENDER).certificate_der])
    assert rejection(der, [rsa]).reason is Reason.CANNOT_DECRYPT
    assert rejection(der, []).reason is Reason.CANNOT_DECRYPT


def test_every_key_is_tried_when_several_match(rsa: FileKey) -> None:
    """AS-14, AS-49: a renewed key may stand under the same identifier."""
    other = file_key(identity(SENDER))
    impostor = FileKey(rsa.certificate, (), (), rsa.not_before, "other key", other._key)
    der = encrypt(TEXT, [rsa.certificate])
    assert open_enveloped(der, [impostor, rsa]).content == TEXT
    assert rejection(der, [impostor]).reason is Reason.CANNOT_DECRYPT


class CountingKey:
    """A key that refuses everything and counts."""

    names: tuple[str, ...] = ()
    may_decrypt = True
    may_sign = False

    def __init__(self, certificate: bytes) -> None:
        self.certificate = certificate
        self.calls = 0

    def recheck(self) -> bool:
        return False

    def sign(self, data: bytes, *, digest: str) -> bytes:
        raise AssertionError

    def decrypt_rsa_pkcs1v15(self, encrypted_key: bytes) -> bytes:
        self.calls += 1
        raise RuntimeError("the token is on fire")

    def decrypt_rsa_oaep(self, encrypted_key: bytes, *, digest: str, mgf_digest: str, label: bytes) -> bytes:
        raise AssertionError

    def agree(self, peer_public_key: bytes) -> bytes:
        raise AssertionError


def edit_recipients(der: bytes, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """Return the message with other recipient entries."""
    kind, wrapper = children(der)
    version, infos, *rest = children(children(wrapper)[0])
    return tlv(0x30, kind, tlv(0xA0, tlv(0x30, version, tlv(0x31, *change(children(infos))), *rest)))


def test_private_operations_are_bounded(rsa: FileKey) -> None:
    key = CountingKey(rsa.certificate)
    der = edit_recipients(encrypt(TEXT, [rsa.certificate]), lambda infos: infos * 900)
    assert rejection(der, [key]).reason is Reason.CANNOT_DECRYPT
    assert key.calls == enveloped.MAX_PRIVATE_OPERATIONS


def test_too_many_recipients(rsa: FileKey) -> None:
    der = edit_recipients(encrypt(TEXT, [rsa.certificate]), lambda infos: infos * 1001)
    assert rejection(der, [rsa]).reason is Reason.RESOURCE_LIMIT


def test_unreadable_recipients_count_as_well(rsa: FileKey) -> None:
    der = edit_recipients(encrypt(TEXT, [rsa.certificate]), lambda infos: [*infos, *[tlv(0xA1)] * 1000])
    assert rejection(der, [rsa]).reason is Reason.RESOURCE_LIMIT


def test_any_failure_of_a_key_looks_the_same(rsa: FileKey) -> None:
    """S/MIME rule 2: an error, a key of the wrong length and a wrong key end in one error."""
    der = encrypt(TEXT, [rsa.certificate])

    class WrongLength(CountingKey):
        def decrypt_rsa_pkcs1v15(self, encrypted_key: bytes) -> bytes:
            return b"short"

    class WrongKey(CountingKey):
        def decrypt_rsa_pkcs1v15(self, encrypted_key: bytes) -> bytes:
            return bytes(32)

    details = {str(rejection(der, [kind(rsa.certificate)])) for kind in (CountingKey, WrongLength, WrongKey)}
    assert details == {"cannot_decrypt: no private key here opens the message"}


def test_a_random_key_never_yields_content(rsa: FileKey, monkeypatch: pytest.MonkeyPatch) -> None:
    """CBC padding fits a wrong key once in 256 times; what it then yields must not pass for content.

    All of the message is fixed, because one random key in about 100,000 does yield what looks like a header field.
    """
    entry = ktri(x509.load_der_x509_certificate(rsa.certificate), bytes(256), algorithm(RSA, NULL))
    der = enveloped_by_hand([entry], cbc(bytes(32), TEXT))
    for number in range(600):
        monkeypatch.setattr(enveloped, "_FALLBACK_SECRET", number.to_bytes(32, "big"))
        assert rejection(der, [CountingKey(rsa.certificate)]).reason is Reason.CANNOT_DECRYPT


def test_a_small_key_of_ours_is_refused() -> None:
    """AS-35."""
    weak = identity(RECIPIENT, "rsa1024")
    strong = encrypt(TEXT, [identity(RECIPIENT).certificate_der])
    der = edit_recipients(strong, lambda infos: [_with_identifier_of(infos[0], weak.certificate_der)])
    assert rejection(der, [file_key(weak)]).reason is Reason.WEAK_ALGORITHM


def _with_identifier_of(info: bytes, certificate: bytes) -> bytes:
    parsed = cms.KeyTransRecipientInfo.load(info, strict=True)
    body = cms.Certificate.load(certificate)["tbs_certificate"]
    parsed["rid"] = cms.RecipientIdentifier(
        "issuer_and_serial_number",
        cms.IssuerAndSerialNumber({"issuer": body["issuer"], "serial_number": body["serial_number"]}),
    )
    encoded: bytes = parsed.dump(force=True)
    return encoded


def test_issuer_encoded_anew_still_matches(rsa: FileKey) -> None:
    """Another string type and other case in the issuer of the rid (RFC 5280 section 7.1)."""

    def change(infos: list[bytes]) -> list[bytes]:
        version, rid, *rest = children(infos[0])
        issuer, serial = children(rid)
        changed = issuer.replace(b"\x0c\x07Test CA", b"\x13\x07TEST ca")
        assert changed != issuer
        return [tlv(0x30, version, tlv(0x30, changed, serial), *rest)]

    assert open_enveloped(edit_recipients(encrypt(TEXT, [rsa.certificate]), change), [rsa]).content == TEXT


def agreement_entry(recipient: FileKey, *, in_message: bytes, in_derivation: bytes, ukm: bytes | None) -> bytes:
    """A KeyAgreeRecipientInfo (RFC 5753) for the AES-256 key 00 01 .. 1f, written down a second time."""
    public = x509.load_der_x509_certificate(recipient.certificate).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    ephemeral = ec.generate_private_key(public.curve)
    entity = b"" if ukm is None else tlv(0xA0, tlv(0x04, ukm))
    info = tlv(0x30, in_derivation, entity, tlv(0xA2, tlv(0x04, bytes((0, 0, 1, 0)))))
    wrapping = X963KDF(hashes.SHA384(), 32, info).derive(ephemeral.exchange(ec.ECDH(), public))
    point = ephemeral.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    originator = tlv(0xA1, tlv(0x30, core.ObjectIdentifier("1.2.840.10045.2.1").dump()), tlv(0x03, b"\0" + point))
    rid = tlv(0xA0, tlv(0x04, cms.Certificate.load(recipient.certificate).key_identifier))
    return tlv(
        0xA1,
        tlv(0x02, b"\3"),
        tlv(0xA0, originator),
        b"" if ukm is None else tlv(0xA1, tlv(0x04, ukm)),
        tlv(0x30, core.ObjectIdentifier("1.3.132.1.11.2").dump(), in_message),
        tlv(0x30, tlv(0x30, rid, tlv(0x04, aes_key_wrap(wrapping, bytes(range(32)))))),
    )


_WRAP = core.ObjectIdentifier("2.16.840.1.101.3.4.1.45").dump()
_ABSENT, _NULL = tlv(0x30, _WRAP), tlv(0x30, _WRAP, b"\x05\x00")


@pytest.mark.parametrize("ukm", [None, b"", b"some keying material"])
@pytest.mark.parametrize("in_message", [_ABSENT, _NULL], ids=["absent", "null"])
@pytest.mark.parametrize("in_derivation", [_ABSENT, _NULL], ids=["absent", "null"])
def test_parameters_of_the_key_wrap(
    rsa: FileKey, p256: FileKey, in_message: bytes, in_derivation: bytes, ukm: bytes | None
) -> None:
    """The derivation sees the key wrap as it stands in the message, or with NULL and absent exchanged."""
    entry = agreement_entry(p256, in_message=in_message, in_derivation=in_derivation, ukm=ukm)
    der = edit_recipients(gcm_message(rsa, tag_bytes=16, announced=16), lambda infos: [*infos, entry])
    opened = open_enveloped(der, [p256])
    assert opened.content == TEXT
    assert opened.key_transport == "ecdh-sha384kdf+aes-256-wrap"


# --- shapes ---


def test_ber_around_and_inside(rsa: FileKey) -> None:
    der = encrypt(TEXT, [rsa.certificate])
    for depth in range(1, 6):
        assert open_enveloped(indefinite(der, depth), [rsa]).content == TEXT


def test_memoryview_input(rsa: FileKey) -> None:
    assert open_enveloped(memoryview(b"xx" + encrypt(TEXT, [rsa.certificate]))[2:], [rsa]).content == TEXT


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1 << 20, (1 << 20) + 1])
def test_every_length(rsa: FileKey, size: int) -> None:
    content = b"a" * size
    assert open_enveloped(encrypt(content, [rsa.certificate]), [rsa]).content == content


@pytest.mark.parametrize("transport", ["rsa-pkcs1v15", "rsa-oaep-sha256"])
def test_own_writer_and_reader_agree(rsa: FileKey, p256: FileKey, transport: str) -> None:
    der = encrypt(TEXT, [rsa.certificate, p256.certificate, rsa.certificate], transport)
    assert open_enveloped(der, [rsa]).key_transport == transport
    assert open_enveloped(der, [p256]).recipients == 2


def gcm_message(rsa: FileKey, *, tag_bytes: int, announced: int | None, attributes: bytes = b"") -> bytes:
    """Build an AuthEnvelopedData with asn1crypto's tables and an AES-GCM of the library."""
    key, nonce = bytes(range(32)), bytes(12)
    info = cms.KeyTransRecipientInfo.load(children(children(children(encrypt(TEXT, [rsa.certificate]))[1])[0])[1][4:])
    public = x509.load_der_x509_certificate(rsa.certificate).public_key()
    assert isinstance(public, rsa_keys.RSAPublicKey)
    info["encrypted_key"] = public.encrypt(key, padding.PKCS1v15())
    aad = tlv(0x31, attributes) if attributes else b""
    sealed = AESGCM(key).encrypt(nonce, TEXT, aad)
    size = b"" if announced is None else tlv(0x02, bytes([announced]))
    oid = bytes.fromhex("060960864801650304012e")
    content = tlv(
        0x30,
        bytes.fromhex("06092a864886f70d010701"),
        tlv(0x30, oid, tlv(0x30, tlv(0x04, nonce), size)),
        tlv(0x80, sealed[:-16]),
    )
    body = tlv(
        0x30,
        tlv(0x02, b"\0"),
        tlv(0x31, info.dump(force=True)),
        content,
        tlv(0xA1, attributes) if attributes else b"",
        tlv(0x04, sealed[-16:][:tag_bytes]),
    )
    return tlv(0x30, bytes.fromhex("060b2a864886f70d0109100117"), tlv(0xA0, body))


@pytest.mark.parametrize(("tag_bytes", "announced"), [(16, 16), (12, 12), (12, None), (13, 13)])
def test_tag_lengths_that_rfc_5084_allows(rsa: FileKey, tag_bytes: int, announced: int | None) -> None:
    assert open_enveloped(gcm_message(rsa, tag_bytes=tag_bytes, announced=announced), [rsa]).content == TEXT


@pytest.mark.parametrize(("tag_bytes", "announced"), [(4, 4), (8, 8), (16, None), (12, 16), (4, 16), (16, 17), (0, 16)])
def test_other_tags_are_refused(rsa: FileKey, tag_bytes: int, announced: int | None) -> None:
    """S/MIME rule 22; e05."""
    error = rejection(gcm_message(rsa, tag_bytes=tag_bytes, announced=announced), [rsa])
    assert error.reason in (Reason.WEAK_ALGORITHM, Reason.MALFORMED)


def test_authenticated_attributes_are_associated_data(rsa: FileKey) -> None:
    attributes = tlv(0x30, bytes.fromhex("06092a864886f70d010903"), tlv(0x31, bytes.fromhex("06092a864886f70d010701")))
    der = gcm_message(rsa, tag_bytes=16, announced=16, attributes=attributes)
    assert open_enveloped(der, [rsa]).content == TEXT
    altered = der.replace(attributes, attributes[:-1] + b"\x02")
    assert altered != der
    assert rejection(altered, [rsa]).reason is Reason.CANNOT_DECRYPT


def test_altered_ciphertext_under_a_tag(rsa: FileKey) -> None:
    der = bytearray(gcm_message(rsa, tag_bytes=16, announced=16))
    der[-30] ^= 1
    assert rejection(bytes(der), [rsa]).reason is Reason.CANNOT_DECRYPT


def test_unauthenticated_attributes_and_originator_are_ignored(rsa: FileKey) -> None:
    kind, wrapper = children(encrypt(TEXT, [rsa.certificate]))
    version, infos, content = children(children(wrapper)[0])
    originator = tlv(0xA0, tlv(0xA0, identity(SENDER).certificate_der))
    unprotected = tlv(0xA1, tlv(0x30, bytes.fromhex("06032a0304"), tlv(0x31, b"\x05\x00")))
    der = tlv(0x30, kind, tlv(0xA0, tlv(0x30, version, originator, infos, content, unprotected)))
    assert open_enveloped(der, [rsa]).content == TEXT


def test_gcm_in_enveloped_data_is_a_flag(attacks: Path) -> None:
    """AS-93 as decided in the algorithm matrix: off by default."""
    key = key_of(attacks / "rcpt.pem", attacks / "rcpt.key")
    der = body_of(attacks / "e07_gcm_in_envelopeddata.eml")
    assert rejection(der, [key]).reason is Reason.WEAK_ALGORITHM
    lenient = AlgorithmPolicy(gcm_in_enveloped_data=True)
    assert b"direct.example.org" in bytes(open_enveloped(der, [key], lenient).content)


def test_a_policy_cannot_go_below_the_floor() -> None:
    """AS-41."""
    with pytest.raises(ConfigurationError):
        AlgorithmPolicy(min_rsa_bits=1024)


def test_a_policy_may_refuse_more(rsa: FileKey) -> None:
    der = encrypt(TEXT, [rsa.certificate])
    for name in ("aes-256-cbc", "rsa-pkcs1v15"):
        assert rejection(der, [rsa], AlgorithmPolicy(refused=frozenset({name}))).reason is Reason.WEAK_ALGORITHM


# --- published vectors ---


def key_of(certificate: Path, key: Path) -> FileKey:
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    private: Any = serialization.load_pem_private_key(key.read_bytes(), None)
    der = loaded.public_bytes(serialization.Encoding.DER)
    return FileKey(der, (), (), loaded.not_valid_before_utc, certificate.name, private)


def body_of(path: Path) -> bytes:
    return base64.b64decode(path.read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")[2])


_OPENING = {
    "e00": "ok",
    "e01": "ok",
    "e02": "ok",
    "e03": Reason.CANNOT_DECRYPT,
    "e04": "ok",
    "e05": Reason.WEAK_ALGORITHM,
    "e06": Reason.CANNOT_DECRYPT,
    "e07": Reason.WEAK_ALGORITHM,
    "e08": Reason.CANNOT_DECRYPT,
    "e09": Reason.CANNOT_DECRYPT,
    "e10": Reason.CANNOT_DECRYPT,
    "e11": Reason.CANNOT_DECRYPT,
    "e13": "ok",  # as a primitive it opens; that it is unsigned is for the verdict
    "e14": Reason.MALFORMED,
    "e15": Reason.CANNOT_DECRYPT,
    "e16": Reason.RESOURCE_LIMIT,
    "e17": "ok",
    "e18": Reason.CANNOT_DECRYPT,
    "e19": "ok",
}


def test_attack_vectors_on_encryption(attacks: Path) -> None:
    key = key_of(attacks / "rcpt.pem", attacks / "rcpt.key")
    for entry in json.loads((attacks / "manifest.json").read_text()):
        name = entry["file"]
        expected = _OPENING.get(name[:3])
        if expected is None:
            continue
        try:
            open_enveloped(body_of(attacks / name), [key])
            outcome: object = "ok"
        except RejectionError as error:
            outcome = error.reason
        assert outcome == expected, name


def test_attack_vectors_on_asn1(attacks: Path) -> None:
    key = key_of(attacks / "rcpt.pem", attacks / "rcpt.key")
    files = sorted(attacks.glob("a*.der"))
    assert files
    for path in files:
        assert rejection(path.read_bytes(), [key]).reason in (Reason.MALFORMED, Reason.RESOURCE_LIMIT), path.name


@pytest.mark.parametrize(
    ("name", "who", "content_encryption", "key_transport"),
    [
        ("encryptedForBobRSAOaep", "bob", "aes-128-cbc", "rsa-oaep-sha256"),
        ("encryptedForBobAndDana", "bob", "aes-128-cbc", "rsa-oaep-sha256"),
        ("encryptedForBobAndDana", "dana", "aes-128-cbc", "ecdh-sha256kdf+aes-128-wrap"),
        ("authEnvelopedForBobChaCha20Poly1305", "bob", "chacha20-poly1305", "rsa-oaep-sha256"),
        ("authEnvelopedForDanaX25519HKDF", "dana", "aes-128-gcm", "ecdh-hkdf-sha256+aes-256-wrap"),
    ],
)
def test_published_examples(examples: Path, name: str, who: str, content_encryption: str, key_transport: str) -> None:
    keys = examples / "certs-and-keys"
    key = key_of(keys / f"lamps-{who}.encrypt.crt", keys / f"lamps-{who}.decrypt.p8.pem")
    opened = open_enveloped((examples / "binary-files" / f"{name}.p7m").read_bytes(), [key])
    assert bytes(opened.content) == b"This is some sample content."
    assert (opened.content_encryption, opened.key_transport) == (content_encryption, key_transport)


def test_published_example_of_a_shared_key_is_not_for_us(examples: Path) -> None:
    keys = examples / "certs-and-keys"
    key = key_of(keys / "lamps-bob.encrypt.crt", keys / "lamps-bob.decrypt.p8.pem")
    der = (examples / "binary-files" / "encryptedKekri.p7m").read_bytes()
    assert rejection(der, [key]).reason is Reason.CANNOT_DECRYPT
