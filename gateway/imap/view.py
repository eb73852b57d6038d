r"""What one session knows of the mailbox it has selected, and sequence sets resolved against it.

The mailbox itself is shared and changes; a session sees the messages that were announced to it by EXISTS, and no longer
those whose EXPUNGE was announced to it, so that a number never means something the client has not been told of. Where
nothing ever leaves, a message number is the slot + 1; where messages leave, each session has a list of its slots.

Guarantees: a UID ascends with its number; a message is ``\Recent`` in one session; what left is announced once, in
descending numbers or by UID, and only when the command allows it (RFC 3501 7.4.1).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.imap.recents import Recents
from gateway.imap.responses import applicable_flags, compact_set, flag_list
from gateway.imap.scanner import SAVED, STAR, ParseError, Ranges
from gateway.inbox.flags import RECENT
from gateway.inbox.readings import Readings
from gateway.inbox.service import Grant
from gateway.inbox.shared_mailbox import MessageFlags, SharedMailbox


@dataclass(slots=True)
class MailboxView:
    """A selected mailbox. Messages of slots below ``known`` were announced, with their flags as of ``seen_modseq``."""

    grant: Grant
    read_only: bool
    known: int
    seen_modseq: int
    keyword_count: int
    readings: Readings
    """What of it is in the audit log already as seen by this session."""
    recents: Recents
    recent: set[int] | frozenset[int] = frozenset()
    r"""Slots of the messages that are \Recent in this session. A set of its own when there are any."""
    slots: array[int] | None = None
    """By message number - 1, where messages can leave; None where the slot is the number - 1."""
    gone_modseq: int = 0
    """What left until then was announced."""
    told: dict[int, int] = field(default_factory=dict)
    """MODSEQ by index of the flags that the command under way has reported itself."""
    saved: Sequence[range] = ()
    """Slots of the last SEARCH RETURN (SAVE), which ``$`` stands for (RFC 5182)."""

    @classmethod
    def of(cls, grant: Grant, readings: Readings, recents: Recents, *, read_only: bool) -> MailboxView:
        """See the mailbox as it is now."""
        mailbox = grant.mailbox
        known, modseq, keywords = len(mailbox), mailbox.highest_modseq, len(mailbox.keywords)
        view = cls(grant, read_only, known, modseq, keywords, readings, recents, gone_modseq=modseq)
        if mailbox.loses:
            view.slots = array("I", [index for index in range(known) if not mailbox.is_gone(index)])
        view._add_recent(view._newly_told(known))
        return view

    @property
    def mailbox(self) -> SharedMailbox:
        """The shared mailbox."""
        return self.grant.mailbox

    @property
    def exists(self) -> int:
        """How many messages the client knows of."""
        return self.known if self.slots is None else len(self.slots)

    @property
    def indexes_shown(self) -> Sequence[int]:
        """The slots of all messages that the client knows of, ascending."""
        return range(self.known) if self.slots is None else self.slots

    @property
    def may_set_seen(self) -> bool:
        r"""Whether reading a body makes it \Seen."""
        return not self.read_only and "s" in self.grant.folder.rights

    def number(self, index: int) -> int:
        """The message number of a slot that the client knows of."""
        return index + 1 if self.slots is None else bisect_left(self.slots, index) + 1

    def numbers(self, indexes: Sequence[int]) -> list[int]:
        """The same for many."""
        return [index + 1 for index in indexes] if self.slots is None else [self.number(index) for index in indexes]

    def shows(self, index: int) -> bool:
        """Whether the client knows of the message in that slot."""
        if self.slots is None:
            return index < self.known
        position = bisect_left(self.slots, index)
        return position < len(self.slots) and self.slots[position] == index

    def flag_answer(self, index: int, *, condstore: bool, flags: bool = True) -> bytes:
        """The untagged FETCH that tells the flags of a message, with the MODSEQ when the client asked for CONDSTORE."""
        message = self.message(index)
        items = b"UID %d" % message.uid
        if flags:
            items += b" FLAGS " + flag_list(message.flags)
        if condstore:
            items += b" MODSEQ (%d)" % max(1, message.modseq)
        return b"* %d FETCH (%s)\r\n" % (self.number(index), items)

    def message(self, index: int) -> MessageFlags:
        r"""The message as this session sees it: with \Recent, when it is that."""
        message = self.mailbox[index]
        return message._replace(flags=message.flags | {RECENT}) if index in self.recent else message

    # --- what the client was not told yet ---

    def news(self, *, condstore: bool, expunges: bool = True, by_uid: bool = False) -> Iterator[bytes]:
        """Untagged responses for everything that the client has not been told yet; afterwards it has been told.

        Without ``expunges`` it goes on knowing the messages that left. With ``by_uid`` those are told as VANISHED.
        """
        mailbox = self.mailbox
        yield from self.new_keywords()
        if expunges:
            yield from self._expunged(by_uid=by_uid)
        for index in mailbox.changed_since(self.seen_modseq, self.known):
            if self.told.get(index) != mailbox.modseqs[index] and self.shows(index) and not mailbox.is_gone(index):
                yield self.flag_answer(index, condstore=condstore)
        self.told.clear()
        self.seen_modseq = mailbox.highest_modseq
        yield from self._arrived()

    def new_keywords(self) -> Iterator[bytes]:
        """The FLAGS response again, when a keyword came up that it did not list."""
        if len(self.mailbox.keywords) != self.keyword_count:
            self.keyword_count = len(self.mailbox.keywords)
            yield b"* FLAGS %s\r\n" % applicable_flags(self.mailbox.keywords.values())

    def _expunged(self, *, by_uid: bool) -> Iterator[bytes]:
        """From the highest number down, so that no number that is still to come has changed meanwhile."""
        mailbox, slots = self.mailbox, self.slots
        if slots is None or self.gone_modseq >= mailbox.highest_modseq:
            return
        left = [index for index in mailbox.gone_since(self.gone_modseq, self.known) if self.shows(index)]
        self.gone_modseq = mailbox.highest_modseq
        if not left:
            return
        if by_uid:
            yield b"* VANISHED %s\r\n" % compact_set([mailbox.uids[index] for index in left])
        else:
            yield b"".join(b"* %d EXPUNGE\r\n" % self.number(index) for index in reversed(left))
        kept, start = array("I"), 0
        for position in [bisect_left(slots, index) for index in left]:
            kept.extend(slots[start:position])
            start = position + 1
        kept.extend(slots[start:])
        self.slots = kept
        if not self.recent.isdisjoint(left):
            self.recent = self.recent.difference(left)
            yield b"* %d RECENT\r\n" % len(self.recent)

    def _arrived(self) -> Iterator[bytes]:
        """What came and left before this session was told of it never was, for this session."""
        mailbox, known = self.mailbox, self.known
        self.known = len(mailbox)
        if self.known == known:
            return
        new: Sequence[int] = range(known, self.known)
        if self.slots is not None:
            new = [index for index in new if not mailbox.is_gone(index)]
            self.slots.extend(new)
        if new:
            self._add_recent(self._newly_told(self.known))
            yield b"* %d EXISTS\r\n* %d RECENT\r\n" % (self.exists, len(self.recent))

    def _add_recent(self, indexes: Iterable[int]) -> None:
        added = set(filter(self.shows, indexes))
        if added:
            self.recent = added.union(self.recent)

    def _newly_told(self, below: int) -> range:
        """Who has it open for reading only is shown what is recent, and leaves it so for the next (RFC 3501 6.3.2)."""
        return (self.recents.untold if self.read_only else self.recents.tell)(self.grant, below)

    # --- sets ---

    def save(self, indexes: Sequence[int]) -> None:
        """Let ``$`` stand for these slots, ascending."""
        runs: list[range] = []
        for index in indexes:
            if runs and runs[-1].stop == index:
                runs[-1] = range(runs[-1].start, index + 1)
            else:
                runs.append(range(index, index + 1))
        self.saved = runs

    def spans(self, ranges: Ranges, *, uid: bool, lenient: bool = False) -> list[range]:
        """Slots that a set means: ascending, not overlapping. Those in between that are not shown do not count.

        Raises:
            ParseError: a message number (not a UID) that does not exist, unless ``lenient``: then it is no message.
        """
        if ranges == SAVED:
            return list(self.saved)
        if uid:
            return merged([self._uid_span(first, last) for first, last in ranges])
        return merged([self._number_span(first, last, lenient=lenient) for first, last in ranges])

    def indexes(self, ranges: Ranges, *, uid: bool) -> Iterator[int]:
        """The slots that a set means, ascending. Raises ParseError as :meth:`spans`."""
        slots = self.slots
        for span in self.spans(ranges, uid=uid):
            yield from span if slots is None else slots[bisect_left(slots, span.start) : bisect_left(slots, span.stop)]

    def _number_span(self, first: int, last: int, *, lenient: bool) -> range:
        exists = self.exists
        if (exists == 0 and STAR in {first, last}) or (lenient and min(first, last) > exists):
            return range(0)
        if not lenient and ((last != STAR and first > exists) or (first != STAR and last > exists)):
            raise ParseError("No such message number")
        numbers = [exists if number == STAR else min(number, exists) for number in (first, last)]
        low, high = min(numbers) - 1, max(numbers)
        return range(low, high) if self.slots is None else range(self.slots[low], self.slots[high - 1] + 1)

    def _uid_span(self, first: int, last: int) -> range:
        if self.exists == 0:
            return range(0)
        uids, known = self.mailbox.uids, self.known
        highest = uids[self.indexes_shown[-1]]
        low, high = sorted(highest if number == STAR else number for number in (first, last))
        return range(bisect_left(uids, low, 0, known), bisect_right(uids, high, 0, known))


def merged(spans: list[range]) -> list[range]:
    """Merge before anything is listed: ``1:*,1:*,...`` must not cost its length times the mailbox."""
    found: list[range] = []
    for span in sorted((span for span in spans if span), key=lambda span: span.start):
        if found and span.start <= found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, span.stop))
        else:
            found.append(span)
    return found
