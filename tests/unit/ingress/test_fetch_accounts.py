"""What is fetched, remembered and marked, with an honest server; and after a death at each step."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import InputError, StoreError, StoreFullError
from gateway.core.fetching import FetchState, ItemTrouble
from gateway.core.message import Inbound, Source
from tests.support.scripted_imap import ScriptedIMAP, Writer
from tests.unit.ingress.fetch_harness import ALICE, BOB, desk_in, mail


class DiedError(BaseException):
    """The process was killed here."""


@contextlib.asynccontextmanager
async def both(folder: Path, **options: Any) -> Any:
    async with ScriptedIMAP() as server:
        with desk_in(folder, server.port, **options) as desk:
            yield server, desk


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ingress.fetch_intake.PAUSE_SECONDS", 0.0)


async def test_new_mail_is_taken_in_order_and_marked(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        for number in range(3):
            server.put(mail(number))
        status = await desk.look()
        assert desk.bodies == [mail(0), mail(1), mail(2)]
        assert {inbound.envelope.mail_from for inbound in desk.accepted} == {None}
        assert {inbound.envelope.recipients for inbound in desk.accepted} == {(ALICE,)}
        assert {(inbound.source, inbound.peer) for inbound in desk.accepted} == {(Source.IMAP, "127.0.0.1")}
        assert all("\\Seen" in flags for flags in server.flags.values())
        assert (status.state, status.new, status.taken, status.error) == (FetchState.WAITING, 3, 3, "")
        assert not any("BODY[]" in said for said in server.said), "only PEEK leaves the mailbox as it is"


async def test_old_messages_are_not_searched_again(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        server.uid_next = 100_000
        server.put(mail(1))
        await desk.look()
        fetcher = desk.fetcher()
        session_said = len(server.said)
        server.put(mail(2))
        await fetcher.once(listen=False)
        searches = [said for said in server.said[session_said:] if "SEARCH" in said]
        assert searches == ["UID SEARCH UID 100001:*", "UID SEARCH UID 1:100000 UNSEEN"]
        session_said = len(server.said)
        await fetcher.once(listen=False)
        searches = [said for said in server.said[session_said:] if "SEARCH" in said]
        assert searches == ["UID SEARCH UID 100002:*"], "looks for stragglers are rare"
        assert desk.bodies == [mail(1), mail(2)]


async def test_what_bears_the_mark_at_the_first_time_is_left_and_later_is_not(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        server.put(mail(1), "\\Seen")
        server.put(mail(2))
        await desk.look()
        server.put(mail(3), "\\Seen")
        await desk.look()
        assert desk.bodies == [mail(2), mail(3)]


@pytest.mark.parametrize("step", ["before the commit", "after the commit", "at the mark"])
async def test_a_death_at_each_step_loses_and_doubles_nothing(tmp_path: Path, step: str) -> None:
    async with both(tmp_path) as (server, desk):
        for number in range(3):
            server.put(mail(number))
        deaths: list[str] = []

        def die(_inbound: object) -> None:
            if len(deaths) < 3:
                deaths.append(step)
                raise DiedError

        def at_mark(_tag: str, words: list[str], writer: Writer) -> bytes | None:
            if "STORE" in words and len(deaths) < 3:
                deaths.append(step)
                writer.transport.abort()
                return b""
            return None

        if step == "before the commit":
            desk.fail = die
        elif step == "after the commit":
            desk.fail_after = die
        else:
            server.override = at_mark
        for _ in range(6):
            with contextlib.suppress(DiedError):
                await desk.look()
        assert len(deaths) == 3
        assert sorted(desk.bodies) == sorted([mail(0), mail(1), mail(2)])
        assert desk.messages() == 3
        assert all("\\Seen" in flags for flags in server.flags.values())


@pytest.mark.parametrize("error", [StoreError("x"), StoreFullError("x"), OSError("x")])
async def test_a_fault_of_ours_leaves_the_mail_upstream(tmp_path: Path, error: Exception) -> None:
    async with both(tmp_path) as (server, desk):
        server.put(mail(1))

        def refuse(_inbound: Inbound) -> None:
            raise error

        desk.fail = refuse
        status = await desk.look()
        assert status.state is FetchState.RETRYING
        assert "mail stays upstream" in status.error
        assert server.flags[1] == set()
        desk.fail = lambda _: None
        status = await desk.look()
        assert (desk.bodies, status.error) == ([mail(1)], "")


async def test_a_full_disk_stops_before_the_download(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        server.put(mail(1))
        desk.space = False
        assert "nearly full" in (await desk.look()).error
        assert not any("BODY" in said for said in server.said)
        desk.space = True
        await desk.look()
        assert desk.bodies == [mail(1)]


async def test_a_changed_uidvalidity_doubles_nothing(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        for number in range(3):
            server.put(mail(number))
        await desk.look()
        server.uid_validity = 8
        server.messages = {number + 1: mail(n) for number, n in enumerate((2, 0, 1, 3))}
        server.flags = {uid: set() for uid in server.messages}
        server.uid_next = 5
        await desk.look()
        assert desk.bodies == [mail(0), mail(1), mail(2), mail(3)]
        assert all("\\Seen" in flags for flags in server.flags.values())


async def test_ids_that_went_back_without_a_word_lose_nothing(tmp_path: Path) -> None:
    """A server whose mailbox was restored from a backup uses ids again, under the same UIDVALIDITY."""
    async with both(tmp_path) as (server, desk):
        for number in range(3):
            server.put(mail(number))
        await desk.look()
        server.messages, server.flags, server.uid_next = {1: mail(0)}, {1: {"\\Seen"}}, 2
        await desk.look()
        server.put(mail(9))
        server.put(mail(10))
        await desk.look()
        assert desk.bodies == [mail(0), mail(1), mail(2), mail(9), mail(10)]


async def test_another_server_under_the_same_name_begins_anew(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk), ScriptedIMAP() as other:
        server.put(mail(1))
        await desk.look()
        other.put(mail(2))
        desk.account = replace(desk.account, username="clinic", mailbox="Archive", port=other.port)
        await desk.look()
        assert desk.bodies == [mail(1), mail(2)]


async def test_an_id_that_appears_late_is_found(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        server.put(mail(1))
        late = server.put(mail(2))
        server.put(mail(3))
        hidden = server.messages.pop(late)
        await desk.look()
        server.messages[late] = hidden
        await desk.look()
        assert desk.bodies == [mail(1), mail(3), mail(2)]


async def test_poison_is_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        server.put(mail(1))
        server.put(mail(2, size=2 << 20))
        unreadable = server.put(mail(3))
        refused = server.put(mail(4))
        server.put(mail(5))

        def override(tag: str, words: list[str], _writer: Writer) -> bytes | None:
            if words[:3] == ["UID", "FETCH", str(unreadable)] and "BODY.PEEK[]" in " ".join(words):
                return f"{tag} NO [EXPUNGEISSUED] cannot\r\n".encode()
            return None

        def refuse(inbound: Inbound) -> None:
            if b"X-Number: 4" in b"".join(inbound.raw.parts()):
                raise InputError("it has no form")

        server.override, desk.fail = override, refuse
        status = await desk.look()
        assert desk.bodies == [mail(1), mail(5)]
        assert {(item.uid, item.trouble) for item in desk.troubled} == {
            ("2", ItemTrouble.TOO_LARGE),
            (str(unreadable), ItemTrouble.UNREADABLE),
            (str(refused), ItemTrouble.REFUSED),
        }
        assert (status.aside, status.state) == (3, FetchState.WAITING)
        assert [uid for uid, flags in server.flags.items() if not flags] == [2, 3, 4]
        said = len(server.said)
        await desk.look()
        assert not any("BODY" in words for words in server.said[said:]), "what was set aside is left alone"

        server.override, desk.fail = lambda *_: None, lambda _: None
        for item in desk.troubled:
            desk.store.write_blocking(lambda rows, item=item: rows.fetching.retry(item, item.at))
        await desk.look(max_message_mib=4)
        assert sorted(desk.bodies) == sorted([mail(1), mail(2, size=2 << 20), mail(3), mail(4), mail(5)])
        assert desk.troubled == []
        assert all("\\Seen" in flags for flags in server.flags.values())


async def test_a_message_that_breaks_the_connection_is_set_aside(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        server.put(mail(1))
        server.put(mail(2))
        server.put(mail(3))

        def override(_tag: str, words: list[str], writer: Writer) -> bytes | None:
            if words[:3] == ["UID", "FETCH", "2"] and "BODY.PEEK[]" in " ".join(words):
                writer.transport.abort()
                return b""
            return None

        server.override = override
        for _ in range(6):
            status = await desk.look()
        assert desk.bodies == [mail(1), mail(3)]
        assert [(item.uid, item.trouble, item.attempts) for item in desk.troubled] == [("2", ItemTrouble.CONNECTION, 5)]
        assert (status.aside, status.error) == (1, "")


async def test_a_message_that_somebody_removed_is_no_trouble(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        server.put(mail(1))
        server.put(mail(2))

        def override(_tag: str, words: list[str], _writer: Writer) -> bytes | None:
            if words[:3] == ["UID", "FETCH", "1"] and "BODY.PEEK[]" in " ".join(words):
                server.messages.pop(1, None)
            return None

        server.override = override
        status = await desk.look()
        assert desk.bodies == [mail(2)]
        assert (status.aside, status.error, desk.troubled) == (0, "", [])


async def test_a_mailbox_that_takes_no_marks_is_fetched_and_said_so(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        server.put(mail(1))

        def override(tag: str, words: list[str], _writer: Writer) -> bytes | None:
            return f"{tag} NO no\r\n".encode() if "STORE" in words else None

        server.override = override
        status = await desk.look()
        assert desk.bodies == [mail(1)]
        assert "messages are fetched, but" in status.error
        server.override = lambda *_: None
        assert (await desk.look()).error == ""
        assert "\\Seen" in server.flags[1]


async def test_a_mailbox_of_two_addresses_asks_the_outer_headers(tmp_path: Path) -> None:
    async with both(tmp_path, addresses=(ALICE, BOB)) as (server, desk):
        server.put(mail(1, to=BOB))
        server.put(mail(2, to=f"{ALICE}, {BOB}"))
        server.put(mail(3, to="somebody@else.example"))
        await desk.look()
        assert [inbound.envelope.recipients for inbound in desk.accepted] == [(BOB,), (ALICE, BOB), (ALICE, BOB)]


@pytest.mark.parametrize("capabilities", ["IMAP4rev1 AUTH=PLAIN SASL-IR", "IMAP4rev1 AUTH=PLAIN", "IMAP4rev1"])
async def test_every_way_to_give_a_password(tmp_path: Path, capabilities: str) -> None:
    async with both(tmp_path) as (server, desk):
        server.capabilities = capabilities
        assert (await desk.look()).error == ""
        (tmp_path / "secret").write_text("wrong\n")
        status = await desk.look()
        assert status.state is FetchState.LOGIN_REFUSED
        assert "canary" not in status.error
        assert status.next_attempt is not None
        assert status.last_attempt is not None
        assert (status.next_attempt - status.last_attempt).total_seconds() > 200


@pytest.mark.parametrize("sasl_ir", ["SASL-IR", ""])
async def test_a_token_is_read_anew_at_each_login(tmp_path: Path, sasl_ir: str) -> None:
    async with both(tmp_path, password_file=None, oauth_token_file=tmp_path / "token") as (server, desk):
        server.capabilities = f"IMAP4rev1 AUTH=XOAUTH2 {sasl_ir}"
        assert "token" in (await desk.look()).error
        (tmp_path / "token").write_text("old\n")
        status = await desk.look()
        assert status.state is FetchState.LOGIN_REFUSED
        assert "oauth_token_file" in status.error
        (tmp_path / "token").write_text("good\n")
        assert (await desk.look()).state is FetchState.WAITING


async def test_a_server_that_is_busy_did_not_refuse_the_login(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):

        def override(tag: str, words: list[str], _writer: Writer) -> bytes | None:
            return f"{tag} NO [UNAVAILABLE] later\r\n".encode() if words[0] == "AUTHENTICATE" else None

        server.override = override
        assert (await desk.look()).state is FetchState.RETRYING


async def test_idle_tells_at_once_and_a_lost_connection_is_noticed(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        fetcher = desk.fetcher(poll_seconds=600)
        running = asyncio.ensure_future(fetcher.run())
        try:
            await _until(lambda: server.idling == 1)
            server.put(mail(1))
            server.push(b"* 1 EXISTS\r\n")
            await _until(lambda: desk.bodies == [mail(1)])
            await _until(lambda: server.idling == 1)
            for writer in list(server.sessions):
                writer.transport.abort()
            server.idling = 0
            await _until(lambda: desk.status.state is FetchState.RETRYING)
            server.put(mail(2))
            await _until(lambda: desk.bodies == [mail(1), mail(2)])
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_mail_that_is_told_of_during_another_answer_is_not_slept_over(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        server.put(mail(1))

        def override(_tag: str, words: list[str], writer: Writer) -> bytes | None:
            if "STORE" in words and 2 not in server.messages:
                server.put(mail(2))
                writer.write(b"* 2 EXISTS\r\n")
            return None

        server.override = override
        running = asyncio.ensure_future(desk.fetcher(poll_seconds=600).run())
        try:
            await _until(lambda: desk.bodies == [mail(1), mail(2)])
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_idle_is_renewed_and_a_server_without_it_is_polled(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, desk):
        running = asyncio.ensure_future(desk.fetcher(poll_seconds=1).run())
        try:
            await _until(lambda: server.said.count("IDLE") >= 3)
            assert server.logins == 1
            server.override = lambda tag, words, _w: f"{tag} BAD no\r\n".encode() if words[0] == "IDLE" else None
            await _until(lambda: server.logins >= 3)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _until(condition: Any, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
