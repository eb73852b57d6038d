"""States, TLS, login, limits: EP-19, EP-20, EP-27, EP-30, F20, F21, F22."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import ListenError, StoreError, TooManySessionsError
from gateway.pop3.commands import COMMANDS
from gateway.pop3.listener import MAX_LINE_BYTES, POP3Listener
from gateway.serving import connection as connection_module
from tests.unit.pop3.pop3_harness import (
    LOGIN,
    PASSWORD,
    SETTINGS,
    TOKEN,
    Bench,
    RawClient,
    bench,
    plain_message,
    tls_contexts,
)

PLAIN = base64.b64encode(b"\0" + LOGIN.encode() + b"\0" + PASSWORD.encode())
BEFORE_TLS = {b"STLS", b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING", b"EXPIRE NEVER"}


# --- the cases of EP-30 before login ---


async def test_ep30_capa_noop_and_quit_need_no_login(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, here.client(tls=False) as client:
        assert set(await client.lines("CAPA")) >= BEFORE_TLS
        await client.ok("noop")
        await client.ok("QUIT")
        assert await client.closed()


async def test_ep30_stls(tmp_path: Path) -> None:
    """RFC 2595: neither USER nor SASL is named or taken before it; afterwards STLS is not."""
    async with bench(tmp_path) as here, here.client(tls=False) as client:
        before = await client.lines("CAPA")
        assert set(before) >= BEFORE_TLS
        assert not [line for line in before if line.startswith((b"USER", b"SASL"))]
        await client.tls()
        assert client.writer.get_extra_info("ssl_object").version() in {"TLSv1.2", "TLSv1.3"}
        after = await client.lines("CAPA")
        assert {b"USER", b"SASL PLAIN", b"PIPELINING"} <= set(after)
        assert b"STLS" not in after
        await client.err("STLS")
        await client.login()
        await client.err("STLS")
        assert here.authenticator.calls == [(LOGIN, "127.0.0.1", "pop3")]


async def test_ep30_stat_before_login_is_refused(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, here.client() as client:
        for command in ("STAT", "LIST", "LIST 1", "UIDL", "RETR 1", "TOP 1 0", "DELE 1", "RSET"):
            assert b"after login" in await client.err(command)
        await client.login()
        assert await client.ok("STAT") == b"0 0"


async def test_ep30_bad_syntax_is_refused_with_a_reason(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.logged_in() as client:
        for command in (b"", b" ", b"HELO", b"XYZZY 1", b"STAT 1", b"RETR", b"RETR x", b"RETR -1", b"RETR 1 2", b"DELE",
                        b"TOP 1", b"TOP 1 x", b"LIST \xff", b"\x00", b"NOOP x", b"QUIT now", b"RETR " + b"9" * 100,
                        b"CAPA x", b"UIDL one"):  # fmt: skip
            assert await client.err(command)
            assert await client.ok("NOOP") == b"Done"
        for number in ("RETR 0", "RETR 2", "LIST 2", "UIDL 0", "DELE 99", "TOP 2 0"):
            assert await client.err(number) == b"No such message"


async def test_ep30_bad_credentials_are_refused(tmp_path: Path) -> None:
    """RFC 3206: [AUTH]. A login that does not exist is answered in the same words."""
    async with bench(tmp_path) as here, here.client() as client:
        answers = set()
        for login, password in ((LOGIN, "wrong"), ("nobody", "wrong"), (LOGIN, "")):
            assert await client.ok(f"USER {login}") == b"Send the password"
            answers.add(await client.err(f"PASS {password}"))
        assert answers == {b"[AUTH] Wrong login or password"}
        await client.err("STAT")
        await client.login()


async def test_a_wrong_password_is_delayed(tmp_path: Path) -> None:
    async with bench(tmp_path, replace(SETTINGS, failed_login_delay_seconds=1)) as here, here.client() as client:
        loop = asyncio.get_running_loop()
        await client.ok(f"USER {LOGIN}")
        began = loop.time()
        await client.err("PASS wrong")
        assert loop.time() - began >= 1


async def test_the_fifth_failed_login_ends_the_session(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, here.client() as client:
        for _ in range(5):
            await client.ok(f"USER {LOGIN}")
            assert (await client.err("PASS wrong")).startswith(b"[AUTH]")
        assert await client.closed()


# --- every form of login ---


async def test_user_and_pass(tmp_path: Path) -> None:
    """RFC 1939: the password is all that follows; PASS counts right after USER only."""
    async with bench(tmp_path) as here, here.client() as client:
        await client.err(b"PASS " + PASSWORD.encode())
        await client.err("USER")
        await client.login()
        assert " " in PASSWORD
        await client.err(f"USER {LOGIN}")
        assert here.authenticator.calls == [(LOGIN, "127.0.0.1", "pop3")]


async def test_a_refused_password_forgets_the_user(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, here.client() as client:
        await client.ok(f"USER {LOGIN}")
        await client.err("PASS wrong")
        assert await client.err(b"PASS " + PASSWORD.encode()) == b"PASS comes after USER"


@pytest.mark.parametrize(
    "dialogue", [[b"AUTH PLAIN " + PLAIN], [b"AUTH PLAIN", PLAIN], [b"auth plain =", None], [b"AUTH PLAIN *", None]]
)
async def test_auth_plain_with_and_without_an_initial_response(tmp_path: Path, dialogue: list[bytes | None]) -> None:
    """RFC 5034."""
    async with bench(tmp_path) as here, here.client() as client:
        first = dialogue[0]
        assert first is not None
        answer = await client.cmd(first)
        if len(dialogue) == 1:
            assert answer.startswith(b"+OK")
        elif dialogue[1] is None:
            assert answer.startswith(b"-ERR")
        else:
            assert answer == b"+ "
            await client.ok(dialogue[1])
            assert await client.ok("STAT") == b"0 0"


async def test_auth_plain_that_is_none(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, here.client() as client:
        assert await client.err("AUTH PLAIN !!!") == b"Invalid base64"
        assert await client.err(b"AUTH PLAIN " + base64.b64encode(b"a\0b")) == b"Invalid PLAIN response"
        other = base64.b64encode(b"boss\0" + LOGIN.encode() + b"\0" + PASSWORD.encode())
        assert (await client.err(b"AUTH PLAIN " + other)).startswith(b"[AUTH]")
        assert (await client.err("AUTH CRAM-MD5")) == b"Unsupported authentication mechanism"
        assert (await client.err("APOP me 0123")) == b"Unknown command"
        assert await client.cmd("AUTH PLAIN") == b"+ "
        assert await client.err("*") == b"Authentication cancelled"
        assert await client.lines("AUTH") == [b"PLAIN"]
        assert here.authenticator.calls == []


def bearer(token: str, name: str = "") -> bytes:
    return base64.b64encode(f"n,{name and f'a={name}'},\1host=localhost\1auth=Bearer {token}\1\1".encode())


async def test_auth_oauthbearer(tmp_path: Path) -> None:
    """RFC 7628: offered where tokens are taken; a refusal is told in a challenge first."""
    async with bench(tmp_path) as here, here.client() as client:
        assert (await client.err(b"AUTH OAUTHBEARER " + bearer(TOKEN))) == b"Unsupported authentication mechanism"
        here.authenticator.takes_tokens = True
        assert b"SASL PLAIN OAUTHBEARER" in await client.lines("CAPA")
        challenge = await client.cmd(b"AUTH OAUTHBEARER " + bearer("bad"))
        assert json.loads(base64.b64decode(challenge.removeprefix(b"+ "))) == {"status": "invalid_token"}
        assert (await client.err("AQ==")).startswith(b"[AUTH]")
        for nonsense in (b"=", base64.b64encode(b"n,,"), base64.b64encode(b"\xff,\1\1"), bearer("")):
            assert await client.err(b"AUTH OAUTHBEARER " + nonsense) == b"Invalid OAUTHBEARER response"
        assert await client.cmd("AUTH OAUTHBEARER") == b"+ "
        await client.ok(bearer(TOKEN, "x=2C=3D"))
        assert here.authenticator.calls == [("", "127.0.0.1", "pop3"), ("x,=", "127.0.0.1", "pop3")]


# --- TLS ---


async def test_no_login_in_clear_even_on_loopback(tmp_path: Path) -> None:
    """EP-20, F21."""
    async with bench(tmp_path) as here, here.client(tls=False) as client:
        for command in (b"USER " + LOGIN.encode(), b"PASS " + PASSWORD.encode(), b"AUTH PLAIN", b"AUTH PLAIN " + PLAIN):
            assert await client.err(command) == b"Log in after STLS"
        assert await client.lines("AUTH") == []
        assert here.authenticator.calls == []


async def test_what_follows_stls_in_clear_is_thrown_away(tmp_path: Path) -> None:
    """F21: commands injected behind STLS are answered neither before nor after the handshake, nor do they count."""
    async with bench(tmp_path) as here, here.client(tls=False) as client:
        await client.send(b"STLS\r\nUSER " + LOGIN.encode() + b"\r\nNOOP\r\nAUTH PLAIN " + PLAIN + b"\r\nCAP")
        assert (await client.line()).startswith(b"+OK")
        await client.writer.start_tls(tls_contexts()[1], server_hostname="localhost")
        assert await client.err(b"PASS " + PASSWORD.encode()) == b"PASS comes after USER"
        assert await client.ok("NOOP") == b"Done"
        assert here.authenticator.calls == []


async def test_tls_at_once_on_the_stls_port(tmp_path: Path) -> None:
    """A mail client that was set to the other kind of TLS connects all the same."""
    async with bench(tmp_path) as here:
        reader, writer = await asyncio.open_connection("localhost", here.stls_port, ssl=tls_contexts()[1])
        client = RawClient(reader, writer)
        assert (await client.line()).startswith(b"+OK")
        assert b"USER" in await client.lines("CAPA")
        await client.close()


# --- limits and faults ---


@pytest.mark.parametrize("tls", [True, False])
async def test_a_line_beyond_the_limit_ends_the_session(tmp_path: Path, tls: bool) -> None:
    async with bench(tmp_path) as here, here.client(tls=tls) as client:
        await client.send(b"x" * (MAX_LINE_BYTES + 10))
        assert await client.line() == b"-ERR Line too long"
        assert await client.closed()


async def test_who_only_errs_is_shown_out(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, here.client() as client:
        for _ in range(20):
            await client.err("XYZZY")
        assert await client.line() == b"-ERR Too many errors"
        assert await client.closed()


async def test_too_slow_to_log_in(tmp_path: Path) -> None:
    """RFC 1939 section 3: closed without a word."""
    async with bench(tmp_path, replace(SETTINGS, login_timeout_seconds=1)) as here, here.client() as client:
        await client.send(b"NOOP\r\nNO")
        assert await client.line() == b"+OK Done"
        assert await client.closed()


async def test_an_idle_session_is_closed_without_the_update_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 1939 section 3: no word, and nothing that was marked is removed."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here:
        real = asyncio.timeout
        monkeypatch.setattr(asyncio, "timeout", lambda delay: real(0.3 if delay == 600 else delay))
        async with here.logged_in() as client:
            await client.ok("DELE 1")
            assert await client.closed()
        monkeypatch.undo()
        assert len(await here.uidls()) == 1


async def test_limits_of_connections(tmp_path: Path) -> None:
    """F20."""
    async with bench(tmp_path, replace(SETTINGS, max_connections_per_peer=2)) as here:
        async with here.client(tls=False), here.client(), here.client(tls=False, greet=False) as third:
            assert await third.line() == b"-ERR [SYS/TEMP] Too many connections"
            assert await third.closed()
        while here.listener.connections:
            await asyncio.sleep(0.01)
        async with here.logged_in():
            pass


async def test_a_slow_reader_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "WRITE_TIMEOUT_SECONDS", 0.3)
    big = b"Subject: x\r\n\r\n" + b"x" * 8_000_000
    async with bench(tmp_path, contents=[big]) as here, here.logged_in() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(b"RETR 1\r\n" * 20)
        while here.listener.connections:
            await asyncio.sleep(0.02)
        (handle,) = here.registry.handles
        assert handle.over


async def test_the_end_of_the_daemon_is_told_and_removes_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.client() as first, here.logged_in() as second:
        await second.ok("DELE 1")
        await here.listener.close()
        for client in (first, second):
            assert await client.line() == b"-ERR [SYS/TEMP] Server shutting down"
            assert await client.closed()
        assert (
            await here.practice.store.read(
                lambda unit: unit.pop3.hidden(here.practice.account.id, here.practice.inbox_id)
            )
            == []
        )


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async with bench(tmp_path) as here:
        second = POP3Listener(
            replace(SETTINGS, port=here.stls_port), here.authenticator, here.maildrops, tls_contexts()[0]
        )
        with pytest.raises(ListenError, match=r"POP3 cannot open .*pop3\.port"):
            await second.start()


async def test_off_by_default(tmp_path: Path) -> None:
    async with bench(tmp_path) as here:
        off = POP3Listener(SETTINGS, here.authenticator, here.maildrops, tls_contexts()[0])
        await off.start()
        assert (off.ports.starttls, off.ports.tls) == (None, None)
        await off.close()


async def test_a_store_that_fails_is_told_as_temporary(tmp_path: Path) -> None:
    """RFC 3206: [SYS/TEMP], at login as later; the session goes on."""
    async with bench(tmp_path) as here, here.client() as client:
        here.authenticator.error = StoreError("down")
        await client.ok(f"USER {LOGIN}")
        assert await client.err("PASS x") == b"[SYS/TEMP] Temporary failure, please try again"
        here.authenticator.error = TooManySessionsError("many")
        await client.ok(f"USER {LOGIN}")
        assert await client.err("PASS x") == b"[SYS/TEMP] This login has too many sessions now"
        here.authenticator.error = RuntimeError("defect")
        await client.ok(f"USER {LOGIN}")
        assert await client.err("PASS x") == b"[SYS/TEMP] Internal error"
        here.authenticator.error = None
        await client.login()


async def test_a_login_without_the_folder(tmp_path: Path) -> None:
    """The account may log in and has nothing to show here; that it logged in is over at once."""
    async with bench(tmp_path, replace(SETTINGS, folder="Somewhere")) as here, here.client() as client:
        await client.ok(f"USER {LOGIN}")
        assert (await client.err(b"PASS " + PASSWORD.encode())).startswith(b"[SYS/PERM] This login has no folder")
        await client.err("STAT")
        (handle,) = here.registry.handles
        assert handle.over == 1


async def test_a_view_is_no_maildrop(tmp_path: Path) -> None:
    """It has UIDs of its own, and messages leave it: unique-ids would not hold."""
    async with bench(tmp_path, replace(SETTINGS, folder="Unlinked")) as here, here.client() as client:
        names = [folder.name for folder in await here.maildrops._inbox.folders(here.practice.account)]
        assert "Unlinked" in names
        await client.ok(f"USER {LOGIN}")
        assert (await client.err(b"PASS " + PASSWORD.encode())).startswith(b"[SYS/PERM] This login has no folder")


async def test_another_folder_by_its_name(tmp_path: Path) -> None:
    async with bench(tmp_path, replace(SETTINGS, folder="Shared/Läbs")) as here:
        await here.practice.file(plain_message(1), here.practice.nested_id)
        async with here.logged_in() as client:
            assert (await client.ok("STAT")).startswith(b"1 ")


async def test_sessions_are_told_to_the_registry_and_end_when_it_says(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here:
        async with here.logged_in() as client:
            await client.ok("DELE 1")
            assert here.registry.begun == [(here.practice.account.id, "pop3", "127.0.0.1")]
            here.registry.handles[0].end_from_outside()
            assert await client.line() == b"-ERR [SYS/PERM] The session was ended by an operator"
            assert await client.closed()
        assert here.registry.handles[0].over
        assert len(await here.uidls()) == 1
        await asyncio.sleep(0)
        while here.listener.connections:
            await asyncio.sleep(0.01)
        assert here.registry.handles[1].over


async def test_nothing_that_a_client_sent_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with bench(tmp_path) as here, here.client() as client:
        await client.ok("USER canary")
        await client.err("PASS canary")
        await client.err("CANARY canary")
        await client.err(b"AUTH PLAIN " + base64.b64encode(b"\0canary\0canary"))
    assert "canary" not in caplog.text.lower()


# --- pipelining, and whatever may come ---


async def test_pipelined_commands_are_answered_in_order(tmp_path: Path) -> None:
    """RFC 2449 section 6.6."""
    async with bench(tmp_path, contents=[plain_message(1), plain_message(2)]) as here, here.logged_in() as client:
        await client.send(b"STAT\r\nLIST\r\nRETR 2\r\nDELE 1\r\nXYZZY\r\nSTAT\r\nQUIT\r\n")
        assert (await client.line()).startswith(b"+OK 2 ")
        await client.line()
        assert len((await client.rest()).split(b"\r\n")) == 3
        await client.line()
        assert await client.rest() == plain_message(2)
        answers = [await client.line() for _ in range(4)]
        assert [answer.split()[0] for answer in answers] == [b"+OK", b"-ERR", b"+OK", b"+OK"]
        assert await client.closed()


WORDS = st.one_of(
    st.sampled_from(
        [*COMMANDS, b"stls", b"APOP", b"1", b"0", b"2", b"-1", b"PLAIN", b"=", b"*", PLAIN, b"99999999999"]
    ),
    st.binary(max_size=12).filter(lambda word: b"\n" not in word),
)
LINES = st.lists(st.lists(WORDS, max_size=4).map(b" ".join), min_size=1, max_size=12)


async def _answered(here: Bench, lines: list[bytes], *, logged_in: bool) -> None:
    async with here.client() as client:
        if logged_in:
            await client.login()
        await client.send(b"".join(line + b"\r\n" for line in lines) + b"*\r\nNOOP\r\nQUIT\r\n")
        said = await asyncio.wait_for(client.reader.read(), 20)
        assert said.endswith(b"\r\n")
        assert b"Internal error" not in said
        assert said[:-2].rsplit(b"\r\n", 1)[-1].startswith((b"+OK", b"-ERR", b".")), said
    practice = here.practice
    await practice.store.write(lambda unit: unit.pop3.restore(practice.account.id, practice.clock.now(), "test"))
    assert len(await here.uidls()) == 2


def test_whatever_is_sent_is_answered_to_the_end(tmp_path: Path) -> None:
    """No crash and no hang: the session answers until it ends, and the next one finds everything as it was."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        opening = stack.enter_async_context(bench(tmp_path, contents=[plain_message(1), plain_message(2)]))
        here = runner.run(_entered(opening))
        try:

            @settings(max_examples=80, deadline=None)
            @given(lines=LINES, logged_in=st.booleans())
            def examples(lines: list[bytes], *, logged_in: bool) -> None:
                runner.run(_answered(here, lines, logged_in=logged_in))

            examples()
        finally:
            runner.run(stack.aclose())


async def _entered(opening: Awaitable[Bench]) -> Bench:
    return await opening
