"""A hostile or broken upstream server costs bounded memory and time, holds up no other, and gets nothing from us."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.core.fetching import FetchState, ItemTrouble
from tests.support.scripted_imap import ScriptedIMAP, Writer
from tests.unit.ingress.fetch_harness import desk_in, mail

Override = Callable[[str, list[str], Writer], Any]


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ingress.fetch_intake.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("gateway.ingress.imap_fetch.SILENCE_SECONDS", 1.0)
    monkeypatch.setattr("gateway.ingress.imap_fetch.CONNECT_SECONDS", 2.0)
    monkeypatch.setattr("gateway.ingress.imap_fetch._CLOSE_SECONDS", 0.5)


@contextlib.asynccontextmanager
async def both(folder: Path, **options: Any) -> Any:
    async with ScriptedIMAP() as server:
        with desk_in(folder, server.port, **options) as desk:
            yield server, desk


def on(name: str, answer: bytes | Callable[[str, Writer], Any]) -> Override:
    """Answer the command, which is the first or second word, so."""

    def override(tag: str, words: list[str], writer: Writer) -> Any:
        if name not in words[:2]:
            return None
        return answer if isinstance(answer, bytes) else answer(tag, writer)

    return override


def body(data: bytes) -> Override:
    """Answer so when a message is asked for, and honestly otherwise."""

    def override(tag: str, words: list[str], _writer: Writer) -> bytes | None:
        return data.replace(b"TAG", tag.encode()) if "BODY.PEEK[]" in " ".join(words) else None

    return override


GARBAGE = {
    "binary": bytes(range(256)) * 40,
    "an unknown tag": b"X999 OK who?\r\n",
    "an endless line": b"* OK " + b"x" * 300_000,
    "thousands of lines": b"* \r\n" * 20_000,
    "a literal of a terabyte": b"* 1 FETCH (UID 1 BODY[] {1099511627776}\r\n",
    "a size of thousands of digits": b"* 1 FETCH (UID 1 BODY[] {" + b"9" * 6_000 + b"}\r\n",
    "literals within literals": b"* 1 FETCH (BODY[] {2}\r\n{3}\r\n {4}\r\n" * 50,
    "continuations": b"+ go on\r\n" * 6_000,
    "a wrong character": b"* \xff\xfe FETCH (\r\n",
}


@pytest.mark.parametrize("command", ["CAPABILITY", "AUTHENTICATE", "SELECT", "SEARCH", "FETCH", "STORE"])
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_ends_the_connection_and_nothing_else(tmp_path: Path, command: str, garbage: bytes) -> None:
    async with both(tmp_path) as (server, desk):
        server.put(mail(1))
        server.override = on(command, garbage)
        begun = time.process_time()
        status = await asyncio.wait_for(desk.look(), 20)
        assert time.process_time() - begun < 5
        assert status.state is FetchState.RETRYING or (command == "STORE" and desk.bodies == [mail(1)])
        server.override = lambda *_: None
        await desk.look()
        assert desk.bodies == [mail(1)]
        assert desk.status.error == ""


@pytest.mark.parametrize("greeting", [b"* BYE busy\r\n", b"220 smtp ready\r\n", b"", b"\0" * 100_000])
async def test_a_bad_greeting_ends_it(tmp_path: Path, greeting: bytes) -> None:
    async with both(tmp_path) as (server, desk):
        server.greeting = greeting
        status = await asyncio.wait_for(desk.look(), 10)
        assert status.state is FetchState.RETRYING
        assert server.logins == 0


async def test_slow_bytes_do_not_hold_us_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the answer never does."""
    monkeypatch.setattr("gateway.ingress.imap_upstream.LISTING_SECONDS", 2.0)

    async def drip(_tag: str, writer: Writer) -> bytes:
        for _ in range(200):
            writer.write(b"*")
            await writer.drain()
            await asyncio.sleep(0.1)
        return b""

    async with both(tmp_path) as (server, desk):
        server.put(mail(1))
        server.override = on("SEARCH", drip)
        begun = time.monotonic()
        status = await desk.look()
        assert time.monotonic() - begun < 6
        assert "in time" in status.error


async def test_a_literal_larger_than_said_is_cut_off(tmp_path: Path) -> None:
    """RFC822.SIZE says ten bytes, the literal is beyond the limit: set aside, and never read into memory."""
    async with both(tmp_path) as (server, desk):
        server.put(mail(1))
        server.put(mail(2))

        def override(tag: str, words: list[str], _writer: Writer) -> bytes | None:
            if words[2:3] == ["1"] and "BODY.PEEK[]" in " ".join(words):
                return b"* 1 FETCH (UID 1 BODY[] {200000000}\r\n" + b"x" * 1_000_000
            return None

        server.override = override
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await desk.look()
        await desk.look()
        assert [(item.uid, item.trouble) for item in desk.troubled] == [("1", ItemTrouble.TOO_LARGE)]
        assert desk.bodies == [mail(2)]
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 50_000


