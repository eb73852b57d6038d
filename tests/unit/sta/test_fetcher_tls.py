"""Fetching over TLS: the pinned address is asked, and the server's certificate is checked for the host name."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from gateway.sta.fetching import fetch_exchange
from gateway.sta.fetching.fetcher import Fetcher, FetchError
from tests.support.pki import Identity, rsa_key

LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.fixture(scope="module")
def identity() -> Identity:
    key = rsa_key(90)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pki.example.org")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pki.example.org")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return Identity(builder.sign(key, hashes.SHA256()), key)


@pytest.fixture
def port(identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A TLS server; every name resolves to it."""
    certificate, key = identity.write(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as peer:
                    peer.recv(65_536)
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            except OSError:
                plain.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    number = int(listener.getsockname()[1])

    def resolve(host: str, port: int, *_: object, **__: object) -> list[object]:
        del host
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    try:
        yield number
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_a_server_whose_certificate_nobody_knows_is_refused(port: int) -> None:
    with pytest.raises(FetchError, match="TLS"):
        Fetcher(LOOPBACK).session().get(f"https://pki.example.org:{port}/x")


def test_the_certificate_must_be_for_the_host(port: int, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context(cadata=identity.certificate_pem.decode())
    monkeypatch.setattr(fetch_exchange, "_tls", lambda: context)
    fetcher = Fetcher(LOOPBACK)
    assert fetcher.session().get(f"https://pki.example.org:{port}/x") == b"ok"
    for host in ("other.example.org", "127.0.0.1"):
        with pytest.raises(FetchError, match="TLS"):
            fetcher.session().get(f"https://{host}:{port}/x")


def test_a_handshake_that_never_ends_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(FetchError, match="in time"):
            Fetcher(LOOPBACK, seconds_per_request=0.3).session().get(url)
