"""The guarded way out (AS-75; S/MIME rule 17): what is asked, what is not, and for how long."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from gateway.sta.fetching import fetcher as fetcher_module
from gateway.sta.fetching.fetcher import MAX_REQUESTS_PER_HOST, Fetcher, FetchError
from tests.unit.sta.conftest import Web

LOOPBACK = Fetcher.within(["127.0.0.0/8"])


def _redirect(to: str) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    def answer(request: BaseHTTPRequestHandler, _: bytes) -> None:
        request.send_response(302)
        request.send_header("Location", to)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def test_a_reply_within_the_allowed_range_is_returned(web: Web) -> None:
    web.replies["/a?b=1"] = b"hello"
    assert LOOPBACK.session().get(web.url("/a?b=1")) == b"hello"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "ftp://127.0.0.1/x",
        "ldap://127.0.0.1/x",
        "//127.0.0.1/x",
        "http://",
        "http:///x",
        "http://user:secret@127.0.0.1/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\r\nHost: x",
        "http://127.0.0.1/" + "a" * 3_000,
        "http://ex\u00e4mple.org/",
    ],
)
def test_other_schemes_and_odd_urls_are_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(FetchError):
        LOOPBACK.session().get(url)


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "10.0.0.1", "[::1]", "192.0.2.1", "[::ffff:10.0.0.1]", "0.0.0.0"],
)
def test_an_address_outside_the_ranges_is_never_connected_to(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(FetchError, match="outside the allowed"):
        LOOPBACK.session().get(f"http://{host}/")


def test_with_no_range_nothing_is_even_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise AssertionError("resolved")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(FetchError, match="fetching is off"):
        Fetcher().session().get("http://example.org/")


def test_the_connection_goes_to_the_address_that_was_checked(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: a second answer is never asked for; an allowed address among others is the one that is used."""
    asked: list[str] = []

    def resolve(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("10.9.9.9", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    original = socket.create_connection
    connected: list[str] = []

    def connect(address: tuple[str, int], timeout: float | None = None) -> socket.socket:
        connected.append(address[0])
        probe = socket.socket()
        probe.settimeout(timeout)
        probe.connect(address)
        return probe

    assert original is not None
    monkeypatch.setattr(socket, "create_connection", connect)
    web.replies["/x"] = b"ok"
    assert LOOPBACK.session().get(web.url("/x", host="pki.example.org")) == b"ok"
    assert (asked, connected) == (["pki.example.org"], ["127.0.0.1"])


def test_a_mapped_ipv6_address_is_judged_as_the_ipv4_address_that_it_is(web: Web) -> None:
    web.replies["/x"] = b"ok"
    session = LOOPBACK.session()
    assert session.get(web.url("/x", host="[::ffff:127.0.0.1]")) == b"ok"
    assert ipaddress.ip_address("::ffff:127.0.0.1").version == 6


def test_a_redirect_is_checked_like_the_first_url_and_they_are_few(web: Web) -> None:
    web.replies["/end"] = b"ok"
    web.replies["/one"] = _redirect("/end")
    assert LOOPBACK.session().get(web.url("/one")) == b"ok"
    for target in ("file:///etc/passwd", "http://169.254.169.254/latest/meta-data", "//10.0.0.1/x"):
        web.replies["/bad"] = _redirect(target)
        with pytest.raises(FetchError):
            LOOPBACK.session().get(web.url("/bad"))
    web.replies["/loop"] = _redirect("/loop")
    web.asked.clear()
    with pytest.raises(FetchError, match="redirects"):
        LOOPBACK.session().get(web.url("/loop"))
    assert len(web.asked) == 4


def test_a_reply_beyond_the_size_cap_is_refused(web: Web) -> None:
    web.replies["/big"] = b"x" * 200_000
    small = Fetcher(LOOPBACK.allowed, max_bytes=100_000)
    with pytest.raises(FetchError, match="too large"):
        small.session().get(web.url("/big"))


@pytest.mark.parametrize("where", ["before the status", "within the headers", "within the body"])
def test_a_server_that_drips_is_given_up_in_time(where: str) -> None:
    """A byte now and then keeps every socket timeout from firing; only the whole exchange's deadline helps."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        peer, _ = listener.accept()
        start = {
            "before the status": b"",
            "within the headers": b"HTTP/1.1 200 OK\r\nX: ",
            "within the body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
        }[where]
        with peer:
            try:
                peer.sendall(start)
                while not stop.wait(0.05):
                    peer.sendall(b"H")
            except OSError:
                return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    began = time.monotonic()
    try:
        with pytest.raises(FetchError, match="in time"):
            Fetcher(LOOPBACK.allowed, 4, 0.4).session().get(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        assert time.monotonic() - began < 2
    finally:
        stop.set()
        thread.join(5)
        listener.close()


def test_a_name_server_that_does_not_answer_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def resolve(*_: object, **__: object) -> list[object]:
        gate.wait(10)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    began = time.monotonic()
    with pytest.raises(FetchError, match="in time"):
        Fetcher(LOOPBACK.allowed, 4, 0.3).session().get("http://slow.example/")
    assert time.monotonic() - began < 2
    gate.set()


def test_the_budget_of_a_message_is_one_for_all_its_fetches(web: Web) -> None:
    web.replies["/x"] = b"ok"
    session = LOOPBACK.session()
    for _ in range(MAX_REQUESTS_PER_HOST):
        session.get(web.url("/x"))
    with pytest.raises(FetchError, match="too many"):
        session.get(web.url("/x"))
    late = LOOPBACK.session()
    late.deadline = time.monotonic() - 1
    with pytest.raises(FetchError, match="used up"):
        late.get(web.url("/x"))


def test_no_proxy_of_the_environment_is_used(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://10.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://10.0.0.1:1")
    web.replies["/x"] = b"ok"
    assert LOOPBACK.session().get(web.url("/x")) == b"ok"


@pytest.mark.parametrize("cidr", ["", "10.0.0.0/99", "example.org", "10.0.0"])
def test_what_is_no_range_is_an_error_of_the_operator(cidr: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Fetcher.within([cidr])


def test_the_defaults_leave_room_below_five_seconds() -> None:
    assert fetcher_module.SECONDS_PER_MESSAGE <= 4
    assert fetcher_module.MAX_REPLY_BYTES == 10 * 1024 * 1024
