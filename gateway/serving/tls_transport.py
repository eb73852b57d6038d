"""TLS on a TCP connection, the server's side, in little memory: what stands between a connection and its socket.

Why not the one of asyncio: it holds a read buffer of 256 KiB for each connection for as long as that lasts, and mail
clients leave theirs open all day. Here OpenSSL reads from the socket and writes to it itself: a connection that waits
holds the state of OpenSSL and nothing else, whatever it has sent or been sent before. Between the two there is neither
a buffer nor a transport of asyncio.

Guarantees: the peer is served what it sent in its order; nothing that arrived before the handshake is read as if it had
come within TLS; a broken record ends the connection, and nothing after it is delivered. On close, what is still to be
sent goes first, then ``close_notify`` and the end of the stream; what still comes is thrown away, so that the last
answer is not lost to a reset. What is written while the peer does not read is held, and the protocol is told to pause
at once. Nothing is held of what TLS itself answers (KeyUpdate, alerts): a peer that sends these and reads nothing is
not read from until it does.

Failure modes: OSError (ssl.SSLError among them) and TimeoutError from the handshake; afterwards ``connection_lost`` of
the protocol, as any transport has it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Any

_PIECE_BYTES = 16_384
"""The most that one record of TLS holds, so that OpenSSL has nothing left of one that was read."""
_PIECES_AT_ONCE = 16
"""Read in one turn of the loop: others have their turn, too."""
_UNSENT_LOOK_SECONDS = 0.005
_NOBODY = asyncio.Protocol()
"""Hears of the end of raw transports whose sockets were taken over."""


class TLSTransport:
    """The transport of a protocol. Make it with :meth:`shake_hands`."""

    __slots__ = (
        "_closing",
        "_fd",
        "_gone",
        "_loop",
        "_protocol",
        "_reading",
        "_said_all",
        "_shaken",
        "_tls",
        "_unsent",
    )

    def __init__(self, raw: asyncio.Transport, protocol: asyncio.Protocol, context: ssl.SSLContext) -> None:
        """Use :meth:`shake_hands`. Nothing of the raw transport may wait to be sent. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        with raw.get_extra_info("socket").dup() as own:
            # It empties ``own``: the descriptor has one owner at any moment.
            self._tls = context.wrap_socket(own, server_side=True, do_handshake_on_connect=False)
        # The socket lives on under the other descriptor.
        raw.set_protocol(_NOBODY)
        raw.abort()
        self._fd = self._tls.fileno()
        self._unsent: list[memoryview] = []
        self._shaken: asyncio.Future[None] | None = self._loop.create_future()
        """Done when the handshake is; None afterwards."""
        self._reading = True
        self._closing = False
        self._said_all = False
        """Whether the end of the stream was sent."""
        self._gone = False
        """Whether the socket is closed."""

    @classmethod
    async def shake_hands(
        cls, raw: asyncio.Transport, protocol: asyncio.Protocol, context: ssl.SSLContext, *, seconds: float
    ) -> TLSTransport:
        """Take the socket of a transport over, and return when both sides have agreed.

        Afterwards the raw transport is closed, whatever came of it, unless the error came before the handshake began.

        Raises:
            OSError: they did not, or the peer is gone. TimeoutError: it took too long.
        """
        raw.pause_reading()
        async with asyncio.timeout(seconds):
            while raw.get_write_buffer_size():  # noqa: ASYNC110 - a transport of asyncio tells its protocol only
                # The leave to begin TLS goes first. It is one line, and is gone at once but for a peer that is stuck.
                await asyncio.sleep(_UNSENT_LOOK_SECONDS)
            if raw.is_closing():
                raise ConnectionResetError("the peer is gone")
            made = cls(raw, protocol, context)
            shaken = made._shaken
            assert shaken is not None  # noqa: S101 - until it is done
            try:
                made._loop.add_reader(made._fd, made._readable)
                await shaken
            except BaseException:
                made.abort()
                raise
            made._shaken = None
            return made

    # --- what the loop tells ---

    def _readable(self) -> None:
        if self._shaken is not None:
            # Between the end of the handshake and the moment when its caller has heard of it, the session waits.
            if not self._shaken.done():
                self._shake(self._shaken)
            else:
                self._loop.remove_reader(self._fd)
                self._loop.call_soon(self._watch)
        elif self._said_all:
            self._throw_away()
        else:
            self._read()

    def _watch(self) -> None:
        """Listen for what comes, unless the protocol does not want it now."""
        if self._reading and not self._gone:
            self._loop.add_reader(self._fd, self._readable)

    def _writable(self) -> None:
        if self._shaken is not None:
            self._loop.remove_writer(self._fd)
            if not self._shaken.done():
                self._shake(self._shaken)
            return
        while self._unsent:
            rest = self._send(self._unsent[0])
            if self._gone:
                return
            if rest:
                self._unsent[0] = rest
                return
            del self._unsent[0]
        self._loop.remove_writer(self._fd)
        if self._closing:
            self._say_all()
        else:
            self._watch()
            self._protocol.resume_writing()

    # --- TLS ---

    def _shake(self, shaken: asyncio.Future[None]) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLWantWriteError:
            self._loop.add_writer(self._fd, self._writable)
        except (OSError, ValueError) as error:
            self._loop.remove_reader(self._fd)
            self._turn_away()
            shaken.set_exception(error)
        else:
            shaken.set_result(None)

    def _turn_away(self) -> None:
        """Say the end, and take what has come: what nobody took would reset the connection, and with it the alert.

        OpenSSL has sent that already; it says why there is no session.
        """
        with suppress(OSError, ValueError):
            self._tls.shutdown(socket.SHUT_WR)
            for _ in range(_PIECES_AT_ONCE):
                if not self._tls.recv(_PIECE_BYTES):
                    return

    def _read(self) -> None:
        """Hand over what has come whole, of a long row of records some."""
        for _ in range(_PIECES_AT_ONCE):
            try:
                piece = self._tls.recv(_PIECE_BYTES)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLWantWriteError:
                # TLS has an answer of its own that the peer does not take: nothing is read until it does.
                self._loop.remove_reader(self._fd)
                self._loop.add_writer(self._fd, self._writable)
                return
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                piece = b""
            except OSError as error:
                self._lose(error)
                return
            if not piece:
                # The end can be read again and again: nobody looks for it while something is still to be sent.
                self._loop.remove_reader(self._fd)
                if not self._closing:
                    self._protocol.eof_received()
                    self.close()
                return
            if self._closing:
                continue
            self._protocol.data_received(piece)
            if len(piece) < _PIECE_BYTES or not self._reading:
                # A short record is the last one of what a client says. If it is not, the loop says so again.
                return

    def _throw_away(self) -> None:
        """What comes after the last word, until the peer has said its own."""
        try:
            if self._tls.recv(_PIECE_BYTES):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        self._lose(None)

    def _send(self, rest: memoryview) -> memoryview:
        """Encrypt and send; what is left, which must be the beginning of what is tried next."""
        try:
            while rest:
                rest = rest[self._tls.send(rest) :]
        except ssl.SSLWantWriteError:
            return rest
        except OSError as error:
            # Also SSLWantReadError: without renegotiation there is nothing to wait for.
            self._lose(error)
        return rest

    def _say_all(self) -> None:
        self._said_all = True
        with suppress(OSError, ValueError):
            # It says that the peer's own word is still to come.
            self._tls.unwrap()
        try:
            # From here on the socket speaks no TLS any more, which nothing is read of.
            self._tls.shutdown(socket.SHUT_WR)
        except OSError:
            # The peer has gone meanwhile, and there is nobody to wait for.
            self._lose(None)
            return
        self._reading = True
        self._watch()

    def _lose(self, error: Exception | None) -> None:
        """The connection is over."""
        if self._gone:
            return
        self._gone = self._closing = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._unsent.clear()
        self._tls.close()
        if self._shaken is not None and not self._shaken.done():
            self._shaken.set_exception(error or ConnectionResetError("the peer is gone"))
        self._loop.call_soon(self._protocol.connection_lost, error)

    # --- called by the protocol ---

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; ``data`` belongs to the transport from now on. Once it closes, it is thrown away."""
        if self._closing:
            return
        if self._unsent:
            self._unsent.append(memoryview(data))
            return
        rest = self._send(memoryview(data))
        if rest and not self._gone:
            self._unsent.append(rest)
            self._loop.add_writer(self._fd, self._writable)
            self._protocol.pause_writing()

    def close(self) -> None:
        """Say that this was all, and wait for the peer to say so; whoever will not wait calls :meth:`abort`."""
        if self._closing:
            return
        self._closing = True
        if not self._unsent:
            self._say_all()

    def abort(self) -> None:
        """Cut the connection at once."""
        if self._shaken is not None and not self._shaken.done():
            self._shaken.cancel()
        self._lose(None)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        """Leave what comes where it is."""
        self._reading = self._closing
        if not self._reading:
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        """The opposite of :meth:`pause_reading`."""
        if not self._reading:
            self._reading = True
            self._watch()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The socket, which also says what was agreed on: ``socket`` and ``ssl_object``."""
        return self._tls if name in {"socket", "ssl_object"} else default
