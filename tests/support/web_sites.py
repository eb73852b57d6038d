"""Web servers on loopback, with and without TLS, that answer what a test says."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from tests.support.pki import Identity, ec_key

Answer = bytes | Callable[[BaseHTTPRequestHandler], None]


@dataclass
class WebSite:
    """A server that remembers what it was asked; a path without an answer is not found."""

    base: str
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        return self.base + path


@contextmanager
def web_site(identity: Identity | None = None, folder: Path | None = None) -> Iterator[WebSite]:
    """Run a server; with an identity (and a folder for its files) over TLS."""
    made: list[WebSite] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site = made[0]
            site.asked.append(self.path)
            answer = site.answers.get(self.path)
            if callable(answer):
                answer(self)
            elif answer is None:
                self.send_error(404)
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if identity is not None and folder is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*identity.write(folder, "site"))
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    scheme = "http" if identity is None else "https"
    made.append(WebSite(f"{scheme}://127.0.0.1:{server.server_address[1]}"))
    try:
        yield made[0]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def site_identity(slot: int = 90) -> Identity:
    """A self-signed certificate for 127.0.0.1, in date today."""
    key, today = ec_key(slot), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "site")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return Identity(builder.sign(key, hashes.SHA256()), key)


def redirect(to: str) -> Answer:
    """An answer that sends the client elsewhere."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", to)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def cut_short(body: bytes, announced: int) -> Answer:
    """An answer that announces more than it sends."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(announced))
        request.end_headers()
        request.wfile.write(body)
        request.close_connection = True

    return answer
