"""Commands that list mailboxes: NAMESPACE, LIST, LSUB, SUBSCRIBE and UNSUBSCRIBE (RFC 2342, 3501, 5258, 5819, 6154).

Guarantees: a name is listed once, however many patterns it matches; the levels above a folder are names that cannot be
selected; a status that is not to be had is left out and spoils nothing.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from gateway.core.errors import NotFoundError, RefusedError
from gateway.imap.commands_mailbox import send_status
from gateway.imap.mailbox_names import SEPARATOR, matches, parents
from gateway.imap.parser import Head, ListArguments
from gateway.imap.responses import mailbox_name
from gateway.imap.session import IMAPSession
from gateway.ports import Folder


async def namespace(session: IMAPSession, _head: Head, _arguments: None) -> str:
    session.untagged(b'NAMESPACE (("" "/")) NIL NIL')
    return "NAMESPACE completed"


@dataclass(frozen=True, slots=True)
class _Listed:
    """A name of the hierarchy; without ``folder`` it only has children, or is subscribed to and is gone."""

    name: str
    folder: Folder | None
    subscribed: bool
    has_children: bool


async def list_mailboxes(session: IMAPSession, head: Head, arguments: ListArguments) -> str:
    """LIST and LSUB. There is no Trash here: a mail client that looks for one finds none."""
    verb = head.name.encode("ascii")
    if verb == b"LIST" and not arguments.extended and arguments.patterns == ("",):
        session.untagged(b'LIST (\\Noselect) "/" ""')
        return "LIST completed"
    folders = {folder.name: folder for folder in await session.inbox.folders(session.actor)}
    subscribed = await session.inbox.subscriptions(session.actor)
    tree = _tree(folders, subscribed, with_gone="SUBSCRIBED" in arguments.selection)
    for listed in tree:
        if _is_shown(listed, tree, arguments):
            session.untagged(verb + b" " + _list_line(listed, tree, arguments))
            if listed.folder is not None and arguments.status and _meets(listed, arguments):
                with suppress(RefusedError, NotFoundError):  # RFC 5819: it is left out.
                    await send_status(session, listed.name, arguments.status)
                await session.connection.flush_when_full()
    return f"{head.name} completed"


def _tree(folders: dict[str, Folder], subscribed: list[str], *, with_gone: bool) -> list[_Listed]:
    """The folders and the levels above them, in order; ``with_gone`` with the subscribed names that are no folders."""
    names = [*folders, *(name for name in subscribed if with_gone and name not in folders)]
    known = set(subscribed)
    inner = {above for name in folders for above in parents(name)}
    order = dict.fromkeys(part for name in names for part in (*parents(name), name))
    return [_Listed(name, folders.get(name), name in known, name in inner) for name in order]


def _is_shown(listed: _Listed, tree: list[_Listed], arguments: ListArguments) -> bool:
    if not _matches(listed, arguments):
        return False
    if _meets(listed, arguments):
        return True
    # RFC 3501 6.3.9: LSUB shows what is above a name that the wildcard does not reach, else nobody would find it.
    return (arguments.lsub or "RECURSIVEMATCH" in arguments.selection) and _has_below(listed, tree, arguments)


def _matches(listed: _Listed, arguments: ListArguments) -> bool:
    return any(matches(pattern, listed.name) for pattern in arguments.patterns)


def _meets(listed: _Listed, arguments: ListArguments) -> bool:
    """Whether the name meets the selection options by itself."""
    if "SUBSCRIBED" in arguments.selection and not listed.subscribed:
        return False
    if "SPECIAL-USE" in arguments.selection:
        return listed.folder is not None and bool(listed.folder.special_use)
    return True


def _has_below(listed: _Listed, tree: list[_Listed], arguments: ListArguments) -> bool:
    """Whether a name below it meets the options and is not listed by itself (RFC 5258 section 5, example 9)."""
    prefix = listed.name + SEPARATOR
    below = (other for other in tree if other.name.startswith(prefix) and _meets(other, arguments))
    return any(not _matches(other, arguments) for other in below)


def _list_line(listed: _Listed, tree: list[_Listed], arguments: ListArguments) -> bytes:
    attributes: list[str] = []
    if arguments.lsub and not (listed.folder is not None and listed.subscribed):
        attributes.append("\\Noselect")
    elif listed.folder is None:
        attributes.append("\\NonExistent" if arguments.extended else "\\Noselect")
    if listed.subscribed and not arguments.lsub and "SUBSCRIBED" in arguments.selection | arguments.returns:
        attributes.append("\\Subscribed")
    attributes.append("\\HasChildren" if listed.has_children else "\\HasNoChildren")
    if listed.folder is not None and listed.folder.special_use:
        attributes.append(listed.folder.special_use)
    line = b"(" + " ".join(attributes).encode("ascii") + b') "/" ' + mailbox_name(listed.name)
    if "RECURSIVEMATCH" in arguments.selection and _has_below(listed, tree, arguments):
        options = sorted(arguments.selection & {"SUBSCRIBED", "SPECIAL-USE"})
        line += b' ("CHILDINFO" (' + " ".join(f'"{option}"' for option in options).encode("ascii") + b"))"
    return line


async def subscribe(session: IMAPSession, head: Head, name: str) -> str:
    """SUBSCRIBE and UNSUBSCRIBE."""
    change = session.inbox.subscribe if head.name == "SUBSCRIBE" else session.inbox.unsubscribe
    await change(session.actor, name)
    return f"{head.name} completed"
