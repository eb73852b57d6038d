"""Commands about the messages of the selected mailbox: FETCH, SEARCH, STORE, and those that are refused."""

from __future__ import annotations

from gateway.core.errors import RefusedError
from gateway.imap.fetch import Fetcher, FetchPlan
from gateway.imap.parser import FetchArguments, Head, SearchArguments, StoreArguments
from gateway.imap.responses import compact_set
from gateway.imap.scanner import Ranges
from gateway.imap.search import search as find
from gateway.imap.session import IMAPSession, NoError
from gateway.imap.view import MailboxView, flag_answer
from gateway.inbox.flags import FlagChange, canonical


def _is_uid(head: Head) -> bool:
    return head.name.startswith("UID ")


async def fetch(session: IMAPSession, head: Head, arguments: FetchArguments) -> str:
    view, uid = session.selected, _is_uid(head)
    names = {item.name for item in arguments.items}
    if arguments.changed_since is not None or "MODSEQ" in names:
        session.enable_condstore()
    indexes = list(view.indexes(arguments.ranges, uid=uid))
    if arguments.changed_since is not None:
        await view.mailbox.refresh()
        entries, since = view.mailbox.entries, arguments.changed_since
        indexes = [index for index in indexes if entries[index].modseq > since]
    plan = FetchPlan.of(arguments.items, uid=uid, modseq=arguments.changed_since is not None)
    await Fetcher(session.connection, session.inbox, view, plan).send(indexes)
    return f"{head.name} completed"


async def search(session: IMAPSession, head: Head, arguments: SearchArguments) -> str:
    view, uid = session.selected, _is_uid(head)
    if arguments.uses_modseq:
        session.enable_condstore()
    found = await find(session.inbox, view, arguments.key)
    entries = view.mailbox.entries
    numbers = [entries[index].uid if uid else index + 1 for index in found]
    highest = max((entries[index].modseq for index in found), default=0) if arguments.uses_modseq else 0
    if arguments.returns is None:
        modseq = b" (MODSEQ %d)" % highest if highest else b""
        session.untagged(b"SEARCH" + b"".join(b" %d" % number for number in numbers) + modseq)
    else:
        session.untagged(_extended_answer(head, arguments.returns, numbers, uid=uid, highest=highest))
    return f"{head.name} completed"


def _extended_answer(head: Head, returns: tuple[str, ...], numbers: list[int], *, uid: bool, highest: int) -> bytes:
    """ESEARCH (RFC 4731). A tag is made of characters that a quoted string can hold."""
    answer = b'ESEARCH (TAG "' + head.tag + b'")' + (b" UID" if uid else b"")
    if numbers and "MIN" in returns:
        answer += b" MIN %d" % numbers[0]
    if numbers and "MAX" in returns:
        answer += b" MAX %d" % numbers[-1]
    if numbers and "ALL" in returns:
        answer += b" ALL " + compact_set(numbers)
    if "COUNT" in returns:
        answer += b" COUNT %d" % len(numbers)
    return answer + (b" MODSEQ %d" % highest if highest else b"")


async def store(session: IMAPSession, head: Head, arguments: StoreArguments) -> str:
    r"""STORE. What is never stored (\Deleted) is passed over, and the true flags are shown: the no-delete rules."""
    view, uid = session.selected, _is_uid(head)
    mailbox = view.mailbox
    indexes = list(view.indexes(arguments.ranges, uid=uid))
    change = FlagChange(arguments.action, frozenset(canonical(flag, mailbox.keywords) for flag in arguments.flags))
    if view.read_only:
        raise NoError("[NOPERM] Mailbox is open for reading only")
    if arguments.unchanged_since is not None:
        session.enable_condstore()
    uids = [mailbox.uids[index] for index in indexes]
    modified = await session.inbox.change_flags(view.grant, uids, change, unchanged_since=arguments.unchanged_since)
    done = [index for index in indexes if not modified or mailbox.uids[index] not in modified]
    await _show_flags(session, view, done, flags=not arguments.silent or change.drops)
    if modified:
        return f"[MODIFIED {_modified_set(view, modified, uid=uid)}] Conditional STORE failed for some messages"
    return f"{head.name} completed"


async def _show_flags(session: IMAPSession, view: MailboxView, indexes: list[int], *, flags: bool) -> None:
    """Untagged FETCH for what was stored. A silent client that uses CONDSTORE still needs the new MODSEQ."""
    mailbox, connection = view.mailbox, session.connection
    for response in view.new_keywords():
        connection.queue(response)
    for index in indexes:
        entry = mailbox.entries[index]
        view.told[index] = entry.modseq
        if flags or session.condstore:
            answer = flag_answer(entry, condstore=session.condstore, flags=flags)
            connection.queue(b"* %d FETCH (%s)\r\n" % (index + 1, answer))
            await connection.flush_when_full()


def _modified_set(view: MailboxView, modified: set[int], *, uid: bool) -> str:
    if uid:
        return compact_set(sorted(modified)).decode("ascii")
    indexes = sorted(index for number in modified if (index := view.mailbox.index_of(number)) is not None)
    return compact_set([index + 1 for index in indexes]).decode("ascii")


async def expunge(_session: IMAPSession, head: Head, _arguments: object) -> str:
    r"""EXPUNGE and UID EXPUNGE: nothing is ever \Deleted, so there is nothing to remove, and that is a success."""
    return f"{head.name} completed"


async def refuse_copy(_session: IMAPSession, _head: Head, _arguments: Ranges) -> str:
    """COPY and MOVE: a message stays where it was filed."""
    raise RefusedError("Messages cannot be copied or moved")
