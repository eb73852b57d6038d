"""A TCP proxy before PostgreSQL that cuts, freezes or partitions (F08, F36). Runs in threads of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from enum import Enum

COMMIT = b"COMMIT\x00"


class Cut(Enum):
    """What becomes of the next COMMIT."""

    NEVER = "never"
    BEFORE = "before"
    """The server does not get it."""
    AFTER = "after"
    """The server has answered it, and the client does not hear that."""


class Proxy:
    """Passes everything on until it is told otherwise. ``port`` is where it listens."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._open = threading.Event()
        self._open.set()
        self._closed = False
        self.cut = Cut.NEVER
        """Counts for one COMMIT and is ``NEVER`` again."""
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def partition(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._open.clear()

    def heal(self) -> None:
        """Everything passes again; what was sent meanwhile arrives late."""
        self._open.set()

    def drop(self) -> None:
        """Close every connection."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._close(pair)

    def close(self) -> None:
        self._closed = True
        self._open.set()
        self._listener.close()
        self.drop()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port), timeout=10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            pair = client, server
            with self._lock:
                self._pairs.add(pair)
            threading.Thread(target=self._pump, args=(pair, client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(pair, server, client, False), daemon=True).start()

    def _pump(
        self, pair: tuple[socket.socket, socket.socket], source: socket.socket, target: socket.socket, ours: bool
    ) -> None:
        try:
            while data := source.recv(65536):
                self._open.wait()
                if self._closed:
                    break
                if ours and self.cut is not Cut.NEVER and COMMIT in data:
                    how, self.cut = self.cut, Cut.NEVER
                    self.cuts += 1
                    if how is Cut.AFTER:
                        self._swallow_answer(pair, data)
                    break
                target.sendall(data)
        except OSError:
            pass
        finally:
            self._close(pair)

    def _swallow_answer(self, pair: tuple[socket.socket, socket.socket], commit: bytes) -> None:
        """Let the server commit, and make sure that it has: its session then goes on to nobody."""
        client, server = pair
        # The other pump would pass the answer on.
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        server.sendall(commit)
        # The server reads and commits before it notices that nobody is there: a half-closed line says no more.
        server.shutdown(socket.SHUT_WR)
        server.settimeout(5)
        with contextlib.suppress(OSError):
            while server.recv(65536):
                pass

    def _close(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._pairs.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
