"""What one session knows of the mailbox it has selected, and sequence sets resolved against it.

The mailbox itself is shared and grows; a session sees the messages that were announced to it by EXISTS and no
others, so that a number never means something the client has not been told of.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.imap.responses import applicable_flags, flag_list
from gateway.imap.scanner import STAR, ParseError, Ranges
from gateway.inbox.open_mailbox import OpenMailbox
from gateway.inbox.service import Grant
from gateway.ports import MailboxEntry


@dataclass(slots=True)
class MailboxView:
    """A selected mailbox. ``exists`` messages are known to the client, with their flags as of ``seen_modseq``."""

    grant: Grant
    read_only: bool
    exists: int
    seen_modseq: int
    keyword_count: int
    told: dict[int, int] = field(default_factory=dict)
    """MODSEQ by index of the flags that the command under way has reported itself."""
    read_in_pieces: set[int] = field(default_factory=set)
    """UIDs whose reading by partial fetches is in the audit log already."""

    @classmethod
    def of(cls, grant: Grant, *, read_only: bool) -> MailboxView:
        """See the mailbox as it is now."""
        mailbox = grant.mailbox
        return cls(grant, read_only, len(mailbox), mailbox.highest_modseq, len(mailbox.keywords))

    @property
    def mailbox(self) -> OpenMailbox:
        """The shared mailbox."""
        return self.grant.mailbox

    @property
    def may_set_seen(self) -> bool:
        r"""Whether reading a body makes it \Seen."""
        return not self.read_only and "s" in self.grant.folder.rights

    def news(self, *, condstore: bool) -> Iterator[bytes]:
        """Untagged responses for everything that the client has not been told yet; afterwards it has been told."""
        mailbox = self.mailbox
        yield from self.new_keywords()
        for index in mailbox.changed_since(self.seen_modseq, self.exists):
            entry = mailbox.entries[index]
            if self.told.get(index) != entry.modseq:
                yield b"* %d FETCH (%s)\r\n" % (index + 1, flag_answer(entry, condstore=condstore))
        self.told.clear()
        self.seen_modseq = mailbox.highest_modseq
        if len(mailbox) != self.exists:
            self.exists = len(mailbox)
            yield b"* %d EXISTS\r\n* 0 RECENT\r\n" % self.exists

    def new_keywords(self) -> Iterator[bytes]:
        """The FLAGS response again, when a keyword came up that it did not list."""
        if len(self.mailbox.keywords) != self.keyword_count:
            self.keyword_count = len(self.mailbox.keywords)
            yield b"* FLAGS %s\r\n" % applicable_flags(self.mailbox.keywords.values())

    def spans(self, ranges: Ranges, *, uid: bool) -> list[range]:
        """Index ranges that a set means: ascending, not overlapping, within what the client knows.

        Raises:
            ParseError: a message number (not a UID) that does not exist.
        """
        if uid:
            return self._merged([self._uid_span(first, last) for first, last in ranges])
        return self._merged([self._number_span(first, last) for first, last in ranges])

    def indexes(self, ranges: Ranges, *, uid: bool) -> Iterator[int]:
        """As :meth:`spans`, one by one."""
        for span in self.spans(ranges, uid=uid):
            yield from span

    def _number_span(self, first: int, last: int) -> range:
        if self.exists == 0 and STAR in {first, last}:
            return range(0)
        if (last != STAR and first > self.exists) or (first != STAR and last > self.exists):
            raise ParseError("No such message number")
        numbers = [self.exists if number == STAR else min(number, self.exists) for number in (first, last)]
        return range(min(numbers) - 1, max(numbers))

    def _uid_span(self, first: int, last: int) -> range:
        if self.exists == 0:
            return range(0)
        uids = self.mailbox.uids
        highest = uids[self.exists - 1]
        low, high = sorted(highest if number == STAR else number for number in (first, last))
        return range(bisect_left(uids, low, 0, self.exists), bisect_right(uids, high, 0, self.exists))

    @staticmethod
    def _merged(spans: list[range]) -> list[range]:
        """Merge before anything is listed: ``1:*,1:*,...`` must not cost its length times the mailbox."""
        merged: list[range] = []
        for span in sorted((span for span in spans if span), key=lambda span: span.start):
            if merged and span.start <= merged[-1].stop:
                merged[-1] = range(merged[-1].start, max(merged[-1].stop, span.stop))
            else:
                merged.append(span)
        return merged


def flag_answer(entry: MailboxEntry, *, condstore: bool, flags: bool = True) -> bytes:
    """``UID n FLAGS (...)``, with the MODSEQ when the client asked for CONDSTORE."""
    items = b"UID %d" % entry.uid
    if flags:
        items += b" FLAGS " + flag_list(entry.flags)
    if condstore:
        items += b" MODSEQ (%d)" % max(1, entry.modseq)
    return items
