"""What hostile servers and floods of messages cost (AS-75): drips, bombs, and limits across messages."""

from __future__ import annotations

import gzip
import ipaddress
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from gateway.sta.fetching import fetch_gate
from gateway.sta.fetching.fetch_gate import (
    BURST,
    MAX_EXCHANGES,
    MAX_HOSTS,
    MAX_PER_HOST,
    QUICK_SECONDS,
    SLOW_SECONDS,
    WAITING_ALLOWANCE,
    WAITING_REGAINED,
    FetchGate,
)
from gateway.sta.fetching.fetcher import Fetcher, FetchError
from tests.unit.sta.conftest import Web
from tests.unit.sta.revocation_world import send

HOST = ipaddress.ip_address("93.184.215.14")


def loopback(**options: object) -> Fetcher:
    return Fetcher((ipaddress.ip_network("127.0.0.0/8"),), **options)  # type: ignore[arg-type]


@contextmanager
def raw_server(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server that says what it wants, on a real socket; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                try:
                    talk(peer, stop)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _drip(peer: socket.socket, stop: threading.Event) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not stop.wait(0.02):
        peer.sendall(b"y")


def test_the_thread_of_a_fetch_that_was_given_up_ends() -> None:
    """A byte now and then would keep it alive for as long as the server likes."""
    before = threading.active_count()
    with raw_server(_drip) as url:
        for _ in range(3):
            with pytest.raises(FetchError, match="in time"):
                loopback(seconds_per_request=0.2).session().get(url)
        deadline = time.monotonic() + 5
        while any(t.name == "sta-fetch" for t in threading.enumerate()):
            assert time.monotonic() < deadline, "a thread is left over"
            time.sleep(0.02)
    assert threading.active_count() <= before + 1


def _headers_without_end(peer: socket.socket, stop: threading.Event) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\n")
    while not stop.is_set():
        peer.sendall(b"X-Padding: " + b"y" * 60_000 + b"\r\n")


def _one_header_without_end(peer: socket.socket, stop: threading.Event) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not stop.is_set():
        peer.sendall(b"y" * 60_000)


def _continue_without_end(peer: socket.socket, stop: threading.Event) -> None:
    while not stop.is_set():
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def _body_without_end(peer: socket.socket, stop: threading.Event) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not stop.is_set():
        peer.sendall(b"y" * 60_000)


def _chunks_without_end(peer: socket.socket, stop: threading.Event) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not stop.is_set():
        peer.sendall(b"4000\r\n" + b"y" * 0x4000 + b"\r\n")


def _a_chunk_of_four_gigabytes(peer: socket.socket, stop: threading.Event) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n")
    while not stop.is_set():
        peer.sendall(b"y" * 60_000)


def _a_length_that_lies(peer: socket.socket, stop: threading.Event) -> None:
    del stop
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nshort")


def _cut_short(peer: socket.socket, stop: threading.Event) -> None:
    del stop
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort")


def _no_http(peer: socket.socket, stop: threading.Event) -> None:
    del stop
    peer.sendall(b"220 mail.example ESMTP\r\n")


def _nothing(peer: socket.socket, stop: threading.Event) -> None:
    del peer, stop


@pytest.mark.parametrize(
    "talk",
    [
        _headers_without_end,
        _one_header_without_end,
        _continue_without_end,
        _body_without_end,
        _chunks_without_end,
        _a_chunk_of_four_gigabytes,
        _a_length_that_lies,
        _cut_short,
        _no_http,
        _nothing,
    ],
    ids=lambda talk: talk.__name__.strip("_"),
)
def test_a_hostile_server_costs_little_time_and_memory(talk: Callable[[socket.socket, threading.Event], None]) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    with raw_server(talk) as url:
        with pytest.raises(FetchError):
            loopback(seconds_per_request=1.0, max_bytes=4 * 1024 * 1024).session().get(url)
        deadline = time.monotonic() + 2
        while any(t.name == "sta-fetch" for t in threading.enumerate()):
            assert time.monotonic() < deadline, "a thread is left over"
            time.sleep(0.02)
    assert time.monotonic() - began < 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 64 * 1024


def test_interim_responses_count_towards_what_is_read() -> None:
    """The library reads as many of them as come."""
    with raw_server(_continue_without_end) as url, pytest.raises(FetchError, match="too large"):
        loopback(seconds_per_message=30.0, seconds_per_request=30.0, max_bytes=1_000).session().get(url)


def test_a_compressed_body_is_not_expanded(web: Web) -> None:
    """A bomb of a thousand to one stays what it is: bytes that are no list."""
    bomb = gzip.compress(bytes(8 * 1024 * 1024))

    def answer(request: BaseHTTPRequestHandler, _: bytes) -> None:
        assert request.headers["Accept-Encoding"] == "identity"
        request.send_response(200)
        request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(len(bomb)))
        request.end_headers()
        request.wfile.write(bomb)

    web.replies["/x"] = answer
    assert loopback().session().get(web.url("/x")) == bomb


