"""The public keys of the authority that issues access tokens (RFC 7517): from a file, or fetched from one URL.

The URL is the operator's, https only; no other address is ever asked, whatever a token or an answer says: redirects are
not followed, proxies of the environment are not used. An answer has MAX_BYTES and FETCH_SECONDS in all.

Keys are fetched when there are none, when they are older than ``refresh_seconds``, and when a token names one that is
not there, but not more often than every RETRY_SECONDS: whoever sends made-up tokens cannot make the gateway ask. When
nothing can be had, the last keys go on for KEEP_SECONDS. A file is read again when it has changed.

Failure modes: KeyUnavailableError when there are no keys at all. Keys of kinds that no algorithm of ours uses (``oct``
among them: a secret that would make everybody an issuer), weak ones, and those for encryption are passed over.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from gateway.core.errors import ConfigurationError, KeyUnavailableError
from gateway.observability.log import get_log

_log = get_log("accounts")

MAX_BYTES = 262_144
MAX_KEYS = 100
MIN_RSA_BITS = 2048
FETCH_SECONDS = 10.0
RETRY_SECONDS = 60.0
KEEP_SECONDS = 86_400.0
_CHUNK = 16_384

FAMILIES: Mapping[str, tuple[str, str]] = {
    "RS256": ("RSA", ""),
    "PS256": ("RSA", ""),
    "ES256": ("EC", "P-256"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""The algorithms there are, each with the type of key and the curve (RFC 7518, RFC 8037)."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that may have signed a token."""

    kid: str
    algorithms: frozenset[str]
    key: Any
    """As the library takes it."""


class KeySource(Protocol):
    """Where the keys come from."""

    async def keys(self, *, wanted: str = "") -> tuple[PublicKey, ...]:
        """The keys; ``wanted`` names one that should be among them. Raises KeyUnavailableError."""
        ...


def read_keys(document: bytes) -> tuple[PublicKey, ...]:
    """The usable keys of a JWK Set. Raises ValueError when it is none."""
    found = json.loads(document)
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it has no list of keys")  # noqa: TRY004 - as everything else that is wrong with it
    keys = [_key(one) for one in listed[:MAX_KEYS] if isinstance(one, dict)]
    return tuple(key for key in keys if key is not None)


def _key(jwk: dict[str, Any]) -> PublicKey | None:
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    kind = (jwk.get("kty"), jwk.get("crv", ""))
    algorithms = {name for name, family in FAMILIES.items() if family == kind}
    if "alg" in jwk:
        algorithms &= {str(jwk["alg"])}
    if not algorithms:
        return None
    # Only what a public key needs goes to the library: no private part, no chain of certificates, no address.
    plain: dict[str, Any] = {name: jwk[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in jwk}
    try:
        key = PyJWK.from_dict(plain, algorithm=min(algorithms)).key
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    if kind[0] == "RSA" and getattr(key, "key_size", 0) < MIN_RSA_BITS:
        return None
    return PublicKey(str(jwk.get("kid", "")), frozenset(algorithms), key)


class FileKeys:
    """Keys in a file that some other program, or a person, keeps fresh."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError: it is not there, or holds no usable key."""
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: tuple[PublicKey, ...] = ()
        try:
            self._read()
        except (OSError, ValueError, RecursionError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is no JSON Web Key Set"
            raise ConfigurationError(f"oauth.jwks_file: {path} cannot be read: {why}") from exc
        if not self._keys:
            raise ConfigurationError(f"oauth.jwks_file: {path} holds no key that can be used; see docs/users.md")

    async def keys(self, *, wanted: str = "") -> tuple[PublicKey, ...]:  # noqa: ARG002 - a file is always looked at
        """See :class:`KeySource`."""
        try:
            self._read()
        except (OSError, ValueError, RecursionError) as exc:
            # In the middle of being replaced, perhaps: what was read before goes on.
            _log.warning("token_keys_not_read", exc=exc)
        if not self._keys:
            raise KeyUnavailableError("oauth.jwks_file holds no key")
        return self._keys

    def _read(self) -> None:
        status = self._path.stat()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp == self._stamp:
            return
        if status.st_size > MAX_BYTES:
            raise ValueError("too large")
        keys = read_keys(self._path.read_bytes())
        self._stamp = stamp
        if not keys:
            raise ValueError("no key in it can be used")
        self._keys = keys


class FetchedKeys:
    """Keys behind a URL."""

    def __init__(
        self,
        url: str,
        ca_file: Path | None,
        refresh_seconds: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ConfigurationError: the authorities in ``ca_file`` cannot be read."""
        self._url = url
        self._refresh_seconds = refresh_seconds
        self._monotonic = monotonic
        try:
            self._context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        except (OSError, ssl.SSLError) as exc:
            raise ConfigurationError(f"oauth.ca_file: {ca_file} cannot be read") from exc
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._keys: tuple[PublicKey, ...] = ()
        self._fetched_at = self._tried_at = float("-inf")
        self._asking: asyncio.Future[None] | None = None

    async def keys(self, *, wanted: str = "") -> tuple[PublicKey, ...]:
        """See :class:`KeySource`."""
        if self._asking is None and self._is_time(wanted):
            # A task of its own: the client that needs the keys may go away, and others wait for them as well.
            self._asking = asyncio.ensure_future(self._fetch())
            self._asking.add_done_callback(self._asked)
        if self._asking is not None:
            await asyncio.shield(self._asking)
        if not self._keys or self._monotonic() > self._fetched_at + KEEP_SECONDS:
            raise KeyUnavailableError("no key of the authority that issues tokens can be had now")
        return self._keys

    def _is_time(self, wanted: str) -> bool:
        now = self._monotonic()
        if now < self._tried_at + RETRY_SECONDS:
            return False
        return self._lacks(wanted) or now >= self._fetched_at + self._refresh_seconds

    def _lacks(self, wanted: str) -> bool:
        return not self._keys or (bool(wanted) and wanted not in {key.kid for key in self._keys})

    def _asked(self, _task: asyncio.Future[None]) -> None:
        self._asking = None

    async def _fetch(self) -> None:
        self._tried_at = self._monotonic()
        try:
            keys = read_keys(await asyncio.to_thread(fetch, self._url, self._context))
        except (OSError, ValueError, RecursionError, http.client.HTTPException) as exc:
            _log.warning("token_keys_not_fetched", exc=exc)
            return
        if not keys:
            _log.warning("token_keys_not_fetched", reason="no_usable_key")
            return
        self._keys, self._fetched_at = keys, self._monotonic()
        _log.info("token_keys_fetched", count=len(keys))


def fetch(url: str, context: ssl.SSLContext, *, seconds: float = FETCH_SECONDS) -> bytes:
    """The body behind the URL, for a thread that may wait.

    Raises:
        OSError: it cannot be reached, is no authority's, or takes too long. ValueError: it is not an answer that
            counts (another status than 200, too large). HTTPException: it does not speak HTTP.
    """
    parts = urlsplit(url)
    deadline = time.monotonic() + seconds
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=seconds, context=context)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"Accept": "application/jwk-set+json, application/json"})
        socket = connection.sock
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise ValueError(f"status {response.status}")
        body = bytearray()
        while chunk := response.read1(_CHUNK):
            body += chunk
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if len(body) > MAX_BYTES:
                raise ValueError("too large")
            socket.settimeout(left)
        return bytes(body)
    finally:
        connection.close()
