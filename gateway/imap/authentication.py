"""LOGIN and AUTHENTICATE: by password (RFC 3501, RFC 4616) and by access token (RFC 7628), never before TLS (EP-20).

What a client is told of a refusal is the same whatever the cause. The one exception is NO [LIMIT] for an account that
has as many sessions as it may: only who gave the right secret is told that.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable

from gateway.core.errors import TooManySessionsError
from gateway.imap.parser import AuthenticateArguments, Head, LoginArguments, ParseError
from gateway.imap.session import ByeError, IMAPSession, NoError
from gateway.observability.log import get_log
from gateway.ports import Account
from gateway.serving.sasl import SASLError, bearer, plain

_log = get_log("imap")

MAX_FAILED_LOGINS = 5
PROTOCOL = "imap"
INVALID_TOKEN = base64.b64encode(json.dumps({"status": "invalid_token", "schemes": "bearer"}).encode())
"""RFC 7628 section 3.2.2; the same for everything that can be wrong with a token."""


async def login(session: IMAPSession, _head: Head, arguments: LoginArguments) -> str:
    _encrypted_only(session)
    return await _by_password(session, arguments.login, arguments.password)


async def authenticate(session: IMAPSession, _head: Head, arguments: AuthenticateArguments) -> str:
    """PLAIN and OAUTHBEARER, with or without an initial response (RFC 4959)."""
    _encrypted_only(session)
    takes_tokens = session.surroundings.authenticator.takes_tokens
    if arguments.mechanism != "PLAIN" and not (arguments.mechanism == "OAUTHBEARER" and takes_tokens):
        raise NoError("[CANNOT] Unsupported authentication mechanism")
    encoded = arguments.initial
    if encoded is None:
        encoded = await _continuation(session, b"")
        if encoded == b"*":
            raise ParseError("Authentication cancelled")
    try:
        if arguments.mechanism == "OAUTHBEARER":
            given = bearer(encoded)
            return await _by_token(session, given.authorization, given.token)
        who = plain(encoded)
    except SASLError as error:
        raise ParseError(str(error)) from None
    if who.authorization not in {b"", who.login}:
        raise NoError("[AUTHORIZATIONFAILED] Nobody may act for another account")
    return await _by_password(session, who.login, who.password)


def _encrypted_only(session: IMAPSession) -> None:
    if not session.connection.encrypted:
        raise NoError("[PRIVACYREQUIRED] Log in after STARTTLS")


async def _continuation(session: IMAPSession, challenge: bytes) -> bytes:
    """Send a challenge, which is base64 already, and return the client's line."""
    session.connection.queue(b"+ " + challenge + b"\r\n")
    await session.connection.flush()
    async with session.patience():
        return await session.connection.read_line()


async def _by_password(session: IMAPSession, login_name: bytes, password: bytes) -> str:
    # Nobody has a login with U+FFFD in it: such an attempt fails like any other, delayed and audited.
    name = login_name.decode("utf-8", "replace")
    asked = session.surroundings.authenticator.authenticate(name, password, session.connection.peer, PROTOCOL)
    return await _decided(session, await _answer(asked))


async def _by_token(session: IMAPSession, authorization: str, token: str) -> str:
    """A refusal is told in a challenge, which the client answers with whatever it likes before the NO."""
    asked = session.surroundings.authenticator.authenticate_token(
        token, authorization, session.connection.peer, PROTOCOL
    )
    account = await _answer(asked)
    if account is None:
        await _continuation(session, INVALID_TOKEN)
    return await _decided(session, account)


async def _answer(asked: Awaitable[Account | None]) -> Account | None:
    try:
        return await asked
    except TooManySessionsError:
        raise NoError("[LIMIT] This login has too many sessions open; close a mail client and try again") from None


async def _decided(session: IMAPSession, account: Account | None) -> str:
    if account is not None:
        # Nothing may be waited for before this: the session counts from here.
        session.log_in(account)
        _log.info("login", account_id=account.id, peer=session.connection.peer)
        return "[CAPABILITY " + session.capabilities().decode("ascii") + "] Logged in"
    _log.warning("login_refused", peer=session.connection.peer)
    session.failed_logins += 1
    await asyncio.sleep(session.surroundings.settings.failed_login_delay_seconds)
    if session.failed_logins >= MAX_FAILED_LOGINS:
        raise ByeError("Too many failed logins")
    raise NoError("[AUTHENTICATIONFAILED] Wrong login or password")
