"""Makes what is measured: a practice with one key, a sender whom it trusts, and the messages.

Keys are made for the run. The messages come from the builders of ``cryptography``, not from the code that is
measured: base64, EnvelopedData (RSA-2048 PKCS #1 v1.5, AES-256-CBC), ``multipart/signed`` around a wrapped message,
RSA-2048 with SHA-256, detached.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from asn1crypto import cms as asn1_cms
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.bench.world import RECIPIENT, SENDER, SIZES, BenchError, Plan, Range, World
from tests.support.direct_messages import CryptographyStack, direct_message
from tests.support.pki import Authority, Identity, rsa_key

_SAMPLE_BYTES = 64


def make_world(folder: Path, sizes: Sequence[str], say: Callable[[str], None]) -> World:
    """Fill an empty folder. The sender's authority is an anchor and has issued a revocation list."""
    world = World(folder)
    community, clinic = Authority.root("Bench Community CA", slot=11), Authority.root("Bench Clinic CA", slot=12)
    signer = community.issue(address=SENDER, key=rsa_key(21))
    recipient = clinic.issue(address=RECIPIENT, key=rsa_key(22))
    recipient.write(world.identities, "recipient")
    world.anchors.mkdir()
    world.crls.mkdir()
    (world.anchors / "community.pem").write_bytes(community.pem)
    (world.crls / "community.crl").write_bytes(community.crl([]))
    world.signer_certificate.write_bytes(signer.certificate_pem)
    for size in sizes:
        say(f"making the message of {size}")
        raw = _message(SIZES[size], signer, recipient)
        world.message(size).write_bytes(raw)
        world.keep_plan(size, _plan(raw, recipient))
    return world


def _message(attachment_bytes: int, signer: Identity, recipient: Identity) -> bytes:
    inner = inner_message(attachment_bytes)
    return direct_message(
        CryptographyStack(), inner, sender=SENDER, recipients=[RECIPIENT], signer=signer, to=[recipient]
    )


def inner_message(
    attachment_bytes: int, *, recipient: str = RECIPIENT, message_id: str = "<m1@test.example>", seed: int = 0
) -> bytes:
    """What a clinician's program sends: a short text and one attachment in base64, all lines CRLF.

    The same arguments give the same bytes; another ``seed`` gives another attachment.
    """
    noise = random.Random(attachment_bytes + (seed << 32)).randbytes(attachment_bytes)
    head = (
        f"From: {SENDER}\nTo: {recipient}\nSubject: Images\nDate: Mon, 05 Jan 2026 12:00:00 +0000\n"
        f'Message-ID: {message_id}\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="=_mixed"\n\n'
        "--=_mixed\nContent-Type: text/plain; charset=us-ascii\n\nPlease see the images.\n"
        "--=_mixed\nContent-Type: application/octet-stream; name=images.zip\n"
        "Content-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=images.zip\n\n"
    ).replace("\n", "\r\n")
    lines = base64.encodebytes(noise).replace(b"\n", b"\r\n")
    return b"".join((head.encode(), lines, b"--=_mixed--\r\n"))


def _plan(raw: bytes, recipient: Identity) -> Plan:
    """Take the message apart once, slowly, with asn1crypto."""
    body = raw.index(b"\r\n\r\n") + 4
    der = base64.b64decode(raw[body:])
    enveloped = asn1_cms.ContentInfo.load(der)["content"]
    sealed = enveloped["encrypted_content_info"]
    key = enveloped["recipient_infos"][0].chosen["encrypted_key"].contents
    iv = sealed["content_encryption_algorithm"]["parameters"].contents
    ciphertext = sealed["encrypted_content"].contents
    plain = _decrypt(recipient, key, iv, ciphertext)
    boundary = plain.partition(b'boundary="')[2].partition(b'"')[0]
    delimiter = b"\r\n--" + boundary
    start = plain.index(delimiter) + len(delimiter) + 2
    end = plain.index(delimiter, start)
    signature_start = plain.index(b"\r\n\r\n", end) + 4
    signature_end = plain.index(b"--" + boundary, signature_start)
    p7s = base64.b64decode(plain[signature_start:signature_end])
    signer_info = asn1_cms.ContentInfo.load(p7s)["content"]["signer_infos"][0]
    digest = next(a for a in signer_info["signed_attrs"] if a["type"].native == "message_digest")
    return Plan(
        body=(body, len(raw)),
        encrypted_key=_range(der, key),
        iv=_range(der, iv),
        ciphertext=_range(der, ciphertext),
        signed=(start, end),
        signature_body=(signature_start, signature_end),
        attributes=_range(p7s, signer_info["signed_attrs"].dump()),
        message_digest=_range(p7s, digest["values"][0].contents),
        signature=_range(p7s, signer_info["signature"].contents),
    )


def _decrypt(recipient: Identity, encrypted_key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    if not isinstance(recipient.key, rsa.RSAPrivateKey):
        raise BenchError("the recipient's key is not RSA")
    key = recipient.key.decrypt(encrypted_key, padding.PKCS1v15())
    context = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    return context.update(ciphertext) + context.finalize()


def _range(data: bytes, part: bytes) -> Range:
    start = data.index(part[:_SAMPLE_BYTES])
    if data[start : start + len(part)] != part:
        raise BenchError("the parts of a message were not found again")
    return start, start + len(part)
