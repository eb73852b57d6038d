"""The senders, in a process of their own: ``python -m tests.bench.sender``, started by the benchmark.

Each of several connections sends one message after another; the envelope and DATA go in one packet (PIPELINING), as
large senders do it. Nothing is made here: the messages lie ready in a file. One line ``ready`` is printed when all are
connected; the first line on standard input starts the clock.

Writes a JSON file: for each message its number and when its MAIL was sent and its 250 came, on the system's monotonic
clock, which all processes share. Exit status 1 when a message was refused; the reply goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import mmap
import socket
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.mail_pool import read_ends

_REPLY_SECONDS = 120


class RefusedError(Exception):
    """The gateway did not take a message; the text is its reply."""


class Line:
    """One SMTP connection."""

    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self._socket: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=_REPLY_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._expect(b"220")
        self._hello()
        if tls is not None:
            self._say(b"STARTTLS\r\n", b"220")
            self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
            self._hello()

    def send(self, envelope: bytes, raw: bytes) -> None:
        """Deliver one message, whose lines need no dot. Raises RefusedError."""
        self._socket.sendall(envelope)
        self._expect(b"250")
        self._expect(b"250")
        self._expect(b"354")
        self._socket.sendall(raw + b".\r\n")
        self._expect(b"250")

    def close(self) -> None:
        """Take leave."""
        self._say(b"QUIT\r\n", b"221")
        self._socket.close()

    def _hello(self) -> None:
        self._say(b"EHLO bench.example\r\n", b"250")

    def _say(self, command: bytes, code: bytes) -> None:
        self._socket.sendall(command)
        self._expect(code)

    def _expect(self, code: bytes) -> None:
        """Read one reply, of however many lines."""
        while True:
            line, end, rest = self._buffer.partition(b"\n")
            if not end:
                more = self._socket.recv(65536)
                if not more:
                    raise RefusedError("the gateway closed the connection")
                self._buffer += more
                continue
            self._buffer = rest
            if not line.startswith(code):
                raise RefusedError(line.decode("ascii", "replace").strip())
            if line[3:4] != b"-":
                return


class Senders:
    """All connections; what they share."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._file = args.pool.open("rb")
        self._mail = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._ends = read_ends(args.pool)
        self._numbers = iter(range(args.first, args.end))
        self._lock = threading.Lock()
        self._envelope = f"MAIL FROM:<{args.sender}>\r\nRCPT TO:<{args.to}>\r\nDATA\r\n".encode()
        self._tls = ssl.create_default_context(cafile=args.ca) if args.ca else None
        self.go = threading.Event()
        self.stop = threading.Event()
        self.until = 0.0
        self.times: list[tuple[int, float, float]] = []
        self.fault = ""

    def connected(self) -> Line:
        return Line(self._args.port, self._tls)

    def run(self, line: Line) -> None:
        """One connection until there is nothing left to send, or the time is up. A session has so many messages."""
        self.go.wait()
        sent = 0
        try:
            while (number := self._next()) is not None:
                if sent == self._args.per_session:
                    line.close()
                    line, sent = self.connected(), 0
                raw = self._mail[self._ends[number - 1] if number else 0 : self._ends[number]]
                began = time.monotonic()
                line.send(self._envelope, raw)
                self.times.append((number, began, time.monotonic()))
                sent += 1
            line.close()
        except (RefusedError, OSError) as fault:
            self.fault = self.fault or str(fault) or type(fault).__name__
            self.stop.set()

    def _next(self) -> int | None:
        if self.stop.is_set() or time.monotonic() >= self.until:
            return None
        with self._lock:
            return next(self._numbers, None)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("pool", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca", default="")
    parser.add_argument("--sender", required=True)
    parser.add_argument("--to", required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--end", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--per-session", type=int, required=True)
    args = parser.parse_args(argv)
    senders = Senders(args)
    try:
        lines = [senders.connected() for _ in range(args.connections)]
    except (RefusedError, OSError) as fault:
        print(f"the senders could not connect: {fault}", file=sys.stderr)
        return 1
    threads = [threading.Thread(target=senders.run, args=(line,)) for line in lines]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    senders.until = time.monotonic() + args.seconds
    began = time.process_time()
    senders.go.set()
    for thread in threads:
        thread.join()
    document = {"times": senders.times, "cpu_seconds": time.process_time() - began}
    args.result.write_text(json.dumps(document))
    if senders.fault:
        print(f"a sender was refused: {senders.fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
