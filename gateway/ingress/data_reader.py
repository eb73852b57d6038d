"""Reads the bytes after DATA (RFC 5321 section 4.5.2): pure, no socket, no clock.

Guarantees:

* Only CRLF ``.`` CRLF ends a message, wherever the chunk borders fall; nothing else does (F17).
* What comes out is what the sender had before dot-stuffing, byte for byte.
* Memory is one growing buffer and one chunk, whatever the lines are like; work for a chunk is a fixed number of
  bulk operations on it, so a message of nothing but line ends costs no more than any other (finding 1, F18).
  Whoever feeds the reader may take the buffer away at any time: so large messages never lie in memory as a whole.
* A message that will be refused is dropped from memory at once and read on to its true end, so that the rest of
  it can never be taken for commands (SMTP smuggling).

Failure modes: none; a :class:`Problem` says why a message is refused.
"""

from __future__ import annotations

from enum import Enum

from gateway.ingress.limits import Reservation

_END = b"\r\n.\r\n"


class Problem(Enum):
    """Why a message is refused. In the order of precedence: what will never pass comes before what may pass later."""

    TOO_LARGE = "too_large"
    BARE_NEWLINE = "bare_newline"
    NUL = "nul"
    NO_BUDGET = "no_budget"
    NO_SPACE = "no_space"
    FAULT = "spool_fault"


class DataReader:
    """One message on its way in.

    Args:
        max_bytes: the largest message, counted without stuffing dots and the end mark (RFC 1870 section 5).
        hold: the message's share of the global budget; it grows here, and whoever made it releases it.
    """

    def __init__(self, max_bytes: int, hold: Reservation) -> None:
        self._max_bytes = max_bytes
        self._hold = hold
        # The line before the first one is taken as ended: a first line that begins with a dot is then no special
        # case. These two bytes are left out again in take().
        self._tail = b"\r\n"
        self._skip = 2
        self._buffer = bytearray()
        self._problems: set[Problem] = set()
        self.size_bytes = -2
        """Bytes of the message so far, whether kept or dropped."""

    @property
    def problem(self) -> Problem | None:
        """The gravest reason to refuse the message, or None."""
        return next((problem for problem in Problem if problem in self._problems), None)

    def feed(self, chunk: bytes) -> bytes | None:
        """Take the next bytes; None while the message goes on, else the bytes that came after its end."""
        data = self._tail + chunk
        end = data.find(_END)
        if end >= 0:
            self._take(data[:end] + b"\r\n")
            self._tail = b""
            return data[end + len(_END) :]
        # A piece never ends inside what may become an end mark or a stuffed dot: both begin with the CR at which
        # the tail begins. So no CRLF and no CRLF-dot is ever split between two pieces.
        cut = len(data) - _open_end(data)
        self._take(data[:cut])
        self._tail = data[cut:]
        return None

    @property
    def buffered_bytes(self) -> int:
        """Bytes that ``take`` would give."""
        return max(0, len(self._buffer) - self._skip)

    def take(self) -> bytes:
        """Remove and return what has come of the message since the last call.

        Raises:
            ValueError: the message is refused, so nothing of it is kept.
        """
        if self._problems:
            raise ValueError("a refused message has no content")
        if len(self._buffer) < self._skip:
            return b""
        taken = bytes(memoryview(self._buffer)[self._skip :]) if self._skip else bytes(self._buffer)
        self._buffer, self._skip = bytearray(), 0
        return taken

    def refuse(self, problem: Problem) -> None:
        """Drop the message: a fault outside the reader. It is read on to its true end all the same."""
        self._refuse(problem)

    def _take(self, piece: bytes) -> None:
        pairs = piece.count(b"\r\n")
        if piece.count(b"\r") != pairs or piece.count(b"\n") != pairs:
            self._refuse(Problem.BARE_NEWLINE)
        if b"\0" in piece:
            self._refuse(Problem.NUL)
        piece = piece.replace(b"\r\n.", b"\r\n")
        self.size_bytes += len(piece)
        if self.size_bytes > self._max_bytes:
            self._refuse(Problem.TOO_LARGE)
        if not self._problems and not self._hold.grow(len(piece)):
            self._refuse(Problem.NO_BUDGET)
        if not self._problems:
            self._buffer += piece

    def _refuse(self, problem: Problem) -> None:
        self._problems.add(problem)
        self._buffer = bytearray()
        self._hold.release()


def _open_end(data: bytes) -> int:
    """Length of the longest proper beginning of the end mark with which the data ends."""
    for length in range(len(_END) - 1, 0, -1):
        if data.endswith(_END[:length]):
            return length
    return 0
