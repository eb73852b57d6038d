from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.unit.sta.trust_world import World


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def attacks(shared_data: Path) -> Path:
    folder = shared_data / "smime" / "attacks"
    if not folder.is_dir():
        pytest.skip("the attack vectors (smime/attacks) are not here")
    return folder


@dataclass
class Web:
    """A web server on loopback that remembers what it was asked."""

    port: int
    replies: dict[str, bytes | Callable[[BaseHTTPRequestHandler, bytes], None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
def web() -> Iterator[Web]:
    made: list[Web] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site = made[0]
            site.asked.append(self.path)
            reply = site.replies.get(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if callable(reply):
                reply(self, body)
            elif reply is None:
                self.send_error(404)
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

        do_POST = do_GET  # noqa: N815 - the name is the standard library's

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    made.append(Web(int(server.server_address[1])))
    try:
        yield made[0]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
