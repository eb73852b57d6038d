"""SASL responses: RFC 4616, RFC 7628. Whatever comes, there is a value or a SASLError, and nothing else."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serving.sasl import Bearer, Plain, SASLError, bearer, decoded, plain

TEXT = st.text(st.characters(blacklist_characters="\0\1", blacklist_categories=["Cs"]), max_size=20)


def encoded(text: str | bytes) -> bytes:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode())


@given(st.binary(max_size=60))
def test_any_octets(octets: bytes) -> None:
    for given_octets in (octets, base64.b64encode(octets)):
        for take in (plain, bearer):
            with contextlib.suppress(SASLError):
                assert isinstance(take(given_octets), Plain | Bearer)


@given(TEXT, TEXT, TEXT)
def test_plain(authorization: str, login: str, password: str) -> None:
    found = plain(encoded(f"{authorization}\0{login}\0{password}"))
    assert found == Plain(authorization.encode(), login.encode(), password.encode())


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(Plain(b"", b"me", b"secret")) + repr(Bearer("", "secret"))


def test_an_empty_response() -> None:
    assert decoded(b"=") == b""
    with pytest.raises(SASLError):
        plain(b"=")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("n,,\1auth=Bearer t0k\1\1", Bearer("", "t0k")),
        ("n,a=me@x.example,\1host=h\1port=995\1auth=Bearer t0k\1\1", Bearer("me@x.example", "t0k")),
        ("y,a=a=2Cb=3D2C,\1auth=bearer t0k=\1\1", Bearer("a,b=2C", "t0k=")),
    ],
)
def test_bearer(text: str, found: Bearer) -> None:
    assert bearer(encoded(text)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "n,,",
        "n,\1auth=Bearer t\1\1",
        "n,,\1auth=Bearer t",
        "p=tls,,\1auth=Bearer t\1\1",
        "n,x=me,\1auth=Bearer t\1\1",
        "n,,\1auth=Basic t\1\1",
        "n,,\1auth=Bearer\1\1",
        "n,,\1auth=Bearer \1\1",
        "n,,\1host=h\1\1",
        "n,a=me\1auth=Bearer t\1\1",
    ],
)
def test_what_is_no_bearer_response(text: str) -> None:
    with pytest.raises(SASLError, match="Invalid OAUTHBEARER response"):
        bearer(encoded(text))
