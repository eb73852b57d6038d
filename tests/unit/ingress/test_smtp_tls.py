"""STARTTLS: EP-10, F20, F21."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.ingress import replies
from tests.unit.ingress.smtp_harness import DOCTOR, SENDER, SETTINGS, Client, bench

WIRE = b"Subject: x\r\n\r\nbody\r\n.\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One PEM file with the key and a self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def client_tls(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


async def upgrade(client: Client, context: ssl.SSLContext) -> Client:
    """Handshake on the running connection."""
    await client.writer.start_tls(context, server_hostname="127.0.0.1")
    return client


async def test_smtplib_over_starttls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    message = b"Subject: x\r\n\r\n.\r\n" + b"A" * 300_000 + b"\r\n"
    async with bench(tls=server_tls) as here:

        def send() -> tuple[int, bytes]:
            with smtplib.SMTP("127.0.0.1", here.listener.port, "client.example.net", timeout=20) as client:
                client.ehlo()
                assert client.has_extn("starttls")
                client.starttls(context=client_tls)
                client.ehlo()
                assert not client.has_extn("starttls")
                assert client.docmd("STARTTLS")[0] == 503
                client.mail(SENDER)
                client.rcpt(DOCTOR)
                return client.data(message)

        assert await asyncio.to_thread(send) == (250, b"2.0.0 Accepted as m1")
        await here.still_serves()
    same = here.accept.raws[0] == message
    assert same
    assert " helo=client.example.net tls=TLSv1." in here.accept.inbounds[0].peer
    assert here.accept.inbounds[1].peer.endswith("tls=none")


async def test_tls_forgets_everything_that_was_said_before(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """RFC 3207 section 4.2."""
    async with bench(tls=server_tls) as here, here.client() as plain:
        await plain.ehlo()
        assert (await plain.cmd("STARTTLS now")).startswith("501 5.5.4")
        assert (await plain.cmd(f"MAIL FROM:<{SENDER}>")).startswith("250")
        assert await plain.cmd("STARTTLS") == replies.READY_FOR_TLS
        client = await upgrade(plain, client_tls)
        assert (await client.cmd(f"RCPT TO:<{DOCTOR}>")).startswith("503 5.5.1")
        assert (await client.cmd(f"MAIL FROM:<{SENDER}>")) == replies.NO_GREETING
        assert "STARTTLS" not in await client.cmd("EHLO again")
        assert (await client.deliver(WIRE)).startswith("250 2.0.0")
        assert (await client.cmd("QUIT")).startswith("221")
        await client.close()


@pytest.mark.parametrize("filler", [0, 200_000], ids=["one command", "more than flow control lets through"])
async def test_injected_plaintext_is_discarded(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, filler: int
) -> None:
    """F21, CVE-2011-0411: what came in the clear behind STARTTLS must never be answered inside TLS."""
    injected = b"EHLO evil\r\nMAIL FROM:<evil@x.example>\r\n" + b"RCPT TO:<" + DOCTOR.encode() + b">\r\n"
    async with bench(tls=server_tls) as here, here.client() as plain:
        await plain.ehlo()
        await plain.send(b"STARTTLS\r\n" + injected + b"NOOP\r\n" * (filler // 6))
        assert await plain.reply() == replies.READY_FOR_TLS
        try:
            client = await upgrade(plain, client_tls)
        except (ssl.SSLError, ConnectionError):
            # So much that part of it came in later and was taken for a handshake: the connection is gone.
            assert filler
        else:
            # The first answer inside TLS is to the first command inside TLS.
            assert (await client.cmd("DATA")).startswith("503 5.5.1")
            assert await client.cmd("MAIL FROM:<>") == replies.NO_GREETING
            await client.close()
        await here.still_serves()


async def test_a_handshake_that_fails_or_never_comes_ends_the_connection(server_tls: ssl.SSLContext) -> None:
    """F20."""
    async with bench(replace(SETTINGS, command_timeout_seconds=1, max_connections=2), tls=server_tls) as here:
        for after in (b"this is no handshake\r\n", b"", b"\x16\x03\x01\x02"):
            async with here.client() as client:
                await client.ehlo()
                assert await client.cmd("STARTTLS") == replies.READY_FOR_TLS
                await client.send(after)
                try:
                    while await asyncio.wait_for(client.reader.read(1000), 10):
                        pass
                except ConnectionResetError:
                    pass
        # No slot is lost: two are all there are.
        for _ in range(3):
            await here.still_serves()


async def test_a_client_that_leaves_in_the_handshake(server_tls: ssl.SSLContext) -> None:
    async with bench(replace(SETTINGS, max_connections=1), tls=server_tls) as here:
        for _ in range(3):
            async with here.client() as client:
                while (await client.reply()).startswith("421"):
                    pass
                await client.cmd("EHLO x")
                await client.cmd("STARTTLS")
            await asyncio.sleep(0.05)
        await here.still_serves()


async def test_tls_before_1_2_is_refused(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        server_tls.minimum_version = ssl.TLSVersion.TLSv1_1
    async with bench(tls=server_tls) as here, here.client() as client:
        assert server_tls.minimum_version >= ssl.TLSVersion.TLSv1_2
        await client.ehlo()
        await client.cmd("STARTTLS")
        client_tls.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            client_tls.minimum_version = client_tls.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await upgrade(client, client_tls)
        await here.still_serves()


async def test_commit_over_tls_survives_the_client(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """F15, for the other transport."""
    async with bench(tls=server_tls) as here:
        here.accept.gate.clear()
        async with here.client() as plain:
            await plain.ehlo()
            await plain.cmd("STARTTLS")
            client = await upgrade(plain, client_tls)
            await client.cmd("EHLO x")
            await client.begin()
            await client.send(WIRE)
            await here.accept.started.wait()
            client.writer.transport.abort()
        here.accept.gate.set()
        async with asyncio.timeout(5):
            await here.accept.finished.wait()
        await here.still_serves()


async def test_close_with_tls_sessions(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """F39: also a session whose handshake never comes is ended at once."""
    async with bench(tls=server_tls) as here, here.client() as plain, here.client() as waiting:
        await waiting.ehlo()
        await waiting.cmd("STARTTLS")
        await plain.ehlo()
        await plain.cmd("STARTTLS")
        client = await upgrade(plain, client_tls)
        await client.cmd("EHLO x")
        async with asyncio.timeout(5):
            await here.listener.close(30)
        assert await client.reply() == replies.SHUTTING_DOWN
        assert await client.reply() == ""
        await client.close()
