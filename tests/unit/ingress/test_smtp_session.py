"""The dialogue over a real socket: EP-5 to EP-9, EP-14, F17, F18, F19."""

from __future__ import annotations

import asyncio
import re
import smtplib
import time
import tracemalloc
from dataclasses import replace

import pytest

from gateway.core.errors import ListenError
from gateway.core.message import Envelope, Source
from gateway.core.peers import peer_network
from gateway.ingress import connection_gate
from gateway.ingress.limits import MIB, ConnectionCounter, SMTPLimits
from gateway.ingress.recipients import RecipientStatus
from gateway.ingress.smtp_server import SMTPListener
from gateway.observability.log import get_log
from gateway.settings import SMTPSettings
from tests.unit.ingress.smtp_harness import DOCTOR, NURSE, SENDER, SETTINGS, FakeAccept, bench

WIRE = b"Subject: x\r\n\r\nbody\r\n.\r\n"


def everybody(address: str) -> RecipientStatus:
    return RecipientStatus.LOCAL


async def test_smtplib_delivers_and_the_bytes_are_the_same() -> None:
    """EP-5, EP-14, EP-15; the bytes hold stuffed dots, 8-bit and a very long line."""
    message = b"Subject: x\r\n\r\n.\r\n..\r\n.x\r\n\xff\xfe\r\n" + b"A" * 70_000 + b"\r\n\r\n"
    async with bench() as here:

        def send() -> tuple[int, bytes]:
            with smtplib.SMTP("127.0.0.1", here.listener.port, "client.example.net", timeout=20) as client:
                client.ehlo()
                features = client.esmtp_features
                assert features["size"] == str(SETTINGS.max_message_mib * MIB)
                assert {"pipelining", "8bitmime", "smtputf8", "enhancedstatuscodes"} <= features.keys()
                assert not {"auth", "help", "starttls"} & features.keys()
                client.mail(SENDER, ["BODY=8BITMIME", f"SIZE={len(message)}"])
                client.rcpt("DOCTOR@direct.example.org")
                client.rcpt(NURSE)
                client.rcpt(NURSE.upper())
                return client.data(message)

        code, text = await asyncio.to_thread(send)
    assert (code, text) == (250, b"2.0.0 Accepted as m1")
    (inbound,) = here.accept.inbounds
    same = b"".join(inbound.raw.parts()) == message
    assert same
    # As given, and an address that is named twice is there once.
    assert inbound.envelope == Envelope(SENDER, ("DOCTOR@direct.example.org", NURSE))
    assert inbound.source is Source.SMTP
    assert re.fullmatch(r"\[127\.0\.0\.1\]:\d+ helo=client\.example\.net tls=none", inbound.peer)


