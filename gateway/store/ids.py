"""Message and link ids: 26 characters of Crockford's base 32, ordered by time and not to be guessed.

The first 10 characters are milliseconds since 1970, the other 16 are 80 random bits (the layout of a ULID). Ids
of one millisecond have no order among themselves. An id tells when a message came, and nothing else.
"""

from __future__ import annotations

import secrets
from datetime import datetime

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ID_CHARS = 26
_RANDOM_BITS = 80
_MAX_MILLISECONDS = (1 << 48) - 1


def new_id(at: datetime) -> str:
    """Return a fresh id for something that came at ``at`` (aware).

    Raises:
        ValueError: ``at`` is naive or before 1970.
    """
    if at.tzinfo is None:
        raise ValueError("an id needs an aware datetime")
    milliseconds = int(at.timestamp() * 1000)
    if not 0 <= milliseconds <= _MAX_MILLISECONDS:
        raise ValueError("an id cannot be made for that time")
    value = (milliseconds << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
    return "".join(ALPHABET[(value >> shift) & 31] for shift in range(5 * (ID_CHARS - 1), -1, -5))
