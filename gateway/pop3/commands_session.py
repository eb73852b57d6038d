"""Commands about the session itself: capabilities, TLS, login, NOOP, QUIT (RFC 1939, 2449, 2595, 5034)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable

from gateway.core.errors import GatewayError, TooManySessionsError
from gateway.observability.log import get_log
from gateway.pop3.session import (
    ClosingError,
    POP3Session,
    RefusalError,
    State,
    SyntaxRefusalError,
    no_argument,
)
from gateway.ports import Account
from gateway.serving.sasl import MAX_RESPONSE_BYTES, Bearer, SASLError, bearer, plain

_log = get_log("pop3")

MAX_FAILED_LOGINS = 5
_ALWAYS = (b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING", b"EXPIRE NEVER")
_IMPLEMENTATION = b"IMPLEMENTATION direct-gateway"
_INVALID_TOKEN = base64.b64encode(b'{"status":"invalid_token"}')


def _mechanisms(session: POP3Session) -> list[bytes]:
    """The SASL mechanisms that may be used now: none in clear text."""
    if not session.connection.encrypted:
        return []
    return [b"PLAIN", b"OAUTHBEARER"] if session.surroundings.authenticator.takes_tokens else [b"PLAIN"]


async def capa(session: POP3Session, arguments: bytes) -> None:
    """RFC 2449 section 5. Before TLS neither USER nor SASL is named, and STLS only then."""
    no_argument(arguments)
    mechanisms = _mechanisms(session)
    ways = [b"USER", b"SASL " + b" ".join(mechanisms)] if mechanisms else [b"STLS"]
    await session.begin_lines("Capability list follows")
    await session.send_lines(line + b"\r\n" for line in (*ways, *_ALWAYS, _IMPLEMENTATION))
    await session.end_lines()


async def stls(session: POP3Session, arguments: bytes) -> None:
    """RFC 2595 section 4. What the client sent behind the command in clear is thrown away (F21), and what it said."""
    no_argument(arguments)
    if session.connection.encrypted:
        raise SyntaxRefusalError("TLS is active already")
    session.connection.queue(b"+OK Begin TLS negotiation\r\n")
    await session.connection.flush()
    await session.connection.start_tls(session.surroundings.tls)
    session.user = None
    session.failed_logins = 0


def _encrypted_only(session: POP3Session) -> None:
    if not session.connection.encrypted:
        raise RefusalError("Log in after STLS")


async def user(session: POP3Session, arguments: bytes) -> str:
    """Nothing is said here of whether there is such a login."""
    _encrypted_only(session)
    if not arguments:
        raise SyntaxRefusalError("USER needs a name")
    session.user = arguments
    return "Send the password"


async def pass_(session: POP3Session, arguments: bytes) -> str:
    """RFC 1939 section 7: all that follows the first space is the password, spaces too."""
    _encrypted_only(session)
    name, session.user = session.user, None
    if name is None:
        raise SyntaxRefusalError("PASS comes after USER")
    return await _log_in_with_password(session, name, arguments)


async def auth(session: POP3Session, arguments: bytes) -> str | None:
    """RFC 5034, with or without an initial response. Without a mechanism it lists them, as clients of old ask."""
    name, _, initial = arguments.partition(b" ")
    if not name:
        await session.begin_lines("Mechanisms follow")
        await session.send_lines(mechanism + b"\r\n" for mechanism in _mechanisms(session))
        await session.end_lines()
        return None
    _encrypted_only(session)
    mechanism = name.upper()
    if mechanism not in _mechanisms(session):
        raise RefusalError("Unsupported authentication mechanism")
    encoded = initial or await session.continuation()
    if encoded == b"*":
        raise RefusalError("Authentication cancelled")
    if len(encoded) > MAX_RESPONSE_BYTES:
        raise SyntaxRefusalError("Response too long")
    try:
        if mechanism == b"PLAIN":
            given = plain(encoded)
            if given.authorization not in {b"", given.login}:
                raise RefusalError("[AUTH] Nobody may act for another account")
            return await _log_in_with_password(session, given.login, given.password)
        return await _log_in_with_token(session, bearer(encoded))
    except SASLError as error:
        raise SyntaxRefusalError(str(error)) from None


async def _log_in_with_password(session: POP3Session, login: bytes, password: bytes) -> str:
    # Nobody has a login with U+FFFD in it: such an attempt fails like any other, delayed and audited.
    name = login.decode("utf-8", "replace")
    asked = session.surroundings.authenticator.authenticate(name, password, session.connection.peer, "pop3")
    return await _decided(session, await _answer(asked))


async def _log_in_with_token(session: POP3Session, given: Bearer) -> str:
    """RFC 7628: a refusal is told in a challenge, which the client answers before it is said again."""
    asked = session.surroundings.authenticator.authenticate_token(
        given.token, given.authorization, session.connection.peer, "pop3"
    )
    account = await _answer(asked)
    if account is None:
        await session.continuation(_INVALID_TOKEN)
    return await _decided(session, account)


async def _answer(asked: Awaitable[Account | None]) -> Account | None:
    try:
        return await asked
    except TooManySessionsError:
        raise RefusalError("[SYS/TEMP] This login has too many sessions now") from None


async def _decided(session: POP3Session, account: Account | None) -> str:
    if account is not None:
        await session.log_in(account)
        _log.info("login", account_id=account.id, peer=session.connection.peer)
        return f"Logged in, {len(session.maildrop)} messages"
    _log.warning("login_refused", peer=session.connection.peer)
    session.failed_logins += 1
    await asyncio.sleep(session.surroundings.settings.failed_login_delay_seconds)
    if session.failed_logins >= MAX_FAILED_LOGINS:
        raise ClosingError("[AUTH] Too many failed logins")
    raise RefusalError("[AUTH] Wrong login or password")


async def noop(_session: POP3Session, arguments: bytes) -> str:
    no_argument(arguments)
    return "Done"


async def quit_(session: POP3Session, arguments: bytes) -> str:
    """RFC 1939 sections 5 and 6: what is marked as deleted leaves the listing here, all of it or nothing."""
    no_argument(arguments)
    logged_in, session.state = session.state is State.TRANSACTION, State.UPDATE
    if logged_in and session.deleted:
        try:
            await session.maildrops.hide(session.maildrop, sorted(session.deleted))
        except GatewayError as error:
            _log.warning("command_failed", exc=error)
            raise RefusalError("[SYS/TEMP] No message was removed, please try again") from None
    return "Goodbye"
