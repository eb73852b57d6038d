"""Fetching from the Internet for anybody's certificate: which addresses, which ports (AS-75; S/MIME rule 17)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from gateway.sta.fetching.fetch_addresses import PUBLIC_PORTS, AddressRule, is_public
from gateway.sta.fetching.fetcher import Fetcher, FetchError
from tests.unit.sta.conftest import Web

PUBLIC = Fetcher.configured("public")
PUBLIC_HOST = "93.184.215.14"

NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.170",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "233.252.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::10.0.0.1",
    "::93.184.215.14",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::1",
    "64:ff9b:1::93.184.215.14",
    "100::1",
    "2001::1",
    "2001:0:5ef5:79fb:0:59d:a0ff:fe01",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:0a00:0001::1",
    "2002:7f00:0001::",
    "2002:5db8:d70e::1",
    "3fff::1",
    "3fff:fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
ARE_PUBLIC = [
    "1.1.1.1",
    "93.184.215.14",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "198.17.255.255",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:82b::200e",
    "2001:4860:4860::8888",
    "::ffff:93.184.215.14",
    "64:ff9b::93.184.215.14",
]


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_no_public_address(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ARE_PUBLIC)
def test_a_public_address(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


def test_what_the_standard_library_calls_global_is_more_than_that() -> None:
    """Why the lists are written out: these it lets pass, and the ones that follow it lets pass in other versions."""
    passed = [text for text in NOT_PUBLIC if ipaddress.ip_address(text).is_global]
    assert {"224.0.0.1", "64:ff9b::10.0.0.1", "fec0::1", "::10.0.0.1"} & set(passed)
    assert not [text for text in passed if is_public(ipaddress.ip_address(text))]


def test_the_modes_of_the_setting() -> None:
    assert PUBLIC.public
    assert PUBLIC.session().enabled
    assert not Fetcher.configured("off", ["127.0.0.0/8"]).session().enabled
    assert not Fetcher.configured("listed").session().enabled
    listed = Fetcher.configured("listed", ["127.0.0.0/8"])
    assert not listed.public
    assert listed == Fetcher.within(["127.0.0.0/8"])
    for mode in ("", "all", "Public"):
        with pytest.raises(ValueError, match="no mode of fetching"):
            Fetcher.configured(mode)
    with pytest.raises(ValueError, match="nowhere"):
        Fetcher.configured("public", ["nowhere"])


@pytest.mark.parametrize("port", [1, 22, 25, 110, 143, 389, 465, 587, 993, 2560, 3306, 5432, 6379, 9200, 11211, 65535])
def test_a_port_of_a_strangers_choice_on_a_public_host_is_refused(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(FetchError, match="port"):
        PUBLIC.session().get(f"http://{PUBLIC_HOST}:{port}/")


def test_an_operators_ranges_come_on_top_of_the_public_addresses_at_any_port() -> None:
    rule = AddressRule((ipaddress.ip_network("10.1.0.0/16"),), public=True)
    assert rule.refusal(ipaddress.ip_address("10.1.2.3"), 6379) is None
    assert rule.refusal(ipaddress.ip_address("10.2.0.1"), 80) is not None
    for port in PUBLIC_PORTS:
        assert rule.refusal(ipaddress.ip_address(PUBLIC_HOST), port) is None
    alone = AddressRule((ipaddress.ip_network("10.1.0.0/16"),))
    assert alone.refusal(ipaddress.ip_address(PUBLIC_HOST), 80) is not None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "127.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[0:0:0:0:0:ffff:7f00:0001]",
        "127.0.0.1.",
    ],
)
def test_no_spelling_of_this_machine_is_reached(web: Web, host: str) -> None:
    """With a server that really listens there, so that a hole would show as a request."""
    web.replies["/x"] = b"secret"
    with pytest.raises(FetchError):
        PUBLIC.session().get(web.url("/x", host=host))
    assert web.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::1%25lo]/",
        "http://user@93.184.215.14/",
        "http://user:password@93.184.215.14/",
        "http://:@93.184.215.14/",
        "http://93.184.215.14%00.example.org/",
        "http://93.184.215.14\\@127.0.0.1/",
        "http://127.0.0.1#@93.184.215.14/",
        "http://93.184.215.14:0/",
        "http://93.184.215.14:80:80/",
        "http://[93.184.215.14]/",
        "http://[::1/",
        "http://\u2460\u2461\u2466.0.0.1/",
        "http://\uff11\uff12\uff17.0.0.1/",
        "http://pki.ex\u00e4mple.org/",
        "http:/93.184.215.14/",
        "http:93.184.215.14",
        "HTTP+unix://93.184.215.14/",
        "ldap://93.184.215.14/",
        "data:,x",
        "",
    ],
)
def test_an_odd_url_is_refused_and_nothing_is_sent(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(FetchError):
        PUBLIC.session().get(url)


@pytest.mark.parametrize("url", ["http://[fe80::1%25lo]/", "http://[fe80::1%lo]/", "http://[::1%25lo]/"])
def test_a_zone_is_refused_even_within_an_operators_range(url: str) -> None:
    """It names an interface of this machine, which is no business of a stranger's."""
    with pytest.raises(FetchError, match="well formed"):
        Fetcher.within(["fe80::/10", "::1/128"]).session().get(url)


