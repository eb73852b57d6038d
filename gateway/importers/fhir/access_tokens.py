"""Access tokens for a FHIR server: SMART Backend Services (private_key_jwt, RFC 7523), a token file, or none.

Guarantees: an assertion names one token endpoint, lives for minutes and is never used twice; a token endpoint that the
server names itself is used only where the settings would allow it (https, and the list of places). A token is fetched
once for all who wait, kept in memory until shortly before it ends, and never written or shown. Keys and token files
are read when they are needed: an exchange needs no restart.

Failure modes: ImportFailedError; its reason is a word of ours, or the error code of OAuth 2.0 when it is a known one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from gateway.core.errors import ConfigurationError, ImportFailedError
from gateway.core.import_settings import ImporterSettings, usable_place
from gateway.importers.http_client import HTTPClient, Reply, retry_after
from gateway.ports import Clock

ASSERTION_SECONDS = 240
"""SMART allows five minutes; clocks differ."""
MAX_ANSWER_BYTES = 262_144
_EARLY_SECONDS = 30.0
_USUAL_SECONDS, _LONGEST_SECONDS = 300.0, 86_400.0
_MAX_FILE_BYTES = 16_384
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_OAUTH_ERRORS = frozenset(
    {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"}
    | {"invalid_scope", "access_denied", "server_error", "temporarily_unavailable"}
)


class AssertionKey(Protocol):
    """The private key of SMART Backend Services."""

    @property
    def algorithm(self) -> str:
        """``RS384`` or ``ES384``."""
        ...

    @property
    def kid(self) -> str:
        """What its file says, or nothing."""
        ...

    def sign(self, data: bytes) -> bytes:
        """The signature as a JWS has it."""
        ...


class AccessTokens:
    """The tokens of one target."""

    def __init__(
        self,
        settings: ImporterSettings,
        clock: Clock,
        read_key: Callable[[Path], AssertionKey],
        threads: ThreadPoolExecutor,
    ) -> None:
        """``read_key`` raises ConfigurationError."""
        self._settings, self._clock, self._read_key, self._threads = settings, clock, read_key, threads
        self._lock = asyncio.Lock()
        self._token, self._ends = "", 0.0
        self._endpoint = settings.token_url

    async def header(self) -> dict[str, str]:
        """The field that authenticates a request. Raises ImportFailedError."""
        if self._settings.bearer_file is not None:
            loop = asyncio.get_running_loop()
            return {"authorization": f"Bearer {await loop.run_in_executor(self._threads, self._from_file)}"}
        if not self._settings.client_id:
            return {}
        async with self._lock:
            if not self._token or asyncio.get_running_loop().time() >= self._ends:
                await self._fetch()
            return {"authorization": f"Bearer {self._token}"}

    def forget(self, header: dict[str, str]) -> bool:
        """The server does not take this one. Whether another may be had."""
        if header.get("authorization") == f"Bearer {self._token}":
            self._token = ""
        return bool(self._settings.client_id)

    def _from_file(self) -> str:
        path = self._settings.bearer_file
        assert path is not None  # noqa: S101 - asked before
        try:
            with path.open("rb") as file:
                token = file.read(_MAX_FILE_BYTES).decode("ascii", "replace").strip()
        except OSError:
            raise ImportFailedError("bearer_file cannot be read", reason="no_token") from None
        return _checked(token)

    async def _fetch(self) -> None:
        try:
            await self._ask_for_one(await self._token_endpoint())
        except ImportFailedError:
            # It may have moved: the server is asked for it again.
            self._endpoint = self._settings.token_url
            raise

    async def _ask_for_one(self, endpoint: str) -> None:
        loop = asyncio.get_running_loop()
        body = await loop.run_in_executor(self._threads, self._request, endpoint)
        fields = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        asked_at = loop.time()
        client = self._client(endpoint)
        reply = await client.request("POST", client.target, fields, body, max_answer_bytes=MAX_ANSWER_BYTES)
        told = _document(reply)
        if reply.status != 200:
            code = str(told.get("error", ""))
            reason = f"token_{code}" if code in _OAUTH_ERRORS else f"token_http_{reply.status}"
            after = retry_after(reply.headers.get("retry-after", ""), self._clock.now())
            raise ImportFailedError("the authorization server gives no token", reason=reason, retry_after_seconds=after)
        if str(told.get("token_type", "")).lower() != "bearer":
            raise ImportFailedError("the authorization server gives no bearer token", reason="bad_token")
        seconds = told.get("expires_in", _USUAL_SECONDS)
        lasts = min(seconds, _LONGEST_SECONDS) if isinstance(seconds, int | float) and seconds > 0 else _USUAL_SECONDS
        self._token = _checked(str(told.get("access_token", "")))
        self._ends = asked_at + max(1.0, lasts - _EARLY_SECONDS)

    async def _token_endpoint(self) -> str:
        if not self._endpoint:
            base = self._settings.url.rstrip("/")
            client = self._client(f"{base}/.well-known/smart-configuration")
            accept = {"accept": "application/json"}
            reply = await client.request("GET", client.target, accept, max_answer_bytes=MAX_ANSWER_BYTES)
            told = str(_document(reply).get("token_endpoint", "")) if reply.status == 200 else ""
            if not usable_place(self._settings, told):
                raise ImportFailedError("the server names no token endpoint that may be used", reason="no_token_url")
            self._endpoint = told
        return self._endpoint

    def _request(self, endpoint: str) -> bytes:
        settings = self._settings
        assert settings.key_file is not None  # noqa: S101 - the settings were checked
        try:
            key = self._read_key(settings.key_file)
        except ConfigurationError as exc:
            raise ImportFailedError(str(exc), reason="no_key") from None
        now = int(self._clock.now().timestamp())
        head = {"typ": "JWT", "alg": key.algorithm, "kid": settings.kid or key.kid}
        claims = {
            "iss": settings.client_id, "sub": settings.client_id, "aud": endpoint, "jti": secrets.token_urlsafe(24),
            "iat": now, "exp": now + ASSERTION_SECONDS,
        }  # fmt: skip
        signed = f"{_encoded({name: value for name, value in head.items() if value})}.{_encoded(claims)}"
        form = {
            "grant_type": "client_credentials",
            "scope": settings.scope,
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": f"{signed}.{_base64(key.sign(signed.encode('ascii')))}",
        }
        return urlencode(form).encode("ascii")

    def _client(self, url: str) -> HTTPClient:
        settings = self._settings
        return HTTPClient(url, settings.allow, settings.ca_file, self._threads)


def _checked(token: str) -> str:
    if not token or not all("!" <= char <= "~" for char in token):
        raise ImportFailedError("what was given is no token", reason="bad_token")
    return token


def _document(reply: Reply) -> dict[str, Any]:
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        return document
    if reply.status == 200:
        raise ImportFailedError("the authorization server does not answer in JSON", reason="bad_token")
    return {}


def _encoded(document: dict[str, Any]) -> str:
    return _base64(json.dumps(document, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
