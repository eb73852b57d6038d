"""When a long command says how far it is: at the beginning and the end of each part, and now and then in between."""

from __future__ import annotations

import sys
import time


class ProgressPace:
    """Asked at every step; more often where a person looks than where a file keeps it."""

    def __init__(self, *, terminal_seconds: float, file_seconds: float) -> None:
        """``terminal_seconds``, ``file_seconds``: at least so long between two, on a terminal and elsewhere."""
        self._every = terminal_seconds if sys.stderr.isatty() else file_seconds
        self._what = ""
        self._begun = self._last = 0.0
        self._ended = False

    def seconds_if_due(self, what: str, done: int, total: int) -> float | None:
        """Seconds since the part ``what`` began when it is time to tell; None when it is not."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._begun = what, now
        elif self._ended or (done < total and now - self._last < self._every):
            return None
        self._last, self._ended = now, done >= total
        return now - self._begun