async def test_a_message_larger_than_the_server_said_is_fetched_at_the_second_try(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        large = mail(1, size=500_000)
        server.put(large)

        def override(tag: str, words: list[str], _writer: Writer) -> bytes | None:
            if words[1:2] == ["FETCH"] and "RFC822.SIZE" in " ".join(words):
                return f"* 1 FETCH (UID 1 RFC822.SIZE 10)\r\n{tag} OK done\r\n".encode()
            return None

        server.override = override
        fetcher = desk.fetcher()
        await fetcher.once(listen=False)
        await fetcher.once(listen=False)
        assert desk.bodies == [large]


@pytest.mark.parametrize(
    "answer",
    [
        b"TAG OK nothing\r\n",
        b"* 1 FETCH (UID 2 BODY[] {5}\r\nother)\r\nTAG OK another one\r\n",
        b"* 1 FETCH (UID 1 BODY[] NIL)\r\nTAG OK nil\r\n",
        b"* 1 FETCH (UID 1 BODY[] {0}\r\n)\r\nTAG OK empty\r\n",
        b"* 1 FETCH (UID 1 BODY[] {3}\r\none BODY[] {3}\r\ntwo)\r\nTAG OK two at once\r\n",
        b"TAG NO [SERVERFAULT] canary\r\n",
        b"TAG BAD canary\r\n",
    ],
)
async def test_an_answer_without_the_message_is_not_taken_for_it(tmp_path: Path, answer: bytes) -> None:
    async with both(tmp_path) as (server, desk):
        server.put(mail(1))
        server.override = body(answer)
        status = await desk.look()
        assert desk.bodies == []
        assert [(item.uid, item.trouble) for item in desk.troubled] == [("1", ItemTrouble.UNREADABLE)]
        assert "canary" not in status.error
        assert server.flags[1] == set()


async def test_unsolicited_data_does_not_confuse(tmp_path: Path) -> None:
    noise = b"* 7 EXISTS\r\n* 3 FETCH (FLAGS (\\Seen) UID 9)\r\n* 1 EXPUNGE\r\n* OK [ALERT] {x}\r\n* SEARCHING\r\n"
    async with both(tmp_path) as (server, desk):
        for number in range(3):
            server.put(mail(number))

        def override(_tag: str, _words: list[str], writer: Writer) -> None:
            writer.write(noise)

        server.override = override
        status = await desk.look()
        assert (desk.bodies, status.error) == ([mail(0), mail(1), mail(2)], "")


@pytest.mark.parametrize(
    "found", [b"* SEARCH 1 two 3\r\nTAG OK\r\n", b"* SEARCH 99999999999\r\nTAG OK\r\n", b"TAG NO cannot\r\n"]
)
async def test_a_search_that_makes_no_sense_is_not_believed(tmp_path: Path, found: bytes) -> None:
    async with both(tmp_path) as (server, desk):
        server.put(mail(1))
        server.override = on("SEARCH", lambda tag, _writer: found.replace(b"TAG", tag.encode()))
        assert (await desk.look()).state is FetchState.RETRYING
        server.override = lambda *_: None
        await desk.look()
        assert desk.bodies == [mail(1)]


async def test_wrong_counts_and_ids_that_are_not_there(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        server.put(mail(1))

        def override(tag: str, words: list[str], _writer: Writer) -> bytes | None:
            if words[:2] == ["UID", "SEARCH"] and len(words) < 5 and "UID" not in words[2:]:
                return f"* SEARCH 1 5 6 4294967295 4294967296 0\r\n{tag} OK\r\n".encode()
            return None

        server.override = override
        status = await desk.look()
        assert (desk.bodies, status.error, desk.troubled) == ([mail(1)], "", [])


async def test_starttls_comes_before_the_password_and_injected_data_is_refused(tmp_path: Path) -> None:
    async with both(tmp_path, tls="starttls") as (server, desk):
        refused = await desk.look()
        assert "STARTTLS" in refused.error
        server.override = on("STARTTLS", lambda tag, _w: f"{tag} OK go\r\n* CAPABILITY injected\r\n".encode())
        assert "in the clear" in (await desk.look()).error
        server.greeting = b"* PREAUTH come in\r\n"
        assert "without TLS" in (await desk.look()).error
        assert server.logins == 0


async def test_a_server_that_speaks_no_tls_gets_nothing(tmp_path: Path) -> None:
    async with both(tmp_path, tls="implicit") as (server, desk):
        status = await asyncio.wait_for(desk.look(), 10)
        assert "TLS" in status.error
        assert server.logins == 0
        assert not any("clinic" in said or "good" in said for said in server.said)


async def test_no_plain_text_leaves_this_machine(tmp_path: Path) -> None:
    """The name is a loopback one and leads elsewhere: nothing is said there."""
    from gateway.core.fetch_settings import FetchSettings
    from gateway.core.fetching import UpstreamError
    from gateway.ingress.upstream_login import check_peer

    class Elsewhere:
        def get_extra_info(self, _name: str) -> tuple[str, int]:
            return ("192.0.2.1", 143)

    with pytest.raises(UpstreamError, match="not this machine"):
        check_peer(FetchSettings(host="localhost", tls="none"), Elsewhere())


async def test_a_slow_account_holds_up_no_other(tmp_path: Path) -> None:
    async def never(_tag: str, _writer: Writer) -> bytes:
        await asyncio.sleep(30)
        return b""

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with both(tmp_path / "a") as (slow, first), both(tmp_path / "b") as (quick, second):
        slow.put(mail(1))
        quick.put(mail(2))
        slow.override = on("FETCH", never)
        waiting = asyncio.ensure_future(first.look())
        begun = time.monotonic()
        await second.look()
        assert second.bodies == [mail(2)]
        assert time.monotonic() - begun < 2
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


def test_the_context_verifies_names_and_wants_tls_12(tmp_path: Path) -> None:
    from gateway.core.fetch_settings import FetchSettings
    from gateway.ingress.upstream_login import tls_context

    context = tls_context(FetchSettings())
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
