"""What was fetched is kept, what failed is not asked again at once, and what is under way is fetched once (AS-70)."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from datetime import timedelta
from http.server import BaseHTTPRequestHandler

import pytest
from cryptography import x509

from gateway.sta.fetching.fetch_gate import FetchError
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.fetching.reply_cache import (
    FAILURE_SECONDS,
    ISSUERS,
    LISTS,
    MAX_AGE_SECONDS,
    MAX_FAILURES,
    Reply,
    ReplyCache,
)
from gateway.sta.paths.path_building import Path
from gateway.sta.revocation.findings import Finding
from gateway.sta.revocation.revocation import RevocationSource
from tests.support.pki import Identity, rsa_key
from tests.unit.sta.conftest import Web
from tests.unit.sta.revocation_world import DAY, HOUR, LOOPBACK, Scene, ask, send
from tests.unit.sta.trust_world import NOW, World, certificate_of, crl_at

KEY = (LISTS, "http://pki.example/a.crl", b"")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Loader:
    """Counts how often it is asked, and does what it is told."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)
        self.asked = 0

    def __call__(self) -> Reply:
        self.asked += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome if isinstance(outcome, Reply) else Reply(outcome, NOW + 30 * DAY, 1)


def _never() -> Reply:
    raise AssertionError("asked")


def test_a_reply_is_kept_until_its_time_and_a_day_at_most() -> None:
    clock = Clock()
    cache = ReplyCache(clock)
    assert cache.obtain(KEY, NOW, 1, Loader("first")) == "first"
    assert cache.obtain(KEY, NOW + 30 * DAY, 1, _never) == "first"
    assert cache.obtain(KEY, NOW + 30 * DAY + HOUR, 1, Loader(Reply("second", NOW + 40 * DAY, 1))) == "second"
    clock.now += MAX_AGE_SECONDS
    assert cache.obtain(KEY, NOW, 1, Loader("third")) == "third", "an authority may replace a list early"


def test_an_old_reply_in_force_serves_on_when_no_newer_one_is_to_be_had() -> None:
    clock = Clock()
    cache = ReplyCache(clock)
    cache.obtain(KEY, NOW, 1, Loader("first"))
    clock.now += MAX_AGE_SECONDS
    assert cache.obtain(KEY, NOW, 1, Loader(FetchError("down"))) == "first"
    assert cache.obtain(KEY, NOW, 1, _never) == "first", "and the server is left alone for a while"
    clock.now += FAILURE_SECONDS
    assert cache.obtain(KEY, NOW, 1, Loader(Reply("doubtful", None, 1))) == "first"
    assert cache.obtain(KEY, NOW, 1, Loader("second")) == "second"


def test_a_failure_is_remembered_for_a_minute_and_told() -> None:
    clock = Clock()
    cache = ReplyCache(clock)
    with pytest.raises(FetchError, match="the server answered 500"):
        cache.obtain(KEY, NOW, 1, Loader(FetchError("the server answered 500")))
    with pytest.raises(FetchError, match=r"the server answered 500 \(a moment ago"):
        cache.obtain(KEY, NOW, 1, _never)
    clock.now += FAILURE_SECONDS
    assert cache.obtain(KEY, NOW, 1, Loader("up again")) == "up again"


def test_a_failure_of_our_own_is_not_held_against_the_url() -> None:
    cache = ReplyCache(Clock())
    with pytest.raises(FetchError):
        cache.obtain(KEY, NOW, 1, Loader(FetchError("the time for fetching is used up", remember=False)))
    assert cache.obtain(KEY, NOW, 1, Loader("there")) == "there"


def test_what_a_stranger_names_neither_blocks_nor_replaces_what_a_trusted_certificate_names() -> None:
    """The same URL under another purpose."""
    cache = ReplyCache(Clock())
    theirs = (ISSUERS, *KEY[1:])
    with pytest.raises(FetchError):
        cache.obtain(theirs, NOW, 1, Loader(FetchError("down")))
    assert cache.obtain(KEY, NOW, 1, Loader("list")) == "list"
    for n in range(2_000):
        cache.obtain((ISSUERS, f"http://stranger.example/{n}", b""), NOW, 1, Loader(Reply(n, NOW + DAY, 100_000)))
    assert cache.obtain(KEY, NOW, 1, _never) == "list"


