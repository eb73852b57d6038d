"""One POP3 session: reads commands, checks that each is allowed in the present state, answers in order (RFC 1939).

The states are :class:`State`; which command is allowed where stands in the table of :mod:`gateway.pop3.commands`.

Guarantees: no login before TLS; one answer for every command, whatever goes wrong inside, in the order of the commands
(RFC 2449 section 6.6); what was marked as deleted leaves the listing only in the UPDATE state, which QUIT alone enters:
a time-out, a lost connection, the end of the daemon and an operator who ends the session leave everything as it was;
an input limit that is passed ends the session; nothing that a client sent is logged.

Failure modes: a fault of the store is answered with [SYS/TEMP] (RFC 3206), and the session goes on. What breaks within
a multi-line response cuts the connection, because nothing else can tell the client that it is not whole.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum

from gateway.core.errors import GatewayError, NotFoundError, RefusedError
from gateway.inbox.maildrops import Maildrop, Maildrops
from gateway.observability.log import get_log
from gateway.pop3.wire import END
from gateway.ports import Account
from gateway.serving.authenticator import Authenticator
from gateway.serving.connection import Connection, ConnectionClosedError, LineTooLongError
from gateway.serving.session_registry import SessionHandle, SessionRegistry
from gateway.settings import POP3Settings

_log = get_log("pop3")

MAX_CONSECUTIVE_ERRORS = 20
NO_SUCH_MESSAGE = "No such message"


class State(Enum):
    """RFC 1939 sections 4 to 6."""

    AUTHORIZATION = "authorization"
    TRANSACTION = "transaction"
    UPDATE = "update"


BEFORE_LOGIN = frozenset({State.AUTHORIZATION})
AFTER_LOGIN = frozenset({State.TRANSACTION})
ANY_STATE = BEFORE_LOGIN | AFTER_LOGIN


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every session of a listener shares."""

    settings: POP3Settings
    authenticator: Authenticator
    maildrops: Maildrops
    tls: ssl.SSLContext
    sessions: SessionRegistry | None = None


class RefusalError(Exception):
    """The command fails; the text (with its response code) is sent with -ERR."""


class SyntaxRefusalError(RefusalError):
    """The command is none, or not allowed now: too many of these end the session."""


class ClosingError(Exception):
    """The session must end; the text is sent with -ERR."""


Handler = Callable[["POP3Session", bytes], Awaitable[str | None]]
"""Does the work of a command with what stood behind its name; returns the text of the +OK, or None when it answered."""


@dataclass(frozen=True, slots=True)
class CommandRule:
    """A command of the table: where it is allowed and what does it."""

    states: frozenset[State]
    handle: Handler
    looks: bool = False
    """Whether it shows or changes messages, for which the right to read them must hold now."""


