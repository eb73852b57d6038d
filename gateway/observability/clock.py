"""The Clock adapter: the one place that reads the time of day.

Guarantees: always UTC and aware. It satisfies ``gateway.ports.Clock`` by its shape. Timeouts never use it: they
run on the event loop's monotonic clock, which no operator and no NTP step can move.
"""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The time in UTC, aware."""
        return datetime.now(UTC)
