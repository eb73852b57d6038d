"""Where bundles come from: real servers, files, and everything that is refused (TB-5, TB-6)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from gateway.bundles import sources as sources_module
from gateway.bundles.service import TrustBundles
from gateway.bundles.sources import BundleSources
from gateway.bundles.update import Outcome
from gateway.core.errors import BundleError
from gateway.core.trust import BundleSetting
from gateway.sta.fetching import fetch_exchange
from tests.support.bundle_files import anchor, der, pem, publisher
from tests.support.web_sites import WebSite, cut_short, redirect, site_identity, web_site
from tests.unit.bundles.bundle_world import NAME, SETTING, WHO, BundleWorld, bundle, ders

LISTED = BundleSources.configured(["127.0.0.0/8"])
PUBLIC = BundleSources.configured([])
SIGNER = der(publisher())


@pytest.fixture
def site() -> Iterator[WebSite]:
    with web_site() as running:
        yield running


@pytest.fixture
def secure_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebSite]:
    """A server over TLS whose certificate the machine trusts."""
    identity = site_identity()
    (tmp_path / "trusted.pem").write_bytes(identity.certificate_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    fetch_exchange._tls.cache_clear()
    with web_site(identity, tmp_path) as running:
        yield running
    fetch_exchange._tls.cache_clear()


def at(location: str, *, signer: bytes | None = None) -> BundleSetting:
    return replace(SETTING, location=location, signer=signer)


def refused(sources: BundleSources, setting: BundleSetting) -> str:
    with pytest.raises(BundleError) as caught:
        sources.read(setting)
    return str(caught.value)


# --- URLs ---


@pytest.mark.parametrize("signer", [None, SIGNER])
def test_a_bundle_is_fetched_from_a_listed_network(site: WebSite, signer: bytes | None) -> None:
    site.answers["/p.p7b?v=1"] = bundle(1, 2)
    assert LISTED.read(at(site.url("/p.p7b?v=1"), signer=signer)) == bundle(1, 2)


@pytest.mark.parametrize("signer", [None, SIGNER])
def test_a_bundle_is_fetched_over_tls(secure_site: WebSite, signer: bytes | None) -> None:
    secure_site.answers["/p"] = bundle(1)
    assert LISTED.read(at(secure_site.url("/p"), signer=signer)) == bundle(1)


def test_a_server_that_the_machine_does_not_trust_is_refused(tmp_path: Path) -> None:
    with web_site(site_identity(91), tmp_path) as stranger:
        stranger.answers["/p"] = bundle(1)
        text = refused(LISTED, at(stranger.url("/p")))
        assert "TLS" in text
        assert "self-signed certificate" in text
        assert "SSL_CERT_FILE" in text, "which is true: see secure_site"


def test_a_certificate_for_another_name_is_told_without_the_name(secure_site: WebSite) -> None:
    text = refused(LISTED, at(secure_site.url("/p").replace("127.0.0.1", "localhost")))
    assert text.split(";")[0].endswith("does not pass: Hostname mismatch")


def test_plain_http_proves_nothing_for_an_unsigned_bundle(site: WebSite) -> None:
    """TB-6. A signed one may come over http; a private address must be listed either way."""
    site.answers["/p"] = bundle(1)
    text = refused(PUBLIC, at("http://bundles.example/p"))
    assert "https" in text
    assert "--signer" in text
    PUBLIC.check(at("http://bundles.example/p", signer=SIGNER))
    other_network = BundleSources.configured(["10.9.0.0/16"])
    text = refused(other_network, at(site.url("/p")))
    assert "trust.allow_fetch_cidrs" in text
    assert "--signer" in text
    assert site.asked == []


@pytest.mark.parametrize("signer", [None, SIGNER])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["10.0.0.5", "127.0.0.1", "169.254.169.254", "[::1]", "localhost"])
def test_a_private_address_must_be_listed(scheme: str, host: str, signer: bytes | None) -> None:
    text = refused(PUBLIC, at(f"{scheme}://{host}/p", signer=signer))
    assert "trust.allow_fetch_cidrs" in text


def test_a_redirect_may_not_leave_tls(site: WebSite, secure_site: WebSite) -> None:
    """Else whoever sits on the last stretch of the way decides whom the practice trusts."""
    site.answers["/p"] = bundle(1)
    secure_site.answers["/p"] = redirect(site.url("/p"))
    secure_site.answers["/q"] = redirect(secure_site.url("/r"))
    secure_site.answers["/r"] = bundle(2)
    assert "only https" in refused(LISTED, at(secure_site.url("/p")))
    assert site.asked == []
    assert LISTED.read(at(secure_site.url("/p"), signer=SIGNER)) == bundle(1)
    assert LISTED.read(at(secure_site.url("/q"))) == bundle(2)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("ftp://bundles.example/p", "ftp URLs are not fetched"),
        ("file:///etc/passwd", "file URLs are not fetched"),
        ("https://user:secret@bundles.example/p", "holds a login"),
        ("https:///p", "names no host"),
        ("https://[::1/p", "names no host"),
        ("bundles/p.p7b", r"an http\(s\) URL or a file"),
        ("", r"an http\(s\) URL or a file"),
    ],
)
def test_locations_that_can_never_work_are_refused_before_they_are_stored(location: str, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        LISTED.check(at(location))


def test_what_a_server_does_wrong_is_told(site: WebSite) -> None:
    site.answers["/short"] = cut_short(pem(anchor(1)), len(pem(anchor(1), anchor(2))))
    text = refused(LISTED, at(site.url("/gone")))
    assert "404" in text
    assert "unsigned" not in text, "no https would have helped"
    assert "cut short" in refused(LISTED, at(site.url("/short"))), "one of two anchors is no smaller bundle"


def test_size_is_bounded(site: WebSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_module, "MAX_BUNDLE_BYTES", 1_000)
    small = BundleSources.configured(["127.0.0.0/8"])
    site.answers["/p"] = b"x" * 1_001
    assert "too large" in refused(small, at(site.url("/p")))
    (tmp_path / "p").write_bytes(b"x" * 1_001)
    assert "larger than" in refused(small, at(str(tmp_path / "p")))


def test_time_is_bounded(site: WebSite) -> None:
    def slow(_request: BaseHTTPRequestHandler) -> None:
        time.sleep(3)

    site.answers["/p"] = slow
    begun = time.monotonic()
    text = refused(BundleSources.configured(["127.0.0.0/8"], seconds=0.2), at(site.url("/p")))
    assert "in time" in text
    assert time.monotonic() - begun < 2


# --- files ---


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.p7b").write_bytes(bundle(1))
    assert PUBLIC.read(at(str(tmp_path / "p.p7b"))) == bundle(1)


def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "cannot read" in refused(PUBLIC, at(str(tmp_path / "none")))
    assert "cannot read" in refused(PUBLIC, at(str(tmp_path)))
    assert "ordinary file" in refused(PUBLIC, at(str(tmp_path / "pipe")))
    assert "ordinary file" in refused(PUBLIC, at("/dev/zero"))


# --- the whole ---


async def test_a_bundle_lives_over_a_real_server(world: BundleWorld, site: WebSite) -> None:
    service = TrustBundles(world.store, world.clock, LISTED)
    site.answers["/p"] = bundle(1, 2)
    await service.add(at(site.url("/p")), WHO)
    assert await world.trusted() == ders(1, 2)
    site.answers["/p"] = bundle(2, 3)
    assert (await service.refresh(NAME, WHO)).outcome is Outcome.APPLIED
    del site.answers["/p"]
    assert "404" in (await service.refresh(NAME, WHO)).error
    assert await world.trusted() == ders(2, 3)