@pytest.fixture
def internet(web: Web, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Connections to public addresses end at the test's own server; every address that is connected to is noted."""
    connected: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float | None = None) -> socket.socket:
        connected.append(address)
        assert is_public(ipaddress.ip_address(address[0])), address
        sock = socket.socket()
        sock.settimeout(timeout)
        sock.connect(("127.0.0.1", web.port))
        return sock

    monkeypatch.setattr(socket, "create_connection", connect)
    return connected


def _names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """A name server that gives these answers one after the other, and the names that it was asked for."""
    asked: list[str] = []
    left = list(answers)

    def resolve(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in left.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def test_a_public_host_is_asked_by_its_name_at_the_address_that_was_judged(
    web: Web, internet: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler, _: bytes) -> None:
        hosts.append(request.headers["Host"])
        request.send_response(200)
        request.send_header("Content-Length", "2")
        request.end_headers()
        request.wfile.write(b"ok")

    web.replies["/x"] = answer
    asked = _names(monkeypatch, [PUBLIC_HOST])
    assert PUBLIC.session().get("http://pki.example.org/x") == b"ok"
    assert (asked, internet, hosts) == (["pki.example.org"], [(PUBLIC_HOST, 80)], ["pki.example.org"])


def test_a_name_that_is_bound_anew_gains_nothing(
    web: Web, internet: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when it is judged, loopback when it would be asked again; it is not asked again."""
    web.replies["/x"] = b"ok"
    asked = _names(monkeypatch, [PUBLIC_HOST], ["127.0.0.1"])
    assert PUBLIC.session().get("http://pki.example.org/x") == b"ok"
    assert len(asked) == 1
    with pytest.raises(FetchError, match="outside the allowed"):
        PUBLIC.session().get("http://pki.example.org/x")
    assert [address for address, _ in internet] == [PUBLIC_HOST]


def test_of_several_addresses_only_the_public_ones_are_used(
    web: Web, internet: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    web.replies["/x"] = b"ok"
    _names(monkeypatch, ["10.0.0.1", "169.254.169.254", "::1", PUBLIC_HOST, "192.168.0.1"])
    assert PUBLIC.session().get("http://pki.example.org/x") == b"ok"
    assert internet == [(PUBLIC_HOST, 80)]


def test_the_next_address_is_tried_when_one_cannot_be_reached(
    web: Web, internet: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host with an IPv6 address, seen from a network without IPv6."""
    through = socket.create_connection

    def connect(address: tuple[str, int], timeout: float | None = None) -> socket.socket:
        if ":" in address[0]:
            internet.append(address)
            raise OSError(101, "Network is unreachable")
        return through(address, timeout)

    monkeypatch.setattr(socket, "create_connection", connect)
    web.replies["/x"] = b"ok"
    _names(monkeypatch, ["2606:2800:21f:cb07::1", PUBLIC_HOST])
    assert PUBLIC.session().get("http://pki.example.org/x") == b"ok"
    assert [address for address, _ in internet] == ["2606:2800:21f:cb07::1", PUBLIC_HOST]


def _redirect(to: str, status: int = 302) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    def answer(request: BaseHTTPRequestHandler, _: bytes) -> None:
        request.send_response(status)
        request.send_header("Location", to)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/",
        "http://127.0.0.1:{port}/inside",
        "http://localhost:{port}/inside",
        "//127.0.0.1:{port}/inside",
        "http://[::ffff:127.0.0.1]:{port}/inside",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.100.100.200/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://93.184.215.14:25/",
        "http://93.184.215.14:6379/",
        "https://10.0.0.1/",
        "file:///etc/passwd",
        "gopher://93.184.215.14:6379/_FLUSHALL",
        "ftp://93.184.215.14/x",
        "http://user:password@93.184.215.14/",
        "http://[",
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_leads_no_further_than_a_url(
    web: Web, internet: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, target: str, status: int
) -> None:
    web.replies["/start"] = _redirect(target.format(port=web.port), status)
    web.replies["/inside"] = b"secret"
    with pytest.raises(FetchError):
        PUBLIC.session().get(f"http://{PUBLIC_HOST}/start")
    assert web.asked == ["/start"]
    assert internet == [(PUBLIC_HOST, 80)]
