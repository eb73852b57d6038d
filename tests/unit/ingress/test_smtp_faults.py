"""What goes wrong on either side: F13, F15, F16, F20, F38, F39, EP-7, EP-9 and findings 2 and 3."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.core.errors import (
    ConflictError,
    GatewayError,
    InputError,
    RejectionError,
    StoreError,
    StoreFullError,
)
from gateway.core.verdict import Reason
from gateway.ingress import replies
from gateway.ingress.data_reader import Problem
from gateway.ingress.recipients import RecipientStatus
from tests.unit.ingress.smtp_harness import DOCTOR, SENDER, SETTINGS, Bench, Client, bench

WIRE = b"Subject: x\r\n\r\nbody\r\n.\r\n"
SECRET = "/var/lib/gateway/SECRET-Jane-Roe.db"
QUICK = replace(SETTINGS, command_timeout_seconds=1)


def test_every_reply_is_well_formed() -> None:
    """RFC 5321 section 4.2 and RFC 3463: the enhanced code's class is the reply's, and no reply has a line end."""
    texts = {name: value for name, value in vars(replies).items() if name.isupper() and isinstance(value, str)}
    assert len(texts) > 30
    for name, text in texts.items():
        pattern = r"354 [ -~]+" if name == "GO_AHEAD" else r"([245])\d\d \1\.\d\.\d{1,2} [ -~]+"
        assert re.fullmatch(pattern, text), name
    assert set(replies.BY_PROBLEM) == set(Problem)


FAULTS: list[tuple[BaseException, str]] = [
    (StoreFullError(SECRET), "452 4.3.1 Insufficient system storage"),
    (StoreError(SECRET), replies.FAULT),
    (GatewayError(SECRET), replies.FAULT),
    (ConflictError(SECRET), replies.FAULT),
    (InputError(SECRET), replies.FAULT),
    (RejectionError(Reason.MALFORMED, SECRET), replies.FAULT),
    (OSError(errno.ENOSPC, "No space left on device", SECRET), "452 4.3.1 Insufficient system storage"),
    (OSError(errno.EIO, "Input/output error", SECRET), replies.FAULT),
    (TimeoutError(SECRET), replies.FAULT),
    (ConnectionResetError(SECRET), replies.FAULT),
    (MemoryError(SECRET), replies.FAULT),
    (UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET), replies.FAULT),
    (ValueError(SECRET), replies.FAULT),
    (KeyError(SECRET), replies.FAULT),
    (ExceptionGroup(SECRET, [ValueError(SECRET)]), replies.FAULT),
    (asyncio.CancelledError(SECRET), replies.FAULT),
]


@pytest.mark.parametrize(("error", "expected"), FAULTS, ids=lambda value: type(value).__name__)
async def test_a_fault_of_ours_is_temporary_and_tells_nothing(
    error: BaseException, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    """F16 and finding 2: aiosmtpd answers 500 with class and path."""
    caplog.set_level(logging.DEBUG)
    async with bench() as here, here.client() as client:
        await client.ehlo()
        here.accept.errors.append(error)
        assert await client.deliver(WIRE) == expected
        # The session and its neighbours go on, and the sender tries again.
        assert await client.deliver(WIRE) == "250 2.0.0 Accepted as m1"
        await here.still_serves()
    assert "smtp_fault" in caplog.text
    assert "SECRET" not in caplog.text
    assert here.listener.budget.free_bytes == SETTINGS.max_buffered_mib * 1024 * 1024


async def test_faults_at_mail_and_rcpt() -> None:
    def broken(_address: str) -> RecipientStatus:
        raise LookupError(SECRET)

    def no_disk() -> int:
        raise PermissionError(errno.EACCES, "Permission denied", SECRET)

    async with bench(is_local_recipient=broken) as here, here.client() as client:
        await client.ehlo()
        assert (await client.cmd("MAIL FROM:<>")).startswith("250")
        assert await client.cmd(f"RCPT TO:<{DOCTOR}>") == replies.FAULT
        assert (await client.cmd("DATA")).startswith("554")
    async with bench(free_space=no_disk) as here, here.client() as client:
        await client.ehlo()
        assert await client.cmd("MAIL FROM:<>") == replies.FAULT
        assert (await client.cmd(f"RCPT TO:<{DOCTOR}>")).startswith("503")


def reset(client: Client) -> None:
    """Leave without a goodbye: RST."""
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


def hang_up(client: Client) -> None:
    client.writer.close()


@pytest.mark.parametrize("leave", [reset, hang_up])
async def test_a_client_that_leaves_does_not_stop_the_commit(leave: Callable[[Client], None]) -> None:
    """F15 and finding 3: aiosmtpd cancels the handler here."""
    async with bench() as here:
        here.accept.gate.clear()
        async with here.client() as client:
            await client.ehlo()
            await client.begin()
            await client.send(WIRE)
            await here.accept.started.wait()
            leave(client)
        # The server has seen the departure before the commit may end.
        async with here.client() as other:
            await other.ehlo()
        here.accept.gate.set()
        async with asyncio.timeout(5):
            await here.accept.finished.wait()
        await here.still_serves()
    assert len(here.accept.inbounds) == 2


@pytest.mark.parametrize("leave", [reset, hang_up])
@pytest.mark.parametrize(
    "said",
    [b"", b"EHL", b"EHLO x\r\nMAIL FROM:<>\r\n", b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<%s>\r\nDATA\r\nhalf a mess"],
)
async def test_an_abrupt_end_hurts_nobody_and_stores_nothing(leave: Callable[[Client], None], said: bytes) -> None:
    """EP-7."""
    async with bench() as here:
        async with here.client() as client:
            await client.reply()
            await client.send(said.replace(b"%s", DOCTOR.encode()))
            leave(client)
        await here.still_serves()
    assert len(here.accept.inbounds) == 1


async def test_a_slow_commit_has_no_timer() -> None:
    """Finding 3 and F15: the command timeout is 1 s, the commit takes longer, the client gets its 250."""
    async with bench(QUICK) as here, here.client() as client:
        await client.ehlo()
        here.accept.gate.clear()
        await client.begin()
        await client.send(WIRE)
        await here.accept.started.wait()
        await asyncio.sleep(1.3)
        here.accept.gate.set()
        assert await client.reply() == "250 2.0.0 Accepted as m1"
        assert (await client.cmd("NOOP")).startswith("250")


async def test_no_250_before_the_commit() -> None:
    """EP-14, promise 1."""
    async with bench() as here, here.client() as client:
        await client.ehlo()
        here.accept.gate.clear()
        await client.begin()
        await client.send(WIRE)
        await here.accept.started.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.reader.read(1)
        here.accept.gate.set()
        assert await client.reply() == "250 2.0.0 Accepted as m1"


async def drip(client: Client, data: bytes, seconds: float) -> None:
    """One byte at a time, until the other side closes."""
    try:
        for byte in data:
            await client.send(bytes([byte]))
            await asyncio.sleep(seconds)
    except OSError:
        pass


async def timed_out(here: Bench, prepare: Callable[[Client], asyncio.Task[None] | None]) -> float:
    """Seconds until the 421 for a client that does what ``prepare`` begins."""
    async with here.client() as client:
        await client.ehlo()
        started = time.monotonic()
        task = prepare(client)
        got = ""
        while (reply := await client.reply()) and not reply.startswith("421"):
            got = reply
        seconds = time.monotonic() - started
        assert reply == replies.TIMED_OUT, (got, reply)
        assert await client.reply() == ""
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return seconds


TRANSACTION = f"MAIL FROM:<>\r\nRCPT TO:<{DOCTOR}>\r\nDATA\r\n".encode()


async def test_silence_is_ended_with_421_in_a_command_and_in_data() -> None:
    """EP-9, F20: idle, half a line, a line of one byte at a time; silence within DATA, DATA at a trickle."""

    def idle(_client: Client) -> None:
        return None

    def half_a_line(client: Client) -> None:
        client.writer.write(b"NOO")

    def slow_line(client: Client) -> asyncio.Task[None]:
        return asyncio.create_task(drip(client, b"NOOP" * 100, 0.05))

    def silence_in_data(client: Client) -> None:
        client.writer.write(TRANSACTION + b"half")

    def slow_data(client: Client) -> asyncio.Task[None]:
        client.writer.write(TRANSACTION)
        return asyncio.create_task(drip(client, b"x" * 400, 0.05))

    async with bench(QUICK) as here:
        cases: list[Callable[[Client], asyncio.Task[None] | None]] = [
            idle,
            half_a_line,
            slow_line,
            silence_in_data,
            slow_data,
        ]
        for seconds in await asyncio.gather(*(timed_out(here, case) for case in cases)):
            assert 0.9 <= seconds < 4
        await here.still_serves()
    assert len(here.accept.inbounds) == 1


async def test_a_message_has_a_total_time() -> None:
    """Fast enough for the rate, never silent, and still ended when the time for one message is over."""

    def steady(client: Client) -> asyncio.Task[None]:
        client.writer.write(TRANSACTION)
        return asyncio.create_task(drip(client, b"x" * 400, 0.02))

    settings = replace(SETTINGS, data_timeout_seconds=1, min_data_rate_bytes_per_second=1)
    async with bench(settings) as here:
        assert 0.9 <= await timed_out(here, steady) < 4
        assert here.listener.budget.free_bytes == SETTINGS.max_buffered_mib * 1024 * 1024


async def test_a_client_that_never_reads_is_dropped() -> None:
    """Replies pile up until flow control stops the session; then its deadline drops the connection."""
    settings = replace(QUICK, max_commands_without_mail=10_000_000)
    async with bench(settings) as here, here.client() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]

        async def flood() -> None:
            while True:
                await client.send(b"EHLO x\r\n" * 8_000)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(flood(), 20)
        await here.still_serves()


async def test_a_line_without_end_is_cut_off() -> None:
    async with bench() as here, here.client() as client:
        await client.ehlo()
        await client.send(b"N" * 200_000)
        assert await client.reply() == replies.LINE_FLOOD
        assert await client.reply() == ""


async def test_close_ends_idle_sessions_and_finishes_what_has_begun() -> None:
    """F39: no acknowledgement is lost; idle clients hear 421 at once."""
    async with bench() as here, here.client() as idle, here.client() as busy, here.client() as sending:
        for client in (idle, busy, sending):
            await client.ehlo()
        here.accept.gate.clear()
        await sending.begin()
        await sending.send(b"half of")
        await busy.begin()
        await busy.send(WIRE)
        await here.accept.started.wait()
        port = here.listener.port
        closing = asyncio.create_task(here.listener.close(10))
        assert await idle.reply() == replies.SHUTTING_DOWN
        assert await idle.reply() == ""
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        here.accept.gate.set()
        assert await busy.reply() == "250 2.0.0 Accepted as m1"
        assert await busy.reply() == replies.SHUTTING_DOWN
        await sending.send(b" a message\r\n.\r\n")
        assert await sending.reply() == "250 2.0.0 Accepted as m2"
        assert await sending.reply() == replies.SHUTTING_DOWN
        started = time.monotonic()
        await closing
        assert time.monotonic() - started < 5


async def test_close_waits_for_the_commit_of_a_client_that_has_left() -> None:
    async with bench() as here:
        here.accept.gate.clear()
        async with here.client() as client:
            await client.ehlo()
            await client.begin()
            await client.send(WIRE)
            await here.accept.started.wait()
            reset(client)
        closing = asyncio.create_task(here.listener.close(10))
        await asyncio.sleep(0.1)
        assert not closing.done()
        here.accept.gate.set()
        await closing
    assert len(here.accept.inbounds) == 1


async def test_close_ends_when_the_grace_is_over() -> None:
    """Whoever is not finished gets 421 and no 250; the process is not held up."""
    async with bench() as here, here.client() as stuck, here.client() as slow:
        for client in (stuck, slow):
            await client.ehlo()
        here.accept.gate.clear()
        await stuck.begin()
        await stuck.send(WIRE)
        await here.accept.started.wait()
        await slow.begin()
        started = time.monotonic()
        await here.listener.close(0.3)
        assert 0.2 < time.monotonic() - started < 3
        for client in (stuck, slow):
            assert await client.reply() == replies.SHUTTING_DOWN
            assert await client.reply() == ""
    assert here.accept.inbounds == []


async def test_canaries_never_reach_a_log(caplog: pytest.LogCaptureFixture) -> None:
    """F38, with aiosmtpd's own loggers wide open: it would log every line of the dialogue."""
    caplog.set_level(logging.DEBUG)
    for name in ("mail.log", "mail.debug", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    said = []
    async with bench(replace(SETTINGS, max_message_mib=1)) as here, here.client() as client:
        await client.reply()
        commands = (
            "EHLO canary-helo.example",
            "canaryverb canaryarg",
            "VRFY canary-vrfy@direct.example.org",
            "NOOP canary-noop",
            "MAIL FROM:<canary bad@x>",
            "MAIL FROM:<canary-from@hisp.example> SIZE=canary",
            "MAIL FROM:<canary-from@hisp.example> CANARYPARAM=1",
            "MAIL FROM:<canary-from@hisp.example>",
            "RCPT TO:<canary-unknown@direct.example.org>",
            "RCPT TO:<canary-relay@elsewhere.example>",
            f"RCPT TO:<{DOCTOR}> CANARY=1",
            f"RCPT TO:<{DOCTOR.upper()}>",
            "DATA",
        )
        said += [await client.cmd(command) for command in commands]
        await client.send(b"Subject: canary-subject\r\n\r\ncanary-body\r\n.\r\n")
        said.append(await client.reply())
        bodies = (b"canary-bare\nline\r\n.\r\n", b"canary\0nul\r\n.\r\n", b"canary" * 200_000 + b"\r\n.\r\n")
        said += [await client.deliver(body) for body in bodies]
        here.accept.errors.append(StoreError("canary-error"))
        said.append(await client.deliver(b"canary-fault\r\n.\r\n"))
        await client.send(b"canary" * 20_000)
        said.append(await client.reply())
    log = "\n".join(f"{record.name} {record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "smtp_accepted" in log
    assert "smtp_refused" in log
    assert "smtp_fault" in log
    assert "127.0.0.1" in log
    for needle in ("canary", "doctor@", "direct.example.org", SENDER):
        assert needle not in log.lower()
        assert needle not in "\n".join(said[1:]).lower()
