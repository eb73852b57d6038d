"""Commands about the messages of the selected mailbox that change no more than flags: FETCH, SEARCH, STORE."""

from __future__ import annotations

from gateway.core.errors import GatewayError
from gateway.imap.fetch import Fetcher, FetchPlan
from gateway.imap.parser import FetchArguments, Head, SearchArguments, StoreArguments
from gateway.imap.responses import compact_set
from gateway.imap.resync import send_vanished
from gateway.imap.scanner import ParseError
from gateway.imap.search import search as find
from gateway.imap.search import text_terms
from gateway.imap.session import IMAPSession, NoError
from gateway.imap.view import MailboxView
from gateway.inbox.flags import FlagAction, FlagChange, canonical
from gateway.inbox.service import DELETE_IGNORED, MESSAGE_SEARCHED


def _is_uid(head: Head) -> bool:
    return head.name.startswith("UID ")


async def fetch(session: IMAPSession, head: Head, arguments: FetchArguments) -> str:
    view, uid = session.selected, _is_uid(head)
    names = {item.name for item in arguments.items}
    if arguments.vanished and not (uid and session.qresync):
        raise ParseError("VANISHED needs UID FETCH and ENABLE QRESYNC")
    if arguments.changed_since is not None or "MODSEQ" in names:
        session.enable_condstore()
    indexes = list(view.indexes(arguments.ranges, uid=uid))
    if arguments.changed_since is not None:
        await view.mailbox.refresh()
        modseqs, since = view.mailbox.modseqs, arguments.changed_since
        indexes = [index for index in indexes if modseqs[index] > since]
        if arguments.vanished:
            await send_vanished(session, view, since, arguments.ranges)
    plan = FetchPlan.of(arguments.items, uid=uid, modseq=arguments.changed_since is not None)
    fetcher = Fetcher(session.connection, session.inbox, view, plan)
    await fetcher.send(indexes)
    if session.condstore and all(item.name != "MODSEQ" for item in plan.items):
        view.told.clear()  # What was read has become seen: the client needs the MODSEQ of that (RFC 7162 3.1.2).
    if fetcher.missing and not uid:
        return _left_out(head, everything=fetcher.missing == len(indexes))
    return f"{head.name} completed"


def _left_out(head: Head, *, everything: bool) -> str:
    """RFC 2180 4.1, 4.2: message numbers whose messages have left, which the client cannot be told of yet."""
    if everything:
        raise NoError("[EXPUNGEISSUED] The messages have left")
    return f"[EXPUNGEISSUED] {head.name} completed, some messages have left"


async def search(session: IMAPSession, head: Head, arguments: SearchArguments) -> str:
    view, uid = session.selected, _is_uid(head)
    if arguments.uses_modseq:
        session.enable_condstore()
    try:
        found = await find(session.inbox, view, arguments.key)
        texts = text_terms(arguments.key)
        if texts or view.readings.first_search():
            await session.inbox.record(view.grant, MESSAGE_SEARCHED, (), {"found": len(found), "texts": texts})
            view.readings.remember_search()
    except GatewayError:
        if arguments.save:
            view.save([])  # RFC 5182 2.1: what fails leaves nothing behind.
        raise
    told = found if arguments.returns is None else _asked_for(found, arguments.returns)
    if arguments.save:
        view.save(told)
    uids, modseqs = view.mailbox.uids, view.mailbox.modseqs
    numbers = [uids[index] for index in found] if uid else view.numbers(found)
    highest = max((modseqs[index] for index in told), default=0) if arguments.uses_modseq else 0
    if arguments.returns is None:
        modseq = b" (MODSEQ %d)" % highest if highest else b""
        session.untagged(b"SEARCH" + _listed(numbers) + modseq)
    elif arguments.returns:
        session.untagged(_extended_answer(head, arguments.returns, numbers, uid=uid, highest=highest))
    return f"{head.name} completed"


def _listed(numbers: list[int]) -> bytes:
    """Each with a blank in front; spelled as a whole, because in a large mailbox this is what SEARCH costs."""
    return (" " + str(numbers)[1:-1].replace(",", "")).encode("ascii") if numbers else b""


def _asked_for(found: list[int], returns: tuple[str, ...]) -> list[int]:
    """What an answer is about, which is saved and whose MODSEQ is told (RFC 5182 2.1, RFC 7162 3.1.10).

    The first, the last or both, when nothing else is asked for; else everything.
    """
    if not found or not returns or not {"MIN", "MAX"}.issuperset(returns):
        return found
    ends = {"MIN": found[0], "MAX": found[-1]}
    return sorted({ends[option] for option in returns})


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
    asked = list(view.indexes(arguments.ranges, uid=uid))
    indexes = [index for index in asked if not mailbox.is_gone(index)] if mailbox.loses else asked
    change = FlagChange(arguments.action, frozenset(canonical(flag, mailbox.keywords) for flag in arguments.flags))
    uids = [mailbox.uids[index] for index in indexes]
    if view.read_only:
        if change.asks_for_deletion and uids:
            await session.inbox.record(view.grant, DELETE_IGNORED, uids)
        raise NoError("[NOPERM] Mailbox is open for reading only")
    if arguments.unchanged_since is not None:
        session.enable_condstore()
    modified = await session.inbox.change_flags(view.grant, uids, change, unchanged_since=arguments.unchanged_since)
    done = [index for index in indexes if not modified or mailbox.uids[index] not in modified]
    shown = not arguments.silent or session.inbox.policy.drops(change)
    if not shown and change.action is FlagAction.REPLACE:
        # What the gateway says of a message stays; a client that is told nothing would take it for gone.
        shown = any(mailbox.flags[index] - change.flags for index in done)
    await _show_flags(session, view, done, flags=shown)
    if modified:
        return f"[MODIFIED {_modified_set(view, modified, uid=uid)}] Conditional STORE failed for some messages"
    if len(indexes) < len(asked) and not uid and not arguments.silent:
        # Not an error, even when none is left: what was to be changed of them is of no matter any more.
        return _left_out(head, everything=False)
    return f"{head.name} completed"


async def _show_flags(session: IMAPSession, view: MailboxView, indexes: list[int], *, flags: bool) -> None:
    """Untagged FETCH for what was stored. A silent client that uses CONDSTORE still needs the new MODSEQ."""
    mailbox, connection = view.mailbox, session.connection
    for response in view.new_keywords():
        connection.queue(response)
    for index in indexes:
        view.told[index] = mailbox.modseqs[index]
        if flags or session.condstore:
            connection.queue(view.flag_answer(index, condstore=session.condstore, flags=flags))
            await connection.flush_when_full()


def _modified_set(view: MailboxView, modified: set[int], *, uid: bool) -> str:
    if uid:
        return compact_set(sorted(modified)).decode("ascii")
    indexes = sorted(index for number in modified if (index := view.mailbox.index_of(number)) is not None)
    return compact_set([view.number(index) for index in indexes]).decode("ascii")
