"""Trust bundle files: every form, who signed, what is left out, what is refused (TB-1..4, TB-13, TB-15)."""

from __future__ import annotations

import base64
import itertools
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import BundleError
from gateway.sta.algorithm_policy import AlgorithmPolicy
from gateway.sta.certificates import Certificate
from gateway.sta.trust_anchors import bundle_file
from gateway.sta.trust_anchors.bundle_file import BundleContent, read_bundle
from gateway.sta.trust_anchors.bundle_metadata import MAX_METADATA_BYTES, BundleMetadata
from tests.support import bouncy_castle
from tests.support.bundle_files import (
    NOW,
    Signing,
    anchor,
    armoured,
    ber_p7b,
    certificate,
    der,
    metadata,
    p7b,
    p7m,
    pem,
    publisher,
    tlv,
)
from tests.support.pki import Identity, rsa_key

PUBLISHER = Certificate(der(publisher()))


def read(data: bytes, signer: Certificate | None = None, at: datetime = NOW) -> BundleContent:
    return read_bundle(data, signer, at)


def held(content: BundleContent) -> list[bytes]:
    return [one.der for one in content.anchors]


def refused(data: bytes, signer: Certificate | None = None, at: datetime = NOW) -> BundleError:
    with pytest.raises(BundleError) as caught:
        read(data, signer, at)
    return caught.value


# --- forms (TB-1, TB-2) ---


@pytest.mark.parametrize(
    "form",
    [
        p7b,
        ber_p7b,
        lambda *a: armoured(p7b(*a)),
        lambda *a: armoured(ber_p7b(*a), "CMS"),
        lambda *a: b"\xef\xbb\xbf" + armoured(p7b(*a)),
        lambda *a: armoured(p7b(*a)).replace(b"\n", b"\r\n"),
        lambda *a: b"subject=CN = Anchor\n\n" + pem(*a),
        lambda *a: base64.b64encode(p7b(*a)),
        lambda *a: base64.encodebytes(p7b(*a)),
        lambda *a: p7b(*a) + b"\n",
        lambda *a: armoured(p7b(a[0])) + pem(*a[1:]),
    ],
)
def test_every_form_gives_the_same_anchors_in_their_order(form: Callable[..., bytes]) -> None:
    wanted = (anchor(3), anchor(1), anchor(2))
    content = read(form(*wanted))
    assert held(content) == [der(one) for one in wanted]
    assert (content.refused, content.signed, content.signature_checked) == ((), False, False)


@pytest.mark.parametrize("form", [der, pem, lambda one: der(one) + b"\n", lambda one: base64.b64encode(der(one))])
def test_a_single_certificate_is_a_bundle_of_one(form: Callable[[Identity], bytes]) -> None:
    assert held(read(form(anchor(1)))) == [der(anchor(1))]


def test_a_certificate_that_is_there_twice_counts_once() -> None:
    assert held(read(p7b(anchor(1), anchor(2), anchor(1)))) == [der(anchor(1)), der(anchor(2))]


@pytest.mark.parametrize("make", ["crl2pkcs7", "crl2pkcs7 -outform DER"])
def test_openssl_makes_bundles_that_are_read(tmp_path: Path, make: str) -> None:
    (tmp_path / "all.pem").write_bytes(pem(anchor(1), anchor(2)))
    command = ["openssl", *make.split(), "-nocrl", "-certfile", str(tmp_path / "all.pem"), "-out"]
    subprocess.run([*command, str(tmp_path / "out")], check=True, timeout=30)
    assert set(held(read((tmp_path / "out").read_bytes()))) == {der(anchor(1)), der(anchor(2))}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b" \r\n", "the file is empty"),
        (b"hello world", "no trust bundle"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"MIME-Version: 1.0\nContent-Type: application/x-pkcs7-mime\n\nMII=", "mail message"),
        (b"\x30\x03\x02\x01\x01", "empty"),
        (b"\x30\x80\x06", "cannot be read"),
        (p7b(anchor(1))[:-40], "cannot be read"),
        (p7b(anchor(1)) + b"junk", "cannot be read"),
        (armoured(p7b(anchor(1)), "PRIVATE KEY"), "other than certificates"),
        (b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "damaged PEM"),
        (tlv(0x30, bytes.fromhex("06092a864886f70d010701"), tlv(0xA0, tlv(0x04, b"x"))), "cannot be read"),
    ],
)
def test_what_is_no_bundle_is_refused_in_plain_words(data: bytes, words: str) -> None:
    error = refused(data)
    assert words in str(error) or error.cause == words


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_pem_file_that_was_cut_short_is_no_smaller_bundle(cut: int) -> None:
    """A regular expression over whole blocks would see two of three anchors, and the third would be untrusted."""
    whole = pem(anchor(1), anchor(2), anchor(3)).rstrip()
    assert "no end" in str(refused(whole[:-cut]))


