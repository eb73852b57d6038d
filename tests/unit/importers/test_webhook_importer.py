"""The webhook adapter against a real receiver, whose signatures are verified by the published library (section 2.7)."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import ConfigurationError, ImporterGoneError, ImportFailedError
from gateway.core.import_settings import ImporterSettings
from gateway.importers.conformance import request
from gateway.importers.http_client import HTTPClient, retry_after
from gateway.importers.standard_webhooks import secret_of
from gateway.importers.webhook import WebhookImporter
from gateway.observability.clock import SystemClock
from gateway.ports import Retraction
from tests.support.gateway_process import free_ports
from tests.support.pki import Authority
from tests.support.webhook_receiver import Receiver


def secret(byte: int = 1) -> str:
    return "whsec_" + base64.b64encode(bytes([byte]) * 32).decode()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    [port] = free_ports(1)
    receiver = Receiver(tmp_path_factory.mktemp("receiver"), port, (secret(1), secret(2))).start()
    yield receiver
    receiver.kill()


@pytest.fixture
def receiver(started: Receiver) -> Receiver:
    started.behave()
    (started.folder / "requests.jsonl").unlink(missing_ok=True)
    return started


@pytest.fixture
def settings(receiver: Receiver, tmp_path: Path) -> ImporterSettings:
    (tmp_path / "secret").write_text(secret(1) + "\n")
    return ImporterSettings(
        name="ehr",
        kind="webhook",
        url=f"http://127.0.0.1:{receiver.port}/direct?x=1",
        allow=("127.0.0.1",),
        secret_files=(str(tmp_path / "secret"),),
    )


def importer(settings: ImporterSettings) -> WebhookImporter:
    return WebhookImporter(settings, SystemClock())


async def nack(settings: ImporterSettings, seconds: float = 10) -> ImportFailedError:
    async with asyncio.timeout(seconds):
        with pytest.raises(ImportFailedError) as caught:
            await importer(settings).import_message(request())
    return caught.value


async def test_a_signed_thin_payload(receiver: Receiver, settings: ImporterSettings) -> None:
    asked = request(odd=True)
    receipt = await importer(settings).import_message(asked)
    assert receipt == await importer(settings).import_message(asked), "the receipt is stable"
    first, second = receiver.requests()
    assert first["verified_by"] == second["verified_by"] == [secret(1)]
    assert (first["path"], first["headers"]["webhook-id"]) == ("/direct?x=1", asked.link.id)
    assert first["headers"]["webhook-id"] == second["headers"]["webhook-id"]
    assert first["body"] == second["body"]
    body = json.loads(first["body"])
    ids = {"link_id": asked.link.id, "message_id": asked.link.message_id, "patient_id": asked.link.patient_id}
    moment = "2026-01-02T03:04:05.678901Z"
    assert body == {"type": "message.linked", "timestamp": moment, **ids, "data": {**ids, "mode": "manual"}}
    told = json.dumps(first)
    for phi in (asked.patient.family, asked.subject, asked.sender, asked.recipients[0], asked.patient.mrn, asked.text):
        assert json.dumps(phi) not in told
        assert phi not in first["body"] or phi == asked.patient.mrn


async def test_two_secrets_while_they_are_exchanged(receiver: Receiver, settings: ImporterSettings) -> None:
    second = Path(settings.secret_files[0]).with_name("new")
    second.write_text(secret(2))
    hook = importer(replace(settings, secret_files=(*settings.secret_files, str(second))))
    await hook.import_message(request())
    # An exchange needs no restart: they are read at each attempt.
    Path(settings.secret_files[0]).write_text(secret(3))
    await hook.import_message(request())
    both, one = receiver.requests()
    assert both["verified_by"] == [secret(1), secret(2)]
    assert one["verified_by"] == [secret(2)]


async def test_a_retraction_has_an_id_of_its_own(receiver: Receiver, settings: ImporterSettings) -> None:
    asked = request()
    wanted = Retraction(asked, "webhook:x", "Ann Lee is another", "olga", datetime(2026, 2, 3, tzinfo=UTC))
    receipt = await importer(settings).retract(wanted)
    assert receipt == await importer(settings).retract(wanted)
    got = receiver.requests()[0]
    assert got["headers"]["webhook-id"] == f"{asked.link.id}.retract"
    assert json.loads(got["body"])["type"] == "message.unlinked"
    assert "Ann" not in got["body"]


@pytest.mark.parametrize(
    ("words", "reason", "after"),
    [
        (("status", "400"), "http_400", None),
        (("status", "429", "7"), "http_429", 7.0),
        (("status", "502"), "http_502", None),
        (("status", "503", "soon"), "http_503", None),
        (("status", "504", "99999999999"), "http_504", None),
        (("status", "304"), "http_304", None),
        (("drop",), "no_answer", None),
        (("half",), "no_answer", None),
        (("endless",), "bad_answer", None),
    ],
)
async def test_what_is_no_ack(
    receiver: Receiver, settings: ImporterSettings, words: tuple[str, ...], reason: str, after: float | None
) -> None:
    receiver.behave(*words)
    error = await nack(settings)
    assert (error.reason, error.retry_after_seconds) == (reason, after)


@pytest.mark.parametrize("status", ["200", "201", "202", "204", "299"])
async def test_every_2xx_is_an_ack(receiver: Receiver, settings: ImporterSettings, status: str) -> None:
    receiver.behave("status", status)
    assert await importer(settings).import_message(request())


async def test_410_stops_the_target(receiver: Receiver, settings: ImporterSettings) -> None:
    receiver.behave("status", "410")
    with pytest.raises(ImporterGoneError):
        await importer(settings).import_message(request())


async def test_a_redirect_is_a_failure_and_leads_nowhere(
    receiver: Receiver, settings: ImporterSettings, tmp_path: Path
) -> None:
    [port] = free_ports(1)
    elsewhere = Receiver(tmp_path, port, (secret(1),)).start()
    try:
        receiver.behave("redirect", f"http://127.0.0.1:{port}/latest/meta-data/")
        assert (await nack(settings)).reason == "http_302"
        assert elsewhere.requests() == []
    finally:
        elsewhere.kill()


async def test_a_proxy_of_the_environment_is_not_asked(
    receiver: Receiver, settings: ImporterSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    await importer(settings).import_message(request())
    assert len(receiver.requests()) == 1


async def test_one_that_hangs_is_let_go(receiver: Receiver, settings: ImporterSettings) -> None:
    receiver.behave("hang")
    hook = importer(settings)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await hook.import_message(request())
    receiver.behave()
    await hook.import_message(request())


# --- where it may go ---


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    asked: list[str] = []

    def fake(host: str, port: int, **_options: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return asked


def allowed(host: str, allow: tuple[str, ...], address: str) -> bool:
    with ThreadPoolExecutor(1) as threads:
        return HTTPClient(f"https://{host}/", allow, None, threads)._allowed(address)


@pytest.mark.parametrize(
    ("host", "allow", "address", "expected"),
    [
        ("ehr.lan", ("ehr.lan",), "10.1.2.3", True),
        ("ehr.lan", ("ehr.lan",), "203.0.113.9", True),
        ("ehr.lan", ("ehr.lan",), "169.254.169.254", False),
        ("ehr.lan", ("ehr.lan",), "fe80::1", False),
        ("ehr.lan", ("ehr.lan",), "::ffff:169.254.169.254", False),
        ("ehr.lan", ("ehr.lan",), "127.0.0.1", False),
        ("ehr.lan", ("ehr.lan",), "::1", False),
        ("ehr.lan", ("ehr.lan",), "0.0.0.0", False),
        ("ehr.lan", ("ehr.lan",), "224.0.0.1", False),
        ("localhost", ("localhost",), "127.0.0.1", True),
        ("ehr.lan", ("10.1.0.0/16",), "10.1.2.3", True),
        ("ehr.lan", ("10.1.0.0/16",), "10.2.2.3", False),
        ("ehr.lan", ("10.1.0.0/16",), "::ffff:10.1.2.3", True),
        ("ehr.lan", ("169.254.0.0/16",), "169.254.169.254", True),
        ("ehr.lan", ("other.lan",), "10.1.2.3", False),
    ],
)
def test_where_it_may_go(host: str, allow: tuple[str, ...], address: str, expected: bool) -> None:
    assert allowed(host, allow, address) is expected


async def test_a_name_that_leads_to_the_metadata_service_is_not_followed(
    receiver: Receiver, settings: ImporterSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolving(monkeypatch, "169.254.169.254")
    elsewhere = replace(settings, url="https://ehr.example/", allow=("ehr.example",))
    assert (await nack(elsewhere)).reason == "not_allowed"
    assert asked == ["ehr.example"]


async def test_the_address_that_was_looked_at_is_the_one_that_is_used(
    receiver: Receiver, settings: ImporterSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second look at the name would be the way of a rebinding attack."""
    asked = resolving(monkeypatch, "127.0.0.1")
    named = replace(settings, url=f"http://localhost:{receiver.port}/", allow=("localhost",))
    await importer(named).import_message(request())
    assert asked == ["localhost"]
    assert receiver.requests()[0]["headers"]["host"] == f"localhost:{receiver.port}"


