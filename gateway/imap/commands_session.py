"""Commands about the session itself: capabilities, TLS, ID, ENABLE, NOOP, IDLE, LOGOUT."""

from __future__ import annotations

from gateway.imap.idling import Idling
from gateway.imap.parser import Head, ParseError
from gateway.imap.session import AnsweredError, IMAPSession, State
from gateway.observability.log import get_log

_log = get_log("imap")

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


async def identify(session: IMAPSession, _head: Head, program: str) -> str:
    """RFC 2971. Which program it is helps whoever looks for the cause of a trouble."""
    _log.info("client_identified", client=program.replace(" ", "_"), peer=session.connection.peer)
    session.untagged(SERVER_IDENTITY)
    return "ID completed"


async def enable(session: IMAPSession, _head: Head, names: tuple[str, ...]) -> str:
    """RFC 5161: names that are unknown are passed over in silence (mutt asks for UTF8=ACCEPT unseen)."""
    enabled = b""
    if "CONDSTORE" in names and not session.condstore:
        enabled += b" CONDSTORE"
    if "QRESYNC" in names and not session.qresync:
        session.qresync = True
        enabled += b" QRESYNC"
    session.untagged(b"ENABLED" + enabled)
    if enabled:
        session.enable_condstore()  # QRESYNC implies it (RFC 7162 3.2.3).
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


async def idle(session: IMAPSession, head: Head, _arguments: None) -> str:
    """RFC 2177. New messages are announced within milliseconds of their commit (EP-26). Its answer comes with DONE."""
    session.connection.queue(b"+ idling\r\n")
    subscription = None
    if session.view is not None:
        subscription = session.inbox.hub.subscribe(session.view.mailbox.id, session.connection.poke)
    session.idling = Idling(head.tag, subscription)
    # Subscribed first, then read: a commit in between is seen by one or the other.
    await session.look()
    raise AnsweredError
