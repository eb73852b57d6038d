"""Direct messages made by independent stacks, for tests.

``inner_message`` gives the RFC 5322 message that a clinician would write. A *stack* (the openssl command,
Bouncy Castle, or ``cryptography``) signs its wrapped form and encrypts the result; ``outer_message`` adds
the routing headers. All line ends are CRLF, as on the wire.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from tests.support.pki import Identity

CDA = (
    b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
    b'<ClinicalDocument xmlns="urn:hl7-org:v3"><id root="2.16.840.1.113883.19.5" extension="t-1"/>'
    b'<code code="34133-9" codeSystem="2.16.840.1.113883.6.1"/><title>Summary of care</title></ClinicalDocument>\r\n'
)


def inner_message(
    sender: str,
    recipients: Sequence[str],
    *,
    subject: str = "Referral",
    message_id: str = "<m1@test.example>",
    text: str = "Please see the attached summary.\r\n",
    attachment: bytes | None = CDA,
    headers: Sequence[tuple[str, str]] = (),
) -> bytes:
    """A complete RFC 5322 message with CRLF line ends."""
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject
    message["Date"] = format_datetime(datetime(2026, 1, 5, 12, 0, tzinfo=UTC))
    message["Message-ID"] = message_id
    for name, value in headers:
        message[name] = value
    message.set_content(text)
    if attachment is not None:
        message.add_attachment(attachment, maintype="text", subtype="xml", filename="summary.xml")
        # The same message must have the same bytes each time: a random boundary would hide a duplicate.
        message.set_boundary("=_inner_boundary")
    return bytes(message)


def wrapped_entity(inner: bytes) -> bytes:
    """The ``message/rfc822`` entity that is signed (AS-16)."""
    return b"Content-Type: message/rfc822\r\n\r\n" + inner


def outer_message(
    p7m: bytes,
    sender: str,
    recipients: Sequence[str],
    *,
    message_id: str = "<m1@test.example>",
    smime_type: str = "enveloped-data",
) -> bytes:
    """The message as it travels: routing headers and the CMS object in base64 (AS-18, AS-22)."""
    body = base64.encodebytes(p7m).replace(b"\n", b"\r\n")
    head = (
        f"From: {sender}\r\nTo: {', '.join(recipients)}\r\nDate: Mon, 05 Jan 2026 12:00:00 +0000\r\n"
        f"Message-ID: {message_id}\r\nMIME-Version: 1.0\r\n"
        f"Content-Type: application/pkcs7-mime; smime-type={smime_type}; name=smime.p7m\r\n"
        "Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=smime.p7m\r\n\r\n"
    )
    return head.encode() + body


class Stack(Protocol):
    """A program or library that signs and encrypts."""

    @property
    def name(self) -> str: ...

    def sign(self, entity: bytes, signer: Identity, chain: Sequence[Identity] = ()) -> bytes:
        """The signed MIME entity (multipart/signed, CRLF)."""
        ...

    def encrypt(self, entity: bytes, recipients: Sequence[Identity]) -> bytes:
        """A DER or BER EnvelopedData (or AuthEnvelopedData)."""
        ...


@dataclass(frozen=True)
class CryptographyStack:
    """The pkcs7 builders of ``cryptography``: what is there on a machine with Python alone."""

    name: str = "cryptography"

    def sign(self, entity: bytes, signer: Identity, chain: Sequence[Identity] = ()) -> bytes:
        builder = (
            pkcs7.PKCS7SignatureBuilder().set_data(entity).add_signer(signer.certificate, signer.key, hashes.SHA256())
        )
        for other in chain:
            builder = builder.add_certificate(other.certificate)
        p7s = builder.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.DetachedSignature])
        boundary = b"=_test_boundary_1"
        return (
            b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256;\r\n'
            b' boundary="' + boundary + b'"\r\n\r\n--' + boundary + b"\r\n" + entity + b"\r\n--" + boundary + b"\r\n"
            b"Content-Type: application/pkcs7-signature; name=smime.p7s\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            + base64.encodebytes(p7s).replace(b"\n", b"\r\n")
            + b"--"
            + boundary
            + b"--\r\n"
        )

    def encrypt(self, entity: bytes, recipients: Sequence[Identity]) -> bytes:
        builder = pkcs7.PKCS7EnvelopeBuilder().set_data(entity).set_content_encryption_algorithm(algorithms.AES256)
        for recipient in recipients:
            builder = builder.add_recipient(recipient.certificate)
        return builder.encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])


@dataclass(frozen=True)
class OpenSSLStack:
    """The openssl command. ``opaque`` signs without detaching; ``ber`` streams (indefinite lengths)."""

    name: str = "openssl"
    cipher: str = "-aes256"
    digest: str = "sha256"
    opaque: bool = False
    ber: bool = False
    oaep: bool = False
    pss: bool = False
    keyid: bool = False

    @staticmethod
    def available() -> bool:
        return shutil.which("openssl") is not None

    def sign(self, entity: bytes, signer: Identity, chain: Sequence[Identity] = ()) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = signer.write(Path(folder), "signer")
            command = ["openssl", "cms", "-sign", "-binary", "-crlfeol", "-md", self.digest]
            command += ["-signer", str(certificate), "-inkey", str(key), "-outform", "SMIME"]
            if self.opaque:
                command.append("-nodetach")
            if self.pss:
                command += ["-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:digest"]
            if self.keyid:
                command.append("-keyid")
            if chain:
                extra = Path(folder) / "chain.pem"
                extra.write_bytes(b"".join(other.certificate_pem for other in chain))
                command += ["-certfile", str(extra)]
            signed = _run(command, entity, folder)
        # openssl writes a header of its own before the entity; only line ends of its own lines may be bare LF.
        return signed if self.opaque is False else signed.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")

    def encrypt(self, entity: bytes, recipients: Sequence[Identity]) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            command = ["openssl", "cms", "-encrypt", "-binary", self.cipher, "-outform", "DER"]
            if self.ber:
                command.append("-stream")
            if self.keyid:
                command.append("-keyid")
            for index, recipient in enumerate(recipients):
                certificate, _ = recipient.write(Path(folder), f"recipient{index}")
                command += ["-recip", str(certificate)]
                if self.oaep:
                    command += ["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"]
            return _run(command, entity, folder)


def _run(command: Sequence[str], data: bytes, folder: str) -> bytes:
    source = Path(folder) / "in"
    source.write_bytes(data)
    done = subprocess.run([*command, "-in", str(source)], capture_output=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} failed: {done.stderr.decode(errors='replace')}")
    return done.stdout


def direct_message(
    stack: Stack,
    inner: bytes,
    *,
    sender: str,
    recipients: Sequence[str],
    signer: Identity,
    to: Sequence[Identity],
    chain: Sequence[Identity] = (),
    message_id: str = "<m1@test.example>",
) -> bytes:
    """The whole Direct message: wrap, sign, encrypt, and routing headers (AS-17)."""
    signed = stack.sign(wrapped_entity(inner), signer, chain)
    return outer_message(stack.encrypt(signed, to), sender, recipients, message_id=message_id)
