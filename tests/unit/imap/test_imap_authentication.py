"""OAUTHBEARER (RFC 7628), limits that only the owner of a secret is told, and sessions that somebody ends (EP-20)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.core.errors import KeyUnavailableError, StoreError, TooManySessionsError
from gateway.ports import Account
from tests.unit.imap.imap_harness import LOGIN, PASSWORD, Bench, RawClient, bench, plain_message, quoted

TOKEN = "eyJ.good.token"
CHALLENGE = {"status": "invalid_token", "schemes": "bearer"}


def bearer(token: str = TOKEN, head: str = "n,,") -> bytes:
    return base64.b64encode(f"{head}\1host=localhost\1port=993\1auth=Bearer {token}\1\1".encode())


def with_tokens(here: Bench) -> None:
    here.authenticator.takes_tokens = True
    here.authenticator.tokens = {TOKEN: here.practice.account}


class Handle:
    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.over = 0
        self.interrupt: Callable[[], object] | None = None

    def on_end(self, interrupt: Callable[[], object]) -> None:
        self.interrupt = interrupt
        if self.ended.is_set():
            interrupt()

    async def end(self) -> None:
        self.over += 1

    def end_from_outside(self) -> None:
        self.ended.set()
        if self.interrupt is not None:
            self.interrupt()


class Registry:
    def __init__(self) -> None:
        self.handles: list[Handle] = []
        self.ended_at_once = False

    def begin(self, account: Account, protocol: str, peer: str) -> Handle:
        assert (account.login, protocol, peer) == (LOGIN, "imap", "127.0.0.1")
        handle = Handle()
        if self.ended_at_once:
            handle.ended.set()
        self.handles.append(handle)
        return handle


async def refusal(client: RawClient, response: bytes) -> None:
    """The challenge, which says nothing of the cause, the client's answer, and the NO."""
    await client.send(b"t AUTHENTICATE OAUTHBEARER " + response + b"\r\n")
    challenge = await client.response()
    assert challenge.startswith(b"+ ")
    assert json.loads(base64.b64decode(challenge[2:])) == CHALLENGE
    await client.send(b"AQ==\r\n")
    assert await client.response() == b"t NO [AUTHENTICATIONFAILED] Wrong login or password"


async def test_the_mechanism_is_there_only_where_tokens_are_taken(tmp_path: Path) -> None:
    async with bench(tmp_path) as here:
        async with here.client() as client:
            assert b"OAUTHBEARER" not in (await client.ok("CAPABILITY"))[0]
            assert (await client.cmd(b"AUTHENTICATE OAUTHBEARER " + bearer()))[-1].startswith(b"NO [CANNOT]")
        with_tokens(here)
        async with here.client() as client:
            offered = (await client.ok("CAPABILITY"))[0].split()
            assert {b"AUTH=PLAIN", b"AUTH=OAUTHBEARER", b"SASL-IR"} <= set(offered)
            assert b"AUTH=XOAUTH2" not in offered
        async with here.client(tls=False) as client:
            assert b"AUTH=" not in (await client.ok("CAPABILITY"))[0]
            assert (await client.cmd(b"AUTHENTICATE OAUTHBEARER " + bearer()))[-1].startswith(b"NO [PRIVACYREQUIRED]")
        assert here.authenticator.calls == []


async def test_a_good_token_logs_in_with_and_without_an_initial_response(tmp_path: Path) -> None:
    async with bench(tmp_path) as here:
        with_tokens(here)
        async with here.client() as client:
            text = await client.cmd(b"AUTHENTICATE OAUTHBEARER " + bearer(head=f"n,a={LOGIN},"))
            assert text[-1].startswith(b"OK [CAPABILITY ")
            assert b"AUTH=" not in text[-1]
            await client.ok("SELECT INBOX")
        async with here.client() as client:
            await client.send(b"t authenticate oauthbearer\r\n")
            assert await client.response() == b"+ "
            await client.send(bearer(head="y,,") + b"\r\n")
            assert (await client.response()).startswith(b"t OK ")
        assert [login for login, _ in here.authenticator.calls] == [LOGIN, ""]


async def test_a_bad_token_gets_a_challenge_and_then_no_and_the_connection_goes_on(tmp_path: Path) -> None:
    async with bench(tmp_path) as here:
        with_tokens(here)
        async with here.client() as client:
            await refusal(client, bearer("eyJ.bad.token"))
            await refusal(client, bearer("eyJ.bad.token", f"n,a={LOGIN},"))
            await client.login()