def test_an_empty_bundle_is_an_alarm_and_not_an_empty_set() -> None:
    for data in (p7b(), p7b(certificate("old", ends=NOW - timedelta(days=1))), ber_p7b()):
        error = refused(data)
        assert (error.cause, error.alarming) == ("empty", True)


# --- limits ---


def test_size_and_number_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_file, "MAX_ANCHORS", 2)
    assert len(read(p7b(anchor(1), anchor(2))).anchors) == 2
    for data in (p7b(*[anchor(n) for n in range(3)]), pem(*[anchor(n) for n in range(3)])):
        assert refused(data).cause == "too_large"
    monkeypatch.setattr(bundle_file, "MAX_BUNDLE_BYTES", 100)
    assert refused(p7b(anchor(1))).cause == "too_large"


def test_two_thousand_anchors_are_read() -> None:
    """More than a message may hold: the walker of messages stops at 32."""
    many = [der(anchor(1))[:-1] + bytes([n & 0xFF]) for n in range(200)]
    content = read(p7b(*dict.fromkeys(many)))
    assert len(content.anchors) == 200, "the anchors' own signatures are no evidence"


# --- members (TB-13, TB-15) ---


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda: certificate("past", ends=NOW - timedelta(seconds=1)), "expired on 2026-03-01"),
        (lambda: certificate("leaf", is_ca=False), "certification authority"),
        (lambda: certificate("silent", is_ca=None), "certification authority"),
        (lambda: certificate("small", key=rsa_key(700, 1024)), "below 2048"),
        (lambda: certificate("curve", key=ec.generate_private_key(ec.SECP224R1())), "secp224r1"),
        (lambda: certificate("dsa", key=dsa.generate_private_key(2048)), "kind of key"),  # type: ignore[arg-type]
    ],
)
def test_one_member_that_may_not_be_an_anchor_is_left_out_with_its_cause(
    bad: Callable[[], Identity], words: str
) -> None:
    identity = bad()
    content = read(p7b(anchor(1), identity, anchor(2)))
    assert held(content) == [der(anchor(1)), der(anchor(2))]
    [left_out] = content.refused
    assert words in left_out.cause
    assert left_out.sha256 == Certificate(der(identity)).sha256
    assert left_out.subject.startswith("CN=")


def test_a_member_that_cannot_be_read_is_left_out() -> None:
    content = read(p7b(anchor(1), tlv(0x30, b"\x02\x01\x01"), tlv(0xA1, b"")))
    assert held(content) == [der(anchor(1))]
    assert [one.subject for one in content.refused] == ["", ""]


def test_what_publishers_do_is_no_reason_to_leave_an_anchor_out() -> None:
    """Authorities without keyCertSign, of tomorrow, of P-384, Ed25519 or RSA are in bundles that are published."""
    good = [
        certificate("no cert sign", cert_sign=False),
        certificate("tomorrow", begins=NOW + timedelta(days=1)),
        certificate("p384", key=ec.generate_private_key(ec.SECP384R1())),
        certificate("rsa", key=rsa_key(701)),
    ]
    content = read(p7b(*good))
    assert held(content) == [der(one) for one in good]