def test_what_strangers_name_does_not_drive_out_the_memory_of_a_dead_server() -> None:
    cache = ReplyCache(Clock())
    with pytest.raises(FetchError):
        cache.obtain(KEY, NOW, 1, Loader(FetchError("down")))
    for n in range(MAX_FAILURES + 1):
        with pytest.raises(FetchError):
            cache.obtain((ISSUERS, f"http://stranger.example/{n}", b""), NOW, 1, Loader(FetchError("404")))
    with pytest.raises(FetchError, match="a moment ago"):
        cache.obtain(KEY, NOW, 1, _never)
    assert sum(map(len, cache._failures.values())) <= MAX_FAILURES + 1


def test_a_reply_that_is_older_than_the_kept_one_is_not_kept_however_it_comes() -> None:
    clock = Clock()
    cache = ReplyCache(clock)
    cache.obtain(KEY, NOW, 1, Loader(Reply(2, NOW + DAY, 1)))
    older = Reply(1, NOW + 9 * DAY, 1, lambda kept: bool(kept > 1))
    cache.keep(KEY, older)
    assert cache.obtain(KEY, NOW, 1, _never) == 2
    assert cache.obtain(KEY, NOW + 2 * DAY, 1, Loader(older)) == 2, "not even when it has run out"
    assert cache.held(KEY) == 2
    cache.keep(KEY, Reply(3, NOW + 9 * DAY, 1, lambda kept: bool(kept > 3)))
    assert cache.obtain(KEY, NOW + 2 * DAY, 1, _never) == 3
    assert cache.held((LISTS, "http://pki.example/other", b"")) is None


def test_a_kept_reply_keeps_nothing_of_the_message_that_asked() -> None:
    class Message:
        def is_rollback(self, _: object) -> bool:
            return False

    cache, message = ReplyCache(Clock()), Message()
    gone = weakref.ref(message)
    cache.obtain(KEY, NOW, 1, Loader(Reply("list", NOW + DAY, 1, message.is_rollback)))
    del message
    gc.collect()
    assert gone() is None


def test_the_cache_is_bounded_in_bytes() -> None:
    cache = ReplyCache(Clock())
    mib = 1024 * 1024
    for n in range(20):
        cache.obtain((LISTS, f"http://pki.example/{n}", b""), NOW, 1, Loader(Reply(n, NOW + DAY, 10 * mib)))
    held = sum(e.reply.size for e in cache._entries["revocation"].values())
    assert held <= 64 * mib
    assert cache.obtain((LISTS, "http://pki.example/19", b""), NOW, 1, _never) == 19


