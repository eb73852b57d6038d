"""An id that was gone and is listed again is a message that waits to be fetched, whatever we knew of that id."""

from __future__ import annotations

from pathlib import Path

from tests.support.scripted_imap import ScriptedIMAP, Writer
from tests.unit.ingress.fetch_harness import desk_in, mail
from tests.unit.ingress.test_fetch_pop3 import ScriptedPOP3


async def test_a_message_that_the_server_mislaid_for_a_moment_is_fetched_when_it_is_back(tmp_path: Path) -> None:
    """A replica that lags shows nothing under an id that it will show in a moment."""
    async with ScriptedIMAP() as server:
        with desk_in(tmp_path, server.port) as desk:
            server.put(mail(1))
            server.put(mail(2))
            mislaid: list[bytes] = []

            def override(_tag: str, words: list[str], _writer: Writer) -> bytes | None:
                if words[:3] == ["UID", "FETCH", "1"] and "BODY.PEEK[]" in " ".join(words):
                    mislaid.append(server.messages.pop(1))
                return None

            server.override = override
            await desk.look()
            assert desk.bodies == [mail(2)]
            server.override = lambda *_: None
            server.messages[1] = mislaid[0]
            await desk.look()
            assert desk.bodies == [mail(2), mail(1)]
            assert desk.status.taken == 2
            assert "\\Seen" in server.flags[1]


async def test_an_id_that_a_pop3_server_gives_out_again_after_a_deletion_is_another_message(tmp_path: Path) -> None:
    """RFC 1939 section 7 forbids that only for as long as the first message is there."""
    async with ScriptedPOP3() as server:
        with desk_in(tmp_path, server.port, protocol="pop3", after="delete") as desk:
            server.messages["00000001"] = mail(1)
            await desk.look()
            await desk.look()
            assert server.messages == {}
            server.messages["00000001"] = mail(2)
            await desk.look()
            await desk.look()
            assert desk.bodies == [mail(1), mail(2)]
            assert server.messages == {}
            assert (desk.messages(), desk.status.taken, desk.status.waiting) == (2, 1, 0)


async def test_a_new_message_under_the_id_of_a_deleted_one_is_not_deleted_unread(tmp_path: Path) -> None:
    """It came before the gateway could see that the first one was gone."""
    async with ScriptedPOP3() as server:
        with desk_in(tmp_path, server.port, protocol="pop3", after="delete") as desk:
            server.messages["00000001"] = mail(1)
            await desk.look()
            assert server.messages == {}
            server.messages["00000001"] = mail(2)
            await desk.look()
            assert desk.bodies == [mail(1), mail(2)]
            assert server.messages == {}


async def test_an_id_that_a_pop3_server_gives_out_again_after_somebody_else_deleted(tmp_path: Path) -> None:
    async with ScriptedPOP3() as server:
        with desk_in(tmp_path, server.port, protocol="pop3") as desk:
            server.messages["00000001"] = mail(1)
            await desk.look()
            server.messages.clear()
            await desk.look()
            server.messages["00000001"] = mail(2)
            await desk.look()
            assert desk.bodies == [mail(1), mail(2)]
            # And the same one, put back from a backup, is the same one.
            server.messages.clear()
            await desk.look()
            server.messages["00000001"] = mail(1)
            await desk.look()
            assert desk.messages() == 2
