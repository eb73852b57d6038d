"""Health and readiness over a real socket."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import logging
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.core.errors import ListenError
from gateway.observability.log import get_log
from gateway.settings import HTTPSettings, IMAPSettings
from gateway.web.health import Check, HealthServer, _Readiness, build_app

SECRET = "Jane Roe"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serving(
    checks: dict[str, Check], imap: IMAPSettings | None = None, advisories: dict[str, Check] | None = None
) -> AsyncIterator[HealthServer]:
    server = HealthServer(HTTPSettings(port=free_port()), checks, advisories=advisories, imap=imap)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def get(server: HealthServer, path: str, method: str = "GET") -> Answer:
    def ask() -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


async def fine() -> str | None:
    return None


async def full() -> str | None:
    return "less than 100 MiB are free"


async def broken() -> str | None:
    raise OSError(2, SECRET, f"/home/{SECRET}")


async def test_health_and_readiness() -> None:
    async with serving({"store": fine, "disk": fine}) as server:
        alive = await get(server, "/healthz")
        assert (alive.status, alive.json()) == (200, {"status": "alive"})
        ready = await get(server, "/readyz")
        assert (ready.status, ready.json()) == (200, {"status": "ready", "checks": {"store": "ok", "disk": "ok"}})


async def test_readiness_names_every_reason_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving({"store": fine, "disk": full, "trust": broken}) as server:
        answer = await get(server, "/readyz?who=" + "Jane")
        assert answer.status == 503
        assert answer.json() == {
            "status": "not ready",
            "checks": {
                "store": "ok",
                "disk": "less than 100 MiB are free",
                "trust": "the check itself failed; the log says where",
            },
        }
        # Not being ready is no reason to be killed.
        assert (await get(server, "/healthz")).status == 200
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("gateway")]
    assert any("health_check_failed check=trust exception=FileNotFoundError" in line for line in ours)
    assert "Jane" not in caplog.text


async def old_keys() -> str | None:
    return "the last reload could not read the keys"


async def test_what_needs_a_person_degrades_the_answer_and_stops_no_mail() -> None:
    async with serving({"store": fine}, advisories={"trust_files": old_keys, "database": fine}) as server:
        answer = await get(server, "/readyz")
    assert (answer.status, answer.json()) == (
        200,
        {
            "status": "degraded",
            "checks": {"store": "ok"},
            "warnings": {"trust_files": "the last reload could not read the keys", "database": "ok"},
        },
    )


async def test_readiness_counts_more_than_advice_and_advice_that_breaks_is_no_fault_of_readiness() -> None:
    async with serving({"disk": full}, advisories={"trust_files": old_keys}) as server:
        answer = await get(server, "/readyz")
        assert (answer.status, answer.json()["status"]) == (503, "not ready")
    async with serving({"store": fine}, advisories={"trust_files": broken}) as server:
        answer = await get(server, "/readyz")
    assert (answer.status, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["warnings"] == {"trust_files": "the check itself failed; the log says where"}
    assert SECRET not in answer.body.decode()
    async with serving({"store": fine}, advisories={"trust_files": fine}) as server:
        assert (await get(server, "/readyz")).json()["status"] == "ready"


async def test_a_check_that_hangs_is_cut_off() -> None:
    async def hangs() -> str | None:
        await asyncio.Event().wait()
        return None

    readiness = _Readiness({"store": hangs, "disk": fine}, 0.05, get_log("web"))
    assert await readiness.reasons() == {"store": "the check took too long", "disk": None}


async def test_the_page_says_what_this_is() -> None:
    async with serving({}, IMAPSettings(host="inbox.example.org", port=1143, tls_port=0)) as server:
        page = await get(server, "/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    text = page.body.decode()
    assert "A web inbox is not part of this release" in text
    assert "inbox.example.org" in text
    assert "1143" in text
    assert "SSL/TLS" not in text
    assert "<script" not in text
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


async def test_a_host_name_cannot_break_the_page() -> None:
    async with serving({}, IMAPSettings(host="<script>x")) as server:
        assert b"<script" not in (await get(server, "/")).body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/../etc/passwd", 404),
        ("POST", "/readyz", 405),
        ("HEAD", "/healthz", 200),
        ("GET", "/", 200),
        ("GET", "/readyz", 200),
    ],
)
async def test_every_answer_has_the_headers(method: str, path: str, status: int) -> None:
    async with serving({}) as server:
        answer = await get(server, path, method)
    assert answer.status == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "server" not in answer.headers
    assert b"etc" not in answer.body


async def test_port_zero_is_off() -> None:
    server = HealthServer(HTTPSettings(port=0), {})
    await server.start()
    assert server.port == 0
    await server.close()


async def test_a_taken_port_is_a_clear_error_and_not_the_end_of_the_process() -> None:
    async with serving({}) as server:
        second = HealthServer(HTTPSettings(port=server.port), {})
        with pytest.raises(ListenError, match=r"http\.port"):
            await second.start()
        assert (await get(server, "/healthz")).status == 200


async def test_signals_belong_to_the_daemon_and_close_frees_the_port() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with serving({}) as server:
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
        port = server.port
        # An idle keep-alive connection does not hold up the end.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        async with asyncio.timeout(5):
            await server.close()
        writer.close()
        await writer.wait_closed()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection("127.0.0.1", port)


def test_the_application_has_no_other_routes() -> None:
    assert sorted(getattr(route, "path", "") for route in build_app({}).routes) == ["/", "/healthz", "/readyz"]
