"""States, TLS, login, limits: EP-18, EP-19, EP-20, EP-22, EP-27, F20, F21, F22."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.errors import ListenError, StoreError
from gateway.imap.listener import IMAPListener
from gateway.ports import Account
from gateway.serving import connection as connection_module
from gateway.serving.patience import Patience
from gateway.settings import IMAPSettings
from tests.unit.imap.imap_harness import LOGIN, MULTIPART, PASSWORD, SETTINGS, RawClient, bench, quoted, tls_contexts

PLAIN = base64.b64encode(b"\0" + LOGIN.encode() + b"\0" + PASSWORD.encode())
LOGIN_COMMAND = b"LOGIN " + LOGIN.encode() + b" " + quoted(PASSWORD)


async def test_capability_noop_logout_need_no_login(tmp_path: Path) -> None:
    """EP-18."""
    async with bench(tmp_path) as here, here.client(tls=False, greet=False) as client:
        greeting = await client.response()
        assert greeting.startswith(b"* OK [CAPABILITY IMAP4rev1 ")
        (capabilities,) = await client.ok("capability")
        words = capabilities.split()
        assert {b"IMAP4rev1", b"STARTTLS", b"LOGINDISABLED"} <= set(words)
        assert not [word for word in words if word.startswith(b"AUTH=")]
        assert await client.ok("NOOP") == []
        assert await client.ok('ID ("name" "x" "version" NIL)') == [b'* ID ("name" "direct-gateway")']
        assert await client.ok("LOGOUT") == [b"* BYE Logging out"]
        assert await client.closed()


async def test_no_login_in_clear_even_on_loopback(tmp_path: Path) -> None:
    """EP-20, F21: neither form is looked at, and the literal form is refused before the password is sent."""
    async with bench(tmp_path) as here, here.client(tls=False) as client:
        for command in (LOGIN_COMMAND, b"AUTHENTICATE PLAIN", b"AUTHENTICATE PLAIN " + PLAIN, b"LOGIN {5}"):
            *untagged, answer = await client.cmd(command)
            assert answer.startswith(b"NO [PRIVACYREQUIRED]")
            assert untagged == []
        assert here.authenticator.calls == []
        assert (await client.cmd("SELECT INBOX"))[-1].startswith(b"BAD")


async def upgrade(client: RawClient) -> None:
    await client.writer.start_tls(tls_contexts()[1], server_hostname="localhost")


async def test_starttls_then_login(tmp_path: Path) -> None:
    """EP-19, EP-20, EP-27."""
    async with bench(tmp_path) as here, here.client(tls=False) as client:
        await client.ok("STARTTLS")
        await upgrade(client)
        assert client.writer.get_extra_info("ssl_object").version() in {"TLSv1.2", "TLSv1.3"}
        (capabilities,) = await client.ok("CAPABILITY")
        assert b"AUTH=PLAIN" in capabilities
        assert b"STARTTLS" not in capabilities
        assert b"LOGINDISABLED" not in capabilities
        assert (await client.cmd("STARTTLS"))[-1].startswith(b"BAD")
        await client.login()
        assert here.authenticator.calls == [(LOGIN, "127.0.0.1")]


async def test_tls_at_once_on_the_starttls_port(tmp_path: Path) -> None:
    """A mail client that was set to the other kind of TLS connects all the same."""
    async with bench(tmp_path) as here:
        assert here.listener.ports.starttls is not None
        reader, writer = await asyncio.open_connection("localhost", here.listener.ports.starttls, ssl=tls_contexts()[1])
        greeting = await reader.readline()
        assert greeting.startswith(b"* OK [CAPABILITY IMAP4rev1 ")
        assert b"AUTH=PLAIN" in greeting
        assert b"STARTTLS" not in greeting
        writer.write(b"a " + LOGIN_COMMAND + b"\r\n")
        assert (await reader.readline()).startswith(b"a OK")
        writer.close()


@pytest.mark.parametrize("first", [b"a NOOP\r\n", b"\x17junk\r\n", b""])
async def test_whoever_speaks_first_in_clear_is_greeted_in_clear(tmp_path: Path, first: bytes) -> None:
    async with bench(tmp_path) as here:
        assert here.listener.ports.starttls is not None
        reader, writer = await asyncio.open_connection("localhost", here.listener.ports.starttls)
        writer.write(first)
        assert b"LOGINDISABLED" in await reader.readline()
        if first:
            assert (await reader.readline()).startswith((b"a OK", b"* BAD"))
        writer.close()


async def test_what_follows_starttls_in_clear_is_thrown_away(tmp_path: Path) -> None:
    """F21: a command injected behind STARTTLS must be answered neither before nor after the handshake."""
    async with bench(tmp_path) as here, here.client(tls=False) as client:
        await client.send(b"a STARTTLS\r\nb NOOP\r\nc " + LOGIN_COMMAND + b"\r\nd CAPAB")
        assert (await client.response()).startswith(b"a OK")
        await upgrade(client)
        assert await client.ok("NOOP") == []
        assert (await client.cmd("SELECT INBOX"))[-1].startswith(b"BAD")
        assert here.authenticator.calls == []


async def test_tls_is_modern_whatever_the_context_says(tmp_path: Path) -> None:
    """EP-27, F21."""
    server = tls_contexts()[0]
    with pytest.warns(DeprecationWarning, match="TLSVersion"):
        server.minimum_version = ssl.TLSVersion.TLSv1
    async with bench(tmp_path) as here, here.client() as client:
        assert server.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert server.options & ssl.OP_NO_RENEGOTIATION
        assert client.writer.get_extra_info("ssl_object").version() in {"TLSv1.2", "TLSv1.3"}


@pytest.mark.parametrize(
    "dialogue",
    [
        [b"a AUTHENTICATE PLAIN " + PLAIN + b"\r\n"],
        [b"a authenticate plain\r\n", PLAIN + b"\r\n"],
        [b"a LOGIN " + LOGIN.encode() + b" " + quoted(PASSWORD) + b"\r\n"],
        [
            b"a LOGIN {%d}\r\n" % len(LOGIN),
            LOGIN.encode() + b" {%d}\r\n" % len(PASSWORD.encode()),
            PASSWORD.encode() + b"\r\n",
        ],
        [
            b"a LOGIN {%d+}\r\n%s {%d+}\r\n%s\r\n"
            % (len(LOGIN), LOGIN.encode(), len(PASSWORD.encode()), PASSWORD.encode())
        ],
    ],
    ids=["sasl-ir", "sasl", "quoted", "literals", "literal-minus"],
)
async def test_every_form_of_login(tmp_path: Path, dialogue: list[bytes]) -> None:
    """EP-20; the password holds a space, quote, backslash, brace and 8-bit."""
    async with bench(tmp_path) as here, here.client() as client:
        for number, part in enumerate(dialogue):
            if number:
                assert (await client.response()).startswith(b"+ ")
            await client.send(part)
        answer = (await client.until(b"a"))[-1]
        assert answer.startswith(b"a OK [CAPABILITY ")
        await client.ok("SELECT INBOX")


async def test_bad_credentials_are_refused_after_a_delay_and_end_the_session(tmp_path: Path) -> None:
    """EP-20, F22."""
    settings = replace(SETTINGS, failed_login_delay_seconds=1)
    async with bench(tmp_path, settings) as here, here.client() as client:
        start = time.monotonic()
        answer = (await client.cmd(f"LOGIN {LOGIN} wrong"))[-1]
        assert answer == b"NO [AUTHENTICATIONFAILED] Wrong login or password"
        assert time.monotonic() - start > 0.9


async def test_the_fifth_failed_login_ends_the_session(tmp_path: Path) -> None:
    """F22."""
    async with bench(tmp_path) as here, here.client() as client:
        for _ in range(4):
            assert (await client.cmd("LOGIN nobody wrong"))[-1].startswith(b"NO [AUTHENTICATIONFAILED]")
        await client.send(b"x LOGIN nobody wrong\r\n")
        assert (await client.response()).startswith(b"* BYE")
        assert await client.closed()


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (b"*", b"BAD"),
        (b"!!!!", b"BAD"),
        (base64.b64encode(b"no separators"), b"BAD"),
        (base64.b64encode(b"other\0" + LOGIN.encode() + b"\0" + PASSWORD.encode()), b"NO [AUTHORIZATIONFAILED]"),
        (base64.b64encode(b"\0" + LOGIN.encode() + b"\0\xff\xff"), b"NO [AUTHENTICATIONFAILED]"),
    ],
)
async def test_bad_sasl_responses(tmp_path: Path, response: bytes, answer: bytes) -> None:
    async with bench(tmp_path) as here, here.client() as client:
        await client.send(b"a AUTHENTICATE PLAIN\r\n")
        assert await client.response() == b"+ "
        await client.send(response + b"\r\n")
        assert (await client.response()).startswith(b"a " + answer)
        assert (await client.cmd("AUTHENTICATE CRAM-MD5"))[-1].startswith(b"NO")
        await client.login()


AFTER_LOGIN: list[str | bytes] = [
    "SELECT INBOX",
    'LIST "" *',
    "STATUS INBOX (MESSAGES)",
    "IDLE",
    "NAMESPACE",
    "ENABLE CONDSTORE",
]
WITH_MAILBOX: list[str | bytes] = [
    "FETCH 1 FLAGS",
    "SEARCH ALL",
    "STORE 1 FLAGS ()",
    "UID FETCH 1 UID",
    "CLOSE",
    "EXPUNGE",
    "CHECK",
]


async def test_a_command_in_the_wrong_state_is_bad_and_the_session_stays_sane(tmp_path: Path) -> None:
    """EP-22."""
    async with bench(tmp_path) as here, here.client() as client:
        for command in AFTER_LOGIN + WITH_MAILBOX:
            assert (await client.cmd(command))[-1].startswith(b"BAD"), command
        await client.login()
        for command in [*WITH_MAILBOX, LOGIN_COMMAND, "AUTHENTICATE PLAIN", "STARTTLS"]:
            assert (await client.cmd(command))[-1].startswith(b"BAD"), command
        await client.ok("SELECT INBOX")
        await client.ok("CLOSE")
        assert (await client.cmd("FETCH 1 FLAGS"))[-1].startswith(b"BAD")


@pytest.mark.parametrize(
    ("line", "tag"),
    [
        (b"a FROB", b"a"),
        (b"a NOOP extra", b"a"),
        (b"a  NOOP", b"a"),
        (b"a", b"a"),
        (b"", b"*"),
        (b"(a) NOOP", b"*"),
        (b"a UID", b"a"),
        (b"a UID NOOP", b"a"),
        (b'a SELECT "INBOX', b"a"),
        (b"a SELECT", b"a"),
        (b"a SELECT {1}x", b"a"),
        (b"a SELECT IN\x00BOX", b"a"),
        (b"\xff\xfe NOOP", b"*"),
        (b'a LIST (BOGUS) "" *', b"a"),
        (b"a STATUS INBOX ()", b"a"),
        (b"a ENABLE", b"a"),
    ],
)
async def test_bad_syntax_is_answered_with_the_tag(tmp_path: Path, line: bytes, tag: bytes) -> None:
    """EP-22."""
    async with bench(tmp_path) as here, here.client() as client:
        await client.login()
        await client.send(line + b"\r\n")
        assert (await client.response()).startswith(tag + b" BAD ")
        assert await client.ok("NOOP") == []


async def test_pipelined_commands_are_answered_in_order(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[MULTIPART]) as here, here.client() as client:
        await client.send(
            b"a "
            + LOGIN_COMMAND
            + b"\r\nb SELECT INBOX\r\n"
            + b"".join(b"c%d UID FETCH 1 (BODY.PEEK[])\r\n" % number for number in range(60))
            + b"d SEARCH SUBJECT {8+}\r\nReferral\r\ne LOGOUT\r\n"
        )
        await client.until(b"a")
        await client.until(b"b")
        for number in range(60):
            responses = await client.until(b"c%d" % number)
            assert responses[0] == b"* 1 FETCH (UID 1 BODY[] {%d}\r\n%s)" % (len(MULTIPART), MULTIPART)
        assert (await client.until(b"d"))[0] == b"* SEARCH 1"
        assert (await client.until(b"e"))[-1].startswith(b"e OK")


# --- limits ---


FLOODS = {
    "endless": b"a" * 70_000,
    "line": b"a NOOP " + b"x" * 66_000 + b"\r\n",
    "non-sync": b"a LOGIN {4097+}\r\n",
    "many": b"a LOGIN {0+}\r\n" + b" {0+}\r\n" * 200,
    "literal": b"a AUTHENTICATE {5000}\r\n",
    "digits": b"a AUTHENTICATE {" + b"9" * 5_000 + b"}\r\n",
}


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
async def test_limits_before_login_end_with_bye(tmp_path: Path, flood: bytes, tls: bool) -> None:
    """F20: an unknown peer cannot make the server hold more than the limits."""
    async with bench(tmp_path) as here, here.client(tls=tls) as client:
        await client.send(flood)
        assert (await client.response()).startswith(b"* BYE [TOOBIG]")
        assert await client.closed()


async def test_limits_after_login(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, here.selected() as client:
        assert (await client.cmd("SEARCH SUBJECT {70000}"))[-1].startswith(b"NO [TOOBIG]")
        assert (await client.cmd("APPEND INBOX {50000000}"))[-1].startswith(b"NO [NOPERM]")
        # Refused before the message was sent, and on record all the same (ON-10).
        assert await here.practice.audit("mailbox.change_refused") == [("front.desk", "")]
        await client.send(b"a SEARCH SUBJECT {5000+}\r\n")
        assert (await client.response()).startswith(b"* BYE [TOOBIG]")
        assert await client.closed()


async def test_many_errors_end_the_session(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, here.client() as client:
        await client.send(b"GET / HTTP/1.1\r\n" * 25)
        responses = [await client.response() for _ in range(21)]
        assert responses[-1] == b"* BYE Too many errors"
        assert await client.closed()


async def test_too_slow_to_log_in(tmp_path: Path) -> None:
    """F20: the login deadline is total; single octets do not move it."""
    async with bench(tmp_path, replace(SETTINGS, login_timeout_seconds=1)) as here, here.client() as client:
        start = time.monotonic()
        await client.send(b"a NO")
        assert (await client.response()).startswith(b"* BYE")
        assert 0.8 < time.monotonic() - start < 5
        assert await client.closed()


async def test_a_handshake_that_never_comes_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F20."""
    monkeypatch.setattr(connection_module, "HANDSHAKE_TIMEOUT_SECONDS", 0.3)
    async with bench(tmp_path) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.tls_port)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await writer.wait_closed()