@pytest.mark.parametrize(
    "response",
    [b"rubbish", b"=", base64.b64encode(b"p=tls-unique,,\1auth=Bearer x\1\1"), base64.b64encode(b"n,,\1\1"),
     base64.b64encode(b"n,,\1auth=Basic x\1\1"), base64.b64encode(b"n,,\1auth=Bearer \xff\1\1"), bearer()[:-4]],
)  # fmt: skip
async def test_what_is_no_response_of_the_mechanism_is_bad(tmp_path: Path, response: bytes) -> None:
    async with bench(tmp_path) as here:
        with_tokens(here)
        async with here.client() as client:
            assert (await client.cmd(b"AUTHENTICATE OAUTHBEARER " + response))[-1].startswith(b"BAD ")
            await client.login()
        assert len(here.authenticator.calls) == 1


async def test_a_client_may_cancel(tmp_path: Path) -> None:
    async with bench(tmp_path) as here:
        with_tokens(here)
        async with here.client() as client:
            await client.send(b"t AUTHENTICATE OAUTHBEARER\r\n")
            assert await client.response() == b"+ "
            await client.send(b"*\r\n")
            assert (await client.response()).startswith(b"t BAD ")
            await client.login()


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (TooManySessionsError("x"), b"NO [LIMIT]"),
        (StoreError("x"), b"NO [UNAVAILABLE]"),
        (KeyUnavailableError("x"), b"NO [UNAVAILABLE]"),
    ],
)
async def test_who_cannot_be_let_in_now_is_told_and_may_come_again(
    tmp_path: Path, error: Exception, answer: bytes
) -> None:
    async with bench(tmp_path) as here, here.client() as client:
        here.authenticator.error = error
        command = b"LOGIN " + LOGIN.encode() + b" " + quoted(PASSWORD)
        for _ in range(7):
            # It is no failure of the client: the connection is not closed after five of them.
            assert (await client.cmd(command))[-1].startswith(answer)
        here.authenticator.error = None
        await client.login()


@pytest.mark.parametrize("doing", ["nothing", "idle", "a command on its way"])
async def test_a_session_that_somebody_ends_says_bye_and_closes(tmp_path: Path, doing: str) -> None:
    registry = Registry()
    async with bench(tmp_path, sessions=registry) as here, here.client() as client:
        await client.login()
        await client.ok("SELECT INBOX")
        if doing == "idle":
            await client.send(b"i IDLE\r\n")
            assert await client.response() == b"+ idling"
        if doing == "a command on its way":
            await client.send(b"x NO")
        registry.handles[0].end_from_outside()
        assert await client.response() == b"* BYE The session was ended by an operator"
        assert await client.closed()
        assert registry.handles[0].over == 1


async def test_a_session_that_was_ended_before_it_began_is_told_so(tmp_path: Path) -> None:
    registry = Registry()
    registry.ended_at_once = True
    async with bench(tmp_path, sessions=registry) as here, here.client() as client:
        await client.send(b"t LOGIN " + LOGIN.encode() + b" " + quoted(PASSWORD) + b"\r\n")
        lines = [await client.response(), await client.response()]
        assert b"* BYE The session was ended by an operator" in lines
        assert registry.handles[0].over == 1


async def test_an_answer_that_nobody_reads_does_not_keep_a_session(tmp_path: Path) -> None:
    registry = Registry()
    large = plain_message(1) + b"x" * 3_000_000
    async with bench(tmp_path, contents=[large], sessions=registry) as here, here.client() as client:
        await client.login()
        await client.ok("SELECT INBOX")
        for number in range(10):
            await client.send(b"f%d FETCH 1 BODY.PEEK[]\r\n" % number)
        await asyncio.sleep(0.3)
        registry.handles[0].end_from_outside()
        async with asyncio.timeout(10):
            while not registry.handles[0].over or here.listener.connections:
                await asyncio.sleep(0.01)


async def test_every_end_is_told(tmp_path: Path) -> None:
    registry = Registry()
    async with bench(tmp_path, sessions=registry) as here:
        async with here.client() as client:
            await client.login()
            await client.ok("LOGOUT")
        async with here.client() as client:
            await client.login()
        async with here.client() as client:
            assert (await client.cmd(b"LOGIN x y"))[-1].startswith(b"NO")
        async with asyncio.timeout(10):
            while here.listener.connections:
                await asyncio.sleep(0.01)
        assert [handle.over for handle in registry.handles] == [1, 1]
        assert not any(handle.ended.is_set() for handle in registry.handles)
