"""Outgoing Direct messages (AS-16..27, AS-29, AS-30), opened again by an independent stack and by our own."""

from __future__ import annotations

import base64
import email
import email.policy
from email.message import EmailMessage
from typing import Any

import pytest

from gateway.core.errors import InputError
from gateway.sta.cms.content_info import content_type
from gateway.sta.cms.enveloped import open_enveloped
from gateway.sta.cms.signature import verify_signer
from gateway.sta.cms.signed import read_signed_data
from gateway.sta.wrapper import wrap
from tests.unit.sta_cms.cms_samples import NOW, RECIPIENT, SENDER, OpenSSL, authority, file_key, identity

MESSAGE_ID = "<4711@practice.example.com>"
DATE = "Sun, 22 Nov 2026 12:00:00 +0000"
INNER = (
    f"From: Doctor <{SENDER}>\r\nTo: {RECIPIENT}\r\nDate: {DATE}\r\nMessage-ID: {MESSAGE_ID}\r\n"
    "MIME-Version: 1.0\r\nSubject: Secret subject\r\nContent-Type: text/plain\r\n\r\nBody\r\n\r\n  with blanks  \r\n"
).encode()


def make(message: bytes = INNER, **changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "signer": file_key(changes.pop("signer", identity(SENDER))),
        "recipient_certificates_pem": [identity(RECIPIENT).certificate_pem],
        "sender": SENDER,
        "recipients": [RECIPIENT],
        "message_id": MESSAGE_ID,
        "date": DATE,
    }
    return wrap(message, **{**arguments, **changes})


def parse(data: bytes) -> EmailMessage:
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def open_outer(raw: bytes, key_type: str = "rsa2048") -> bytes:
    der = base64.b64decode(raw.partition(b"\r\n\r\n")[2])
    assert content_type(der) == "enveloped-data"
    return bytes(open_enveloped(der, [file_key(identity(RECIPIENT, key_type))]).content)


def signed_entity(entity: bytes) -> tuple[bytes, bytes]:
    boundary = parse(entity).get_boundary()
    assert boundary is not None
    assert len(boundary) <= 70
    pieces = entity.split(b"\r\n--" + boundary.encode())
    assert len(pieces) == 4
    assert pieces[3] == b"--\r\n"
    return pieces[1][2:], base64.b64decode(pieces[2].partition(b"\r\n\r\n")[2])


def test_outer_headers_hold_only_routing_data() -> None:
    """AS-18, AS-22."""
    raw = make()
    message = parse(raw)
    assert message.keys() == [
        "From",
        "To",
        "Date",
        "Message-ID",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
        "Content-Disposition",
    ]
    assert message["Content-Type"].params == {"smime-type": "enveloped-data", "name": "smime.p7m"}
    assert message["Content-Disposition"].params == {"filename": "smime.p7m"}
    assert b"Secret subject" not in raw
    assert raw.isascii()
    assert raw.count(b"\n") == raw.count(b"\r\n")
    assert max(map(len, raw.split(b"\r\n"))) <= 78


def test_signed_entity_is_the_whole_message() -> None:
    """AS-16, AS-23, AS-24, AS-25, AS-26."""
    entity = open_outer(make())
    outer = parse(entity)
    assert outer.get_content_type() == "multipart/signed"
    assert outer["Content-Type"].params["protocol"] == "application/pkcs7-signature"
    assert outer["Content-Type"].params["micalg"] == "sha-256"
    content, signature = signed_entity(entity)
    assert content == b"Content-Type: message/rfc822\r\n\r\n" + INNER
    signed = read_signed_data(signature)
    assert signed.econtent is None
    assert identity(SENDER).certificate_der in signed.certificates
    facts = verify_signer(signed.signers[0], identity(SENDER).certificate_der, content, signed.econtent_type)
    assert (facts.digest, facts.signing_time, facts.notes) == ("sha256", NOW, ())


@pytest.mark.parametrize(
    ("key_type", "signature", "micalg"),
    [
        ("rsa2048", "rsa-pkcs1v15-sha256", "sha-256"),
        ("p256", "ecdsa-p256-sha256", "sha-256"),
        ("p384", "ecdsa-p384-sha384", "sha-384"),
        ("ed25519", "ed25519", "sha-512"),
    ],
)
def test_every_kind_of_signing_key(key_type: str, signature: str, micalg: str) -> None:
    signer = identity(SENDER, key_type)
    entity = open_outer(make(signer=signer))
    assert parse(entity)["Content-Type"].params["micalg"] == micalg
    content, der = signed_entity(entity)
    signed = read_signed_data(der)
    facts = verify_signer(signed.signers[0], signer.certificate_der, content, signed.econtent_type)
    assert facts.signature == signature


