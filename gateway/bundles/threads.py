"""Blocking work beside the event loop, in a thread that nobody has to wait for at the end of the process.

The threads of an executor are joined when the process ends, and a slow server could hold up a stop for as long as a
download may take. Nothing that runs here writes anything, so it may be left behind.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run the work in a thread of its own and return or raise what it does. Cancelling leaves it behind."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # without an error it is the result

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as exc:  # noqa: BLE001 - it is raised again where it is awaited
            error = exc
        with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="bundle", daemon=True).start()
    return await future
