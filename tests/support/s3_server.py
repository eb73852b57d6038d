"""A real S3 API server (moto, as a process of its own) and a wire in front of it that can be cut, watched and bent."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import socketserver
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import S3Settings
from tests.support.gateway_process import free_ports, wait_for

DEFAULT_RULE = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}}


def require_moto() -> None:
    """Skip by name when the server is not installed."""
    for name in ("moto", "flask", "boto3"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (pip install 'moto[server]' boto3)")


@dataclass
class S3Server:
    """The server, with a client of the test's own that sees and does what an attacker with all rights could."""

    port: int
    process: subprocess.Popen[bytes]
    folder: Path
    client: Any = field(init=False)

    def __post_init__(self) -> None:
        import boto3
        from botocore.config import Config

        self.client = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1", aws_access_key_id="test",
            aws_secret_access_key="test", config=Config(s3={"addressing_style": "path"}),
        )  # fmt: skip

    def bucket(self, *, lock: bool = True, default: bool = True) -> str:
        """A new bucket."""
        name = f"bodies-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
        if lock and default:
            self.client.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=DEFAULT_RULE)
        return name

    def settings(self, bucket: str, port: int | None = None, **changes: Any) -> S3Settings:
        """Settings for a bucket; ``port`` is that of a wire in front of the server."""
        credentials = self.folder / "s3-credentials"
        credentials.write_text("[default]\naws_access_key_id = test\naws_secret_access_key = SECRET-OF-THE-TEST\n")
        credentials.chmod(0o600)
        made = S3Settings(
            bucket=bucket, endpoint_url=f"http://127.0.0.1:{port or self.port}", credentials_file=credentials,
            connect_timeout_seconds=2, read_timeout_seconds=3, max_attempts=1, allow_retention_shortening=True,
        )  # fmt: skip
        return replace(made, **changes)

    def names(self, bucket: str) -> list[tuple[str, str]]:
        """Name and version of every body, without canaries."""
        listed = self.client.list_object_versions(Bucket=bucket).get("Versions", [])
        return [(one["Key"], one["VersionId"]) for one in listed if "/canary/" not in one["Key"]]

    def destroy(self, bucket: str, name: str, version: str) -> None:
        """Remove a locked object: this server lets a retention be shortened."""
        soon = datetime.now(UTC) - timedelta(days=2)
        retention = {"Mode": "COMPLIANCE", "RetainUntilDate": soon}
        self.client.put_object_retention(Bucket=bucket, Key=name, VersionId=version, Retention=retention)
        self.client.delete_object(Bucket=bucket, Key=name, VersionId=version)

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait(timeout=10)


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run a server; skips by name when it is not installed."""
    require_moto()
    (port,) = free_ports(1)
    with (folder / "moto.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )

    def answers() -> bool:
        assert process.poll() is None, (folder / "moto.log").read_text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        return False

    wait_for(answers, timeout=30, what="the S3 server")
    server = S3Server(port, process, folder)
    try:
        yield server
    finally:
        server.close()


class Wire:
    """An HTTP proxy in front of the server. What it does may be changed at any time."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.on_stored: Callable[[str], bool] = lambda _name: True
        """Told of each body that the server has stored, before the gateway hears of it; False cuts the connection."""
        self.before_put: Callable[[str], bool] = lambda _name: True
        """Told of each body before the server gets it; False cuts the connection, and the server gets nothing."""
        self.bend: Callable[[str, bytes], bytes] = lambda _name, body: body
        """What the gateway gets in place of the bytes of an object."""
        self.puts: list[str] = []
        self.gets: list[str] = []
        self._server: ThreadingHTTPServer | None = None
        (self.port,) = free_ports(1)
        self.connect()

    def connect(self) -> None:
        """Take connections."""
        if self._server is None:
            self._server = _Server(("127.0.0.1", self.port), _handler(self))
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def cut(self) -> None:
        """Refuse connections, and end those that are open at their next request."""
        if self._server is not None:
            server, self._server = self._server, None
            server.shutdown()
            server.server_close()

    @property
    def is_cut(self) -> bool:
        return self._server is None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A daemon that was killed in the middle is no fault of the wire."""


def _handler(wire: Wire) -> type[socketserver.BaseRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_expect_100(self) -> bool:
            return not wire.is_cut and super().handle_expect_100()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
            pass

        def _pass_on(self) -> None:
            if wire.is_cut:
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.command == "PUT" and self._is_body() and not wire.before_put(self.path):
                self.close_connection = True
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            upstream = HTTPConnection("127.0.0.1", wire.server_port, timeout=30)
            try:
                upstream.request(self.command, self.path, body or None, headers)
                answer = upstream.getresponse()
                data = answer.read()
            finally:
                upstream.close()
            self._answer(answer, data)

        def _is_body(self) -> bool:
            name = self.path.partition("?")[0]
            return "/canary/" not in name and ("/raw/" in name or "/content/" in name)

        def _answer(self, answer: HTTPResponse, data: bytes) -> None:
            name = self.path.partition("?")[0]
            is_body = self._is_body()
            if self.command == "PUT" and is_body and answer.status == 200:
                wire.puts.append(name)
                if not wire.on_stored(name):
                    self.close_connection = True
                    return
            if self.command == "GET" and is_body and answer.status == 200:
                wire.gets.append(name)
                data = wire.bend(name, data)
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in {"content-length", "transfer-encoding", "connection", "server", "date"}:
                    self.send_header(key, value)
            length = answer.getheader("Content-Length") or "0" if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on  # noqa: N815 - the names of the base class

    return Handler


@contextlib.contextmanager
def wire_to(server: S3Server) -> Iterator[Wire]:
    wire = Wire(server.port)
    try:
        yield wire
    finally:
        wire.cut()
