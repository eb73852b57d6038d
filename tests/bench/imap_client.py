"""A mail client of the benchmark: commands out and answers in over TLS, with nothing in between.

No library: what it takes apart for itself must not be counted as the server's, and it must be the same for both
servers. An answer is kept as it came; what is in it is looked at when no clock runs.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.bench.world import BenchError

_PIECE = 1 << 18
_TAKES_SECONDS = 300.0
_FETCH = re.compile(rb"\* (\d+) FETCH \(")
_LITERAL = re.compile(rb"\{(\d+)\}\r\n")


class Client:
    """One logged-in session. ``log_in_seconds`` is what it took to get there, from the TCP connection on."""

    def __init__(self, port: int, tls: ssl.SSLContext, login: str, password: str) -> None:
        began = time.monotonic()
        raw = socket.create_connection(("localhost", port), timeout=_TAKES_SECONDS)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = tls.wrap_socket(raw, server_hostname="localhost")
        self._number = 0
        self._rest = b""
        self._line()
        self.command(b'LOGIN "%s" "%s"' % (login.encode(), password.encode()))
        self.log_in_seconds = time.monotonic() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def command(self, line: bytes) -> bytes:
        """Send a command; the untagged part of its answer. Raises BenchError when it is not OK."""
        self._number += 1
        tag = b"zq%07d" % self._number
        self.socket.sendall(tag + b" " + line + b"\r\n")
        return self.until(tag, line)

    def until(self, tag: bytes, line: bytes) -> bytes:
        """Read to the end of the answer with that tag. Raises BenchError when it is not OK."""
        found = b"\r\n" + tag + b" "
        # The answer may be nothing but its last line.
        pieces = [b"\r\n" + self._rest] if self._rest else [b"\r\n"]
        tail = pieces[0]
        while found not in tail or not tail.endswith(b"\r\n"):
            piece = self._more()
            pieces.append(piece)
            tail = tail[-len(found) - 1_000 :] + piece
        self._rest = b""
        answer, _, status = b"".join(pieces).rpartition(found)
        if not status.startswith(b"OK"):
            raise BenchError(f"{line[:60].decode()!r} was answered with {status[:100].decode(errors='replace')!r}")
        return answer[2:] + b"\r\n"

    def begin_idle(self) -> None:
        """Enter IDLE; nothing but :meth:`wait_for` and :meth:`end_idle` afterwards."""
        self.socket.sendall(b"idle IDLE\r\n")
        while not self._line().startswith(b"+"):
            pass

    def wait_for(self, word: bytes, seconds: float = 30.0) -> float:
        """Wait until an untagged response with that word came; the moment on the monotonic clock."""
        self.socket.settimeout(seconds)
        try:
            while word not in self._line():
                pass
        except TimeoutError:
            raise BenchError(f"a session in IDLE was not told of {word.decode()}") from None
        finally:
            self.socket.settimeout(_TAKES_SECONDS)
        return time.monotonic()

    def hears(self, word: bytes) -> bool:
        """Whether that word has come, on a socket that does not block."""
        with suppress(ssl.SSLWantReadError):
            while word not in self._rest:
                self._rest += self._more()
        return word in self._rest

    def end_idle(self) -> None:
        self.socket.sendall(b"DONE\r\n")
        self.until(b"idle", b"IDLE")

    def append(self, messages: list[bytes]) -> None:
        """Add messages to the INBOX in one command (MULTIAPPEND, RFC 3502; LITERAL+, RFC 7888)."""
        self._number += 1
        tag = b"zq%07d" % self._number
        parts = [b"%s APPEND INBOX" % tag]
        for content in messages:
            parts.append(b" {%d+}\r\n" % len(content))
            parts.append(content)
        self.socket.sendall(b"".join((*parts, b"\r\n")))
        self.until(tag, b"APPEND")

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            self._rest += self._more()
        line, _, self._rest = self._rest.partition(b"\n")
        return line + b"\n"

    def _more(self) -> bytes:
        piece = self.socket.recv(_PIECE)
        if not piece:
            raise BenchError("the server closed the connection")
        return piece


def fetched(answer: bytes) -> dict[int, tuple[bytes, ...]]:
    """What stands in the literals of each FETCH response, by the number of the message."""
    found: dict[int, tuple[bytes, ...]] = {}
    position = 0
    while (head := _FETCH.match(answer, position)) is not None:
        position = head.end()
        literals = []
        while True:
            end = answer.index(b"\r\n", position) + 2
            literal = _LITERAL.search(answer, position, end)
            if literal is None or literal.end() != end:
                break
            position = end + int(literal[1])
            literals.append(answer[end:position])
        position = end
        found[int(head[1])] = tuple(literals)
    return found


def searched(answer: bytes) -> list[int]:
    """The numbers of a SEARCH response."""
    line = next(line for line in answer.split(b"\r\n") if line.startswith(b"* SEARCH"))
    return [int(word) for word in line.split()[2:]]


def flags(answer: bytes) -> dict[int, frozenset[bytes]]:
    r"""The flags of each FETCH response, without \Recent and without what only ours says of a message."""
    found = re.findall(rb"\* (\d+) FETCH \([^\r\n]*?FLAGS \(([^)]*)\)", answer)
    return {
        int(number): frozenset(word for word in words.split() if not word.startswith((b"\\Recent", b"$Direct")))
        for number, words in found
    }
