"""A client that read messages of 18 MB held two of them in the daemon: one was sent, and the next was read ahead.

The peak of ten messages of 25 MB was 201 MB, 1 MB above its bar (issue 4). What is larger than a batch is read when the
one before it has left.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.imap import fetch as fetch_module
from gateway.imap.fetch import Fetcher
from gateway.imap.fetch_columns import Batch
from tests.unit.imap.imap_harness import bench, plain_message

SMALL, LARGE = 100, 3_000


@pytest.mark.parametrize(
    ("sizes", "at_once"),
    [
        ([LARGE, LARGE, LARGE, LARGE], 1),
        ([SMALL, LARGE, SMALL, LARGE, SMALL], 1),
        ([SMALL, SMALL, SMALL, SMALL, SMALL], 2),
    ],
    ids=["large", "mixed", "small"],
)
async def test_large_messages_are_held_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int], at_once: int
) -> None:
    """Small ones go two batches at a time: one is read while the client takes the other."""
    monkeypatch.setattr(fetch_module, "BATCH_MESSAGES", 1)
    monkeypatch.setattr(fetch_module, "BATCH_BYTES", 1_000)
    held: set[int] = set()
    most = 0
    read, send_batch = Fetcher._read, Fetcher._send_batch

    async def counted_read(fetcher: Fetcher, indexes: list[int]) -> Batch:
        nonlocal most
        held.update(indexes)
        most = max(most, len(held))
        return await read(fetcher, indexes)

    async def counted_send(fetcher: Fetcher, batch: Batch) -> None:
        await send_batch(fetcher, batch)
        await asyncio.sleep(0.01)  # As to a client that takes its time: what is read ahead is begun meanwhile.
        held.difference_update(batch.indexes)

    monkeypatch.setattr(Fetcher, "_read", counted_read)
    monkeypatch.setattr(Fetcher, "_send_batch", counted_send)
    contents = [plain_message(number, b"x" * size) for number, size in enumerate(sizes)]
    async with bench(tmp_path, contents=contents) as here, here.selected() as client:
        responses = await client.ok("FETCH 1:* BODY.PEEK[]")
    assert [content in response for content, response in zip(contents, responses, strict=True)] == [True] * len(sizes)
    assert most == at_once
