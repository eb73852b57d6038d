"""How to get to an upstream server and in: TLS, the secret, and what is said of a failure.

Guarantees: the certificate and the host name are verified, TLS is 1.2 or newer (EP-13, EP-27), and no secret is sent
before TLS. Secrets are read at each login and kept nowhere; no text here holds one, nor anything that a server said.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any

from gateway.core.fetch_settings import FetchSettings
from gateway.core.fetching import UpstreamError
from gateway.observability.os_errors import os_reason

MAX_SECRET_BYTES = 65_536
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))


def tls_context(account: FetchSettings) -> ssl.SSLContext:
    """A context that trusts ``ca_file``, or the authorities of the system. Blocks for a moment.

    Raises:
        UpstreamError: the file cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=None if account.ca_file is None else str(account.ca_file))
    except (OSError, ssl.SSLError) as exc:
        raise UpstreamError("ca_file", f"ca_file {account.ca_file} cannot be read as certificates (PEM)") from exc
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    return context


def read_secret(account: FetchSettings) -> str:
    """The password or the token. Blocks for a moment.

    Raises:
        UpstreamError: it cannot be read, or is none.
    """
    key = "password_file" if account.password_file is not None else "oauth_token_file"
    path: Path = account.secret_file
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
        secret = data.decode("utf-8").rstrip("\r\n") if len(data) <= MAX_SECRET_BYTES else ""
    except OSError as exc:
        raise UpstreamError("secret", f"{key} {path} cannot be read: {os_reason(exc)}") from exc
    except UnicodeDecodeError:
        secret = ""
    if not secret or any(char in secret for char in "\0\r\n"):
        raise UpstreamError("secret", f"{key} {path} must hold one line of text and nothing else") from None
    return secret


def secret_stamp(account: FetchSettings) -> tuple[int, int, int] | None:
    """Something that changes when the secret is replaced; None when there is none now."""
    try:
        found = account.secret_file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def plain_response(username: str, password: str) -> str:
    """Initial response of SASL PLAIN (RFC 4616 section 2), in base64."""
    return base64.b64encode(f"\0{username}\0{password}".encode()).decode("ascii")


def xoauth2_response(username: str, token: str) -> str:
    """Initial response of XOAUTH2, in base64."""
    return base64.b64encode(f"user={username}\1auth=Bearer {token}\1\1".encode()).decode("ascii")


def connect_error(account: FetchSettings, error: BaseException) -> UpstreamError:
    """What to say of a connection that was not made."""
    where = f"{account.host} port {account.port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        trusted = "the authorities of this system (or set ca_file)"
        by = trusted if account.ca_file is None else f"an authority in {account.ca_file} (ca_file)"
        why = error.verify_message.rstrip(".")
        mend = f"it must be issued by {by} for the name in host"
        return UpstreamError("certificate", f"the certificate of {where} is not good: {why}; {mend}")
    if isinstance(error, ssl.SSLError):
        return UpstreamError("tls", f"{where} does not speak TLS here, or only an old one; see tls and port")
    if isinstance(error, TimeoutError):
        return UpstreamError("timeout", f"{where} does not answer; see host and port")
    if isinstance(error, socket.gaierror):
        return UpstreamError("name", f"the name {account.host} is not found in the DNS; see host")
    if isinstance(error, OSError):
        return UpstreamError("connect", f"cannot connect to {where}: {os_reason(error)}; see host and port")
    return UpstreamError("connect", f"cannot connect to {where} ({type(error).__name__})")


def check_peer(account: FetchSettings, transport: Any) -> str:
    """Look after the socket and return the server's network address.

    Raises:
        UpstreamError: without TLS, the server is not on this machine.
    """
    peername = transport.get_extra_info("peername") or ("",)
    peer = str(peername[0])
    if account.tls == "none" and not ipaddress.ip_address(peer.partition("%")[0]).is_loopback:
        raise UpstreamError("tls", f'{account.host} is not this machine, and tls is "none": set tls')
    sock = transport.get_extra_info("socket")
    if sock is not None:
        # A server that went away without a word is noticed although nothing is asked of it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return peer
