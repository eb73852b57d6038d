"""Bulk content that one examination holds alone, so that it is changed in place instead of copied.

A message of tens of megabytes passes through base64, a cipher and a MIME structure before its innermost part is
delivered. Each copy on the way costs its size in memory and more time than the ciphers do. A :class:`PrivateBuffer`
is decrypted where it lies, and what is delivered is cut out of it where it lies.

Guarantees: bytes that anybody else holds never change. The buffer is copied on the first write when its bytes are
shared (``io.BytesIO`` counts the references), and :meth:`Span.take` falls back to a copy while anybody looks at the
buffer. So sharing costs time, never correctness.
"""

from __future__ import annotations

import io

from gateway.sta.cms.ber import Buffer


class PrivateBuffer:
    """Bytes that can be changed in place and then be had as ``bytes`` without a copy."""

    __slots__ = ("_file",)

    def __init__(self, data: Buffer) -> None:
        """Take the data over. Of ``bytes`` that nobody else holds, nothing is copied."""
        self._file = io.BytesIO(data)

    def writable(self) -> memoryview:
        """A view to change the buffer through; to be released before ``data`` is asked for again."""
        return self._file.getbuffer()

    @property
    def data(self) -> bytes:
        """The whole buffer. As long as somebody holds this, a change of the buffer begins with a copy."""
        return self._file.getvalue()

    def cut(self, start: int, end: int) -> bytes:
        """Return ``data[start:end]`` and give the rest of the memory back. The buffer is used up."""
        try:
            self._file.truncate(end)
        except BufferError:
            # Somebody still looks through ``writable``: nothing may move under their eyes.
            return self.data[start:end]
        if start:
            with self.writable() as view:
                view[: end - start] = view[start:end]
            self._file.truncate(end - start)
        return self.data


class Span:
    """A part of a private buffer: ``buffer.data[start:end]``."""

    __slots__ = ("buffer", "end", "start")

    def __init__(self, buffer: PrivateBuffer, start: int, end: int) -> None:
        self.buffer = buffer
        self.start = start
        self.end = end

    @classmethod
    def whole(cls, data: Buffer) -> Span:
        """All of the data, in a buffer of its own."""
        return cls(PrivateBuffer(data), 0, len(data))

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def view(self) -> memoryview:
        """The bytes, not copied."""
        return memoryview(self.buffer.data)[self.start : self.end]

    def take(self, prefix: bytes = b"") -> bytes:
        """Return the prefix and the bytes behind it, and use the buffer up: no other span of it is valid any more."""
        if not prefix:
            return self.buffer.cut(self.start, self.end)
        return b"".join((prefix, self.view))
