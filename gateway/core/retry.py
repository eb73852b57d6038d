"""When a failed job is tried again, as data.

The schedule is in seconds after the failure; after the last entry the job is poison: it is set aside by name
and the rest goes on (F30). Jitter is the caller's: the core has no randomness.
"""

from __future__ import annotations

from gateway.core.lifecycle import JobKind

INTERNAL_SCHEDULE_SECONDS: tuple[float, ...] = (1, 5, 30, 120, 600, 1800, 3600)
"""For steps that need only this machine: eight attempts in about an hour and a half."""

IMPORT_SCHEDULE_SECONDS: tuple[float, ...] = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 43200)
"""For a target of the import hook, whose other side may be down for a day."""

WEBHOOK_SCHEDULE_SECONDS: tuple[float, ...] = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
"""For a webhook: ten attempts in three days (Standard Webhooks 1.0.0)."""

MAX_RETRY_SECONDS = 7 * 86400
"""The longest wait that a schedule of the settings, or a receiver that asks for patience, may bring."""

_NOT_REACHED = frozenset(
    {"unreachable", "unknown_host", "not_allowed", "bad_certificate", "tls", "tls_failed", "bad_ca_file", "no_secret"}
    | {"settings", "cannot_start", "cannot_load", "bad_options", "no_token", "no_key", "exit_75"}
)
_MAY_GO_ON = frozenset({"http_408", "http_502", "http_504"})
"""What stands between may answer so while the target is still at it."""

WAITING_SCHEDULE_SECONDS: tuple[float, ...] = (5, 15, 30, 60, 120, 300)
"""For a step that can only wait (a token that does not answer); the last entry repeats, so the job is never poison."""

SCHEDULES: dict[JobKind, tuple[float, ...]] = {
    JobKind.UNWRAP: INTERNAL_SCHEDULE_SECONDS,
    JobKind.FILE: INTERNAL_SCHEDULE_SECONDS,
    JobKind.LINK: INTERNAL_SCHEDULE_SECONDS,
    JobKind.IMPORT: IMPORT_SCHEDULE_SECONDS,
}


NEVER_LATER_SECONDS = 2 * max(delay for schedule in SCHEDULES.values() for delay in schedule)
"""No job is put off for longer than this, jitter included. One that seems to be was written before the clock was set
back, and is due (F11)."""


def delay_after(kind: JobKind, attempt: int) -> float | None:
    """Return the seconds to wait after the given failed attempt (1 = the first), or None when it is poison."""
    schedule = SCHEDULES[kind]
    return schedule[attempt - 1] if attempt <= len(schedule) else None


def ended_without_import(reason: str) -> bool:
    """Whether a failed attempt at an import is surely over at the target: it was not reached, or answered with a nack.

    ``reason``: the code of the failure (docs/import-hook.md). One that says less (``timeout``) may still be at it.
    """
    answered = reason.startswith(("http_", "ack_")) and reason not in _MAY_GO_ON
    return answered or reason in _NOT_REACHED


def waiting_delay(attempt: int) -> float:
    """Return the seconds to wait after the given attempt at a step that waits for something of ours to come back."""
    return WAITING_SCHEDULE_SECONDS[min(attempt, len(WAITING_SCHEDULE_SECONDS)) - 1]
