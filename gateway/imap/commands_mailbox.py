"""Commands that look at or enter one mailbox: STATUS, SELECT, EXAMINE, UNSELECT."""

from __future__ import annotations

from gateway.imap.parser import Head, SelectArguments, StatusArguments
from gateway.imap.responses import applicable_flags, mailbox_id, mailbox_name
from gateway.imap.resync import resynchronize
from gateway.imap.scanner import ParseError
from gateway.imap.session import IMAPSession
from gateway.imap.view import MailboxView
from gateway.inbox.readings import Readings
from gateway.inbox.service import Grant
from gateway.inbox.shared_mailbox import SharedMailbox


async def status(session: IMAPSession, _head: Head, arguments: StatusArguments) -> str:
    """STATUS, of the selected mailbox as well."""
    if "HIGHESTMODSEQ" in arguments.items:
        session.enable_condstore()
    await send_status(session, arguments.mailbox, arguments.items)
    return "STATUS completed"


async def send_status(session: IMAPSession, name: str, items: tuple[str, ...]) -> None:
    """The STATUS response of one mailbox. Raises NotFoundError, RefusedError, StoreError."""
    grant = await session.inbox.open(session.actor, name)
    values = _status_values(session, grant)
    if "SIZE" in items:
        # RFC 8438: at least the sizes of the messages that are told of, so it is asked for after them.
        values["SIZE"] = b"%d" % await _total_size(grant.mailbox)
    pairs = b" ".join(item.encode("ascii") + b" " + values[item] for item in items)
    session.untagged(b"STATUS " + mailbox_name(grant.folder.name) + b" (" + pairs + b")")


def _status_values(session: IMAPSession, grant: Grant) -> dict[str, bytes]:
    mailbox = grant.mailbox
    numbers = {
        "MESSAGES": mailbox.present,
        "RECENT": _recent(session, grant),
        "UIDNEXT": mailbox.uid_next,
        "UIDVALIDITY": mailbox.uid_validity,
        "UNSEEN": mailbox.unseen,
        "HIGHESTMODSEQ": max(1, mailbox.highest_modseq),
    }
    return {item: b"%d" % value for item, value in numbers.items()} | {
        "MAILBOXID": b"(" + mailbox_id(grant.folder) + b")"
    }


def _recent(session: IMAPSession, grant: Grant) -> int:
    r"""What no session was told of, and, of the mailbox that is selected here, what is \Recent in this one."""
    mailbox, view = grant.mailbox, session.view
    untold = session.surroundings.recents.untold(grant, len(mailbox))
    own = view.recent if view is not None and _same(view.grant, grant) else ()
    return sum(not mailbox.is_gone(index) for index in {*untold, *own})


def _same(one: Grant, other: Grant) -> bool:
    return (one.folder.mailbox_id, one.folder.view) == (other.folder.mailbox_id, other.folder.view)


async def _total_size(mailbox: SharedMailbox) -> int:
    if not mailbox.loses:
        return await mailbox.details.total_size(len(mailbox))
    here = [index for index in range(len(mailbox)) if not mailbox.is_gone(index)]
    await mailbox.details.need(here)
    return sum(map(mailbox.details.size_bytes, here))


async def select(session: IMAPSession, head: Head, arguments: SelectArguments) -> str:
    """SELECT and EXAMINE. READ-WRITE although nothing can be deleted: see the no-delete rules."""
    if arguments.resync is not None and not session.qresync:
        raise ParseError("QRESYNC must be enabled first")
    if session.view is not None:
        # RFC 7162 3.2.11: what comes before this line is about the other mailbox.
        session.untagged(b"OK [CLOSED] The mailbox before is closed")
    session.select(None)
    grant = await session.inbox.open(session.actor, arguments.mailbox)
    session.condstore = session.condstore or arguments.condstore
    folder, mailbox = grant.folder, grant.mailbox
    permanent = session.inbox.policy.permanent_flags(folder.rights)
    readings = session.readings.setdefault((folder.mailbox_id, folder.view), Readings())
    if mailbox.loses:
        # When nobody has it open it may be forgotten, and its slots are given out anew.
        readings = session.readings[folder.mailbox_id, folder.view] = Readings()
    read_only = head.name == "EXAMINE" or not permanent
    view = MailboxView.of(grant, readings, session.surroundings.recents, read_only=read_only)
    session.untagged(b"FLAGS " + applicable_flags(mailbox.keywords.values()))
    shown = "" if read_only else " ".join(permanent)
    session.untagged(b"OK [PERMANENTFLAGS (" + shown.encode("ascii") + b")] Flags that are kept")
    session.untagged(b"%d EXISTS" % view.exists)
    session.untagged(b"%d RECENT" % len(view.recent))
    unseen = mailbox.first_unseen()
    if unseen is not None:
        session.untagged(b"OK [UNSEEN %d] First unseen message" % view.number(unseen))
    session.untagged(b"OK [UIDVALIDITY %d] UIDs never change" % mailbox.uid_validity)
    session.untagged(b"OK [UIDNEXT %d] Next UID" % mailbox.uid_next)
    session.untagged(b"OK [HIGHESTMODSEQ %d] Highest" % max(1, view.seen_modseq))
    session.untagged(b"OK [MAILBOXID (" + mailbox_id(folder) + b")] Object id")
    if arguments.resync is not None:
        await resynchronize(session, view, arguments.resync)
    session.select(view)
    return f"[{'READ-ONLY' if read_only else 'READ-WRITE'}] {head.name} completed"


async def unselect(session: IMAPSession, _head: Head, _arguments: None) -> str:
    session.select(None)
    return "UNSELECT completed"
