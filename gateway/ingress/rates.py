"""How much one peer may ask for within a window of time, and how often that is told.

A window is fixed: it begins with the first event of a network and ends after its seconds, whatever comes in between.
Guarantees: nothing here waits or logs; memory is bounded, because only so many networks are remembered, and those
whose window is over are forgotten first. A network that is pushed out of the memory starts afresh: a flood from more
networks than that is bounded by the number of connections, not by these limits. Sources: Postfix's
``smtpd_client_connection_rate_limit`` and its sisters; F19.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_NETWORKS = 10_000


@dataclass(slots=True)
class _Window:
    ends: float
    count: int = 0
    told: bool = False


class RateLimit:
    """At most so many events of one network within a window.

    Args:
        limit: events in a window; 0 = no limit.
        seconds: length of the window.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self._seconds = seconds
        self._windows: dict[str, _Window] = {}

    def allows(self, network: str, now: float) -> bool:
        """Count an event; False when it is one too many. What is refused counts no further."""
        if not self.limit:
            return True
        window = self._window(network, now)
        if window.count >= self.limit:
            return False
        window.count += 1
        return True

    def first_refusal(self, network: str, now: float) -> bool:
        """Whether nobody has asked this yet in the network's window: the one time to write it in the log."""
        window = self._window(network, now)
        told, window.told = window.told, True
        return not told

    def _window(self, network: str, now: float) -> _Window:
        window = self._windows.get(network)
        if window is None or now >= window.ends:
            # Deleted first, so that the dictionary stays in the order in which windows end.
            self._windows.pop(network, None)
            self._make_room(now)
            window = self._windows[network] = _Window(now + self._seconds)
        return window

    def _make_room(self, now: float) -> None:
        while self._windows:
            oldest = next(iter(self._windows))
            if len(self._windows) < MAX_NETWORKS and self._windows[oldest].ends > now:
                return
            del self._windows[oldest]
