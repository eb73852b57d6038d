"""What the SMTP commands mean on the STA listener (EP-5 to EP-10): one session, from greeting to goodbye.

Guarantees:

* ``250`` to DATA follows the durable commit and nothing else (EP-14, promise 1). The commit has no timer, and the
  departure of the client does not stop it (finding 3, F15).
* The bytes handed on are the bytes received. No trace header is added: they are evidence. What such a header would
  say stands in ``Inbound.peer``.
* No command, address or byte of a message reaches a log, and no reply repeats one (F16, F38).
* There is no AUTH, no relaying, no HELP and no EXPN here.

Failure modes: a fault of ours is a temporary reply, and the session goes on; see replies.py.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from gateway.core.address import normalise
from gateway.core.errors import InputError
from gateway.core.message import Body, Envelope, Inbound, Source
from gateway.core.peers import peer_network
from gateway.ingress import replies
from gateway.ingress.arriving import ArrivingMessage
from gateway.ingress.commands import MailCommand, SyntaxFault, parse_mail, parse_rcpt
from gateway.ingress.data_reader import DataReader, Problem
from gateway.ingress.limits import (
    COMMAND_LINE_BYTES,
    MAIL_LINE_BYTES,
    RECIPIENT_OVERSHOOT,
    STRESS_IDLE_COMMANDS,
    ByteBudget,
    Reservation,
    SMTPLimits,
)
from gateway.ingress.recipients import RecipientStatus
from gateway.ingress.spool import Spool
from gateway.ingress.wire import Gone, HangUp, Wire
from gateway.observability.log import EventLog

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_UNUSUAL_IN_HELO = re.compile(r"[^A-Za-z0-9.:\[\]_-]")
_KNOWN_UNIMPLEMENTED = frozenset({"AUTH", "BDAT", "ETRN", "EXPN", "HELP", "SAML", "SEND", "SOML", "TURN"})
Command = Callable[[str], Awaitable[None]]


class Host(Protocol):
    """What a session needs of its listener."""

    hostname: str
    limits: SMTPLimits
    budget: ByteBudget
    memory: ByteBudget
    spool: Spool
    tls: ssl.SSLContext | None
    log: EventLog

    def hurries(self, session: Session) -> bool:
        """Whether connections are getting scarce, in all or for its network."""
        ...

    def may_send(self, session: Session) -> bool:
        """Whether its network may begin one more message now."""
        ...

    def may_address(self, session: Session) -> bool:
        """Whether its network may name one more recipient now."""
        ...

    def may_tell(self, session: Session) -> bool:
        """Whether one more refusal of its network may be written to the log."""
        ...

    def ending(self, session: Session) -> None:
        """A session has nothing more to do than to say its last word: it needs its slot no longer."""
        ...

    def leave(self, session: Session) -> None:
        """The connection of a session is gone."""
        ...

    def recipient_status(self, address: str) -> RecipientStatus: ...

    def has_space_for(self, size_bytes: int) -> bool: ...

    async def commit(self, inbound: Inbound) -> str:
        """Accept durably and return the id. Goes on when the caller is cancelled."""
        ...


def _spelling(address: str) -> str:
    """The one spelling of an address. Nothing looser will do: what is taken for a repetition is not delivered."""
    try:
        return normalise(address)
    except InputError:
        return address


@dataclass(slots=True)
class _Transaction:
    """A mail transaction, from MAIL to DATA or RSET."""

    sender: MailCommand
    recipients: dict[str, str] = field(default_factory=dict)
    """As given, by the form in which addresses are compared: one that is named twice is delivered once."""
    asked: int = 0
    over_limit: int = 0


class Session(Wire):
    """One SMTP session of the STA listener."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._limits = host.limits
        super().__init__(hostname=host.hostname, tls=host.tls, seconds=self._silence_seconds)
        self._mail: _Transaction | None = None
        self._messages = 0
        self._without_message_since = self.loop.time()
        self._idle_commands = 0
        self._commands: dict[str, Command] = {
            "HELO": self._on_helo,
            "EHLO": self._on_ehlo,
            "STARTTLS": self._on_starttls,
            "MAIL": self._on_mail,
            "RCPT": self._on_rcpt,
            "DATA": self._on_data,
            "RSET": self._on_rset,
            "NOOP": self._on_noop,
            "VRFY": self._on_vrfy,
            "QUIT": self._on_quit,
        }

    # --- the connection ---

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._host.leave(self)

    def _silence_seconds(self) -> float:
        return self._limits.silence_seconds(stressed=self._host.hurries(self))

    def idle_seconds(self) -> float | None:
        """For how long nothing has been under way; None while something is."""
        return None if self._mail is not None else self.waiting_seconds()

    def stalled_seconds(self) -> float | None:
        """For how long it has had its slot, or has had it since its latest message; None while one is under way.

        What it says in between does not count: NOOP, one octet of a command at a time, a TLS handshake that hangs.
        """
        return self.loop.time() - self._without_message_since if self.can_be_evicted() else None

    # --- the loop ---

    async def _handle_client(self) -> None:
        """The life of the connection; replaces the loop of the base class and never raises but when cancelled."""
        peer = self.peer
        try:
            self._host.log.debug("smtp_connected", peer=peer)
            await self.push(f"220 {self.hostname} ESMTP")
            while True:
                await self._serve_command(await self._read_line())
        except HangUp as end:
            # The listener tells by itself, and not for each of them, that it sends connections away.
            if end.cause not in {"quit", "evicted"} and self._host.may_tell(self):
                self._host.log.info("smtp_hung_up", peer=peer, reason=end.cause)
            self._host.ending(self)
            await self._say_last(end.reply)
        except Gone:
            self._host.log.debug("smtp_client_left", peer=peer)
        except asyncio.CancelledError:
            # The grace of a shutdown is over. There is no time to wait for the client to read this.
            if self.transport is not None:
                self._writer.write(replies.SHUTTING_DOWN.encode() + b"\r\n")
            raise
        except Exception as exc:  # noqa: BLE001 - the last fence of the session
            self._host.log.fault("smtp_session_failed", exc, peer=peer)
            await self._say_last(replies.FAULT)
        finally:
            self._hang_up()

    async def _serve_command(self, line: bytes) -> None:
        self._idle_commands += 1
        allowed = self._limits.idle_commands
        if self._idle_commands > (min(allowed, STRESS_IDLE_COMMANDS) if self._host.hurries(self) else allowed):
            raise HangUp(replies.TOO_MANY_COMMANDS, "too_many_commands")
        verb_bytes, _, rest = line.rstrip(b"\r\n").partition(b" ")
        verb = verb_bytes.upper().decode("ascii", errors="replace")
        if len(line) > (MAIL_LINE_BYTES if verb == "MAIL" else COMMAND_LINE_BYTES):
            await self.push(replies.LINE_TOO_LONG)
            return
        if not line.endswith(b"\r\n") or _CONTROL.search(line[:-2]):
            # Whoever takes a bare LF for a line end may see commands that the sender's server saw as text.
            await self.push(replies.BAD_LINE)
            return
        command = self._commands.get(verb)
        if command is None:
            await self.push(replies.NOT_IMPLEMENTED if verb in _KNOWN_UNIMPLEMENTED else replies.UNKNOWN_COMMAND)
            return
        try:
            argument = rest.decode("utf-8").strip(" ")
        except UnicodeDecodeError:
            await self.push(replies.BAD_ARGUMENT)
            return
        try:
            await command(argument)
        except SyntaxFault as fault:
            await self.push(fault.reply)
        except (HangUp, Gone):
            raise
        except Exception as exc:  # noqa: BLE001 - whatever goes wrong here is our fault, and temporary
            await self.push(await self.handle_exception(exc))

    async def handle_exception(self, error: Exception) -> str:
        """The fixed, temporary reply for a fault of ours (F16); the base class would tell all with a 500."""
        self._host.log.fault("smtp_fault", error, peer=self.peer)
        return replies.for_fault(error)

    # --- greeting and TLS ---

    async def _on_helo(self, hostname: str) -> None:
        if await self._greeted(hostname):
            await self.push(f"250 {self.hostname}")

    async def _on_ehlo(self, hostname: str) -> None:
        if not await self._greeted(hostname):
            return
        lines = [
            self.hostname,
            f"SIZE {self._limits.message_bytes}",
            "PIPELINING",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
        ]
        if self._host.tls is not None and self._tls_protocol is None:
            lines.append("STARTTLS")
        await self.push("\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"]))

    async def _greeted(self, hostname: str) -> bool:
        if not hostname:
            await self.push(replies.BAD_ARGUMENT)
            return False
        self._set_rset_state()
        if self.session is not None:
            self.session.host_name = _UNUSUAL_IN_HELO.sub("?", hostname)
        return True

    async def _on_starttls(self, arg: str) -> None:
        if arg:
            await self.push(replies.BAD_ARGUMENT)
        elif self._tls_protocol is not None:
            await self.push(replies.TLS_ACTIVE)
        elif self._host.tls is None:
            await self.push(replies.TLS_UNAVAILABLE)
        else:
            # The base class makes a new session object when TLS is up, and so forgets HELO (RFC 3207 section 4.2).
            try:
                await self._start_tls()
            except OSError as exc:
                if self._host.may_tell(self):
                    self._host.log.info("smtp_tls_failed", peer=self.peer)
                raise Gone from exc

    def _set_rset_state(self) -> None:
        """Forget the transaction; also called by the base class when TLS is up."""
        super()._set_rset_state()  # type: ignore[no-untyped-call]
        self._mail = None

    # --- the transaction ---

    async def _on_mail(self, arg: str) -> None:
        if self.session is None or not self.session.host_name:
            await self.push(replies.NO_GREETING)
            return
        if self._mail is not None:
            await self.push(replies.NESTED_MAIL)
            return
        if self._messages >= self._limits.messages:
            raise HangUp(replies.TOO_MANY_MESSAGES, "too_many_messages")
        mail = parse_mail(arg)
        if mail.size_bytes > self._limits.message_bytes:
            await self._refuse(replies.TOO_LARGE, "too_large")
        elif mail.size_bytes > self._host.budget.free_for(peer_network(self.peer)):
            await self._refuse(replies.NO_BUDGET, "no_budget")
        elif not self._host.has_space_for(mail.size_bytes):
            await self._refuse(replies.NO_SPACE, "no_space")
        elif not self._host.may_send(self):
            await self.push(replies.MESSAGE_RATE)
        else:
            self._mail = _Transaction(mail)
            self._idle_commands -= 1
            await self.push(replies.SENDER_OK)

    async def _on_rcpt(self, arg: str) -> None:
        mail = self._mail
        if mail is None:
            await self.push(replies.NO_MAIL)
            return
        mail.asked += 1
        address = parse_rcpt(arg, smtputf8=mail.sender.smtputf8)
        if len(mail.recipients) >= self._limits.recipients:
            mail.over_limit += 1
            if mail.over_limit > RECIPIENT_OVERSHOOT:
                raise HangUp(replies.TOO_MANY_COMMANDS, "too_many_recipients")
            self._idle_commands -= 1
            await self.push(replies.TOO_MANY_RECIPIENTS)
            return
        if not self._host.may_address(self):
            await self.push(replies.RECIPIENT_RATE)
            return
        status = self._host.recipient_status(address)
        if status is RecipientStatus.LOCAL:
            spelling = _spelling(address)
            if spelling not in mail.recipients:
                mail.recipients[spelling] = address
                self._idle_commands -= 1
            await self.push(replies.RECIPIENT_OK)
        elif status is RecipientStatus.UNKNOWN:
            await self._refuse(replies.UNKNOWN_RECIPIENT, "unknown_recipient")
        else:
            await self._refuse(replies.RELAY_DENIED, "relay_denied")

    async def _on_data(self, arg: str) -> None:
        mail = self._mail
        if arg:
            await self.push(replies.BAD_ARGUMENT)
            return
        if mail is None:
            await self.push(replies.NO_MAIL)
            return
        if not mail.recipients:
            await self.push(replies.NO_VALID_RECIPIENT if mail.asked else replies.NO_RECIPIENT)
            return
        self._messages += 1
        # Whatever becomes of the message, the transaction ends with it (RFC 5321 section 4.1.1.4).
        self._set_rset_state()
        started = self.loop.time()
        hold, memory = self._host.budget.reservation(peer_network(self.peer)), self._host.memory.reservation()
        try:
            await self.push(replies.GO_AHEAD)
            reader = DataReader(self._limits.message_bytes, hold)
            body = await self._receive(reader, memory)
            if body is None:
                problem = reader.problem or Problem.FAULT
                await self._refuse(replies.BY_PROBLEM[problem], problem.value)
                return
            size = body.size_bytes
            envelope = Envelope(mail.sender.address, tuple(mail.recipients.values()))
            message_id = await self._host.commit(Inbound(body, envelope, Source.SMTP, self._facts()))
        finally:
            hold.release()
            memory.release()
        self._idle_commands = 0
        self._without_message_since = self.loop.time()
        self._host.log.info(
            "smtp_accepted",
            peer=self.peer,
            message_id=message_id,
            size_bytes=size,
            recipients=len(envelope.recipients),
            duration_ms=round((self.loop.time() - started) * 1000),
        )
        await self.push(replies.accepted(message_id))

    async def _receive(self, reader: DataReader, memory: Reservation) -> Body | None:
        """Read a message to its end; None when it is refused, and the reader's problem says why."""
        host = self._host
        arriving = ArrivingMessage(reader, host.spool, memory, self._limits.spool_above_bytes, host.has_space_for)
        try:
            await self._read_to_end(reader, arriving)
        except (HangUp, Gone):
            raise
        except Exception as exc:  # noqa: BLE001 - whatever goes wrong here is our fault, and temporary
            # The end of the message has not come: what stands in it must not be read as commands (F17).
            host.log.fault("smtp_fault", exc, peer=self.peer)
            raise HangUp(replies.FAULT_IN_DATA, "fault_in_data") from None
        return await arriving.body()

    async def _read_to_end(self, reader: DataReader, arriving: ArrivingMessage) -> None:
        host, limits = self._host, self._limits
        started = self.loop.time()
        received = 0
        chunk = bytes(self._pending)
        self._pending.clear()
        while (rest := reader.feed(chunk)) is None:
            await arriving.settle()
            stressed = host.hurries(self)
            seconds = limits.data_seconds_left(self.loop.time() - started, received, stressed=stressed)
            try:
                async with asyncio.timeout(seconds) as self._patience:
                    chunk = await self._read_chunk()
            except TimeoutError:
                raise HangUp(replies.TIMED_OUT, "data_timeout") from None
            finally:
                self._patience = None
            received += len(chunk)
        self._pending += rest

    async def _refuse(self, reply: str, reason: str) -> None:
        if self._host.may_tell(self):
            self._host.log.info("smtp_refused", peer=self.peer, reason=reason)
        await self.push(reply)

    def _facts(self) -> str:
        """What a trace header would say of the client: address and port, its HELO name, the TLS in use."""
        session = self.session
        peername = session.peer if session is not None else None
        facts = [f"[{peername[0]}]:{peername[1]}" if isinstance(peername, tuple) else "unknown"]
        if session is not None:
            facts.append(f"helo={session.host_name}")
            cipher = (session.ssl or {}).get("cipher")
            facts.append(f"tls={cipher[1]}/{cipher[0]}" if cipher else "tls=none")
        return " ".join(facts)

    # --- the rest ---

    async def _on_rset(self, arg: str) -> None:
        if arg:
            await self.push(replies.BAD_ARGUMENT)
            return
        self._set_rset_state()
        await self.push(replies.OK)

    async def _on_noop(self, _arg: str) -> None:
        await self.push(replies.OK)

    async def _on_vrfy(self, arg: str) -> None:
        await self.push(replies.CANNOT_VERIFY if arg else replies.BAD_ARGUMENT)

    async def _on_quit(self, arg: str) -> None:
        if arg:
            await self.push(replies.BAD_ARGUMENT)
            return
        raise HangUp(replies.BYE, "quit")
