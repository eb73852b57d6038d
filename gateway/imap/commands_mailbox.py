"""Commands about mailboxes: LIST, STATUS, SELECT, rights. Nothing here can make, rename or remove a mailbox."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from gateway.core.errors import NotFoundError, RefusedError
from gateway.imap.mailbox_names import SEPARATOR, matches, parents
from gateway.imap.parser import Head, ListArguments, SelectArguments, StatusArguments
from gateway.imap.responses import applicable_flags, mailbox_name
from gateway.imap.session import IMAPSession, NoError
from gateway.imap.view import MailboxView
from gateway.inbox.flags import permanent_flags, visible_rights
from gateway.inbox.open_mailbox import OpenMailbox


async def namespace(session: IMAPSession, _head: Head, _arguments: None) -> str:
    session.untagged(b'NAMESPACE (("" "/")) NIL NIL')
    return "NAMESPACE completed"


@dataclass(frozen=True, slots=True)
class _Listed:
    """A name of the hierarchy; ``real`` unless it only has children."""

    name: str
    real: bool
    has_children: bool


async def list_mailboxes(session: IMAPSession, head: Head, arguments: ListArguments) -> str:
    """LIST with RFC 5258, 5819, 6154. Every folder is subscribed, none has a special use: there is no Trash."""
    verb = head.name.encode("ascii")
    tree = _tree([folder.name for folder in await session.inbox.folders(session.actor)])
    for pattern in arguments.patterns:
        if not pattern and verb == b"LIST":
            session.untagged(b'LIST (\\Noselect) "/" ""')
    for listed in tree:
        if _chosen(listed, tree, arguments):
            session.untagged(verb + b" " + _list_line(listed, tree, arguments))
            if listed.real and arguments.status:
                with suppress(RefusedError, NotFoundError):  # RFC 5819: a status that is not to be had is left out.
                    await _send_status(session, listed.name, arguments.status)
    return f"{head.name} completed"


def _tree(names: list[str]) -> list[_Listed]:
    """The folders and the levels above them, in order."""
    real = set(names)
    inner = {above for name in names for above in parents(name)}
    order = dict.fromkeys(part for name in names for part in (*parents(name), name))
    return [_Listed(name, name in real, name in inner) for name in order]


def _chosen(listed: _Listed, tree: list[_Listed], arguments: ListArguments) -> bool:
    if "SPECIAL-USE" in arguments.selection or not _matches_any(listed.name, arguments):
        return False
    if listed.real or "SUBSCRIBED" not in arguments.selection:
        return True
    return "RECURSIVEMATCH" in arguments.selection and _has_hidden_child(listed, tree, arguments)


def _matches_any(name: str, arguments: ListArguments) -> bool:
    return any(matches(pattern, name) for pattern in arguments.patterns)


def _list_line(listed: _Listed, tree: list[_Listed], arguments: ListArguments) -> bytes:
    attributes: list[bytes] = []
    if not listed.real:
        attributes.append(b"\\NonExistent" if arguments.extended else b"\\Noselect")
    elif "SUBSCRIBED" in arguments.selection | arguments.returns:
        attributes.append(b"\\Subscribed")
    attributes.append(b"\\HasChildren" if listed.has_children else b"\\HasNoChildren")
    line = b"(" + b" ".join(attributes) + b') "/" ' + mailbox_name(listed.name)
    if "RECURSIVEMATCH" in arguments.selection and _has_hidden_child(listed, tree, arguments):
        line += b' ("CHILDINFO" ("SUBSCRIBED"))'
    return line


def _has_hidden_child(listed: _Listed, tree: list[_Listed], arguments: ListArguments) -> bool:
    """Whether a subscribed folder below it does not match by itself (RFC 5258 section 3.5)."""
    below = [other.name for other in tree if other.real and other.name.startswith(listed.name + SEPARATOR)]
    return any(not _matches_any(name, arguments) for name in below)


async def subscribe(session: IMAPSession, head: Head, name: str) -> str:
    """Every folder is subscribed for good; the wish to change that is granted and has no effect."""
    if head.name == "SUBSCRIBE":
        await session.inbox.folder(session.actor, name)
    return f"{head.name} completed"


async def status(session: IMAPSession, _head: Head, arguments: StatusArguments) -> str:
    if "HIGHESTMODSEQ" in arguments.items:
        session.enable_condstore()
    await _send_status(session, arguments.mailbox, arguments.items)
    return "STATUS completed"


async def _send_status(session: IMAPSession, name: str, items: tuple[str, ...]) -> None:
    grant = await session.inbox.open(session.actor, name)
    values = _status_values(grant.mailbox)
    pairs = " ".join(f"{item} {values[item]}" for item in items)
    session.untagged(b"STATUS " + mailbox_name(grant.folder.name) + b" (" + pairs.encode("ascii") + b")")


def _status_values(mailbox: OpenMailbox) -> dict[str, int]:
    return {
        "MESSAGES": len(mailbox),
        "RECENT": 0,
        "UIDNEXT": mailbox.uid_next,
        "UIDVALIDITY": mailbox.uid_validity,
        "UNSEEN": mailbox.unseen,
        "HIGHESTMODSEQ": max(1, mailbox.highest_modseq),
        "SIZE": mailbox.size_bytes,
        "DELETED": 0,
    }


async def select(session: IMAPSession, head: Head, arguments: SelectArguments) -> str:
    """SELECT and EXAMINE. READ-WRITE although nothing can be deleted: see the no-delete rules."""
    session.select(None)
    grant = await session.inbox.open(session.actor, arguments.mailbox)
    session.condstore = session.condstore or arguments.condstore
    permanent = permanent_flags(grant.folder.rights)
    read_only = head.name == "EXAMINE" or not permanent
    view = MailboxView.of(grant, read_only=read_only)
    mailbox = grant.mailbox
    session.untagged(b"FLAGS " + applicable_flags(mailbox.keywords.values()))
    shown = "" if read_only else " ".join(permanent)
    session.untagged(b"OK [PERMANENTFLAGS (" + shown.encode("ascii") + b")] Flags that are kept")
    session.untagged(b"%d EXISTS" % view.exists)
    session.untagged(b"0 RECENT")
    unseen = mailbox.first_unseen()
    if unseen is not None:
        session.untagged(b"OK [UNSEEN %d] First unseen message" % (unseen + 1))
    session.untagged(b"OK [UIDVALIDITY %d] UIDs never change" % mailbox.uid_validity)
    session.untagged(b"OK [UIDNEXT %d] Next UID" % mailbox.uid_next)
    session.untagged(b"OK [HIGHESTMODSEQ %d] Highest" % max(1, mailbox.highest_modseq))
    session.select(view)
    return f"[{'READ-ONLY' if read_only else 'READ-WRITE'}] {head.name} completed"


async def unselect(session: IMAPSession, head: Head, _arguments: None) -> str:
    r"""CLOSE and UNSELECT: nothing is ever \Deleted, so they are the same."""
    session.select(None)
    return f"{head.name} completed"


async def my_rights(session: IMAPSession, _head: Head, name: str) -> str:
    """RFC 4314. The missing ``t``, ``e`` and ``x`` are what makes a client switch its Delete off."""
    folder = await session.inbox.folder(session.actor, name)
    rights = visible_rights(folder.rights).encode("ascii")
    session.untagged(b"MYRIGHTS " + mailbox_name(folder.name) + b" " + rights)
    return "MYRIGHTS completed"


async def refuse_rights(session: IMAPSession, _head: Head, name: str) -> str:
    """GETACL, LISTRIGHTS, SETACL, DELETEACL need the right to administer, which nobody has over IMAP."""
    await session.inbox.folder(session.actor, name)
    raise NoError("[NOPERM] Rights are managed by the operator")


async def refuse_mailbox_change(_session: IMAPSession, _head: Head, _arguments: object) -> str:
    """CREATE, DELETE, RENAME, APPEND: the folders are fixed, and messages come in only as Direct messages."""
    raise NoError("[NOPERM] Folders and messages cannot be made or removed here")
