"""SEARCH: evaluates keys on the mailbox in memory; only text is looked up in the store.

Guarantees: all text of one SEARCH is looked up in one read; the event loop is given back every SLICE messages,
so that a search through a large mailbox holds nobody up.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import compress

from gateway.imap.scanner import ParseError, Ranges
from gateway.imap.search_keys import (
    AllKey,
    AndKey,
    DateKey,
    EmailKey,
    FlagKey,
    ModSeqKey,
    NothingKey,
    NotKey,
    OrKey,
    RecentKey,
    SearchKey,
    SetKey,
    SizeKey,
    TextKey,
)
from gateway.imap.view import MailboxView
from gateway.inbox.filed_details import day_span
from gateway.inbox.flags import canonical
from gateway.inbox.mailbox_service import MailboxReading
from gateway.inbox.service import TextTerm

SLICE = 2_000
MAX_TEXT_TERMS = 50
MAX_EMAIL_IDS = 50

_Test = Callable[[int], bool]
"""Whether the message of that index matches."""
_Select = Callable[[Sequence[int]], Iterable[int]]


async def search(inbox: MailboxReading, view: MailboxView, key: SearchKey) -> list[int]:
    """The indexes of the messages that match, ascending. Those that have left are not among them.

    Raises:
        ParseError: too many texts, or a message number that does not exist.
        StoreError: the store cannot answer.
    """
    terms = {_term(text) for text in _texts(key)}
    ids = {leaf.message_id for leaf in _leaves(key) if isinstance(leaf, EmailKey)}
    if len(terms) > MAX_TEXT_TERMS or len(ids) > MAX_EMAIL_IDS:
        raise ParseError("Search too complex")
    mailbox, details = view.mailbox, view.mailbox.details
    texts = await inbox.search(mailbox, terms)
    emails = {message_id: set(await details.uids_of(message_id)) for message_id in ids}
    select = _Compiler(view, texts, emails).selector(key)
    found: list[int] = []
    detailed = any(isinstance(leaf, DateKey | SizeKey) for leaf in _leaves(key))
    shown = view.indexes_shown
    for start in range(0, len(shown), SLICE):
        if start:
            await asyncio.sleep(0)
        part = shown[start : start + SLICE]
        if detailed:
            await details.need(part)
        found.extend(select(part))
    return [index for index in found if not mailbox.is_gone(index)] if mailbox.loses else found


def text_terms(key: SearchKey) -> int:
    """How many texts a search looks for in messages; 0 when it only asks for flags, dates, sizes and numbers."""
    return sum(1 for _ in _texts(key))


def _texts(key: SearchKey) -> Iterator[TextKey]:
    return (leaf for leaf in _leaves(key) if isinstance(leaf, TextKey))


def _leaves(key: SearchKey) -> Iterator[SearchKey]:
    """Everything that is asked for, without what joins it."""
    stack = [key]
    while stack:
        here = stack.pop()
        if isinstance(here, NotKey):
            stack.append(here.key)
        elif isinstance(here, OrKey):
            stack += [here.left, here.right]
        elif isinstance(here, AndKey):
            stack += here.keys
        else:
            yield here


def _term(key: TextKey) -> TextTerm:
    return TextTerm(key.needle, headers=key.headers, body=key.body, name=key.name)


class _Matches(dict[frozenset[str], bool]):
    """Whether the flags of a message match, looked at once for each set of flags: a mailbox has few different ones."""

    def __init__(self, flag: str, *, present: bool) -> None:
        super().__init__()
        self._flag = flag
        self._present = present

    def __missing__(self, flags: frozenset[str]) -> bool:
        found = self[flags] = (self._flag in flags) is self._present
        return found


class _Compiler:
    """Turns keys into tests on the columns of the mailbox. The depth of keys is bounded by their parser."""

    def __init__(self, view: MailboxView, texts: dict[TextTerm, set[int]], emails: dict[str, set[int]]) -> None:
        self._view = view
        self._mailbox = view.mailbox
        self._texts = texts
        self._emails = emails
        self._sets: dict[tuple[Ranges, bool], _Test] = {}

    def selector(self, key: SearchKey) -> _Select:
        """What takes those that match out of some slots, ascending."""
        only = key.keys[0] if isinstance(key, AndKey) and len(key.keys) == 1 else key
        if not isinstance(only, FlagKey):
            return partial(filter, self.compile(key))
        # UNSEEN is asked for all day long: the flags are passed over as they stand, without a call for each message.
        matches = _Matches(canonical(only.flag, self._mailbox.keywords), present=only.present)
        flags = self._mailbox.flags

        def matching(part: Sequence[int]) -> Iterable[int]:
            here = flags[part.start : part.stop] if isinstance(part, range) else [flags[index] for index in part]
            return compress(part, map(matches.__getitem__, here))

        return matching

    def compile(self, key: SearchKey) -> _Test:
        if isinstance(key, AndKey):
            tests = [self.compile(part) for part in key.keys]
            return lambda index: all(test(index) for test in tests)
        if isinstance(key, OrKey):
            left, right = self.compile(key.left), self.compile(key.right)
            return lambda index: left(index) or right(index)
        if isinstance(key, NotKey):
            inner = self.compile(key.key)
            return lambda index: not inner(index)
        return self._leaf(key)

    def _leaf(self, key: SearchKey) -> _Test:
        if isinstance(key, FlagKey):
            return self._flag(key)
        if isinstance(key, SetKey):
            return self._set(key)
        if isinstance(key, DateKey):
            return self._date(key)
        if isinstance(key, SizeKey):
            return self._size(key)
        if isinstance(key, TextKey | EmailKey):
            found = self._texts[_term(key)] if isinstance(key, TextKey) else self._emails[key.message_id]
            uids = self._mailbox.uids
            return lambda index: uids[index] in found
        if isinstance(key, RecentKey):
            recent = self._view.recent
            return lambda index: index in recent
        if isinstance(key, ModSeqKey):
            modseq, modseqs = key.modseq, self._mailbox.modseqs
            return lambda index: modseqs[index] >= modseq
        everything = isinstance(key, AllKey)
        if not everything and not isinstance(key, NothingKey):
            raise AssertionError("a search key without a test")
        return lambda _: everything

    def _flag(self, key: FlagKey) -> _Test:
        flag, present = canonical(key.flag, self._mailbox.keywords), key.present
        flags = self._mailbox.flags
        return lambda index: (flag in flags[index]) is present

    def _set(self, key: SetKey) -> _Test:
        # A command names hundreds of sets, so none is spread out into its messages, and the same one is kept once.
        known = self._sets.get((key.ranges, key.uid))
        if known is None:
            known = self._sets[key.ranges, key.uid] = self._new_set(key)
        return known

    def _new_set(self, key: SetKey) -> _Test:
        # A number that no message has is found nowhere; that is no error in a question.
        spans = self._view.spans(key.ranges, uid=key.uid, lenient=True)
        if len(spans) == 1:
            only = spans[0]
            return lambda index: index in only
        starts = array("q", [span.start for span in spans])

        def test(index: int) -> bool:
            position = bisect_right(starts, index) - 1
            return position >= 0 and index in spans[position]

        return test

    def _date(self, key: DateKey) -> _Test:
        start, end = day_span(key.day)
        details = self._mailbox.details
        look: Callable[[int], int | None] = details.sent_microseconds if key.sent else details.internal_microseconds

        def test(index: int) -> bool:
            moment = look(index)
            if moment is None:
                return False
            if key.relation == "<":
                return moment < start
            return start <= moment and (key.relation == ">=" or moment < end)

        return test

    def _size(self, key: SizeKey) -> _Test:
        octets, size = key.octets, self._mailbox.details.size_bytes
        if key.larger:
            return lambda index: size(index) > octets
        return lambda index: size(index) < octets