def test_the_floor_of_the_policy_counts_for_anchors() -> None:
    data = p7b(anchor(1), certificate("rsa", key=rsa_key(701)))
    assert len(read_bundle(data, None, NOW, AlgorithmPolicy(min_rsa_bits=3072)).anchors) == 1


# --- signed (TB-3) ---


@pytest.mark.parametrize("content", [p7b, ber_p7b, pem, lambda *a: armoured(p7b(*a))])
@pytest.mark.parametrize("wrap", [lambda d: d, armoured, base64.b64encode])
def test_a_signed_bundle_is_read_from_what_was_signed(
    content: Callable[..., bytes], wrap: Callable[[bytes], bytes]
) -> None:
    data = wrap(p7m(content(anchor(1), anchor(2)), publisher()))
    found = read(data, PUBLISHER)
    assert held(found) == [der(anchor(1)), der(anchor(2))]
    assert (found.signed, found.signature_checked) == (True, True)
    assert found.signing_time == NOW - timedelta(hours=1)


def test_the_publishers_own_certificates_are_no_anchors() -> None:
    """Else whoever puts a certificate beside the signature, which protects nothing there, would be trusted."""
    data = p7m(p7b(anchor(1)), publisher(), how=Signing(extra=(anchor(7),)))
    for signer in (PUBLISHER, None):
        assert held(read(data, signer)) == [der(anchor(1))]


def test_without_a_configured_signer_the_signature_is_reported_as_not_checked() -> None:
    found = read(p7m(p7b(anchor(1)), publisher()))
    assert (found.signed, found.signature_checked, found.signing_time) == (True, False, None)


@pytest.mark.parametrize("data", [p7b(anchor(1)), pem(anchor(1)), der(anchor(1)), ber_p7b(anchor(1))])
def test_a_configured_signer_must_have_signed(data: bytes) -> None:
    error = refused(data, PUBLISHER)
    assert (error.cause, error.alarming) == ("unsigned", True)


def test_another_signer_is_refused_even_with_the_same_name_and_serial() -> None:
    assert refused(p7m(p7b(anchor(1)), publisher(2)), PUBLISHER).cause == "wrong_signer"
    theirs = publisher().certificate
    forged = certificate("Publisher 1", key=rsa_key(699), is_ca=False)
    copied = replace(forged, certificate=theirs)
    error = refused(p7m(p7b(anchor(1)), copied), PUBLISHER)
    assert (error.cause, error.alarming) == ("bad_signature", True)


def test_one_good_signature_of_several_is_enough_in_any_order() -> None:
    for order in ((publisher(1), publisher(2)), (publisher(2), publisher(1))):
        assert read(p7m(p7b(anchor(1)), *order), PUBLISHER).signature_checked


def test_changed_content_is_refused() -> None:
    data = p7m(p7b(anchor(1)), publisher())
    place = data.index(der(anchor(1))) + 60
    changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    assert refused(changed, PUBLISHER).cause == "bad_signature"


def test_exchanged_content_is_refused() -> None:
    # ECDSA signatures, and with them certificates, differ in length: two of the same length are looked for.
    bundles = [p7b(anchor(n)) for n in range(1, 10)]
    one, other = next(pair for pair in itertools.combinations(bundles, 2) if len(pair[0]) == len(pair[1]))
    data = p7m(one, publisher())
    assert refused(data.replace(one, other), PUBLISHER).cause == "bad_signature"


@pytest.mark.parametrize("how", [Signing(digest="sha1"), Signing(attributes=False)])
def test_weak_or_bare_signatures_do_not_count(how: Signing) -> None:
    assert refused(p7m(p7b(anchor(1)), publisher(), how=how), PUBLISHER).cause == "bad_signature"


def test_a_signer_out_of_its_dates_does_not_count() -> None:
    late = PUBLISHER.not_after + timedelta(seconds=1)
    error = refused(p7m(p7b(anchor(1)), publisher()), PUBLISHER, late)
    assert error.cause == "signer_expired"
    assert "--signer" in str(error)


