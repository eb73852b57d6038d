"""Passwords: how they are made, prepared and hashed.

A password is compared in Unicode NFC (the part of SASLprep, RFC 4013, that matters between keyboards) and is never
empty, never holds NUL and is never longer than MAX_PASSWORD_BYTES. Hashes are Argon2id with the parameters of
OWASP's 19 MiB profile, twice its passes: about a tenth of a second and 19 MiB for each check, on one thread. Its other
profile, 46 MiB and half the passes, is as strong, and a login took as much memory as two messages of 25 MB [measured].
"""

from __future__ import annotations

import secrets
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

MAX_PASSWORD_BYTES = 1_024
MAX_LOGIN_CHARS = 254
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS = 4
_GROUP_CHARS = 5


def default_hasher() -> PasswordHasher:
    """The hasher for new passwords; it verifies hashes of other parameters as well."""
    return PasswordHasher(time_cost=4, memory_cost=19 * 1024, parallelism=1)


def generate_password() -> str:
    """A password of 99 random bits, in groups that can be read out: no ``i``, ``l``, ``o``, ``0`` or ``1``."""
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP_CHARS)) for _ in range(_GROUPS))
    return "-".join(groups)


def prepare_password(password: bytes | str) -> bytes | None:
    """The form that is hashed; None when it can be no password of ours (empty, NUL, not UTF-8, too long)."""
    try:
        text = password.decode("utf-8") if isinstance(password, bytes) else password
        raw = unicodedata.normalize("NFC", text).encode("utf-8") if len(text) <= MAX_PASSWORD_BYTES else b""
    except UnicodeError:
        return None
    return raw if 0 < len(raw) <= MAX_PASSWORD_BYTES and b"\0" not in raw else None


def prepare_login(login: str) -> str | None:
    """The form in which logins are kept; None when it can be no login (empty, control characters, too long)."""
    if len(login) > MAX_LOGIN_CHARS:
        return None
    text = unicodedata.normalize("NFC", login).strip()
    return text if text and text.isprintable() and len(text) <= MAX_LOGIN_CHARS else None


def is_correct(hasher: PasswordHasher, password_hash: str, password: bytes) -> bool:
    """Whether the password belongs to the hash. A hash that cannot be read matches nothing."""
    try:
        return hasher.verify(password_hash, password)
    except (Argon2Error, InvalidHashError):
        return False
