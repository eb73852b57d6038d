"""The commands that change which messages and mailboxes there are: CREATE, DELETE, RENAME, APPEND, COPY, MOVE, EXPUNGE.

They do not know whether it is allowed: they ask the mailbox service, which does it or refuses it. The gateway's own
refuses all but APPEND to where the account may insert, and writes each attempt into the audit log before it says so.

Guarantees: a message that is not wanted is refused before the client sends it, if it waits for leave; the octets of
messages on their way in are bounded, all sessions together. What was done is answered with the codes of UIDPLUS.

Failure modes: a connection that breaks off within a message leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.core.errors import ConflictError, NotFoundError, RefusedError
from gateway.imap.change_arguments import AppendArguments, CopyArguments, CreateArguments
from gateway.imap.mailbox_names import SEPARATOR
from gateway.imap.parser import Head
from gateway.imap.responses import compact_set, mailbox_id
from gateway.imap.scanner import ParseError, Ranges
from gateway.imap.session import ByeError, IMAPSession, NoError, pending_literal
from gateway.inbox.no_delete import COPY_REFUSED, MAILBOX_CHANGE_REFUSED, NO_CHANGE, Copied
from gateway.serving.connection import SLICE_BYTES

STALL_SECONDS = 60.0
"""In which each SLICE_BYTES of a message must be here, else the session ends."""
_NO_TARGET = "[TRYCREATE] No such mailbox"
_IN_USE = "[ALREADYEXISTS] There is a mailbox of that name"


# --- mailboxes ---


async def create(session: IMAPSession, _head: Head, arguments: CreateArguments) -> str:
    """CREATE. Parameters (RFC 4466, such as a special use) are offered by nothing here, so they are refused."""
    if arguments.parameters:
        await session.inbox.record_refusal(session.actor, MAILBOX_CHANGE_REFUSED)
        raise RefusedError(NO_CHANGE)
    try:
        await session.inbox.create(session.actor, arguments.mailbox)
    except ConflictError:
        raise NoError(_IN_USE) from None
    folder = await session.inbox.folder(session.actor, arguments.mailbox.removesuffix(SEPARATOR))
    return f"[MAILBOXID ({mailbox_id(folder).decode('ascii')})] CREATE completed"


async def delete(session: IMAPSession, _head: Head, name: str) -> str:
    await session.inbox.delete(session.actor, name)
    return "DELETE completed"


async def rename(session: IMAPSession, _head: Head, names: tuple[str, ...]) -> str:
    old, new = names
    try:
        await session.inbox.rename(session.actor, old, new)
    except ConflictError:
        raise NoError(_IN_USE) from None
    return "RENAME completed"


# --- messages that come in ---


async def append(session: IMAPSession, _head: Head, arguments: AppendArguments) -> str:
    """APPEND of one message. A message that is not here yet is asked for only when it is wanted."""
    inbox, account, mailbox = session.inbox, session.actor, arguments.mailbox
    try:
        await inbox.appendable(account, mailbox)
        async with _message(session, arguments) as content:
            validity, uid = await inbox.append(account, mailbox, arguments.flags, arguments.internal_date, content)
    except NotFoundError:
        raise NoError(_NO_TARGET) from None
    await _look_again(session)
    return f"[APPENDUID {validity} {uid}] APPEND completed"


@asynccontextmanager
async def _message(session: IMAPSession, arguments: AppendArguments) -> AsyncIterator[bytes]:
    """The octets of the message, for as long as there is room for them."""
    if arguments.size == 0:
        raise await _unwanted(session, "[CANNOT] A message cannot be empty")
    if arguments.size > session.surroundings.settings.max_append_mib << 20:
        raise await _unwanted(session, "[TOOBIG] Message too large")
    if arguments.content is not None:
        yield arguments.content
        return
    share = session.surroundings.append_share(session.actor.id)
    async with share.hold(arguments.size), session.surroundings.append_gate.hold(arguments.size):
        yield await _receive(session, arguments.size)


async def _unwanted(session: IMAPSession, text: str) -> NoError:
    """The refusal of a message, which is written down first."""
    await session.inbox.record_refusal(session.actor, MAILBOX_CHANGE_REFUSED)
    return NoError(text)


async def _receive(session: IMAPSession, size: int) -> bytes:
    """Let the client send it. Nothing may follow: MULTIAPPEND is not offered."""
    session.connection.queue(b"+ OK\r\n")
    await session.connection.flush()
    content = bytearray()
    while len(content) < size:
        # Others wait for the room: a connection that is dead, or as good as that, must not keep it for half an hour.
        async with asyncio.timeout(STALL_SECONDS):
            content += await session.connection.read_large(min(SLICE_BYTES, size - len(content)))
    async with session.patience():
        line = await session.connection.read_line()
    if line:
        if (literal := pending_literal(line)) is not None and not literal.waits:
            # Its octets are on their way and would be taken for commands.
            raise ByeError("[CANNOT] One message at a time")
        raise ParseError("Unexpected text after the message")
    if b"\x00" in content:
        raise ParseError("NUL in a literal")
    return bytes(content)


# --- messages that are copied or leave ---


async def copy(session: IMAPSession, head: Head, arguments: CopyArguments) -> str:
    view = session.selected
    try:
        copied = await session.inbox.copy(view.grant, _uids(session, head, arguments.ranges), arguments.mailbox)
    except NotFoundError:
        raise NoError(_NO_TARGET) from None
    await _look_again(session)
    return f"{_copyuid(copied)}{head.name} completed"


async def move(session: IMAPSession, head: Head, arguments: CopyArguments) -> str:
    """MOVE (RFC 6851). Where the messages went is told before they are told to have left."""
    view = session.selected
    uids = _uids(session, head, arguments.ranges)
    if view.read_only:
        await session.inbox.record(view.grant, COPY_REFUSED, uids)
        raise NoError("[NOPERM] Mailbox is open for reading only")
    try:
        copied = await session.inbox.move(view.grant, uids, arguments.mailbox)
    except NotFoundError:
        raise NoError(_NO_TARGET) from None
    if code := _copyuid(copied):
        session.untagged(b"OK " + code.encode("ascii") + b"Moved")
    await _look_again(session)
    return f"{head.name} completed"


async def expunge(session: IMAPSession, head: Head, ranges: Ranges | None) -> str:
    """EXPUNGE and UID EXPUNGE. In a mailbox that is open for reading only it has no effect, and is no error."""
    view = session.selected
    uids = None if ranges is None else _uids(session, head, ranges)
    left = await session.inbox.expunge(view.grant, [] if view.read_only else uids)
    await _look_again(session)
    # RFC 7162 3.2.7: a client that keeps track is told how far this brings it.
    code = f"[HIGHESTMODSEQ {view.mailbox.highest_modseq}] " if left and session.condstore else ""
    return f"{code}{head.name} completed"


async def close(session: IMAPSession, _head: Head, _arguments: None) -> str:
    r"""CLOSE. Where messages can be deleted it removes those that are, untold (RFC 3501 6.4.2)."""
    view = session.selected
    if session.inbox.policy.close_expunges and not view.read_only:
        await session.inbox.expunge(view.grant, None)
    session.select(None)
    return "CLOSE completed"


def _uids(session: IMAPSession, head: Head, ranges: Ranges) -> list[int]:
    view = session.selected
    uids = view.mailbox.uids
    return [uids[index] for index in view.indexes(ranges, uid=head.name.startswith("UID "))]


def _copyuid(copied: Copied) -> str:
    """RFC 4315: nothing is said when nothing was copied."""
    validity, pairs = copied
    if not pairs:
        return ""
    was, now = (compact_set(numbers).decode("ascii") for numbers in zip(*pairs, strict=True))
    return f"[COPYUID {validity} {was} {now}] "


async def _look_again(session: IMAPSession) -> None:
    """The selected mailbox may be the one that was changed: its news go before the tagged answer."""
    if session.view is not None:
        await session.view.mailbox.refresh()