class POP3Session:
    """The session on one connection. Run it with :meth:`run`; it returns when the session is over."""

    def __init__(
        self, connection: Connection, surroundings: Surroundings, commands: Mapping[bytes, CommandRule]
    ) -> None:
        self.connection = connection
        self.surroundings = surroundings
        self.maildrops = surroundings.maildrops
        self.state = State.AUTHORIZATION
        self.user: bytes | None = None
        """What USER said, until PASS."""
        self.failed_logins = 0
        self.deleted: set[int] = set()
        """Numbers that are marked as deleted."""
        self._maildrop: Maildrop | None = None
        self._total_bytes: int | None = None
        self._handle: SessionHandle | None = None
        self._commands = commands
        self._errors = 0
        self._login_deadline = asyncio.get_running_loop().time() + surroundings.settings.login_timeout_seconds

    # --- the loop ---

    async def run(self) -> None:
        """Greet, then serve until QUIT, a limit, a time-out or the end of the connection."""
        self.connection.queue(b"+OK direct-gateway POP3 ready\r\n")
        try:
            while self.state is not State.UPDATE:
                await self.connection.flush()
                async with self.patience():
                    line = await self.connection.read_line()
                await self._serve(line)
        except ClosingError as closing:
            self._refuse(str(closing))
        except LineTooLongError:
            self._refuse("Line too long")
        except TimeoutError:
            # RFC 1939 section 3: closed without a word and without the UPDATE state.
            return
        finally:
            await self.end()
        await self.connection.flush()

    def patience(self) -> AbstractAsyncContextManager[object]:
        """How long to wait for the client: until the login deadline, then the idle time-out."""
        if self.state is State.AUTHORIZATION:
            return asyncio.timeout_at(self._login_deadline)
        return asyncio.timeout(self.surroundings.settings.idle_timeout_minutes * 60)

    def farewell(self) -> bytes:
        """See :class:`gateway.serving.listener.Session`."""
        if self._handle is not None and self._handle.ended.is_set():
            return b"-ERR [SYS/PERM] The session was ended by an operator\r\n"
        return b"-ERR [SYS/TEMP] Server shutting down\r\n"

    async def _serve(self, line: bytes) -> None:
        try:
            text = await self._dispatch(line)
        except (ClosingError, ConnectionClosedError, LineTooLongError, TimeoutError):
            raise
        except SyntaxRefusalError as error:
            self._errors += 1
            self._refuse(str(error))
        except Exception as error:
            # A fault in one command must not take the session with it.
            if self.connection.in_slices:
                _log.fault("response_broken_off", error)
                raise ConnectionClosedError from error
            self._refuse(_words(error))
        else:
            self._errors = 0
            if text is not None:
                self.connection.queue(f"+OK {text}\r\n".encode("ascii"))
        if self._errors >= MAX_CONSECUTIVE_ERRORS:
            raise ClosingError("Too many errors")

    async def _dispatch(self, line: bytes) -> str | None:
        name, _, arguments = line.partition(b" ")
        rule = self._commands.get(name.upper())
        if rule is None:
            raise SyntaxRefusalError("Unknown command")
        if self.state not in rule.states:
            when = "after login" if self.state is State.AUTHORIZATION else "before login"
            raise SyntaxRefusalError(f"Command is allowed {when} only")
        if rule.looks:
            await self.maildrops.look_at_rights(self.maildrop)
        return await rule.handle(self, arguments)

    def _refuse(self, text: str) -> None:
        self.connection.queue(f"-ERR {text}\r\n".encode("ascii", "replace"))

    # --- for the commands ---

    async def continuation(self, challenge: bytes = b"") -> bytes:
        """Ask for the next line of a SASL exchange and return it. ``challenge`` in base64."""
        self.connection.queue(b"+ " + challenge + b"\r\n")
        await self.connection.flush()
        async with self.patience():
            return await self.connection.read_line()

    async def begin_lines(self, text: str) -> None:
        """Begin a multi-line response: from here on only its lines may be sent, and :meth:`end_lines`."""
        self.connection.queue(f"+OK {text}\r\n".encode("ascii"))
        self.connection.in_slices = True

    async def send_lines(self, blocks: Iterable[bytes]) -> None:
        """Send lines as they are, with their ends; the peer must keep up. Raises ConnectionClosedError."""
        for block in blocks:
            self.connection.queue(block)
            await self.connection.flush_when_full()
            # A client that keeps up must not keep the others waiting.
            await asyncio.sleep(0)

    async def end_lines(self) -> None:
        """End a multi-line response."""
        self.connection.queue(END)
        await self.connection.flush()
        self.connection.in_slices = False

    @property
    def maildrop(self) -> Maildrop:
        """What the session sees."""
        if self._maildrop is None:
            raise SyntaxRefusalError("Log in first")
        return self._maildrop

    async def listed_bytes(self) -> int:
        """Octets of the messages that are not marked as deleted. Raises StoreError."""
        if self._total_bytes is None:
            self._total_bytes = await self.maildrop.total_bytes()
        return self._total_bytes - sum(map(self.maildrop.size_bytes, self.deleted))

    async def log_in(self, account: Account) -> None:
        """Open the maildrop and enter the TRANSACTION state. Raises RefusalError, StoreError: then nobody is let in."""
        # Nothing may be waited for before this: the session counts from here.
        self._begin(account)
        try:
            self._maildrop = await self.maildrops.open(account)
        except (NotFoundError, RefusedError):
            await self.end()
            raise RefusalError("[SYS/PERM] This login has no folder that can be read over POP3") from None
        except BaseException:
            await self.end()
            raise
        self.state = State.TRANSACTION
        self.failed_logins = 0

    def _begin(self, account: Account) -> None:
        sessions, task = self.surroundings.sessions, asyncio.current_task()
        if sessions is not None and task is not None:
            self._handle = sessions.begin(account, "pop3", self.connection.peer)
            self._handle.on_end(task.cancel)

    async def end(self) -> None:
        """Tell that the session is over. The handle stays known, for the farewell."""
        if self._handle is not None:
            await self._handle.end()


def no_argument(arguments: bytes) -> None:
    """Raises SyntaxRefusalError when something stands behind the name of a command that takes nothing."""
    if arguments.strip():
        raise SyntaxRefusalError("The command takes no argument")


def _words(error: Exception) -> str:
    """What the client is told of an error."""
    if isinstance(error, RefusalError):
        return str(error)
    if isinstance(error, NotFoundError):
        return NO_SUCH_MESSAGE
    if isinstance(error, RefusedError):
        return f"[SYS/PERM] {error}"
    if isinstance(error, GatewayError):
        _log.warning("command_failed", exc=error)
        return "[SYS/TEMP] Temporary failure, please try again"
    _log.fault("command_fault", error)
    return "[SYS/TEMP] Internal error"
