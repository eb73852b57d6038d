"""A receiver of webhooks in a process of its own: verifies signatures by the published library, misbehaves when told.

Run as ``python -m tests.support.webhook_receiver PORT FOLDER SECRET [CERTIFICATE KEY]``. Every request that was read is
a line of ``FOLDER/requests.jsonl``, written and synced before the answer, so that a receiver that is killed forgets
nothing. What to do stands in ``FOLDER/behaviour``, read for each request:

* ``status N [Retry-After]``: answer so (200 without a file);
* ``hang``: never answer; ``drop``: close without an answer; ``half``: half a status line;
* ``slow S``: answer after so many seconds; ``redirect URL``; ``endless``: a header without an end.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    secrets: list[str]
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        self._keep(body)
        behaviour = self.folder / "behaviour"
        words = behaviour.read_text().split() if behaviour.exists() else ["status", "200"]
        getattr(self, f"_{words[0]}")(*words[1:])
        self.close_connection = True

    def _keep(self, body: bytes) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        found = [secret for secret in self.secrets if self._verifies(secret, body, headers)]
        line = {"headers": headers, "body": body.decode("latin-1"), "path": self.path, "verified_by": found}
        with self.lock, (self.folder / "requests.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def _verifies(secret: str, body: bytes, headers: dict[str, str]) -> bool:
        try:
            Webhook(secret).verify(body, headers)
        except WebhookVerificationError:
            return False
        return True

    def _status(self, status: str, retry_after: str = "") -> None:
        self.send_response(int(status))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _slow(self, seconds: str) -> None:
        time.sleep(float(seconds))
        self._status("200")

    def _redirect(self, url: str) -> None:
        self.send_response(302)
        self.send_header("Location", url)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _hang(self) -> None:
        time.sleep(3600)

    def _drop(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)

    def _half(self) -> None:
        self.connection.sendall(b"HTTP/1.1 20")
        self.connection.shutdown(socket.SHUT_RDWR)

    def _endless(self) -> None:
        self.connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        for _ in range(10_000):
            self.connection.sendall(b"x" * 1_000)

    def log_message(self, *_words: Any) -> None:
        """Say nothing."""


def serve(port: int, folder: Path, secrets: list[str], identity: tuple[str, str] | None) -> None:
    """Until it is killed."""
    _Handler.folder, _Handler.secrets = folder, secrets
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    if identity is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*identity)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


@dataclass
class Receiver:
    """A receiver, its process and what it has read."""

    folder: Path
    port: int
    secrets: tuple[str, ...]
    identity: tuple[str, str] = ("", "")
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> Receiver:
        words = [str(self.port), str(self.folder), ",".join(self.secrets), *(self.identity if self.identity[0] else ())]
        self.process = subprocess.Popen([sys.executable, "-m", "tests.support.webhook_receiver", *words])
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return self
        raise AssertionError("the receiver does not start")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def behave(self, *words: str) -> None:
        """What to do from now on; nothing: take everything."""
        part = self.folder / "behaviour.new"
        part.write_text(" ".join(words or ("status", "200")))
        part.rename(self.folder / "behaviour")

    def requests(self) -> list[dict[str, Any]]:
        path = self.folder / "requests.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def ids(self) -> list[str]:
        return [str(one["headers"]["webhook-id"]) for one in self.requests()]


if __name__ == "__main__":
    tls = (sys.argv[4], sys.argv[5]) if len(sys.argv) > 4 else None
    serve(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(","), tls)