async def test_every_reply_has_an_enhanced_code_of_its_class() -> None:
    """RFC 2034, and the order of commands: EP-7."""
    script = [
        ("MAIL FROM:<a@b.example>", "503 5.5.1"),
        ("RCPT TO:<a@b.example>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("EHLO", "501 5.5.4"),
        ("HELO", "501 5.5.4"),
        ("helo client", "250 mail.direct.example.org"),
        ("RCPT TO:<a@b.example>", "503 5.5.1"),
        ("NOOP", "250 2.0.0"),
        ("NOOP with words", "250 2.0.0"),
        ("RSET", "250 2.0.0"),
        ("RSET x", "501 5.5.4"),
        ("VRFY doctor", "252 2.5.0"),
        ("VRFY", "501 5.5.4"),
        ("EXPN list", "502 5.5.1"),
        ("HELP", "502 5.5.1"),
        ("AUTH PLAIN AAAA", "502 5.5.1"),
        ("STARTTLS", "454 4.7.0"),
        ("FROBNICATE", "500 5.5.2"),
        ("", "500 5.5.2"),
        ("MAIL", "501 5.5.4"),
        ("MAIL FROM:<>", "250 2.1.0"),
        ("MAIL FROM:<>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("RCPT TO:<nobody@direct.example.org>", "550 5.1.1"),
        ("RCPT TO:<a@elsewhere.example>", "550 5.7.1"),
        ("RCPT TO:<Postmaster>", "550 5.1.1"),
        ("DATA", "554 5.5.1"),
        (f"RCPT TO:<{DOCTOR}>", "250 2.1.5"),
        ("DATA now", "501 5.5.4"),
        ("RSET", "250 2.0.0"),
        ("DATA", "503 5.5.1"),
        ("MAIL FROM:<a@b.example> SIZE=99999999999", "552 5.3.4"),
        ("NOOP " + "x" * 600, "500 5.5.2"),
        ("MAIL FROM:<a@b.example> " + " " * 600, "500 5.5.2"),
        ("QUIT now", "501 5.5.4"),
        ("QUIT", "221 2.0.0"),
    ]
    async with bench() as here, here.client() as client:
        assert await client.reply() == "220 mail.direct.example.org ESMTP"
        for command, expected in script:
            got = await client.cmd(command)
            assert got.startswith(expected), (command, got)
        assert await client.reply() == ""


async def test_ehlo_in_a_transaction_resets_it() -> None:
    async with bench() as here, here.client() as client:
        await client.ehlo()
        assert (await client.cmd(f"MAIL FROM:<{SENDER}>")).startswith("250")
        assert (await client.cmd("EHLO again")).startswith("250-")
        assert (await client.cmd(f"RCPT TO:<{DOCTOR}>")).startswith("503")


async def test_what_a_client_calls_itself_cannot_forge_the_facts_about_it() -> None:
    async with bench() as here, here.client() as client:
        await client.reply()
        assert (await client.cmd("EHLO me tls=TLSv1.3/x <a@b>")).startswith("250-")
        assert (await client.deliver(WIRE)).startswith("250 2.0.0")
    assert here.accept.inbounds[0].peer.endswith(" helo=me?tls?TLSv1.3?x??a?b? tls=none")


@pytest.mark.parametrize(
    "line", [b"NOOP\n", b"NOOP \r RSET\r\n", b"NO\0OP\r\n", b"MAIL FROM:<a@b.example>\nRCPT\r\n", b"NOOP \x7f\r\n"]
)
async def test_bare_newlines_and_control_characters_are_no_command(line: bytes) -> None:
    """Finding 4: aiosmtpd 1.4.6 takes a bare LF for a line end."""
    async with bench() as here, here.client() as client:
        await client.ehlo()
        await client.send(line)
        assert (await client.reply()).startswith("500 5.5.2")


async def test_bytes_that_are_no_utf8_are_refused() -> None:
    async with bench() as here, here.client() as client:
        await client.ehlo()
        assert (await client.cmd(b"MAIL FROM:<\xff\xfe@b.example> SMTPUTF8")).startswith("501 5.5.4")
        assert (await client.cmd(b"\xff\xfe")).startswith("500 5.5.2")
        assert (await client.cmd("MAIL FROM:<jürgen@b.example> SMTPUTF8")).startswith("250 2.1.0")


async def test_a_whole_session_in_one_packet() -> None:
    """PIPELINING (RFC 2920), also over the end of DATA, and the replies come although the client half-closes."""
    transaction = b"MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n" % (SENDER.encode(), DOCTOR.encode())
    async with bench() as here, here.client() as client:
        await client.send(
            b"EHLO c\r\n" + transaction + b"one\r\n.\r\n" + transaction + b"two\r\n..\r\n.\r\nNOOP\r\nQUIT\r\n"
        )
        client.writer.write_eof()
        codes = []
        while reply := await client.reply():
            codes.append(reply[:3])
    assert codes == ["220", "250", *["250", "250", "354", "250"] * 2, "250", "221"]
    assert here.accept.raws == [b"one\r\n", b"two\r\n.\r\n"]


async def test_a_message_sent_byte_by_byte() -> None:
    async with bench() as here, here.client() as client:
        await client.ehlo()
        await client.begin()
        for byte in b"..a\r\n.\r\n":
            await client.send(bytes([byte]))
        assert await client.reply() == "250 2.0.0 Accepted as m1"
    assert here.accept.raws == [b".a\r\n"]


SMUGGLERS = [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\n\0.\r\n"]


@pytest.mark.parametrize("end", SMUGGLERS)
async def test_smuggling(end: bytes) -> None:
    """F17: the message is read to its true end and refused, nothing is stored, nothing in it is a command."""
    inner = b"MAIL FROM:<evil@hisp.example.net>\r\nRCPT TO:<" + DOCTOR.encode() + b">\r\nDATA\r\nforged\r\n.\r\n"
    async with bench() as here, here.client() as client:
        await client.ehlo()
        reply = await client.deliver(b"Subject: a\r\n\r\nb" + end + inner)
        assert reply.startswith("550 5.5.2")
        assert (await client.cmd("NOOP")).startswith("250")
        assert here.accept.inbounds == []
        # The session is good for a clean message.
        assert (await client.deliver(WIRE)).startswith("250 2.0.0")
    assert len(here.accept.inbounds) == 1


async def test_too_large_a_message_is_refused_at_its_end() -> None:
    """EP-8."""
    async with bench(replace(SETTINGS, max_message_mib=1)) as here, here.client() as client:
        await client.ehlo()
        assert "SIZE 1048576\n" in await client.cmd("EHLO x")
        reply = await client.deliver((b"x" * 998 + b"\r\n") * 1100 + b".\r\n")
        assert reply.startswith("552 5.3.4")
        assert here.listener.budget.free_bytes == SETTINGS.max_buffered_mib * MIB
        exact = (b"x" * 1022 + b"\r\n") * 1024
        assert len(exact) == MIB
        assert (await client.deliver(exact + b".\r\n")).startswith("250")
    same = here.accept.raws == [exact]
    assert same


async def test_the_budget_is_for_all_connections_together() -> None:
    settings = replace(SETTINGS, max_message_mib=1, max_buffered_mib=1)
    async with bench(settings) as here, here.client() as first, here.client() as second:
        await first.ehlo()
        await second.ehlo()
        here.accept.gate.clear()
        await first.begin()
        await first.send(b"x" * 700_000 + b"\r\n.\r\n")
        await here.accept.started.wait()
        # The first message is still in memory, so the second finds no room: at MAIL when it says its size ...
        assert (await second.cmd(f"MAIL FROM:<{SENDER}> SIZE=600000")).startswith("452 4.3.1")
        # ... and after DATA when it does not.
        assert (await second.deliver(b"y" * 600_000 + b"\r\n.\r\n")).startswith("452 4.3.1")
        here.accept.gate.set()
        assert (await first.reply()).startswith("250 2.0.0")
        assert (await second.deliver(b"y" * 600_000 + b"\r\n.\r\n")).startswith("250 2.0.0")
    assert here.listener.budget.free_bytes == MIB
    assert [len(raw) for raw in here.accept.raws] == [700_002, 600_002]


async def test_the_budget_is_given_back_by_a_client_that_leaves_midway() -> None:
    async with bench() as here:
        async with here.client() as client:
            await client.ehlo()
            await client.begin()
            await client.send(b"x" * 500_000)
        await here.still_serves()
        for _ in range(200):
            if here.listener.budget.free_bytes == SETTINGS.max_buffered_mib * MIB:
                break
            await asyncio.sleep(0.01)
        assert here.listener.budget.free_bytes == SETTINGS.max_buffered_mib * MIB
    assert len(here.accept.inbounds) == 1


@pytest.mark.parametrize("size", [8 * MIB, pytest.param(33 * MIB, marks=pytest.mark.slow)])
async def test_line_bomb_over_the_wire(size: int) -> None:
    """Finding 1 and F18; aiosmtpd 1.4.6 takes 118 s and 2.7 GB for 33 MB of this."""
    bomb = b"\r\n" * (size // 2)
    async with bench() as here, here.client() as client:
        await client.ehlo()
        await client.begin()
        stop = asyncio.Event()

        async def longest_stall() -> float:
            longest = 0.0
            while not stop.is_set():
                before = time.perf_counter()
                await asyncio.sleep(0)
                longest = max(longest, time.perf_counter() - before)
            return longest

        watcher = asyncio.create_task(longest_stall())
        tracemalloc.start()
        started = time.perf_counter()
        for at in range(0, size, 65_536):
            await client.send(bomb[at : at + 65_536])
        await client.send(b".\r\n")
        reply = await client.reply()
        seconds = time.perf_counter() - started
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        stop.set()
        assert reply.startswith("250 2.0.0")
        assert await watcher < 0.5, "generous: two busy cores are shared, and the client runs here too"
        assert seconds < 10
        assert peak < 3 * size
    same = here.accept.raws == [bomb]
    assert same


async def test_five_thousand_recipients() -> None:
    """F19: 452 beyond the limit, the first ones stand, and the flood is cut off."""
    recipients = [f"r{n}@direct.example.org" for n in range(5000)]
    async with bench(is_local_recipient=everybody) as here:
        async with here.client() as client:
            await client.ehlo()
            assert (await client.cmd("MAIL FROM:<>")).startswith("250")
            flood = asyncio.create_task(client.send("".join(f"RCPT TO:<{r}>\r\n" for r in recipients).encode()))
            codes = []
            while (reply := await client.reply())[:3] in {"250", "452"}:
                codes.append(reply[:9])
            assert reply.startswith("421 4.7.0")
            flood.cancel()
            await asyncio.gather(flood, return_exceptions=True)
        assert codes == ["250 2.1.5"] * 100 + ["452 4.5.3"] * 1000
        async with here.client() as client:
            await client.ehlo()
            await client.cmd("MAIL FROM:<>")
            for recipient in recipients[:150]:
                await client.cmd(f"RCPT TO:<{recipient}>")
            assert (await client.cmd("DATA")).startswith("354")
            await client.send(WIRE)
            assert (await client.reply()).startswith("250 2.0.0")
    assert here.accept.inbounds[0].envelope.recipients == tuple(recipients[:100])


@pytest.mark.parametrize(
    "command",
    ["NOOP", "VRFY x", "RSET", "EHLO x", "BOGUS", f"RCPT TO:<{DOCTOR}>", "RCPT TO:<x@direct.example.org>", "MAIL x"],
)
async def test_endless_commands_without_mail(command: str) -> None:
    """F19: each of them runs into the limit, also a recipient that is named again and again."""
    async with bench(replace(SETTINGS, max_commands_without_mail=20)) as here:
        async with here.client() as client:
            await client.ehlo()
            await client.cmd(f"MAIL FROM:<{SENDER}>")
            replies = [await client.cmd(command) for _ in range(19)]
            assert not any(reply.startswith("421") for reply in replies)
            last = await client.cmd(command)
            if command.startswith("RCPT TO:<doctor"):
                # The first of them was worth something.
                assert last.startswith("250")
                last = await client.cmd(command)
            assert last.startswith("421 4.7.0")
            assert await client.reply() == ""
        await here.still_serves()


async def test_mail_renews_the_allowance_of_commands() -> None:
    async with bench(replace(SETTINGS, max_commands_without_mail=10)) as here, here.client() as client:
        await client.ehlo()
        for _ in range(5):
            for _ in range(7):
                assert (await client.cmd("NOOP")).startswith("250")
            assert (await client.deliver(WIRE)).startswith("250")
    assert len(here.accept.inbounds) == 5


async def test_messages_per_connection() -> None:
    async with bench(replace(SETTINGS, max_messages_per_connection=2)) as here:
        async with here.client() as client:
            await client.ehlo()
            for _ in range(2):
                assert (await client.deliver(WIRE)).startswith("250")
            assert (await client.cmd(f"MAIL FROM:<{SENDER}>")).startswith("421 4.7.0")
            assert await client.reply() == ""
        await here.still_serves()


@pytest.mark.parametrize(
    "settings",
    [replace(SETTINGS, max_connections=2), replace(SETTINGS, max_connections_per_peer=2)],
    ids=["total", "per peer"],
)
async def test_connections_are_limited(settings: SMTPSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_gate, "WAIT_SECONDS", 0.1)
    async with bench(settings) as here:
        async with here.client() as first, here.client() as second:
            await first.ehlo()
            await second.ehlo()
            async with here.client() as third:
                assert (await third.reply()).startswith("421 4.7.0")
                assert await third.reply() == ""
            assert (await first.cmd("QUIT")).startswith("221")
            assert await first.reply() == ""
        # Slots are given back, the one that was refused has taken none.
        for _ in range(3):
            await here.still_serves()


def test_an_ipv6_peer_is_its_network() -> None:
    counter = ConnectionCounter(10, 1)
    assert counter.enter(peer_network("2001:db8:1:2::1"))
    assert not counter.enter(peer_network("2001:db8:1:2:ffff::9"))
    assert counter.enter(peer_network("2001:db8:1:3::1"))
    assert counter.enter(peer_network("::ffff:192.0.2.1"))
    assert not counter.enter(peer_network("192.0.2.1"))
    counter.leave(peer_network("2001:db8:1:2::1"))
    assert counter.enter(peer_network("2001:db8:1:2:ffff::9"))


async def test_no_space_is_told_at_mail() -> None:
    """Storage rules: the floor, and above it twice the declared size."""
    free = [99 * MIB]
    async with bench(free_space=lambda: free[0]) as here, here.client() as client:
        await client.ehlo()
        assert await client.cmd("MAIL FROM:<>") == "452 4.3.1 Insufficient system storage"
        free[0] = 101 * MIB
        assert (await client.cmd(f"MAIL FROM:<> SIZE={MIB}")).startswith("452 4.3.1")
        assert (await client.cmd("MAIL FROM:<> SIZE=1000")).startswith("250 2.1.0")


async def test_a_taken_port_is_a_clear_error() -> None:
    async with bench() as here:
        second = SMTPListener(
            replace(SETTINGS, port=here.listener.port),
            accept=FakeAccept(),
            is_local_recipient=everybody,
            tls=None,
            log=get_log("ingress"),
            spool=here.listener.spool,
        )
        with pytest.raises(ListenError, match=r"address already in use.*smtp\.port"):
            await second.start()


def test_the_pace_of_a_message() -> None:
    """EP-9 and Postfix's min_data_rate: silence, total and average are bounded, a slow start is forgiven."""
    limits = SMTPLimits.of(SMTPSettings())
    assert limits.data_seconds_left(0, 0) == 300
    assert limits.data_seconds_left(299, 0) == 1
    assert limits.data_seconds_left(301, 0) < 0
    assert limits.data_seconds_left(301, 5_000) == 9
    assert limits.data_seconds_left(590, 50 * MIB) == 10
