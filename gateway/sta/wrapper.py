"""Makes a complete outgoing Direct message: wrap, sign, encrypt (AS-16..27).

Guarantees: the whole original message travels as ``message/rfc822`` inside the signature, so Subject and all other
headers are protected; outside stand only routing data (AS-18). Line ends are made CRLF before anything is hashed;
what is not plain 7-bit is refused instead of re-encoded, since that would change what the author wrote. No value
that is put into a header may hold a control character (S/MIME rule 9).

Failure modes: :class:`InputError` that says what is wrong with the message, an address, a key or a certificate.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.core.address import parse_address
from gateway.core.errors import InputError
from gateway.core.mime.headers import ResourceLimitError, scan_headers
from gateway.ports import KeyOps
from gateway.sta.cms.writing import RSA_V15, OutgoingSigner, encrypt, sign_detached

MAX_LINE_BYTES = 998
_REQUIRED_INNER = (b"date", b"from", b"to", b"message-id", b"mime-version")
_MICALG = {"sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}
_BARE_CR = re.compile(rb"\r(?!\n)")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_LONG_LINE = re.compile(rb"[^\n]{1000}")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")
_VISIBLE = re.compile(r"[ -~]{1,200}")


def wrap(
    message: bytes,
    *,
    signer: KeyOps,
    recipient_certificates_pem: Sequence[bytes],
    sender: str,
    recipients: Sequence[str],
    message_id: str,
    date: str,
    chain: Sequence[bytes] = (),
    key_transport: str = RSA_V15,
    check_inner: bool = True,
) -> bytes:
    """Return a message ready for SMTP, CRLF line ends throughout.

    ``message`` is a complete RFC 5322 message in 7-bit form. ``message_id`` (with angle brackets) and ``date``
    (RFC 5322) stand outside; the date is also the signing time. One message goes to all recipients (AS-30).
    ``chain`` (DER) is sent along with the signer's own certificate (AS-28).
    ``check_inner=False`` leaves out the checks of the inner headers (AS-19, AS-20, AS-29): a test may need to send
    what no Direct sender would.

    Raises:
        InputError: see the module's header.
        KeyUnavailableError: the signer's token cannot be reached now.
    """
    content = _seven_bit(message)
    when = _date(date)
    if not _MESSAGE_ID.fullmatch(message_id):
        raise InputError("the Message-ID must look like <left@right>, in ASCII")
    if not recipients:
        raise InputError("a message needs at least one recipient")
    addresses = [_address(address) for address in (sender, *recipients)]
    if check_inner:
        _check_inner(content, message_id)
    signed = _multipart_signed(content, OutgoingSigner.of(signer, chain), when)
    encrypted = encrypt(signed, [_certificate(pem) for pem in recipient_certificates_pem], key_transport)
    lines = (
        f"From: {addresses[0]}",
        "To: " + ",\r\n ".join(addresses[1:]),
        f"Date: {date}",
        f"Message-ID: {message_id}",
        "MIME-Version: 1.0",
        "Content-Type: application/pkcs7-mime; smime-type=enveloped-data;\r\n name=smime.p7m",
        "Content-Transfer-Encoding: base64",
        "Content-Disposition: attachment; filename=smime.p7m",
    )
    return b"".join(("\r\n".join(lines).encode("ascii"), b"\r\n\r\n", _base64(encrypted)))


def _multipart_signed(message: bytes, signer: OutgoingSigner, when: datetime) -> bytes:
    """Return the multipart/signed entity with the message as message/rfc822 (AS-16, AS-23..25)."""
    entity = b"Content-Type: message/rfc822\r\n\r\n" + message
    boundary = f"----=_{secrets.token_hex(24)}"
    delimiter = f"\r\n--{boundary}".encode()
    head = (
        'Content-Type: multipart/signed; protocol="application/pkcs7-signature";\r\n'
        f' micalg={_MICALG[signer.digest]}; boundary="{boundary}"\r\n'
        "MIME-Version: 1.0\r\n"
    )
    signature_head = (
        b"Content-Type: application/pkcs7-signature; name=smime.p7s\r\n"
        b"Content-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: attachment; filename=smime.p7s\r\n\r\n"
    )
    signature = _base64(sign_detached(entity, signer, when))
    parts = (head.encode(), delimiter, b"\r\n", entity, delimiter, b"\r\n", signature_head, signature)
    return b"".join((*parts, delimiter[2:], b"--\r\n"))


def _seven_bit(message: bytes) -> bytes:
    """Return the message with CRLF line ends (AS-27)."""
    if not message.isascii() or b"\0" in message:
        raise InputError("the message must be 7-bit: encode its parts as quoted-printable or base64 first")
    if _BARE_CR.search(message):
        raise InputError("the message holds a carriage return that ends no line")
    content = _BARE_LF.sub(b"\r\n", message)
    if _LONG_LINE.search(content):
        raise InputError(f"the message holds a line of more than {MAX_LINE_BYTES} bytes")
    return content


def _check_inner(message: bytes, message_id: str) -> None:
    try:
        headers = scan_headers(message)
    except ResourceLimitError as error:
        raise InputError("the header block of the message is too large") from error
    for name in _REQUIRED_INNER:
        if len(headers.all(name)) != 1:
            raise InputError(f"the message must have exactly one {name.decode().title()} field")
    if headers.text(b"message-id") != message_id:
        raise InputError("the Message-ID of the message is not the one given for its outside")
    if headers.first(b"bcc"):
        raise InputError("Bcc is not allowed in Direct; remove it")


def _date(date: str) -> datetime:
    try:
        when = parsedate_to_datetime(date)
    except (ValueError, TypeError) as error:
        raise InputError("the date is not in the form of RFC 5322") from error
    if not _VISIBLE.fullmatch(date) or when.tzinfo is None:
        raise InputError("the date is not in the form of RFC 5322 with a time zone")
    return when


def _address(text: str) -> str:
    if not text.isascii():
        raise InputError("an address in an outer header must be ASCII")
    parse_address(text)
    return text


def _certificate(pem: bytes) -> bytes:
    try:
        return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    except ValueError as error:
        raise InputError("a recipient's certificate cannot be read") from error


def _base64(data: bytes) -> bytes:
    return base64.encodebytes(data).replace(b"\n", b"\r\n")
