"""Where a bundle comes from: a published URL (TB-5, TB-6) or a file of a site without a network.

Guarantees: a URL goes out through the guarded fetcher only: public addresses and those of ``trust.allow_fetch_cidrs``,
pinned, bounded in time and size, with no proxy or credential of the environment. Where nobody signs the bundle, the
URL is its only authenticity: https with a checked certificate, also behind every redirect. Plain http for an unsigned
bundle is taken from the listed networks only, because the operator vouches for those.

Failure modes: :class:`BundleError` with what to do about it. Blocking: to be called in a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from gateway.core.errors import BundleError
from gateway.core.trust import BundleSetting
from gateway.sta.fetching.fetcher import Fetcher, FetchError
from gateway.sta.trust_anchors.bundle_file import MAX_BUNDLE_BYTES

SECONDS = 30.0
"""For one bundle, name resolution and redirects included."""
BAD_LOCATION = "location"
"""The cause of a failure that the setting or the configuration explains, and no later attempt will mend."""
_NEEDS_HTTPS = (
    "an unsigned bundle is only as trustworthy as its URL: use an https URL, or name the publisher's certificate "
    "with --signer (plain http is taken only from networks listed in trust.allow_fetch_cidrs)"
)
_PRIVATE_AUTHORITY = (
    "; when a private authority of yours has issued it, start the gateway and this command with SSL_CERT_FILE in the "
    "environment, naming a PEM file that holds the authority's certificate"
)


@dataclass(frozen=True, slots=True)
class BundleSources:
    """Reads bundles from where their settings say."""

    anywhere: Fetcher
    """For what is signed."""
    secure: Fetcher
    """The same, https only."""
    listed: Fetcher
    """Within the operator's own networks only."""

    @classmethod
    def configured(cls, allow_fetch_cidrs: Iterable[str], *, seconds: float = SECONDS) -> BundleSources:
        """Return the sources of a gateway with these settings.

        The operator chose where a bundle comes from, so that what ``trust.fetch`` says of the URLs in foreign
        certificates does not apply.
        """
        cidrs = tuple(allow_fetch_cidrs)

        def fetcher(mode: str) -> Fetcher:
            made = Fetcher.configured(mode, cidrs, seconds_per_message=seconds)
            return replace(made, seconds_per_request=seconds, max_bytes=MAX_BUNDLE_BYTES)

        public = fetcher("public")
        return cls(public, replace(public, schemes=frozenset({"https"})), fetcher("listed"))

    def check(self, setting: BundleSetting) -> None:
        """Refuse a location that can never work, before it is stored.

        Raises:
            BundleError: neither an http(s) URL nor an absolute path, or http where it proves nothing.
        """
        scheme = _scheme(setting.location)
        if scheme is None:
            if not Path(setting.location).is_absolute():
                raise BundleError(BAD_LOCATION, "a bundle comes from an http(s) URL or a file")
        elif scheme not in {"http", "https"}:
            raise BundleError(BAD_LOCATION, f"{scheme} URLs are not fetched; use http(s), or the path of a file")
        elif not _host(setting.location):
            raise BundleError(BAD_LOCATION, "the URL names no host, or holds a login; check it")
        elif scheme == "http" and setting.signer is None and not self.listed.allowed:
            raise BundleError(BAD_LOCATION, _NEEDS_HTTPS)

    def read(self, setting: BundleSetting) -> bytes:
        """Return the file as it is published now.

        Raises:
            BundleError: it cannot be had.
        """
        self.check(setting)
        scheme = _scheme(setting.location)
        if scheme is None:
            return read_file(Path(setting.location))
        if setting.signer is not None:
            return _fetch(self.anywhere, setting.location)
        if scheme == "https":
            return _fetch(self.secure, setting.location)
        try:
            return _fetch(self.listed, setting.location)
        except BundleError as exc:
            if exc.cause != BAD_LOCATION:
                raise
            raise BundleError(exc.cause, f"{exc}; {_NEEDS_HTTPS}") from exc


def _scheme(location: str) -> str | None:
    """The scheme of a URL in lower case, or None for a path."""
    head, colon, _ = location.partition("://")
    return head.lower() if colon and head.isascii() and head.isalnum() else None


def _host(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return None if parts.username is not None else parts.hostname


def _fetch(fetcher: Fetcher, url: str) -> bytes:
    try:
        return fetcher.session().get(url)
    except FetchError as exc:
        text = f"the bundle cannot be fetched from {_host(url)}: {exc}"
        if "address ranges" in text or "the port" in text:
            text += "; when it is a private address or port of yours, add it to trust.allow_fetch_cidrs"
            raise BundleError(BAD_LOCATION, text) from None
        if "certificate of the server" in text:
            text += _PRIVATE_AUTHORITY
        raise BundleError("not_fetched", text) from None


def read_file(path: Path) -> bytes:
    """Read a bundle from an ordinary file of bounded size.

    Raises:
        BundleError: it is not one, or cannot be read.
    """
    try:
        # Not blocking: to open a pipe would wait for whoever writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BundleError("not_fetched", f"{path} is not an ordinary file")
            data = file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as exc:
        raise BundleError("not_fetched", f"cannot read {path}: {exc.strerror}") from exc
    if len(data) > MAX_BUNDLE_BYTES:
        raise BundleError("too_large", f"{path} is larger than {MAX_BUNDLE_BYTES >> 20} MiB")
    return data