def test_messages_that_need_the_same_url_fetch_it_once() -> None:
    cache = ReplyCache()
    gate, begun = threading.Event(), threading.Event()
    asked: list[int] = []

    def load() -> Reply:
        asked.append(1)
        begun.set()
        assert gate.wait(10)
        return Reply("list", NOW + DAY, 1)

    answers: list[object] = []
    threads = [threading.Thread(target=lambda: answers.append(cache.obtain(KEY, NOW, 10, load))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert answers == ["list"] * 8
    assert asked == [1]


def test_one_that_waits_for_another_waits_no_longer_than_its_own_time() -> None:
    cache = ReplyCache()
    gate, begun = threading.Event(), threading.Event()

    def load() -> Reply:
        begun.set()
        assert gate.wait(10)
        return Reply("list", NOW + DAY, 1)

    first = threading.Thread(target=lambda: cache.obtain(KEY, NOW, 10, load))
    first.start()
    assert begun.wait(10)
    began = time.monotonic()
    with pytest.raises(FetchError, match="another message"):
        cache.obtain(KEY, NOW, 0.1, _never)
    assert time.monotonic() - began < 2
    gate.set()
    first.join(10)
    assert cache.obtain(KEY, NOW, 0.1, _never) == "list"


def test_one_that_had_no_time_left_does_not_fail_those_that_wait_for_it() -> None:
    cache = ReplyCache()
    gate, begun = threading.Event(), threading.Event()

    def out_of_time() -> Reply:
        begun.set()
        assert gate.wait(10)
        raise FetchError("the time for fetching is used up", remember=False)

    def first() -> None:
        with pytest.raises(FetchError):
            cache.obtain(KEY, NOW, 10, out_of_time)

    answers: list[object] = []
    one = threading.Thread(target=first)
    two = threading.Thread(target=lambda: answers.append(cache.obtain(KEY, NOW, 10, Loader("list"))))
    one.start()
    assert begun.wait(10)
    two.start()
    gate.set()
    one.join(10)
    two.join(10)
    assert answers == ["list"]


# --- with a web server ---


def _path(world: World, web: Web, url: str = "/c.crl") -> Path:
    signer = world.community.issue(extra=[(crl_at(web.url(url)), False)])
    return (certificate_of(signer), world.community.certificate)


def test_a_dead_distribution_point_is_asked_once_a_minute_however_many_messages_come(world: World, web: Web) -> None:
    source = RevocationSource()
    path = _path(world, web)
    first = ask(source, path)
    assert "the server answered 404" in first.detail
    for _ in range(20):
        later = ask(source, path)
        assert later.status == "unknown"
        assert "a moment ago" in later.detail
    assert web.asked == ["/c.crl"]


def test_a_page_in_the_place_of_a_list_is_fetched_once_a_minute(world: World, web: Web) -> None:
    source, path = RevocationSource(), _path(world, web)
    web.replies["/c.crl"] = b"<html>moved</html>"
    assert "no CRL" in ask(source, path).detail
    assert "a moment ago" in ask(source, path).detail
    assert web.asked == ["/c.crl"]


def test_a_distribution_point_that_hangs_costs_the_first_message_alone(world: World, web: Web) -> None:
    gate = threading.Event()

    def hang(_: BaseHTTPRequestHandler, __: bytes) -> None:
        gate.wait(20)

    web.replies["/c.crl"] = hang
    fetcher = Fetcher.within(["127.0.0.0/8"], seconds_per_message=0.9)
    source = RevocationSource()
    path = _path(world, web)
    began = time.monotonic()
    try:
        for _ in range(50):
            assert ask(source, path, fetcher=fetcher).status == "unknown"
        assert time.monotonic() - began < 3
        assert web.asked == ["/c.crl"]
    finally:
        gate.set()


def test_a_dead_responder_is_asked_once_a_minute_as_well(world: World, web: Web) -> None:
    scene = Scene.build(world.community, web)
    for _ in range(5):
        assert scene.ask().status == "unknown"
    assert web.asked == ["/ocsp"]


def test_a_slow_list_above_leaves_the_leaf_its_time(world: World, web: Web) -> None:
    """A chain is as many inquiries as it has certificates; the first must not use up the time of all."""
    gate = threading.Event()

    def hang(_: BaseHTTPRequestHandler, __: bytes) -> None:
        gate.wait(20)

    below = world.community.below("Slow above", 54, points=crl_at(web.url("/slow.crl")))
    signer = below.issue(extra=[(crl_at(web.url("/leaf.crl")), False)])
    web.replies["/slow.crl"] = hang
    web.replies["/leaf.crl"] = below.crl([signer])
    path = (certificate_of(signer), below.certificate, world.community.certificate)
    try:
        finding = ask(RevocationSource(), path, hard=False, fetcher=LOOPBACK)
    finally:
        gate.set()
    assert finding.certificate == certificate_of(signer)
    assert finding.status == "revoked"


def test_concurrent_checks_of_one_certificate_fetch_its_list_once(world: World, web: Web) -> None:
    gate = threading.Event()
    crl = world.community.crl()

    def late(request: BaseHTTPRequestHandler, _: bytes) -> None:
        gate.wait(1.5)
        send(request, crl)

    web.replies["/c.crl"] = late
    source, path = RevocationSource(), _path(world, web)
    found: list[Finding] = []
    threads = [threading.Thread(target=lambda: found.append(ask(source, path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    while not web.asked:
        time.sleep(0.005)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert [f.status for f in found] == ["good"] * 6
    assert web.asked == ["/c.crl"]


def test_a_list_with_a_far_next_update_is_still_looked_for_each_day(world: World, web: Web) -> None:
    clock = Clock()
    source, path = RevocationSource(), _path(world, web)
    source.cache = ReplyCache(clock)
    web.replies["/c.crl"] = world.community.crl(ends=NOW + timedelta(days=3650))
    assert ask(source, path).status == "good"
    signer = x509_of(path)
    web.replies["/c.crl"] = world.community.crl([signer], begins=NOW - HOUR, revoked_at=NOW - HOUR)
    assert ask(source, path).status == "good"
    clock.now += MAX_AGE_SECONDS
    assert ask(source, path).status == "revoked"


def x509_of(path: Path) -> Identity:
    certificate = x509.load_der_x509_certificate(path[0].der)
    return Identity(certificate, rsa_key(50))