# --- TLS ---


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.root("Webhook CA")


@pytest.fixture(scope="module")
def over_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Receiver]]:
    running: list[Receiver] = []

    def start(name: str) -> Receiver:
        folder = tmp_path_factory.mktemp("tls")
        certificate, key = make_server_certificate(folder, name)
        [port] = free_ports(1)
        running.append(Receiver(folder, port, (secret(1),), (str(certificate), str(key))).start())
        return running[-1]

    yield start
    for one in running:
        one.kill()


def make_server_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / "server.pem", folder / "server.key"
    os.system(  # noqa: S605 - fixed words
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=DNS:{name} "
        f"-keyout {key} -out {certificate} 2>/dev/null"
    )
    return certificate, key


async def test_the_certificate_and_its_name_are_checked(
    over_tls: Callable[[str], Receiver], settings: ImporterSettings
) -> None:
    good, other = over_tls("localhost"), over_tls("other.example")
    https = replace(settings, allow=("localhost",))
    trusted = Path(good.identity[0])
    fits = replace(https, url=f"https://localhost:{good.port}/", ca_file=trusted)
    assert await importer(fits).import_message(request())
    assert await importer(fits).check() is None
    assert (await nack(replace(fits, ca_file=None))).reason == "bad_certificate"
    wrong = replace(https, url=f"https://localhost:{other.port}/", ca_file=Path(other.identity[0]))
    assert (await nack(wrong)).reason == "bad_certificate"
    assert "bad_certificate" in str(await importer(wrong).check())
    assert len(good.requests()) == 1, "a check says no word"
    assert other.requests() == []


