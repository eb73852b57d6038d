"""One IMAP session: reads commands, checks that each is allowed in the present state, answers in order.

The states of RFC 3501 section 3 are :class:`State`; which command is allowed where stands in the table of
:mod:`gateway.imap.commands`.

Guarantees: no login before TLS; a tagged answer for every command that has a tag, whatever goes wrong inside;
pipelined commands are answered in their order; an input limit that is passed ends the session with BYE; nothing
that a client sent is logged.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from gateway.core.errors import GatewayError, NotFoundError, RefusedError
from gateway.imap.connection import Connection, ConnectionClosedError, LineTooLongError
from gateway.imap.parser import BadCharsetError, Head, ParseError, guess_tag, parse_arguments, parse_head
from gateway.imap.responses import capabilities
from gateway.imap.view import MailboxView
from gateway.inbox.service import Inbox
from gateway.observability.log import get_log
from gateway.ports import Account
from gateway.settings import IMAPSettings

_log = get_log("imap")

MAX_CONSECUTIVE_ERRORS = 20
MAX_NON_SYNCHRONIZING_BYTES = 4096
"""RFC 7888: LITERAL- allows ``{n+}`` up to this size."""
MAX_LITERAL_BYTES = 65_536
MAX_LITERALS = 100
MAX_COMMAND_BYTES = 262_144
_LITERAL_AT_END = re.compile(rb"\{(\d+)(\+?)\}\Z")


class Authenticator(Protocol):
    """Who checks passwords."""

    async def authenticate(self, login: str, password: bytes, peer: str) -> Account | None:
        """The account, or None for a wrong login or password. May take time on purpose."""
        ...


class State(Enum):
    """RFC 3501 section 3."""

    NOT_AUTHENTICATED = "not authenticated"
    AUTHENTICATED = "authenticated"
    SELECTED = "selected"
    LOGOUT = "logout"


BEFORE_LOGIN = frozenset({State.NOT_AUTHENTICATED})
AFTER_LOGIN = frozenset({State.AUTHENTICATED, State.SELECTED})
WITH_MAILBOX = frozenset({State.SELECTED})
ANY_STATE = BEFORE_LOGIN | AFTER_LOGIN


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every session of a listener shares."""

    settings: IMAPSettings
    authenticator: Authenticator
    inbox: Inbox
    tls: ssl.SSLContext


class ByeError(Exception):
    """The session must end; the text is sent with BYE."""


class NoError(Exception):
    """The command fails; the text (with its response code) is sent with NO."""


class AnsweredError(Exception):
    """The command has sent its tagged answer itself."""


Handler = Callable[["IMAPSession", Head, Any], Awaitable[str]]
"""Does the work of a command, queues untagged responses, and returns the text of the tagged OK."""


@dataclass(frozen=True, slots=True)
class CommandRule:
    """A command of the table: where it is allowed and what does it."""

    states: frozenset[State]
    handle: Handler