async def test_connections_are_limited_in_all_and_per_peer(tmp_path: Path) -> None:
    """F20; a connection counts before its TLS handshake, and is free again afterwards."""
    async with bench(tmp_path, replace(SETTINGS, max_connections=2, max_connections_per_peer=2)) as here:
        silent_reader, silent_writer = await asyncio.open_connection("127.0.0.1", here.tls_port)
        async with here.client(tls=False):
            async with here.client(tls=False, greet=False) as third:
                assert (await third.response()).startswith(b"* BYE")
                assert await third.closed()
            with pytest.raises((ssl.SSLError, OSError)):
                async with here.client():
                    pass
        silent_writer.close()
        await silent_writer.wait_closed()
        del silent_reader
        while here.listener.connections:
            await asyncio.sleep(0.01)
        async with here.client() as client:
            await client.login()


async def test_an_idle_session_is_logged_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path, replace(SETTINGS, idle_timeout_minutes=1)) as here:
        real = Patience.seconds
        monkeypatch.setattr(Patience, "seconds", lambda self, seconds: real(self, 0.2 if seconds == 60 else seconds))
        async with here.selected() as client:
            assert (await client.response()).startswith(b"* BYE")
            assert await client.closed()


async def test_close_says_bye_to_everybody(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, here.client() as first, here.selected() as second:
        await second.send(b"a IDLE\r\n")
        assert (await second.response()).startswith(b"+ ")
        await here.listener.close()
        for client in (first, second):
            assert await client.response() == b"* BYE Server shutting down"
            assert await client.closed()


async def test_a_slow_reader_costs_one_slice_and_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks for much and reads nothing."""
    monkeypatch.setattr(connection_module, "WRITE_TIMEOUT_SECONDS", 0.3)
    big = b"Subject: x\r\n\r\n" + b"x" * 8_000_000
    async with bench(tmp_path, contents=[big]) as here, here.selected() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(b"".join(b"a%d FETCH 1 BODY.PEEK[]\r\n" % number for number in range(20)))
        while here.listener.connections:
            await asyncio.sleep(0.02)


async def test_input_waits_outside_while_a_command_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends without end while it waits cannot fill the memory; and nothing it sent is lost."""
    gate, count = asyncio.Event(), 150_000

    async def slow(*_args: object) -> Account:
        await gate.wait()
        return here.practice.account

    async with bench(tmp_path) as here, here.client() as client:
        monkeypatch.setattr(here.authenticator, "authenticate", slow)
        sending = asyncio.ensure_future(client.send(b"a LOGIN x y\r\n" + b"n NOOP\r\n" * count + b"z LOGOUT\r\n"))
        (connection,) = here.listener._tasks.values()
        while not connection._reading_paused:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert len(connection._input) < 1_000_000
        gate.set()
        answers = b""
        while not answers.endswith(b"z OK LOGOUT completed\r\n"):
            piece = await asyncio.wait_for(client.reader.read(1 << 20), 60)
            assert piece
            answers += piece
        await sending
        assert answers.count(b"n OK NOOP completed\r\n") == count


async def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    async with bench(tmp_path) as here:
        second = IMAPListener(
            IMAPSettings(), here.authenticator, here.inbox, tls_contexts()[0], starttls_port=0, tls_port=here.tls_port
        )
        with pytest.raises(ListenError, match=r"port \d+: address already in use; change imap\.tls_port"):
            await second.start()
        off = IMAPListener(IMAPSettings(port=0, tls_port=0), here.authenticator, here.inbox, tls_contexts()[0])
        await off.start()
        assert (off.ports.starttls, off.ports.tls) == (None, None)
        await off.close()


# --- faults ---


async def test_faults_are_answered_and_logged_without_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """F16, promise 6: a tagged NO, no detail of the cause, and no PHI in the log."""
    caplog.set_level(logging.DEBUG)

    async def broken(*_args: object, **_kwargs: object) -> Account | None:
        raise RuntimeError("secret of " + LOGIN)

    async def unavailable(*_args: object, **_kwargs: object) -> Account | None:
        raise StoreError("secret of " + LOGIN)

    async with bench(tmp_path, contents=[MULTIPART]) as here, here.client() as client:
        real = here.authenticator.authenticate
        for fault, code in ((broken, b"NO [SERVERBUG]"), (unavailable, b"NO [UNAVAILABLE]")):
            monkeypatch.setattr(here.authenticator, "authenticate", fault)
            answer = (await client.cmd(LOGIN_COMMAND))[-1]
            assert answer.startswith(code)
            assert b"secret" not in answer
        monkeypatch.setattr(here.authenticator, "authenticate", real)
        await client.login()
        await client.ok("SELECT INBOX")
        await client.ok('SEARCH SUBJECT "Referral"')
        await client.ok("FETCH 1 (ENVELOPE BODY[])")
        # Nothing is read while the store's version is the one that was read last.
        monkeypatch.setattr(here.practice.store, "version", lambda: None)
        monkeypatch.setattr(here.practice.store, "read", unavailable)
        assert (await client.cmd("NOOP"))[-1].startswith(b"NO [UNAVAILABLE]")
    assert "command_fault" in caplog.text
    for word in ("secret", LOGIN, PASSWORD, "Referral", "direct.example"):
        assert word not in caplog.text