@pytest.mark.parametrize(
    "data",
    [
        p7m(None, publisher()),
        p7m(p7m(p7b(anchor(1)), publisher()), publisher()),
        p7m(b"", publisher()),
        p7m(b"hello", publisher()),
        armoured(p7m(p7b(anchor(1)), publisher())) + pem(anchor(2)),
    ],
)
def test_signatures_in_odd_places_are_refused_with_and_without_a_signer(data: bytes) -> None:
    assert refused(data).cause in {"unreadable", "empty"}
    assert refused(data, PUBLISHER).cause in {"unreadable", "empty", "unsigned"}


def test_openssl_signs_bundles_that_are_read(tmp_path: Path) -> None:
    cert, key = publisher().write(tmp_path, "publisher")
    (tmp_path / "in").write_bytes(p7b(anchor(1), anchor(2)))
    words = f"cms -sign -nodetach -binary -md sha256 -outform DER -in {tmp_path}/in -out {tmp_path}/out"
    command = ["openssl", *words.split(), "-signer", str(cert), "-inkey", str(key)]
    subprocess.run(command, check=True, timeout=30, capture_output=True)
    found = read((tmp_path / "out").read_bytes(), PUBLISHER)
    assert held(found) == [der(anchor(1)), der(anchor(2))]
    assert found.signing_time is not None
    assert abs(found.signing_time - datetime.now(UTC)) < timedelta(minutes=5)


@pytest.mark.skipif(bouncy_castle.missing() is not None, reason=str(bouncy_castle.missing()))
@pytest.mark.parametrize("encoding", ["ber", "der"])
def test_bouncy_castle_signs_bundles_that_are_read(encoding: str) -> None:
    stack = bouncy_castle.BouncyCastleStack(encoding=encoding, opaque=True)
    entity = stack.sign(ber_p7b(anchor(1), anchor(2)), publisher())
    data = base64.b64decode(entity.partition(b"\r\n\r\n")[2])
    assert held(read(data, PUBLISHER)) == [der(anchor(1)), der(anchor(2))]


# --- metadata (TB-4) ---


def test_the_metadata_is_read_beside_the_anchors_signed_or_not() -> None:
    text = metadata(
        Profile="Community &amp; Co",
        DistributionPoint="http://bundles.example/1.p7b",
        Unknown="<Profile>inner</Profile>",
        ValidFrom="2026-02-01T00:00:00",
        ValidTo="2026-04-01T00:00:00.1234567+02:00",
        Anchors="<Anchor><X509IssuerSerial><X509SerialNumber>1</X509SerialNumber></X509IssuerSerial></Anchor>",
    )
    wanted = BundleMetadata(
        "Community & Co",
        ("http://bundles.example/1.p7b",),
        datetime(2026, 2, 1, tzinfo=UTC),
        datetime(2026, 3, 31, 22, 0, 0, 123456, tzinfo=UTC),
    )
    bundle = p7b(anchor(1), content=text)
    assert read(bundle).metadata == wanted
    assert read(p7m(bundle, publisher()), PUBLISHER).metadata == wanted


@pytest.mark.parametrize(
    ("validity", "good"),
    [
        ({"ValidFrom": "2026-03-01T12:00:00Z"}, True),
        ({"ValidFrom": "2026-03-01T12:00:01Z"}, False),
        ({"ValidFrom": "2026-03-01T12:00:01+01:00"}, True),
        ({"ValidTo": "2026-03-01T12:00:00Z"}, True),
        ({"ValidTo": "2026-03-01T11:59:59Z"}, False),
    ],
)
def test_a_bundle_outside_its_validity_is_refused(validity: dict[str, str], good: bool) -> None:
    data = p7b(anchor(1), content=metadata(Profile="p", **validity))
    if good:
        assert len(read(data).anchors) == 1
    else:
        assert refused(data).cause == "not_valid"