async def test_a_plain_server_behind_https_is_no_receiver(receiver: Receiver, settings: ImporterSettings) -> None:
    https = replace(settings, url=f"https://localhost:{receiver.port}/", allow=("localhost",))
    assert (await nack(https)).reason in {"tls_failed", "unreachable"}


# --- what is checked and shown before ---


async def test_a_check_finds_what_is_missing(receiver: Receiver, settings: ImporterSettings) -> None:
    assert await importer(settings).check() is None
    assert receiver.requests() == []
    [port] = free_ports(1)
    assert "unreachable" in str(await importer(replace(settings, url=f"http://127.0.0.1:{port}/")).check())
    Path(settings.secret_files[0]).unlink()
    assert "No such file" in str(await importer(settings).check())
    assert (await nack(settings)).reason == "no_secret"


async def test_a_preview_tells_nobody(receiver: Receiver, settings: ImporterSettings) -> None:
    asked = request()
    preview = await importer(settings).preview(asked)
    assert receiver.requests() == []
    assert preview.data.startswith(b"POST /direct?x=1 HTTP/1.1\r\n")
    assert f"webhook-id: {asked.link.id}".encode() in preview.data
    assert b'"type":"message.linked"' in preview.data


@pytest.mark.parametrize(
    "text",
    ["", "secret", "whsec_", "whsec_!!!", "whsec_" + base64.b64encode(b"x" * 23).decode(), "whsec_" + "QUFB" * 30],
)
def test_a_secret_that_is_none(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        secret_of(text)
    assert len(text) < 12 or text not in str(caught.value)


def test_retry_after() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after("120", now) == 120
    assert retry_after("Thu, 01 Jan 2026 00:01:00 GMT", now) == 60
    assert retry_after("Wed, 31 Dec 2025 00:01:00 GMT", now) == 0
    assert retry_after("999999999", now) == timedelta(days=7).total_seconds()
    for nonsense in ("", "-1", "1.5", "soon", "\u0661", "9" * 400, "Thu, 99 Jan"):
        assert retry_after(nonsense, now) is None
