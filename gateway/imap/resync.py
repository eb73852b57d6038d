"""What a client that was away is told of its mailbox at once: QRESYNC of RFC 7162.

Guarantees: VANISHED (EARLIER) never names a message that is in the mailbox, nor one that this session knows of and is
told of later; a line of it is bounded. What the client says it knows only narrows the answer.
"""

from __future__ import annotations

from bisect import bisect_right

from gateway.imap.parser import Resync
from gateway.imap.responses import compact_set
from gateway.imap.scanner import SAVED, STAR, Ranges
from gateway.imap.session import IMAPSession
from gateway.imap.view import MailboxView, merged

UIDS_IN_ONE_RESPONSE = 5_000


async def resynchronize(session: IMAPSession, view: MailboxView, resync: Resync) -> None:
    """Answer the parameters of a SELECT (3.2.5): what left since, then the flags that changed. Raises StoreError."""
    mailbox = view.mailbox
    if resync.uid_validity != mailbox.uid_validity:
        return  # The client begins anew.
    await send_vanished(session, view, resync.modseq, resync.known_uids)
    known = None if resync.known_uids is None else _Uids(resync.known_uids, mailbox.uid_next - 1)
    for index in mailbox.changed_since(resync.modseq, view.known):
        if view.shows(index) and (known is None or mailbox.uids[index] in known):
            session.connection.queue(view.flag_answer(index, condstore=True))
            await session.connection.flush_when_full()


async def send_vanished(session: IMAPSession, view: MailboxView, since: int, ranges: Ranges | None) -> None:
    """Tell which messages of a set of UIDs, or of all, left after a MODSEQ (3.2.6). Raises StoreError."""
    if ranges == SAVED:
        return  # It stands for messages that were there when this session looked.
    mailbox = view.mailbox
    wanted = None if ranges is None else _Uids(ranges, mailbox.uid_next - 1)
    left = [
        uid
        for uid in await mailbox.vanished(since)
        if (wanted is None or uid in wanted) and ((index := mailbox.index_of(uid)) is None or not view.shows(index))
    ]
    for start in range(0, len(left), UIDS_IN_ONE_RESPONSE):
        session.untagged(b"VANISHED (EARLIER) " + compact_set(left[start : start + UIDS_IN_ONE_RESPONSE]))
        await session.connection.flush_when_full()


class _Uids:
    """A set of UIDs as a client wrote it, for many questions. ``*`` is the highest that there ever was."""

    def __init__(self, ranges: Ranges, highest: int) -> None:
        pairs = [sorted(highest if number == STAR else number for number in pair) for pair in ranges]
        self._spans = merged([range(low, high + 1) for low, high in pairs])
        self._starts = [span.start for span in self._spans]

    def __contains__(self, uid: int) -> bool:
        position = bisect_right(self._starts, uid) - 1
        return position >= 0 and uid in self._spans[position]