@pytest.mark.parametrize("content", [b"", b"free text", b"<xml>\r\n<open>", b"<Other><ValidTo>1990</ValidTo></Other>"])
def test_content_that_is_no_metadata_says_nothing(content: bytes) -> None:
    assert read(p7b(anchor(1), content=content)).metadata == BundleMetadata()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<TrustBundle><ValidTo>2027", "damaged XML"),
        (b"<TrustBundle/><TrustBundle/>", "damaged XML"),
        (b"<TrustBundle><ValidTo>soon</ValidTo></TrustBundle>", "no date"),
        (b"<TrustBundle><ValidTo></ValidTo></TrustBundle>", "no date"),
        (metadata(ValidTo="2027-01-01T00:00:00Z</ValidTo><ValidTo>2028-01-01T00:00:00Z"), "two different"),
        (b"<!DOCTYPE TrustBundle [<!ENTITY a 'b'>]><TrustBundle><ValidTo>&a;</ValidTo></TrustBundle>", "document type"),
        (b"<!DOCTYPE TrustBundle SYSTEM 'file:///etc/passwd'><TrustBundle/>", "document type"),
        (b"<TrustBundle>" + b"<a>" * 100 + b"</a>" * 100 + b"</TrustBundle>", "nested too deeply"),
        (metadata(Profile="x" * 5_000), "too long"),
        (metadata(Profile="p") + b" " * MAX_METADATA_BYTES, "larger than"),
        (b"<?xml version='1.0' encoding='no-such'?><TrustBundle/>", "damaged XML"),
    ],
)
def test_metadata_that_cannot_be_read_is_refused(content: bytes, words: str) -> None:
    """Its dates may be what was meant to stop us."""
    error = refused(p7b(anchor(1), content=content))
    assert error.cause == "unreadable"
    assert words in str(error)


def test_metadata_in_other_encodings_is_read() -> None:
    text = "<?xml version='1.0' encoding='{}'?><TrustBundle><ValidTo>2020-01-01T00:00:00Z</ValidTo></TrustBundle>"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "iso-8859-1"):
        name = encoding.removesuffix("-sig")
        assert refused(p7b(anchor(1), content=text.format(name).encode(encoding))).cause == "not_valid"
    spaced = metadata(ValidTo="2020-01-01T00:00:00Z").replace(b"TrustBundle", b"t:TrustBundle")
    assert refused(p7b(anchor(1), content=spaced.replace(b"<t:", b"<t:", 1))).cause == "unreadable", "no such prefix"


def test_a_namespace_does_not_hide_the_dates() -> None:
    text = b'<TrustBundle xmlns="urn:x"><ValidTo>2020-01-01T00:00:00Z</ValidTo></TrustBundle>'
    assert refused(p7b(anchor(1), content=text)).cause == "not_valid"


# --- mutations ---


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_mutation_gives_another_error_or_other_anchors(data: st.DataObject) -> None:
    """A signed bundle gives its own anchors or BundleError, whatever is done to its bytes."""
    good = _SIGNED
    place = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    action = data.draw(st.sampled_from(["flip", "cut", "insert", "drop"]))
    if action == "flip":
        changed[place] ^= data.draw(st.integers(1, 255))
    elif action == "cut":
        del changed[place:]
    elif action == "insert":
        changed[place:place] = data.draw(st.binary(min_size=1, max_size=8))
    else:
        del changed[place : place + data.draw(st.integers(1, 8))]
    try:
        found = read(bytes(changed), PUBLISHER)
    except BundleError:
        return
    assert held(found) == [der(anchor(1)), der(anchor(2))]


_SIGNED = p7m(p7b(anchor(1), anchor(2), content=metadata(Profile="p", ValidTo="2027-01-01T00:00:00Z")), publisher())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_give_another_error(data: bytes) -> None:
    for tried in (
        data,
        b"\x30" + data,
        b"-----BEGIN PKCS7-----" + data,
        p7b(anchor(1), content=b"<TrustBundle>" + data),
    ):
        try:
            read(tried)
        except BundleError:
            continue
