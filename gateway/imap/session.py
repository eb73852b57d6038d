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
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from gateway.core.errors import GatewayError, NotFoundError, RefusedError
from gateway.imap.change_arguments import awaits_message
from gateway.imap.idling import Idling
from gateway.imap.parser import BadCharsetError, Head, ParseError, guess_tag, parse_arguments, parse_head
from gateway.imap.recents import Recents
from gateway.imap.responses import capabilities
from gateway.imap.view import MailboxView
from gateway.inbox.mailbox_service import MailboxService
from gateway.inbox.readings import Readings
from gateway.observability.log import get_log
from gateway.pipeline.byte_gate import ByteGate
from gateway.ports import Account
from gateway.serving.authenticator import Authenticator
from gateway.serving.connection import Connection, ConnectionClosedError, LineTooLongError
from gateway.serving.patience import Patience
from gateway.serving.session_registry import SessionHandle, SessionRegistry
from gateway.settings import IMAPSettings

_log = get_log("imap")

MAX_CONSECUTIVE_ERRORS = 20
MAX_NON_SYNCHRONIZING_BYTES = 4096
"""RFC 7888: LITERAL- allows ``{n+}`` up to this size."""
MAX_LITERAL_BYTES = 65_536
MAX_LITERALS = 100
MAX_DIGITS = 10
"""Of the size of a literal; what has more is larger than anything that is taken."""
MAX_COMMAND_BYTES = 262_144
MAX_APPENDING_BYTES = 128 * 1024 * 1024
"""Of messages on their way in, all sessions together."""
APPENDING_SHARES = 4
"""One account may hold that part of them, so that nobody's uploads close the way for everybody."""
NUMBERS_STAY = frozenset({"FETCH", "STORE", "SEARCH"})
"""Commands during which no message number may change its meaning (RFC 3501 7.4.1)."""
_LITERAL_AT_END = re.compile(rb"\{(\d+)(\+?)\}\Z")


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
LEAVE_THE_MAILBOX = frozenset({"SELECT", "EXAMINE", "CLOSE", "UNSELECT", "LOGOUT"})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every session of a listener shares."""

    settings: IMAPSettings
    authenticator: Authenticator
    inbox: MailboxService
    tls: ssl.SSLContext
    sessions: SessionRegistry | None = None
    recents: Recents = field(default_factory=Recents)
    append_gate: ByteGate = field(default_factory=lambda: ByteGate(at_once_bytes=MAX_APPENDING_BYTES))
    append_shares: WeakValueDictionary[int, ByteGate] = field(default_factory=WeakValueDictionary)

    def append_share(self, account_id: int) -> ByteGate:
        """The gate of one account, which comes before that of all; it is there for as long as somebody holds it."""
        share = self.append_shares.get(account_id)
        if share is None:
            share = self.append_shares[account_id] = ByteGate(at_once_bytes=MAX_APPENDING_BYTES // APPENDING_SHARES)
        return share


class PendingLiteral(NamedTuple):
    """A literal that a line announces. Who ``waits`` sends it when he is told to."""

    size: int
    waits: bool


def pending_literal(line: bytes) -> PendingLiteral | None:
    """The literal that comes after the line, or None."""
    found = _LITERAL_AT_END.search(line)
    if found is None:
        return None
    digits = found.group(1)
    return PendingLiteral(int(digits) if len(digits) < MAX_DIGITS else sys.maxsize, not found.group(2))


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

    __slots__ = (
        "_commands",
        "_errors",
        "_handle",
        "_login_deadline",
        "_looked",
        "_patience",
        "_running",
        "account",
        "condstore",
        "connection",
        "failed_logins",
        "idling",
        "inbox",
        "qresync",
        "readings",
        "revoked",
        "state",
        "surroundings",
        "view",
    )

    def __init__(self, connection: Connection, surroundings: Surroundings, commands: Mapping[str, CommandRule]) -> None:
        self.connection = connection
        self.surroundings = surroundings
        self.inbox = surroundings.inbox
        self.state = State.NOT_AUTHENTICATED
        self.account: Account | None = None
        self.view: MailboxView | None = None
        self.revoked = False
        """Whether the selected mailbox may not be read any more: nothing of it is told then."""
        self._looked = False
        """Whether that was looked at for the command under way: what is no command asks for no look."""
        self.idling: Idling | None = None
        self.condstore = False
        self.qresync = False
        self.failed_logins = 0
        self.readings: dict[tuple[int, str], Readings] = {}
        """By mailbox and view: what of it is in the audit log as seen by this session."""
        self._commands = commands
        self._errors = 0
        self._running = ""
        self._handle: SessionHandle | None = None
        self._patience = Patience()
        self._login_deadline = asyncio.get_running_loop().time() + surroundings.settings.login_timeout_seconds

    # --- the loop ---

    async def run(self) -> None:
        """Greet, then serve until LOGOUT, a limit, a time-out or the end of the connection."""
        self.untagged(b"OK [CAPABILITY " + self.capabilities() + b"] direct-gateway ready")
        try:
            while self.state is not State.LOGOUT:
                await self.connection.flush()
                idling = self.idling
                async with self.patience():
                    # Many sessions are in IDLE at once, and each holds what is between the loop and this line.
                    raw = await (self._read_command() if idling is None else idling.line(self.connection, self.look))
                if raw is not None:
                    await self._serve(raw)
        except ByeError as bye:
            self.untagged(b"BYE " + str(bye).encode("ascii"))
        except LineTooLongError:
            self.untagged(b"BYE [TOOBIG] Line too long")
        except TimeoutError:
            self.untagged(b"BYE Too slow, closing the connection")
        finally:
            self._patience.close()
            self._end_idle()
            if self._handle is not None:
                await self._handle.end()
        await self.connection.flush()

    def farewell(self) -> bytes:
        """See :class:`gateway.serving.listener.Session`."""
        if self._handle is not None and self._handle.ended.is_set():
            return b"* BYE The session was ended by an operator\r\n"
        return b"* BYE Server shutting down\r\n"

    def patience(self) -> Patience:
        """How long to wait for the client: until the login deadline, then the idle time-out."""
        if self.state is State.NOT_AUTHENTICATED:
            return self._patience.until(self._login_deadline)
        return self._patience.seconds(self.surroundings.settings.idle_timeout_minutes * 60)

    async def _serve(self, raw: bytes) -> None:
        if self.idling is not None:
            self._conclude_idle(self.idling.tag, raw)
            return
        tag = guess_tag(raw)
        self._looked = False
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
            self._end_idle()
            answer = b"NO [SERVERBUG] Internal error"
        self._conclude(tag, answer)

    def _conclude(self, tag: bytes, answer: bytes) -> None:
        """The news, and then the tagged answer of a command. Raises ByeError: there were too many errors."""
        self.announce_news(expunges=self._running not in NUMBERS_STAY)
        self.connection.queue(tag + b" " + answer + b"\r\n")
        if self._errors >= MAX_CONSECUTIVE_ERRORS:
            raise ByeError("Too many errors")

    def _conclude_idle(self, tag: bytes, line: bytes) -> None:
        self._end_idle()
        is_done = line.upper() == b"DONE"
        self._errors = 0 if is_done else self._errors + 1
        self._conclude(tag, b"OK IDLE completed" if is_done else b"BAD Expected DONE")

    def _end_idle(self) -> None:
        idling, self.idling = self.idling, None
        if idling is not None:
            idling.close()

    async def _answer(self, raw: bytes) -> bytes:
        """Do the command; the text behind its tag."""
        self._running = ""
        try:
            head = parse_head(raw)
            self._running = head.name
            text = await self._dispatch(head)
        except ParseError as error:
            self._errors += 1
            return b"BAD " + str(error).encode("ascii")
        except BadCharsetError as error:
            if error.save and self.view is not None:
                self.view.save([])
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
        if self.view is not None and head.name not in LEAVE_THE_MAILBOX:
            await self.look_at_rights()
            if self.revoked and rule.states == WITH_MAILBOX:
                raise NoError("[NOPERM] The right to read this mailbox was taken away")
        return await rule.handle(self, head, parse_arguments(head))

    # --- reading a command ---

    async def _read_command(self) -> bytes | None:
        """The whole command with its literals inline, or None when it was answered already."""
        line = raw = await self.connection.read_line()
        count = 0
        while (literal := pending_literal(line)) is not None:
            size, waits = literal
            if waits and self.state in AFTER_LOGIN and awaits_message(raw):
                return raw  # The command asks for the message when it knows that it is wanted.
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
        if waits and name == b"LOGIN" and before_login and not self.connection.encrypted:
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

    async def look_at_rights(self) -> None:
        """Let what an operator has granted or taken away since the mailbox was selected hold from now on."""
        self._looked = False
        if self.view is not None:
            grant = await self.inbox.in_force(self.view.grant)
            self.revoked, self._looked = grant is None, True
            if grant is not None:
                self.view.grant = grant

    async def look(self) -> None:
        """Read and announce, in IDLE. Neither a store that cannot answer nor a fault ends it: the next hint comes."""
        if self.view is None:
            return
        try:
            await self.look_at_rights()
            await self.view.mailbox.refresh()
        except GatewayError as error:
            _log.warning("idle_refresh_failed", exc=error)
        try:
            self.announce_news()
        except Exception as error:  # noqa: BLE001 - whatever it is, it does not take the session with it
            _log.fault("command_fault", error)

    def announce_news(self, *, expunges: bool = True) -> None:
        """Queue what changed in the selected mailbox since the client was last told, if it may be told now."""
        if self.view is not None and self._looked and not self.revoked:
            for response in self.view.news(condstore=self.condstore, expunges=expunges, by_uid=self.qresync):
                self.connection.queue(response)

    def capabilities(self) -> bytes:
        """The capabilities at this moment."""
        return capabilities(
            encrypted=self.connection.encrypted,
            authenticated=self.account is not None,
            takes_tokens=self.surroundings.authenticator.takes_tokens,
            further=self.inbox.policy.capabilities,
        )

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
        # Who is let in has the right at this moment.
        self.revoked, self._looked = False, True
        self.state = State.AUTHENTICATED if view is None else State.SELECTED

    def enable_condstore(self) -> None:
        """RFC 7162 3.1: from now on MODSEQ goes with every change of flags; say where the mailbox stands."""
        if not self.condstore:
            self.condstore = True
            if self.view is not None:
                self.untagged(b"OK [HIGHESTMODSEQ %d] Highest" % max(1, self.view.seen_modseq))

    def log_in(self, account: Account) -> None:
        """Enter the authenticated state. From now on an operator can end the session, whatever it is doing."""
        sessions, task = self.surroundings.sessions, asyncio.current_task()
        if sessions is not None and task is not None:
            self._handle = sessions.begin(account, "imap", self.connection.peer)
            self._handle.on_end(task.cancel)
        self.account = account
        self.state = State.AUTHENTICATED
        self.failed_logins = 0
