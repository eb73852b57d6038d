"""Tells the callers of the writer what came of their units: one wake-up of an event loop for a whole group.

To wake a loop from another thread costs a system call here, another one there, and the interpreter's lock twice. A
group of units is answered in the order in which they were written, within one turn of the loop.

Guarantees: a caller that stopped waiting, and a loop that is closed, keep nobody else from the answer. What was
written stays written whether anybody waits or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Waiter:
    """Somebody on an event loop who waits for a unit. To be made on that loop."""

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    future: asyncio.Future[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.future = self.loop.create_future()


Answer = tuple[Waiter, Any, BaseException | None]
"""A waiter, the result, and the error in place of it."""


def answer_all(answers: Sequence[Answer]) -> None:
    """Answer everybody. To be called from any thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Answer]] = {}
    for answer in answers:
        by_loop.setdefault(answer[0].loop, []).append(answer)
    for loop, theirs in by_loop.items():
        # A loop that is closed has nobody left who waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_answer, theirs)


def _answer(answers: Sequence[Answer]) -> None:
    for waiter, result, error in answers:
        if waiter.future.done():
            continue
        if error is None:
            waiter.future.set_result(result)
        else:
            waiter.future.set_exception(error)
