"""App passwords: second secrets of an account, one for each mail client, made here and shown once.

An app password has 138 random bits, in groups that people can type; capitals, spaces and missing dashes are forgiven.
Nobody guesses that, so what is kept of it is a salted SHA-256 and not an Argon2 hash: whoever steals the digests of all
accounts is as far from an app password as before. It is a great deal cheaper than Argon2, and may be: see the timing.

Timing. What a login costs must not tell whether there is such an account, nor what it has:

* :func:`match` always computes MAX_APP_PASSWORDS digests, with salts that are made up where there are fewer, also for a
  login that does not exist. It takes some ten microseconds and looks at every digest whatever it has found.
* A right app password is answered without Argon2, as a remembered password is. Only whoever has it sees that.
* Whatever else is given, right or wrong, costs one Argon2 run: an unknown login, a disabled account, a wrong password.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from gateway.ports import AppPassword

MAX_APP_PASSWORDS = 25
"""Of one account at one time. Who needs more shares them between clients, or needs more accounts."""
MAX_NAME_CHARS = 64
SALT_BYTES = 16
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS = 7
_GROUP_CHARS = 4
_CHARS = _GROUPS * _GROUP_CHARS
_MADE_UP = secrets.token_bytes(SALT_BYTES)


def generate_app_password() -> str:
    """28 characters in groups of four, 138 random bits; no ``i``, ``l``, ``o``, ``0`` or ``1``."""
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP_CHARS)) for _ in range(_GROUPS))
    return "-".join(groups)


def digest(secret: str, salt: bytes) -> bytes:
    """What is kept of an app password."""
    return _digest(_plain(secret.encode()), salt)


def match(secret: bytes | None, known: Sequence[AppPassword]) -> int | None:
    """The number of the app password that this is; None when it is none of them. See the module for the time it takes.

    ``secret``: as :func:`gateway.accounts.passwords.prepare_password` has it; None is never an app password.
    """
    given = _plain(secret or b"")
    found = None
    for position in range(MAX_APP_PASSWORDS):
        one = known[position] if position < len(known) else None
        salt, expected = (_MADE_UP, _MADE_UP * 2) if one is None else (one.salt, one.digest)
        if hmac.compare_digest(_digest(given, salt), expected) and one is not None and secret is not None:
            found = one.number
    return found


def checked_name(name: str) -> str:
    """The name as it is kept; ValueError when it can be none (empty, control characters, too long)."""
    text = " ".join(name.split())
    if not text or len(text) > MAX_NAME_CHARS or not text.isprintable():
        raise ValueError(f"the name of an app password must have 1 to {MAX_NAME_CHARS} printable characters")
    return text


def _plain(secret: bytes) -> bytes:
    """Without what people add or leave out when they type it. What cannot be an app password becomes nothing."""
    if len(secret) > 4 * _CHARS:
        return b""
    plain = secret.lower().translate(None, b" -\t")
    return plain if len(plain) == _CHARS else b""


def _digest(plain: bytes, salt: bytes) -> bytes:
    return hashlib.sha256(b"direct-gateway app password\0" + salt + plain).digest()
