"""Passwords: made, prepared, hashed."""

from __future__ import annotations

import re

import pytest
from argon2 import PasswordHasher

from gateway.accounts.passwords import (
    MAX_LOGIN_CHARS,
    MAX_PASSWORD_BYTES,
    default_hasher,
    generate_password,
    is_correct,
    prepare_login,
    prepare_password,
)

FAST = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def test_generated_passwords_are_readable_and_differ() -> None:
    made = {generate_password() for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(r"[a-hjkmnp-z2-9]{5}(-[a-hjkmnp-z2-9]{5}){3}", password) for password in made)
    assert len(set("".join(made))) == 32  # All 31 characters and the hyphen are used.


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        ("secret", b"secret"),
        (b"secret", b"secret"),
        ("Mu\u0308ller", "M\u00fcller".encode()),
        ("M\u00fcller".encode(), "M\u00fcller".encode()),
        (" spaces stay ", b" spaces stay "),
        ("", None),
        (b"", None),
        ("a\0b", None),
        (b"\xff\xfe", None),
        ("\ud800", None),
        ("x" * (MAX_PASSWORD_BYTES + 1), None),
        ("ü" * (MAX_PASSWORD_BYTES // 2 + 1), None),
    ],
)
def test_preparing_a_password(password: bytes | str, expected: bytes | None) -> None:
    assert prepare_password(password) == expected


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        ("nurse@clinic.example", "nurse@clinic.example"),
        (" nurse ", "nurse"),
        ("Mu\u0308ller", "M\u00fcller"),
        ("", None),
        ("  ", None),
        ("a\0b", None),
        ("a\nb", None),
        ("\ud800", None),
        ("x" * (MAX_LOGIN_CHARS + 1), None),
    ],
)
def test_preparing_a_login(login: str, expected: str | None) -> None:
    assert prepare_login(login) == expected


def test_a_hash_belongs_to_one_password() -> None:
    stored = FAST.hash(b"secret")
    assert is_correct(FAST, stored, b"secret")
    assert not is_correct(FAST, stored, b"Secret")


@pytest.mark.parametrize(
    "stored", ["", "!", "$argon2id$", "$2b$12$abcdefghijklmnopqrstuv", "$argon2id$v=19$m=8,t=1,p=1$x$y"]
)
def test_a_hash_that_cannot_be_read_matches_nothing(stored: str) -> None:
    assert not is_correct(FAST, stored, b"")
    assert not is_correct(FAST, stored, b"secret")


def test_the_default_is_argon2id_of_at_least_the_strength_of_owasp() -> None:
    hasher = default_hasher()
    assert hasher.type.name == "ID"
    assert hasher.memory_cost >= 19 * 1024
    assert hasher.time_cost >= 2
    assert is_correct(hasher, FAST.hash(b"older"), b"older")
