"""A SEARCH names hundreds of sets in one line: each must not cost as much memory as the mailbox has messages."""

from __future__ import annotations

import tracemalloc
from array import array
from types import SimpleNamespace
from typing import Any, cast

from gateway.imap.parser import parse_arguments, parse_head
from gateway.imap.scanner import SAVED
from gateway.imap.search import search
from gateway.imap.search_keys import SearchArguments
from gateway.imap.view import MailboxView

MESSAGES = 50_000
BOUND_BYTES = 24 * 1024 * 1024


def view_of(count: int) -> MailboxView:
    """A mailbox of so many messages, as far as a search for numbers looks at it."""
    mailbox = SimpleNamespace(
        uids=array("I", range(1, count + 1)), loses=False, details=None, keywords={}, highest_modseq=1
    )
    grant = SimpleNamespace(mailbox=mailbox)
    nothing = cast("Any", None)
    return MailboxView(cast("Any", grant), False, count, 1, 0, nothing, nothing)


class Inbox:
    async def search(self, _mailbox: object, _terms: object) -> dict[Any, Any]:
        return {}


async def found(view: MailboxView, text: str) -> list[int]:
    arguments = cast("SearchArguments", parse_arguments(parse_head(b"t SEARCH " + text.encode())))
    return await search(cast("Any", Inbox()), view, arguments.key)


async def peak(view: MailboxView, text: str) -> int:
    tracemalloc.start()
    try:
        await found(view, text)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_sets_with_a_gap() -> None:
    # The first key fails for every message, so the others cost what it takes to make them.
    keys = " ".join(f"{2 * number + 1},{2 * number + 3}:*" for number in range(300))
    assert await peak(view_of(MESSAGES), f"1,{MESSAGES} {keys}") < BOUND_BYTES


async def test_what_was_saved() -> None:
    view = view_of(MESSAGES)
    view.save(range(0, MESSAGES, 2))
    assert view.spans(SAVED, uid=False)
    assert await peak(view, "1 " + " ".join(["$"] * 300)) < BOUND_BYTES


async def test_they_still_find_what_they_name() -> None:
    view = view_of(100)
    view.save([4, 5, 50])
    assert await found(view, "2,5:7,90:*") == [1, 4, 5, 6, *range(89, 100)]
    assert await found(view, "UID 2,5:7,300") == [1, 4, 5, 6]
    assert await found(view, "NOT 3:98") == [0, 1, 98, 99]
    assert await found(view, "$") == [4, 5, 50]
    assert await found(view, "$ UID $ NOT 6") == [4, 50]
    assert await found(view, "300") == []
