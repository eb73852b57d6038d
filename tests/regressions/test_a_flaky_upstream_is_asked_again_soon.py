"""A server that ends every connection after a few messages is not put off for ever longer: mail comes in each time."""

from __future__ import annotations

from pathlib import Path

from tests.support.scripted_imap import ScriptedIMAP, Writer
from tests.unit.ingress.fetch_harness import desk_in, mail


async def test_a_backlog_that_comes_in_pieces_is_not_put_off_ever_longer(tmp_path: Path) -> None:
    async with ScriptedIMAP() as server:
        with desk_in(tmp_path, server.port) as desk:
            for number in range(12):
                server.put(mail(number))
            handed_out = 0

            def override(_tag: str, words: list[str], writer: Writer) -> bytes | None:
                nonlocal handed_out
                if words[:2] == ["UID", "FETCH"] and "BODY.PEEK[]" in " ".join(words):
                    handed_out += 1
                    if handed_out % 3 == 0:
                        writer.transport.abort()
                        return b""
                return None

            server.override = override
            fetcher = desk.fetcher()
            delays = []
            while desk.messages() < 12:
                delays.append(await fetcher.once(listen=False))
                assert len(delays) < 20
            assert max(delays[:-1]) <= 2.0, delays
