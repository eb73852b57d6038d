"""Moments on the command line: ISO 8601, in UTC unless it says otherwise, or seconds since 1970."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from gateway.core.errors import InputError


def parse_moment(option: str, value: str) -> datetime:
    """Return the moment, in UTC. A date alone is its first moment.

    Raises:
        InputError: it is neither form; the text names the option.
    """
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    try:
        moment = datetime.fromisoformat(text) if math.isnan(seconds) or _is_date(text) else None
        if moment is None:
            return datetime.fromtimestamp(seconds, UTC)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise InputError(f"{option}: {value!r} is neither an ISO 8601 time nor epoch seconds") from None


def _is_date(text: str) -> bool:
    """``20261123`` is a date of ISO 8601, not a number of seconds in 1970."""
    return len(text) == 8 and text.isdecimal()
