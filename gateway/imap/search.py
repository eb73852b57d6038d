"""SEARCH: evaluates keys on the mailbox in memory; only text is looked up in the store.

Guarantees: all text of one SEARCH is looked up in one read; the event loop is given back every SLICE messages,
so that a search through a large mailbox holds nobody up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from gateway.imap.scanner import ParseError
from gateway.imap.search_keys import (
    AllKey,
    AndKey,
    DateKey,
    FlagKey,
    ModSeqKey,
    NothingKey,
    NotKey,
    OrKey,
    SearchKey,
    SetKey,
    SizeKey,
    TextKey,
)
from gateway.imap.view import MailboxView
from gateway.inbox.flags import canonical
from gateway.inbox.service import Inbox, TextTerm
from gateway.ports import MailboxEntry

SLICE = 2_000
MAX_TEXT_TERMS = 50

_Test = Callable[[int, MailboxEntry], bool]


async def search(inbox: Inbox, view: MailboxView, key: SearchKey) -> list[int]:
    """The indexes of the messages that match, ascending.

    Raises:
        ParseError: too many texts, or a message number that does not exist.
        StoreError: the store cannot answer.
    """
    terms = {_term(text) for text in _texts(key)}
    if len(terms) > MAX_TEXT_TERMS:
        raise ParseError("Search too complex")
    test = _Compiler(view, await inbox.search(view.mailbox, terms)).compile(key)
    found: list[int] = []
    entries = view.mailbox.entries
    for start in range(0, view.exists, SLICE):
        if start:
            await asyncio.sleep(0)
        stop = min(start + SLICE, view.exists)
        found.extend(index for index in range(start, stop) if test(index, entries[index]))
    return found


def _texts(key: SearchKey) -> Iterator[TextKey]:
    stack = [key]
    while stack:
        here = stack.pop()
        if isinstance(here, TextKey):
            yield here
        elif isinstance(here, NotKey):
            stack.append(here.key)
        elif isinstance(here, OrKey):
            stack += [here.left, here.right]
        elif isinstance(here, AndKey):
            stack += here.keys


def _term(key: TextKey) -> TextTerm:
    return TextTerm(key.needle, headers=key.headers, body=key.body, name=key.name)


class _Compiler:
    """Turns keys into tests. The depth of keys is bounded by their parser."""

    def __init__(self, view: MailboxView, texts: dict[TextTerm, set[int]]) -> None:
        self._view = view
        self._texts = texts

    def compile(self, key: SearchKey) -> _Test:
        if isinstance(key, AndKey):
            tests = [self.compile(part) for part in key.keys]
            return lambda index, entry: all(test(index, entry) for test in tests)
        if isinstance(key, OrKey):
            left, right = self.compile(key.left), self.compile(key.right)
            return lambda index, entry: left(index, entry) or right(index, entry)
        if isinstance(key, NotKey):
            inner = self.compile(key.key)
            return lambda index, entry: not inner(index, entry)
        return self._leaf(key)

    def _leaf(self, key: SearchKey) -> _Test:
        if isinstance(key, FlagKey):
            return self._flag(key)
        if isinstance(key, SetKey):
            return self._set(key)
        if isinstance(key, DateKey):
            return _date(key)
        if isinstance(key, SizeKey):
            return _size(key)
        if isinstance(key, TextKey):
            uids = self._texts[_term(key)]
            return lambda _, entry: entry.uid in uids
        if isinstance(key, ModSeqKey):
            modseq = key.modseq
            return lambda _, entry: entry.modseq >= modseq
        everything = isinstance(key, AllKey)
        if not everything and not isinstance(key, NothingKey):
            raise AssertionError("a search key without a test")
        return lambda _index, _entry: everything

    def _flag(self, key: FlagKey) -> _Test:
        flag, present = canonical(key.flag, self._view.mailbox.keywords), key.present
        return lambda _, entry: (flag in entry.flags) is present

    def _set(self, key: SetKey) -> _Test:
        spans = self._view.spans(key.ranges, uid=key.uid)
        if len(spans) == 1:
            only = spans[0]
            return lambda index, _: index in only
        chosen = {index for span in spans for index in span}
        return lambda index, _: index in chosen


def _date(key: DateKey) -> _Test:
    day, relation = key.day, key.relation

    def test(_: int, entry: MailboxEntry) -> bool:
        moment: datetime | None = entry.sent_at if key.sent else entry.internal_date
        if moment is None:
            return False
        here = moment.astimezone(UTC).date()
        if relation == "<":
            return here < day
        return here == day if relation == "=" else here >= day

    return test


def _size(key: SizeKey) -> _Test:
    octets = key.octets
    if key.larger:
        return lambda _, entry: entry.size_bytes > octets
    return lambda _, entry: entry.size_bytes < octets