@pytest.mark.parametrize("transport", ["rsa-pkcs1v15", "rsa-oaep-sha256"])
def test_one_message_for_all_recipients(transport: str) -> None:
    """AS-30."""
    pems = [identity(RECIPIENT).certificate_pem, identity(RECIPIENT, "p256").certificate_pem]
    raw = make(
        recipient_certificates_pem=pems,
        recipients=[RECIPIENT, "second@clinic.example.org"],
        key_transport=transport,
    )
    assert len(parse(raw)["To"].addresses) == 2
    assert open_outer(raw) == open_outer(raw, "p256")


def test_chain_travels_along() -> None:
    """AS-28."""
    intermediate = authority().intermediate("Issuing CA")
    signer = intermediate.issue_address(SENDER)
    _, der = signed_entity(open_outer(make(signer=signer, chain=[intermediate.certificate_der])))
    assert set(read_signed_data(der).certificates) == {signer.certificate_der, intermediate.certificate_der}


@pytest.mark.parametrize("signer_key", ["rsa2048", "p256", "p384"])
@pytest.mark.parametrize("recipient_key", ["rsa2048", "p256", "p384"])
@pytest.mark.parametrize("transport", ["rsa-pkcs1v15", "rsa-oaep-sha256"])
def test_openssl_opens_and_verifies(openssl: OpenSSL, signer_key: str, recipient_key: str, transport: str) -> None:
    recipient = identity(RECIPIENT, recipient_key)
    certificate, key = openssl.identity(recipient, "recipient")
    openssl.file("ca.pem", authority().certificate_pem)
    openssl.file(
        "message.eml",
        make(
            signer=identity(SENDER, signer_key),
            recipient_certificates_pem=[
                identity("other@clinic.example.org").certificate_pem,
                recipient.certificate_pem,
            ],
            key_transport=transport,
        ),
    )
    openssl.run("cms", "-decrypt", "-in", "message.eml", "-recip", certificate, "-inkey", key, "-out", "signed.eml")
    verified = openssl.run(
        "cms", "-verify", "-in", "signed.eml", "-CAfile", "ca.pem", "-attime", str(int(NOW.timestamp())),
    )  # fmt: skip
    assert verified == b"Content-Type: message/rfc822\r\n\r\n" + INNER


def test_line_ends_become_crlf() -> None:
    """AS-27."""
    content, _ = signed_entity(open_outer(make(INNER.replace(b"\r\n", b"\n"))))
    assert content.endswith(INNER)


@pytest.mark.parametrize(
    "message",
    [
        INNER + "ü".encode(),
        INNER + b"\0",
        INNER + b"a\rb\r\n",
        INNER + b"x" * 999 + b"\r\n",
        INNER.replace(b"Message-ID: <4711", b"Message-ID: <other"),
        INNER.replace(b"MIME-Version: 1.0\r\n", b""),
        INNER.replace(b"To: ", b"X-To: "),
        b"From: second@practice.example.com\r\n" + INNER,
        b"Bcc: hidden@clinic.example.org\r\n" + INNER,
        b"X: " + b"y" * 900 + b"\r\n " + b"\r\n z" * 40_000 + INNER,
        b"",
    ],
)
def test_unfit_messages(message: bytes) -> None:
    """AS-19, AS-20, AS-21, AS-27, AS-29."""
    with pytest.raises(InputError):
        make(message)


def test_longest_line_and_unchecked_headers_pass() -> None:
    make(INNER + b"x" * 998 + b"\r\n")
    make(b"Subject: no other header\r\n\r\nx\r\n", check_inner=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"sender": "a@b.example\r\nBcc: x@y.example"},
        {"sender": "Doctor <doctor@practice.example.com>"},
        {"sender": "döctor@practice.example.com"},
        {"recipients": []},
        {"recipients": ["nobody"]},
        {"recipients": ["a@b.example, c@d.example"]},
        {"message_id": "4711@practice.example.com"},
        {"message_id": "<a@b>\r\nSubject: x"},
        {"message_id": "<a b@c>"},
        {"date": "tomorrow"},
        {"date": "Sun, 22 Nov 2026 12:00:00 +0000\r\nSubject: x"},
        {"date": "Sun, 22 Nov 2026 12:00:00 -0000"},
        {"recipient_certificates_pem": []},
        {"recipient_certificates_pem": [b"rubbish"]},
        {"key_transport": "rot13"},
    ],
)
def test_unfit_arguments(changes: dict[str, Any]) -> None:
    """S/MIME rule 9."""
    with pytest.raises(InputError):
        make(**changes)


def test_keys_that_cannot_do_their_part() -> None:
    with pytest.raises(InputError, match="below 2048"):
        make(signer=identity(SENDER, "rsa1024"))
    for usage in (("key_encipherment",), ("data_encipherment", "key_agreement")):  # AS-12, AS-13
        with pytest.raises(InputError, match="does not allow signatures"):
            make(signer=authority().issue_address(SENDER, key_usage=usage))
    for key_type in ("rsa1024", "ed25519"):
        with pytest.raises(InputError, match="cannot receive"):
            make(recipient_certificates_pem=[identity(RECIPIENT, key_type).certificate_pem])


def test_two_messages_share_nothing() -> None:
    assert make() != make()
