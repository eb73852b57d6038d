"""How the demonstration's sender makes and sends a Direct message: with other programs than the gateway's own.

The openssl command signs and encrypts when the machine has it, so that the demonstration shows two independent
implementations agreeing; else the gateway's own wrapper does. Sending is Python's smtplib, over STARTTLS.
"""

from __future__ import annotations

import shutil
import smtplib
import ssl
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path

from gateway.keys.file_key import file_key_from_pem
from gateway.sta.wrapper import wrap

OPENSSL_TIMEOUT_SECONDS = 60
SMTP_TIMEOUT_SECONDS = 30


class DemoError(Exception):
    """A step of the demonstration did not come out right; the text says which."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its private key, as files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Sealed:
    """A finished Direct message and who made it."""

    raw: bytes
    made_by: str


@dataclass(frozen=True, slots=True)
class Outer:
    """What stands outside of the encryption: routing data only."""

    sender: str
    recipient: str
    message_id: str
    at: datetime

    @property
    def headers(self) -> bytes:
        """The header lines, without those of MIME."""
        lines = (
            f"From: <{self.sender}>",
            f"To: <{self.recipient}>",
            f"Date: {format_datetime(self.at)}",
            f"Message-ID: {self.message_id}",
        )
        return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def seal(inner: bytes, outer: Outer, signer: Identity, recipient_certificate: Path) -> Sealed:
    """Wrap a complete message (CRLF line ends), sign it, encrypt it, and put the outer headers before it.

    ``signer`` need not be who the message says it is from: that is how the forged one is made.
    """
    program = shutil.which("openssl")
    if program is None:
        return Sealed(_seal_ourselves(inner, outer, signer, recipient_certificate), "the gateway's own wrapper")
    with tempfile.TemporaryDirectory(prefix="direct-gateway-seal-") as folder:
        work = Path(folder)
        (work / "entity").write_bytes(b"Content-Type: message/rfc822\r\n\r\n" + inner)
        _openssl(
            program,
            *("cms", "-sign", "-binary", "-crlfeol", "-md", "sha256", "-outform", "SMIME"),
            *("-signer", str(signer.certificate), "-inkey", str(signer.key)),
            *("-in", str(work / "entity"), "-out", str(work / "signed")),
        )
        _openssl(
            program,
            *("cms", "-encrypt", "-binary", "-crlfeol", "-aes256", "-outform", "SMIME"),
            *("-in", str(work / "signed"), "-out", str(work / "sealed"), str(recipient_certificate)),
        )
        # openssl ends its base64 lines with LF alone; SMTP has CRLF only (RFC 5321 2.3.8). Base64 does not mind.
        sealed = b"\r\n".join((work / "sealed").read_bytes().splitlines()) + b"\r\n"
    version = _openssl(program, "version").split()
    number = version[1] if len(version) > 1 else "unknown"
    return Sealed(outer.headers + sealed, f"the openssl command, version {number}")


def _seal_ourselves(inner: bytes, outer: Outer, signer: Identity, recipient_certificate: Path) -> bytes:
    key = file_key_from_pem(signer.certificate.read_bytes(), signer.key.read_bytes(), source=signer.certificate.name)
    return wrap(
        inner,
        signer=key,
        chain=key.chain,
        recipient_certificates_pem=[recipient_certificate.read_bytes()],
        sender=outer.sender,
        recipients=[outer.recipient],
        message_id=outer.message_id,
        date=format_datetime(outer.at),
    )


def _openssl(program: str, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - the program was found on PATH and the arguments are ours
        [program, *arguments], capture_output=True, check=False, timeout=OPENSSL_TIMEOUT_SECONDS
    )
    if done.returncode != 0:
        raise DemoError(f"openssl {arguments[0]} failed: {done.stderr.decode('utf-8', 'replace').strip()}")
    return done.stdout.decode("utf-8", "replace")


def send(raw: bytes, mail_from: str, recipient: str, port: int, ca_file: Path) -> str:
    """Send over SMTP with STARTTLS and return the server's reply to the message (``250 ...``)."""
    context = ssl.create_default_context(cafile=str(ca_file))
    with smtplib.SMTP("localhost", port, timeout=SMTP_TIMEOUT_SECONDS) as client:
        client.starttls(context=context)
        client.ehlo()
        for code, text in (client.mail(mail_from), client.rcpt(recipient), client.data(raw)):
            if code != 250:
                raise DemoError(f"the gateway answered {code} {text.decode('utf-8', 'replace')}")
        return f"{code} {text.decode('utf-8', 'replace')}"
