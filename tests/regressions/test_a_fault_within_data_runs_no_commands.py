"""A fault of ours in the middle of a message was answered before its end, and the rest of it was read as commands.

Found by F05: no thread could be made to write a large message to the spool. What stood in the message as ``MAIL FROM``
was then obeyed (F17): a text could smuggle a message of its own into a gateway that was short of threads or memory.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.ingress import replies
from gateway.ingress.data_reader import DataReader
from tests.unit.ingress.smtp_harness import DOCTOR, SENDER, SETTINGS, Bench, Client, bench

SMALL_SPOOL = replace(SETTINGS, spool_above_kib=16)
SMUGGLED = f"MAIL FROM:<evil@x.example>\r\nRCPT TO:<{DOCTOR}>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n".encode()
BEFORE = b"Subject: large\r\n\r\n" + b"text\r\n" * 20_000


async def in_the_middle(client: Client) -> list[str]:
    """Send a large message whose text holds a transaction; returns everything that was answered until the end."""
    await client.begin(SENDER)
    await client.send(BEFORE)
    # What follows comes in after the fault was met.
    await asyncio.sleep(0.1)
    answered = []
    try:
        await client.send(SMUGGLED + b"NOOP\r\nQUIT\r\n")
        while reply := await client.reply():
            answered.append(reply)
    except ConnectionError:
        # Closed while we were still sending.
        pass
    return answered


def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = DataReader.feed

    def starved(self: DataReader, chunk: bytes) -> bytes | None:
        if self.size_bytes > 20_000:
            raise MemoryError
        return feed(self, chunk)

    monkeypatch.setattr(DataReader, "feed", starved)


@pytest.mark.parametrize("fault", [no_thread, no_memory])
async def test_what_follows_a_fault_within_a_message_is_no_command(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    here: Bench
    async with bench(SMALL_SPOOL) as here:
        async with here.client() as client:
            await client.ehlo()
            fault(monkeypatch)
            answered = await in_the_middle(client)
            monkeypatch.undo()
        assert here.accept.inbounds == [], "a message was smuggled"
        # One answer for the message, and it is temporary; what stands behind the true end is a command again.
        assert answered[:1] in ([], [replies.FAULT], [replies.FAULT_IN_DATA])
        assert answered[1:] in ([], [replies.OK, replies.BYE])
        await here.still_serves()