def test_neither_cookie_nor_credential_nor_referrer_is_sent(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://10.0.0.1:1")
    seen: list[dict[str, str]] = []

    def answer(request: BaseHTTPRequestHandler, _: bytes) -> None:
        seen.append({key.lower(): value for key, value in request.headers.items()})
        send(request, b"ok")

    web.replies["/x"] = answer
    loopback().session().get(web.url("/x"))
    assert seen[0].keys() == {"host", "user-agent", "accept-encoding", "connection"}


def test_the_cap_of_one_fetch_may_be_smaller_and_never_larger(web: Web) -> None:
    web.replies["/x"] = b"y" * 1_000
    session = loopback(max_bytes=500).session()
    for cap in (None, 100, 10_000):
        with pytest.raises(FetchError, match="too large"):
            session.get(web.url("/x"), cap)
    assert len(loopback().session().get(web.url("/x"), 1_000)) == 1_000


# --- the gate across messages ---


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_one_host_is_asked_by_few_at_a_time() -> None:
    gate = FetchGate(Clock())
    held = [gate.host(HOST, stranger=False) for _ in range(MAX_PER_HOST)]
    for one in held:
        one.__enter__()
    with pytest.raises(FetchError, match="too often") as caught, gate.host(HOST, stranger=False):
        pass
    assert not caught.value.remember, "the host is not at fault"
    held[0].__exit__(None, None, None)
    with gate.host(HOST, stranger=False):
        pass


def test_a_flood_of_messages_becomes_no_flood_of_requests() -> None:
    clock = Clock()
    gate = FetchGate(clock)
    passed = 0
    for _ in range(1_000):
        clock.now += 0.01
        try:
            with gate.host(HOST, stranger=True):
                passed += 1
        except FetchError:
            continue
    seconds = 10
    assert passed <= BURST + seconds * fetch_gate.REQUESTS_PER_SECOND
    with gate.host(ipaddress.ip_address("93.184.215.15"), stranger=True):
        pass


def test_the_addresses_of_one_ipv6_network_are_one_host() -> None:
    gate = FetchGate(Clock())
    passed = 0
    for n in range(1_000):
        try:
            with gate.host(ipaddress.ip_address(f"2606:4700::{n:x}"), stranger=True):
                passed += 1
        except FetchError:
            break
    assert passed == BURST


def test_a_host_that_let_a_stranger_wait_is_not_asked_for_strangers_for_a_while() -> None:
    clock = Clock()
    gate = FetchGate(clock)
    gate.note_slow(HOST)
    with pytest.raises(FetchError, match="a moment ago"), gate.host(HOST, stranger=True):
        pass
    with gate.host(HOST, stranger=False):
        pass
    clock.now += SLOW_SECONDS + 1
    with gate.host(HOST, stranger=True):
        pass


def test_the_gate_forgets_hosts_and_stays_small() -> None:
    clock = Clock()
    gate = FetchGate(clock)
    for n in range(3 * MAX_HOSTS):
        clock.now += 1
        with gate.host(ipaddress.ip_address(0x0B000000 + n), stranger=True):
            pass
    assert len(gate._hosts) <= MAX_HOSTS


def test_strangers_cannot_take_the_threads_that_revocation_needs() -> None:
    gate = FetchGate(Clock())
    for _ in range(MAX_EXCHANGES):
        gate.begin_exchange(stranger=True)
    with pytest.raises(FetchError, match="under way"):
        gate.begin_exchange(stranger=True)
    gate.begin_exchange(stranger=False)
    gate.end_exchange(stranger=True)
    gate.begin_exchange(stranger=True)


def test_strangers_at_a_server_that_hangs_cost_the_first_of_them_alone() -> None:
    """A thousand messages, each with another URL there: no one's negative answer helps the next, the address does."""

    def hang(peer: socket.socket, stop: threading.Event) -> None:
        del peer
        stop.wait(20)

    fetcher = loopback(seconds_per_message=1.5, seconds_per_request=1.0)
    with raw_server(hang) as url:
        began = time.monotonic()
        for n in range(100):
            with pytest.raises(FetchError):
                fetcher.session().share().get(f"{url}{n}")
        assert time.monotonic() - began < 3


def _turned_away(gate: FetchGate) -> bool:
    try:
        gate.begin_exchange(stranger=True)
    except FetchError as exc:
        return not exc.remember
    gate.end_exchange(stranger=True)
    return False


def test_strangers_who_wait_use_up_an_allowance_that_grows_again() -> None:
    clock = Clock()
    gate = FetchGate(clock)
    gate.note_wait(WAITING_ALLOWANCE - 0.5, answered=False)
    assert not _turned_away(gate)
    gate.note_wait(0.6, answered=False)
    assert _turned_away(gate)
    gate.begin_exchange(stranger=False)
    clock.now += (WAITING_ALLOWANCE / 2) / WAITING_REGAINED
    assert _turned_away(gate), "it was in debt"
    clock.now += 0.2 / WAITING_REGAINED
    assert not _turned_away(gate)
    for _ in range(100):
        gate.note_wait(30.0, answered=False)
    clock.now += 1.6 * WAITING_ALLOWANCE / WAITING_REGAINED
    assert not _turned_away(gate), "the debt is bounded"


def test_a_prompt_answer_costs_strangers_nothing_and_a_slow_one_does() -> None:
    gate = FetchGate(Clock())
    for _ in range(1_000):
        gate.note_wait(QUICK_SECONDS, answered=True)
    assert not _turned_away(gate)
    for _ in range(5):
        gate.note_wait(QUICK_SECONDS * 2, answered=True)
    assert _turned_away(gate)


def test_the_gate_is_shared_by_all_messages_of_a_fetcher_and_they_wait_for_their_turn(web: Web) -> None:
    """Ten messages at once; the server never sees more than the limit, and all are served."""
    lock, now, most = threading.Lock(), [0], [0]

    def answer(request: BaseHTTPRequestHandler, _: bytes) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        send(request, b"ok")

    web.replies["/x"] = answer
    fetcher = loopback(seconds_per_message=20.0, seconds_per_request=20.0)
    outcomes: list[str] = []

    def one() -> None:
        try:
            outcomes.append(fetcher.session().get(web.url("/x")).decode())
        except FetchError as exc:
            outcomes.append(str(exc))

    threads = [threading.Thread(target=one) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert outcomes == ["ok"] * 10
    assert most[0] <= MAX_PER_HOST


def test_strangers_are_turned_away_and_take_no_place_from_revocation() -> None:
    gate = FetchGate(Clock())
    held = [gate.host(HOST, stranger=True) for _ in range(MAX_PER_HOST)]
    for one in held:
        one.__enter__()
    with pytest.raises(FetchError, match="too often"), gate.host(HOST, stranger=True, seconds=5):
        pass
    with gate.host(HOST, stranger=False):
        pass


def test_parts_of_a_budget_spend_from_the_same_and_have_their_own_time(web: Web) -> None:
    web.replies["/x"] = b"ok"
    session = loopback(seconds_per_message=6.0, seconds_per_request=5.0).session()
    part = session.part(3)
    assert 1.5 < part.remaining <= 2.0
    assert part.seconds_per_request < 2.0
    part.get(web.url("/x"))
    assert session.spent.requests == 1
    stranger = session.share()
    assert stranger.stranger
    assert not part.stranger
    stranger.get(web.url("/x"))
    assert session.spent.requests == 1, "what strangers spend is not revocation's"
