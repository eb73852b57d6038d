"""Time as one transaction knows it: one *now* for all that it writes about leases and schedules.

Callers say how long, never when. A moment that was read before the transaction, in the clock of some machine, means
nothing in it: the clock may have jumped while the transaction waited for its turn (F11). So now is asked for once the
transaction is the only writer, in the one clock in which these times are kept: the database's where several nodes
share it, so that nodes whose clocks disagree give out no job twice and hold none back; this machine's elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from gateway.observability.clock import SystemClock
from gateway.ports import Clock

CLOCKS_AGREE: Final = timedelta(seconds=1)
"""Clocks that differ by less are taken for equal: the way of the answer to us is in the difference as well."""


class UnitTime:
    """The now of one transaction. It does not move while the transaction lasts."""

    __slots__ = ("_ask", "_clock", "_now", "_shared")

    def __init__(self, ask: Callable[[], datetime | None], clock: Clock | None = None) -> None:
        """``ask`` tells what the database's clock says, None when it has none; ``clock`` stands in for both."""
        self._ask = ask
        self._clock = clock
        self._now: datetime | None = None
        self._shared = False
        """Whether the database has told."""

    def now(self) -> datetime:
        """Now, in UTC, in the clock in which times are kept. Asked for once, when it is needed."""
        if self._now is None:
            told = None if self._clock is not None else self._ask()
            self._shared = told is not None
            self._now = told if told is not None else (self._clock or SystemClock()).now()
        return self._now

    def shown(self, kept: datetime) -> datetime:
        """A moment that the store keeps, as the clock of this machine will show it. For people only."""
        now = self.now()
        ahead = now - SystemClock().now() if self._shared else timedelta(0)
        return kept if abs(ahead) < CLOCKS_AGREE else kept - ahead
