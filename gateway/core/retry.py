"""When a failed job is tried again, as data.

The schedule is in seconds after the failure; after the last entry the job is poison: it is set aside by name
and the rest goes on (F30). Jitter is the caller's: the core has no randomness.
"""

from __future__ import annotations

from gateway.core.lifecycle import JobKind

INTERNAL_SCHEDULE_SECONDS: tuple[float, ...] = (1, 5, 30, 120, 600, 1800, 3600)
"""For steps that need only this machine: eight attempts in about an hour and a half."""

IMPORT_SCHEDULE_SECONDS: tuple[float, ...] = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 43200)
"""For the import hook, whose other side may be down for a day."""

SCHEDULES: dict[JobKind, tuple[float, ...]] = {
    JobKind.UNWRAP: INTERNAL_SCHEDULE_SECONDS,
    JobKind.FILE: INTERNAL_SCHEDULE_SECONDS,
    JobKind.LINK: INTERNAL_SCHEDULE_SECONDS,
    JobKind.IMPORT: IMPORT_SCHEDULE_SECONDS,
}


def delay_after(kind: JobKind, attempt: int) -> float | None:
    """Return the seconds to wait after the given failed attempt (1 = the first), or None when it is poison."""
    schedule = SCHEDULES[kind]
    return schedule[attempt - 1] if attempt <= len(schedule) else None
