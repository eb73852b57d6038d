"""The sending side of MLLP: one message, and the acknowledgement that is for it (HL7-6, HL7-7).

A connection is kept for the next message for a while: engines limit connections, and a practice that links ten messages
needs one handshake. Messages go one after the other, because MLLP has no other way to tell the answers apart.

Guarantees: an answer counts only when it names the control id of what was sent; a connection on which anything was odd
is not used again, so a late answer can never be taken for that of another message. What is read is bounded in octets
and in time. A kept connection that the other side has closed meanwhile is made again once, with the same octets: the
receiver knows them by MSH-10.

Failure modes: ImportFailedError, which says ``unreachable``, ``tls``, ``timeout``, ``closed`` or ``answer``.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass

from gateway.core.errors import ImportFailedError
from gateway.core.hl7 import HL7Error
from gateway.hl7.acknowledgement import MAX_ANSWER_BYTES, Answer, read_answer
from gateway.hl7.mllp import FrameError, FrameReader, frame

READ_BYTES = 16_384
CONNECT_SECONDS = 15.0
CLOSE_SECONDS = 2.0
KEEP_SECONDS = 30.0
"""How long a connection waits for another message."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the other side listens."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    """None: in the clear."""


class MLLPClient:
    """Sends messages to one place."""

    def __init__(self, place: Place, *, answer_seconds: float, keep_seconds: float = KEEP_SECONDS) -> None:
        """``answer_seconds``: how long the other side may take for a message, from its first octet to the answer."""
        self._place = place
        self._answer_seconds = answer_seconds
        self._keep_seconds = keep_seconds
        self._turn = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._ending: asyncio.TimerHandle | None = None

    async def send(self, message: bytes, control_id: str) -> Answer:
        """Send a message and return what it was answered.

        Raises:
            ImportFailedError: no answer, or none that is for this message.
        """
        async with self._turn:
            self._keep()
            was_kept = self._is_usable()
            try:
                return await self._exchange(message, control_id)
            except ImportFailedError as error:
                if not was_kept or error.reason != "closed":
                    raise
            return await self._exchange(message, control_id)

    async def reach(self) -> None:
        """Connect, and shake hands where there is TLS; nothing is sent. Raises ImportFailedError."""
        async with self._turn:
            if not self._is_usable():
                await self._connect()
            self._keep_for_a_while()

    async def _exchange(self, message: bytes, control_id: str) -> Answer:
        try:
            reader, writer = self._streams if self._is_usable() and self._streams else await self._connect()
            async with asyncio.timeout(self._answer_seconds):
                writer.write(frame(message))
                await writer.drain()
                answer = read_answer(await _one_frame(reader))
        except TimeoutError:
            self._drop()
            raise ImportFailedError("the receiver did not answer in time", reason="timeout") from None
        except (FrameError, HL7Error):
            self._drop()
            raise ImportFailedError("what the receiver answered is no acknowledgement", reason="answer") from None
        except OSError:
            self._drop()
            raise ImportFailedError("the connection ended before there was an answer", reason="closed") from None
        except BaseException:
            # Also when the call is cancelled: its answer may still come, and would be taken for the next one's.
            self._drop()
            raise
        if answer.control_id != control_id:
            self._drop()
            raise ImportFailedError("the receiver acknowledged another message", reason="answer")
        if answer.code.value.startswith("C"):
            # Enhanced mode: an answer of the application may follow, and is not waited for.
            self._drop()
        else:
            self._keep_for_a_while()
        return answer

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._drop()
        place = self._place
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._streams = await asyncio.open_connection(
                    place.host, place.port, ssl=place.tls, limit=MAX_ANSWER_BYTES
                )
        except ssl.SSLError:
            raise ImportFailedError("TLS with the receiver cannot be agreed on", reason="tls") from None
        except TimeoutError:
            raise ImportFailedError("the receiver cannot be reached in time", reason="unreachable") from None
        except OSError:
            raise ImportFailedError("the receiver cannot be reached", reason="unreachable") from None
        return self._streams

    def _is_usable(self) -> bool:
        if self._streams is None:
            return False
        reader, writer = self._streams
        # Octets that nobody asked for would be taken for the next answer.
        unasked: bool = bool(getattr(reader, "_buffer", b""))
        if reader.at_eof() or reader.exception() is not None or writer.is_closing() or unasked:
            self._drop()
            return False
        return True

    def _keep(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _keep_for_a_while(self) -> None:
        self._keep()
        self._ending = asyncio.get_running_loop().call_later(self._keep_seconds, self._drop)

    def _drop(self) -> None:
        self._keep()
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].transport.abort()

    async def close(self) -> None:
        """Let go of the connection. Raises nothing."""
        self._keep()
        streams, self._streams = self._streams, None
        if streams is not None:
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    streams[1].close()
                    await streams[1].wait_closed()
            streams[1].transport.abort()


async def _one_frame(reader: asyncio.StreamReader) -> bytes:
    """The next frame. Raises FrameError; ConnectionError when the other side closes before its end."""
    frames = FrameReader(MAX_ANSWER_BYTES)
    while (message := frames.next()) is None:
        octets = await reader.read(READ_BYTES)
        if not octets:
            raise ConnectionResetError("the receiver closed the connection")
        frames.feed(octets)
    return message
