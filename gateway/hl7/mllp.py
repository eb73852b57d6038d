"""The frames of MLLP (HL7-6): 0x0B, the message, 0x1C 0x0D. Pure: octets in, messages out.

Guarantees: never more than the largest message and one read is held; nothing but :class:`FrameError` is raised. What
stands between two frames is passed over as long as it is line ends or a few stray octets.

Failure modes: FrameError, after which the stream has no meaning any more: whoever reads closes the connection, and the
peer sends again what it was not answered for.
"""

from __future__ import annotations

START = b"\x0b"
END = b"\x1c\r"
MAX_STRAY_BYTES = 64
"""Octets other than line ends between two frames."""


class FrameError(Exception):
    """The octets are no frames, or one is too large. ``reason`` is one word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def frame(message: bytes) -> bytes:
    """The message in a frame. Its writer sees to it that no control character stands in it."""
    return START + message + END


class FrameReader:
    """Cuts a stream of octets into messages."""

    def __init__(self, max_bytes: int) -> None:
        """``max_bytes``: of one message, without its frame."""
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._within = False
        self._searched = 0
        self._stray = 0

    @property
    def within(self) -> bool:
        """Whether a frame has begun that has not ended."""
        return self._within

    def feed(self, octets: bytes) -> None:
        """Add what arrived. Raises FrameError: what is held is no frame, or a message is too large."""
        self._held += octets
        self._skip()
        self._check()

    def next(self) -> bytes | None:
        """The next message that is complete, or None. Raises FrameError."""
        if not self._within:
            return None
        end = self._held.find(0x1C, self._searched)
        if end < 0:
            self._searched = len(self._held)
            return None
        if end + 1 >= len(self._held):
            self._searched = end
            return None
        if self._held[end + 1] != 0x0D:
            raise FrameError("broken_end")
        if end > self._max_bytes:
            raise FrameError("too_large")
        message = bytes(self._held[:end])
        if START in message:
            # The peer began anew within a message: what came before it is half of one.
            raise FrameError("start_within")
        del self._held[: end + 2]
        self._within, self._searched = False, 0
        self._skip()
        return message

    def _skip(self) -> None:
        """Pass over what stands before the next start."""
        if self._within:
            return
        start = self._held.find(START)
        before = bytes(self._held) if start < 0 else bytes(self._held[:start])
        self._stray += len(before.translate(None, b"\r\n"))
        if self._stray > MAX_STRAY_BYTES:
            raise FrameError("no_start")
        del self._held[: len(before)]
        if start >= 0:
            del self._held[:1]
            self._within, self._stray = True, 0

    def _check(self) -> None:
        # The two octets of the end may be among those that are held.
        if self._within and len(self._held) > self._max_bytes + 2 and 0x1C not in self._held[: self._max_bytes + 1]:
            raise FrameError("too_large")
