"""Commands about rights: MYRIGHTS, GETACL, LISTRIGHTS, and those that would change them (RFC 4314).

Rights are granted by the operator's command, never over IMAP. Who may look a mailbox up is told his own rights; who has
the right to administer it (``a``) is told everybody's. Nobody is told whether there is some other person.

Failure modes: NotFoundError for a mailbox that the account may not know of; StoreError when the store cannot answer.
"""

from __future__ import annotations

from gateway.imap.parser import Head, MailboxAndIdentifier
from gateway.imap.responses import astring, mailbox_name
from gateway.imap.session import IMAPSession, NoError
from gateway.inbox.flags import visible_rights
from gateway.inbox.no_delete import MAILBOX_CHANGE_REFUSED
from gateway.ports import Folder

ADMINISTER = "a"
INSERT = "i"
SENT = "\\Sent"


async def my_rights(session: IMAPSession, _head: Head, name: str) -> str:
    """The missing ``t``, ``e`` and ``x`` are what makes a client switch its Delete off."""
    folder = await session.inbox.folder(session.actor, name)
    session.untagged(b"MYRIGHTS " + mailbox_name(folder.name) + b" " + _shown(session, folder.rights))
    return "MYRIGHTS completed"


async def get_acl(session: IMAPSession, _head: Head, name: str) -> str:
    """Who sees the mailbox, as far as this account may know."""
    folder = await session.inbox.folder(session.actor, name)
    answer = b"ACL " + mailbox_name(folder.name)
    for login, rights in await session.inbox.rights_on(session.actor, folder):
        shown = _shown(session, rights)
        if shown:
            answer += b" " + astring(login) + b" " + shown
    session.untagged(answer)
    return "GETACL completed"


async def list_rights(session: IMAPSession, _head: Head, arguments: MailboxAndIdentifier) -> str:
    """Which rights the operator could grant to somebody: each by itself, none is always there."""
    folder = await session.inbox.folder(session.actor, arguments.mailbox)
    if ADMINISTER not in folder.rights and arguments.identifier.casefold() != session.actor.login.casefold():
        raise NoError("[NOPERM] Only your own rights can be listed")
    rights = " ".join(right for right in session.inbox.policy.supported_rights if _could_have(folder, right))
    identifier = astring(arguments.identifier)
    session.untagged(b"LISTRIGHTS " + mailbox_name(folder.name) + b" " + identifier + b' "" ' + rights.encode("ascii"))
    return "LISTRIGHTS completed"


async def refuse_rights(session: IMAPSession, _head: Head, arguments: MailboxAndIdentifier) -> str:
    """SETACL and DELETEACL. The attempt is written down first."""
    await session.inbox.folder(session.actor, arguments.mailbox)
    await session.inbox.record_refusal(session.actor, MAILBOX_CHANGE_REFUSED)
    raise NoError("[NOPERM] Rights are granted by the operator, not over IMAP")


def _shown(session: IMAPSession, rights: str) -> bytes:
    return visible_rights(rights, session.inbox.policy.supported_rights).encode("ascii")


def _could_have(folder: Folder, right: str) -> bool:
    """Messages can be put only where sent mail is kept, or where somebody may do that already."""
    return right != INSERT or INSERT in folder.rights or folder.special_use == SENT
