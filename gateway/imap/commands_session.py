"""Commands about the session itself: capabilities, TLS, login, ID, ENABLE, NOOP, IDLE, LOGOUT."""

from __future__ import annotations

import asyncio
import base64
import binascii
from contextlib import ExitStack
from typing import Any

from gateway.core.errors import GatewayError
from gateway.imap.parser import AuthenticateArguments, Head, LoginArguments, ParseError
from gateway.imap.session import AnsweredError, ByeError, IMAPSession, NoError, State
from gateway.inbox.change_hub import Subscription
from gateway.observability.log import get_log

_log = get_log("imap")

MAX_FAILED_LOGINS = 5
SERVER_IDENTITY = b'ID ("name" "direct-gateway")'


async def capability(session: IMAPSession, _head: Head, _arguments: None) -> str:
    session.untagged(b"CAPABILITY " + session.capabilities())
    return "CAPABILITY completed"


async def noop(session: IMAPSession, head: Head, _arguments: None) -> str:
    """NOOP and CHECK: the client polls, so the store is asked; the news follow with the answer (EP-26)."""
    if session.view is not None:
        await session.view.mailbox.refresh()
    return f"{head.name} completed"


async def logout(session: IMAPSession, _head: Head, _arguments: None) -> str:
    session.untagged(b"BYE Logging out")
    session.select(None)
    session.state = State.LOGOUT
    return "LOGOUT completed"


async def identify(session: IMAPSession, _head: Head, _arguments: None) -> str:
    session.untagged(SERVER_IDENTITY)
    return "ID completed"


async def enable(session: IMAPSession, _head: Head, names: tuple[str, ...]) -> str:
    """RFC 5161: names that are unknown are passed over in silence (mutt asks for UTF8=ACCEPT unseen)."""
    enabled = b""
    if "CONDSTORE" in names and not session.condstore:
        session.enable_condstore()
        enabled = b" CONDSTORE"
    session.untagged(b"ENABLED" + enabled)
    return "ENABLE completed"


async def starttls(session: IMAPSession, head: Head, _arguments: None) -> str:
    """RFC 3501 6.2.1. What the client sent behind the command in clear is thrown away (F21)."""
    if session.connection.encrypted:
        raise ParseError("TLS is active already")
    session.connection.queue(head.tag + b" OK Begin TLS negotiation now\r\n")
    await session.connection.flush()
    await session.connection.start_tls(session.surroundings.tls)
    session.failed_logins = 0
    raise AnsweredError


async def login(session: IMAPSession, _head: Head, arguments: LoginArguments) -> str:
    if not session.connection.encrypted:
        raise NoError("[PRIVACYREQUIRED] Log in after STARTTLS")
    return await _authenticate(session, arguments.login, arguments.password)


async def authenticate(session: IMAPSession, _head: Head, arguments: AuthenticateArguments) -> str:
    """AUTHENTICATE PLAIN (RFC 4616), with or without an initial response (RFC 4959)."""
    if not session.connection.encrypted:
        raise NoError("[PRIVACYREQUIRED] Log in after STARTTLS")
    if arguments.mechanism != "PLAIN":
        raise NoError("Unsupported authentication mechanism")
    encoded = arguments.initial
    if encoded is None:
        session.connection.queue(b"+ \r\n")
        await session.connection.flush()
        async with session.patience():
            encoded = await session.connection.read_line()
        if encoded == b"*":
            raise ParseError("Authentication cancelled")
    elif encoded == b"=":
        encoded = b""
    try:
        pieces = base64.b64decode(encoded, validate=True).split(b"\x00")
    except binascii.Error:
        raise ParseError("Invalid base64") from None
    if len(pieces) != 3:
        raise ParseError("Invalid PLAIN response")
    authorization, login_name, password = pieces
    if authorization not in {b"", login_name}:
        raise NoError("[AUTHORIZATIONFAILED] Nobody may act for another account")
    return await _authenticate(session, login_name, password)


async def _authenticate(session: IMAPSession, login_name: bytes, password: bytes) -> str:
    surroundings = session.surroundings
    # Nobody has a login with U+FFFD in it: such an attempt fails like any other, delayed and audited.
    name = login_name.decode("utf-8", "replace")
    account = await surroundings.authenticator.authenticate(name, password, session.connection.peer)
    if account is not None:
        _log.info("login", account_id=account.id, peer=session.connection.peer)
        session.log_in(account)
        return "[CAPABILITY " + session.capabilities().decode("ascii") + "] Logged in"
    _log.warning("login_refused", peer=session.connection.peer)
    session.failed_logins += 1
    await asyncio.sleep(surroundings.settings.failed_login_delay_seconds)
    if session.failed_logins >= MAX_FAILED_LOGINS:
        raise ByeError("Too many failed logins")
    raise NoError("[AUTHENTICATIONFAILED] Wrong login or password")


async def idle(session: IMAPSession, _head: Head, _arguments: None) -> str:
    """RFC 2177. New messages are announced within milliseconds of their commit (EP-26)."""
    session.connection.queue(b"+ idling\r\n")
    with ExitStack() as stack:
        subscription = None
        if session.view is not None:
            subscription = stack.enter_context(session.inbox.hub.subscribe(session.view.mailbox.id))
            # Subscribed first, then read: a commit in between is seen by one or the other.
            await _look(session)
        await session.connection.flush()
        async with session.patience():
            line = await _until_done(session, subscription)
    if line.upper() != b"DONE":
        raise ParseError("Expected DONE")
    return "IDLE completed"


async def _until_done(session: IMAPSession, subscription: Subscription | None) -> bytes:
    reading = asyncio.ensure_future(session.connection.read_line())
    pending: list[asyncio.Future[Any]] = [reading]
    try:
        while True:
            if subscription is not None:
                pending = [reading, asyncio.ensure_future(subscription.wait())]
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return reading.result()
            await _look(session)
            await session.connection.flush()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _look(session: IMAPSession) -> None:
    """Read and announce. A store that cannot answer now must not break off the IDLE: the next hint tries again."""
    if session.view is None:
        return
    try:
        await session.view.mailbox.refresh()
    except GatewayError as error:
        _log.warning("idle_refresh_failed", exc=error)
    session.announce_news()