class IMAPSession:
    """The session on one connection. Run it with :meth:`run`; it returns when the session is over."""

    def __init__(self, connection: Connection, surroundings: Surroundings, commands: Mapping[str, CommandRule]) -> None:
        self.connection = connection
        self.surroundings = surroundings
        self.inbox = surroundings.inbox
        self.state = State.NOT_AUTHENTICATED
        self.account: Account | None = None
        self.view: MailboxView | None = None
        self.condstore = False
        self.failed_logins = 0
        self._commands = commands
        self._errors = 0
        self._login_deadline = asyncio.get_running_loop().time() + surroundings.settings.login_timeout_seconds

    # --- the loop ---

    async def run(self) -> None:
        """Greet, then serve until LOGOUT, a limit, a time-out or the end of the connection."""
        self.untagged(b"OK [CAPABILITY " + self.capabilities() + b"] direct-gateway ready")
        try:
            while self.state is not State.LOGOUT:
                await self.connection.flush()
                async with self.patience():
                    raw = await self._read_command()
                if raw is not None:
                    await self._serve(raw)
        except ByeError as bye:
            self.untagged(b"BYE " + str(bye).encode("ascii"))
        except LineTooLongError:
            self.untagged(b"BYE [TOOBIG] Line too long")
        except TimeoutError:
            self.untagged(b"BYE Too slow, closing the connection")
        await self.connection.flush()

    def patience(self) -> AbstractAsyncContextManager[object]:
        """How long to wait for the client: until the login deadline, then the idle time-out."""
        if self.state is State.NOT_AUTHENTICATED:
            return asyncio.timeout_at(self._login_deadline)
        return asyncio.timeout(self.surroundings.settings.idle_timeout_minutes * 60)

    async def _serve(self, raw: bytes) -> None:
        tag = guess_tag(raw)
        try:
            answer = await self._answer(raw)
        except AnsweredError:
            return
        except (ByeError, ConnectionClosedError, LineTooLongError, TimeoutError):
            raise
        except Exception as error:
            # A fault in one command must not take the session with it.
            _log.fault("command_fault", error)
            if self.connection.in_slices:
                raise ConnectionClosedError from error
            answer = b"NO [SERVERBUG] Internal error"
        self.announce_news()
        self.connection.queue(tag + b" " + answer + b"\r\n")
        if self._errors >= MAX_CONSECUTIVE_ERRORS:
            raise ByeError("Too many errors")

    async def _answer(self, raw: bytes) -> bytes:
        """Do the command; the text behind its tag."""
        try:
            text = await self._dispatch(parse_head(raw))
        except ParseError as error:
            self._errors += 1
            return b"BAD " + str(error).encode("ascii")
        except BadCharsetError:
            return b"NO [BADCHARSET (US-ASCII UTF-8)] Charset is not supported"
        except NoError as error:
            return b"NO " + str(error).encode("ascii")
        except NotFoundError:
            return b"NO [NONEXISTENT] No such mailbox or message"
        except RefusedError as error:
            return b"NO [NOPERM] " + str(error).encode("ascii", "replace")
        except GatewayError as error:
            _log.warning("command_failed", exc=error)
            return b"NO [UNAVAILABLE] Temporary failure, please try again"
        self._errors = 0
        return b"OK " + text.encode("ascii")

    async def _dispatch(self, head: Head) -> str:
        rule = self._commands.get(head.name)
        if rule is None:
            raise ParseError("Unknown command")
        if self.state not in rule.states:
            raise ParseError(f"Command is not allowed in the {self.state.value} state")
        return await rule.handle(self, head, parse_arguments(head))

    # --- reading a command ---

    async def _read_command(self) -> bytes | None:
        """The whole command with its literals inline, or None when it was answered already."""
        line = raw = await self.connection.read_line()
        count = 0
        while (literal := _LITERAL_AT_END.search(line)) is not None:
            size = int(literal.group(1)) if len(literal.group(1)) < 10 else MAX_COMMAND_BYTES
            waits = not literal.group(2)
            if self._refuses_literal(raw, size, waits=waits):
                return None
            if waits:
                self.connection.queue(b"+ OK\r\n")
                await self.connection.flush()
            content = await self.connection.read_exactly(size)
            line = await self.connection.read_line()
            raw += b"\r\n" + content + line
            count += 1
            if len(raw) > MAX_COMMAND_BYTES or count > MAX_LITERALS:
                raise ByeError("[TOOBIG] Command too long")
        return raw

    def _refuses_literal(self, raw: bytes, size: int, *, waits: bool) -> bool:
        """Answer at once a command whose literal is not wanted; a client that does not wait is shown out."""
        before_login = self.state is State.NOT_AUTHENTICATED
        kib = self.surroundings.settings.max_literal_before_login_kib
        limit = min(kib * 1024 if before_login else MAX_LITERAL_BYTES, MAX_LITERAL_BYTES)
        if not waits:
            limit = min(limit, MAX_NON_SYNCHRONIZING_BYTES)
        too_big = size > limit or len(raw) + size > MAX_COMMAND_BYTES
        tag = guess_tag(raw)
        words = raw[len(tag) :].split(maxsplit=1)
        name = words[0].upper() if words else b""
        if waits and name == b"APPEND" and not before_login:
            # Refused before megabytes are sent: a message cannot be put here whatever it is.
            self.connection.queue(tag + b" NO [NOPERM] Messages cannot be added to this mailbox\r\n")
        elif waits and name == b"LOGIN" and before_login and not self.connection.encrypted:
            # Say it before the password crosses the network in clear.
            self.connection.queue(tag + b" NO [PRIVACYREQUIRED] Log in after STARTTLS\r\n")
        elif too_big and waits and not before_login:
            self.connection.queue(tag + b" NO [TOOBIG] Literal too long\r\n")
        elif too_big:
            raise ByeError("[TOOBIG] Literal too long")
        else:
            return False
        return True

    # --- for the commands ---

    def untagged(self, response: bytes) -> None:
        """Queue one untagged response."""
        self.connection.queue(b"* " + response + b"\r\n")

    def announce_news(self) -> None:
        """Queue what changed in the selected mailbox since the client was last told."""
        if self.view is not None:
            for response in self.view.news(condstore=self.condstore):
                self.connection.queue(response)

    def capabilities(self) -> bytes:
        """The capabilities at this moment."""
        return capabilities(encrypted=self.connection.encrypted, authenticated=self.account is not None)

    @property
    def actor(self) -> Account:
        """The account that is logged in."""
        if self.account is None:
            raise ParseError("Log in first")
        return self.account

    @property
    def selected(self) -> MailboxView:
        """The selected mailbox."""
        if self.view is None:
            raise ParseError("No mailbox is selected")
        return self.view

    def select(self, view: MailboxView | None) -> None:
        """Enter or leave the selected state."""
        self.view = view
        self.state = State.AUTHENTICATED if view is None else State.SELECTED

    def enable_condstore(self) -> None:
        """RFC 7162 3.1: from now on MODSEQ goes with every change of flags; say where the mailbox stands."""
        if not self.condstore:
            self.condstore = True
            if self.view is not None:
                self.untagged(b"OK [HIGHESTMODSEQ %d] Highest" % max(1, self.view.seen_modseq))

    def log_in(self, account: Account) -> None:
        """Enter the authenticated state."""
        self.account = account
        self.state = State.AUTHENTICATED
        self.failed_logins = 0
