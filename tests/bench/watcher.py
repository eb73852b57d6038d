"""A mail client that waits for new mail: IMAP IDLE (RFC 2177) in a thread, which notes when how many were there.

UIDs rise in the order of filing, and sequence numbers follow UIDs, so the n-th message was visible when the first
``EXISTS`` of n or more came.
"""

from __future__ import annotations

import bisect
import re
import socket
import threading
import time
from types import TracebackType
from typing import Self

from tests.bench.world import BenchError
from tests.support.gateway_process import Practice

_EXISTS = re.compile(rb"^\* (\d+) EXISTS\b")
_TAKES = 60.0


class Watcher:
    """Use as a context; ``count`` is what is visible now."""

    def __init__(self, practice: Practice) -> None:
        raw = socket.create_connection(("localhost", practice.imaps_port), timeout=_TAKES)
        self._socket = practice.tls().wrap_socket(raw, server_hostname="localhost")
        self._lines = self._socket.makefile("rb")
        self.count = 0
        self._times: list[float] = []
        self._counts: list[int] = []
        self._changed = threading.Condition()
        self._fault = ""
        self._command(b'a LOGIN "%s" "%s"' % (practice.login.encode(), practice.password.encode()), b"a OK")
        began = time.monotonic()
        self._command(b"b EXAMINE INBOX", b"b OK")
        self.select_seconds = time.monotonic() - began
        self.first = self.count
        self._command(b"c IDLE", b"+")
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Only a shutdown wakes the thread that reads.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _command(self, line: bytes, end: bytes) -> None:
        self._socket.sendall(line + b"\r\n")
        while not (answer := self._lines.readline()).startswith(end):
            if not answer or answer.startswith((line[:2] + b"NO", line[:2] + b"BAD")):
                raise BenchError(f"the watching mail client was refused: {answer.decode('ascii', 'replace').strip()}")
            self._note(answer)

    def _listen(self) -> None:
        try:
            for line in self._lines:
                self._note(line)
        except OSError as fault:
            self._fault = str(fault)
        with self._changed:
            self._fault = self._fault or "the connection was closed"
            self._changed.notify_all()

    def _note(self, line: bytes) -> None:
        found = _EXISTS.match(line)
        if found is None:
            return
        with self._changed:
            self.count = int(found[1])
            self._times.append(time.monotonic())
            self._counts.append(self.count)
            self._changed.notify_all()

    def wait_for(self, count: int, *, stall_seconds: float = 30) -> None:
        """Wait until so many are visible. Raises BenchError when nothing moves for a while."""
        with self._changed:
            while self.count < count:
                before = self.count
                if self._fault or (not self._changed.wait(stall_seconds) and self.count == before):
                    why = self._fault or f"nothing came for {stall_seconds:.0f} s"
                    raise BenchError(f"only {self.count - self.first} of {count - self.first} became visible: {why}")

    def seen_at(self, number: int) -> float:
        """When the message of that sequence number was visible, on the monotonic clock."""
        return self._times[bisect.bisect_left(self._counts, number)]

    def visible_at(self, moment: float) -> int:
        """How many were visible at that moment."""
        index = bisect.bisect_right(self._times, moment) - 1
        return self._counts[index] if index >= 0 else self.first
