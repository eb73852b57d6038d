"""Access tokens (JWT, RFC 9068) instead of passwords: whose login a token speaks for.

What is looked at, after RFC 8725: the algorithm is one of the settings and of public keys only (never ``none``, never
a shared secret); the key is one of the authority's, found by ``kid``, of the type that the algorithm wants; nothing in
the token says where a key is (``jku``, ``x5u``, ``jwk``, ``x5c``), and nothing critical that is not known here
(``crit``); ``typ`` is ``at+jwt``, ``JWT`` or left out; ``iss`` and ``aud`` are those of the settings; ``exp`` is there
and not over, ``nbf`` and ``iat`` are not to come, all within the skew of the clocks. The login is a claim of the token;
an address that the authority says is not verified (``email_verified``) is none.

Guarantees: everything that is wrong leaves as one error; its reason is for the audit log. Nothing of a token is logged.

Failure modes: TokenRefusedError; KeyUnavailableError when no key of the authority can be had.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jwt import InvalidTokenError, PyJWT, get_unverified_header
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuedAtError,
    InvalidIssuerError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

from gateway.accounts.jwks import FetchedKeys, FileKeys, KeySource, PublicKey
from gateway.accounts.token_judge import TokenRefusedError
from gateway.settings import OAuthSettings

MAX_TOKEN_BYTES = 16_384
_TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
_LEADS_ELSEWHERE = frozenset({"jku", "x5u", "jwk", "x5c", "crit"})
_MOMENTS = frozenset({"exp", "nbf", "iat"})
_REASONS: tuple[tuple[type[PyJWTError], str], ...] = (
    (ExpiredSignatureError, "expired"),
    (ImmatureSignatureError, "not_yet"),
    (InvalidIssuedAtError, "not_yet"),
    (InvalidAudienceError, "audience"),
    (InvalidIssuerError, "issuer"),
    (InvalidSignatureError, "signature"),
    (MissingRequiredClaimError, "claims"),
)


class TokenVerifier:
    """Judges the tokens of one authority. Implements :class:`gateway.accounts.token_judge.TokenJudge`."""

    def __init__(self, settings: OAuthSettings, keys: KeySource) -> None:
        self._settings = settings
        self._keys = keys
        self._jwt = PyJWT()

    async def login_of(self, token: str) -> str:
        """The login that the token speaks for. Raises TokenRefusedError, KeyUnavailableError."""
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise TokenRefusedError("malformed")
        try:
            header = get_unverified_header(token)
        except (PyJWTError, ValueError, TypeError, RecursionError):
            raise TokenRefusedError("malformed") from None
        algorithm = _checked_header(header, self._settings.algorithms)
        kid = header.get("kid", "")
        if not isinstance(kid, str):
            raise TokenRefusedError("malformed")
        key = _chosen(await self._keys.keys(wanted=kid), kid, algorithm)
        return self._login(self._claims(token, key, algorithm))

    def _claims(self, token: str, key: PublicKey, algorithm: str) -> Mapping[str, Any]:
        settings = self._settings
        try:
            found: Mapping[str, Any] = self._jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.clock_skew_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except InvalidTokenError as error:
            reason = next((word for kind, word in _REASONS if isinstance(error, kind)), "malformed")
            raise TokenRefusedError(reason) from None
        except (PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise TokenRefusedError("malformed") from None
        # The library takes what can be made a number for one; RFC 7519 section 2 has numbers only.
        if any(type(found[name]) not in {int, float} for name in _MOMENTS & found.keys()):
            raise TokenRefusedError("malformed")
        return found

    def _login(self, claims: Mapping[str, Any]) -> str:
        name = self._settings.login_claim
        login = claims.get(name)
        if not isinstance(login, str) or not login.strip():
            raise TokenRefusedError("no_login")
        verified = claims.get("email_verified", True)
        if name == "email" and verified is not True and verified != "true":
            raise TokenRefusedError("email_not_verified")
        return login


def _checked_header(header: Mapping[str, Any], allowed: tuple[str, ...]) -> str:
    """The algorithm. Raises TokenRefusedError."""
    if not _LEADS_ELSEWHERE.isdisjoint(header):
        raise TokenRefusedError("header")
    kind = header.get("typ", "")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenRefusedError("type")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in allowed:
        raise TokenRefusedError("algorithm")
    return algorithm


def _chosen(keys: tuple[PublicKey, ...], kid: str, algorithm: str) -> PublicKey:
    """The one key that may have signed. Without a ``kid`` there must be one only that fits."""
    fitting = [key for key in keys if algorithm in key.algorithms and (not kid or key.kid == kid)]
    if len(fitting) != 1:
        raise TokenRefusedError("no_key")
    return fitting[0]


def token_verifier(settings: OAuthSettings) -> TokenVerifier:
    """What judges tokens by the settings. Raises ConfigurationError: its keys cannot be read."""
    if settings.jwks_file is not None:
        return TokenVerifier(settings, FileKeys(settings.jwks_file))
    refresh_seconds = settings.jwks_refresh_minutes * 60
    return TokenVerifier(settings, FetchedKeys(settings.jwks_url, settings.ca_file, refresh_seconds))
