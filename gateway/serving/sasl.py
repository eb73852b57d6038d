"""The responses of SASL mechanisms, as every mail protocol carries them: PLAIN (RFC 4616), OAUTHBEARER (RFC 7628).

Pure: octets in, values out. Failure modes: SASLError, whose text may be told to the client and repeats nothing of what
it sent.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

MAX_RESPONSE_BYTES = 12_288
"""RFC 5034 section 4: the longest line of base64."""


class SASLError(Exception):
    """The response is none of its mechanism."""


@dataclass(frozen=True, slots=True)
class Plain:
    """Who wants to act, who logs in, and the password."""

    authorization: bytes
    login: bytes
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who wants to act (empty: as the token says), and the access token."""

    authorization: str
    token: str = field(repr=False)


def plain(encoded: bytes) -> Plain:
    """Take a PLAIN response apart. Raises SASLError."""
    pieces = decoded(encoded).split(b"\0")
    if len(pieces) != 3:
        raise SASLError("Invalid PLAIN response")
    authorization, login, password = pieces
    return Plain(authorization, login, password)


def bearer(encoded: bytes) -> Bearer:
    """Take an OAUTHBEARER response apart. Raises SASLError."""
    try:
        text = decoded(encoded).decode("utf-8")
    except UnicodeDecodeError:
        raise SASLError("Invalid OAUTHBEARER response") from None
    head, separator, rest = text.partition("\1")
    flag, comma, authorization = head.partition(",")
    if not separator or not comma or flag not in {"n", "y"} or not rest.endswith("\1"):
        raise SASLError("Invalid OAUTHBEARER response")
    return Bearer(_name(authorization), _token(rest))


def _name(authorization: str) -> str:
    """The identity of the GS2 header: ``a=NAME,`` or only the comma."""
    name = authorization.removesuffix(",")
    if name == authorization or (name and not name.startswith("a=")):
        raise SASLError("Invalid OAUTHBEARER response")
    return name.removeprefix("a=").replace("=2C", ",").replace("=3D", "=")


def _token(pairs: str) -> str:
    for pair in pairs.split("\1"):
        key, _, value = pair.partition("=")
        scheme, _, token = value.partition(" ")
        if key == "auth" and scheme.lower() == "bearer" and token.strip():
            return token.strip()
    raise SASLError("Invalid OAUTHBEARER response")


def decoded(encoded: bytes) -> bytes:
    """Base64, where a single ``=`` is an empty response (RFC 4959, RFC 5034). Raises SASLError."""
    if encoded == b"=":
        return b""
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise SASLError("Invalid base64") from None
