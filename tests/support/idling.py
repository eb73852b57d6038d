"""A mail client in IDLE (RFC 2177), which imaplib cannot do."""

from __future__ import annotations

import contextlib
import imaplib
import time
from types import TracebackType
from typing import Self

from tests.support.gateway_process import Practice


class Idling:
    """Selects a folder and idles for as long as the context lasts."""

    def __init__(self, practice: Practice, folder: str = "INBOX") -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._practice = practice
        self._client: imaplib.IMAP4_SSL

    def __enter__(self) -> Self:
        self._client = self._stack.enter_context(self._practice.imap())
        self._client.select(self._folder)
        self._client.send(b"i IDLE\r\n")
        assert self._client.readline().startswith(b"+")
        return self

    def wait_for(self, part: bytes, *, timeout: float) -> bytes:
        """Return the first line that holds the part."""
        deadline = time.monotonic() + timeout
        while True:
            self._client.sock.settimeout(max(0.01, deadline - time.monotonic()))
            line = self._client.readline()
            assert line, "the server closed the connection"
            if part in line:
                return line

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            self._client.sock.settimeout(5)
            self._client.send(b"DONE\r\n")
            while (line := self._client.readline()) and not line.startswith(b"i "):
                pass
        self._stack.close()
