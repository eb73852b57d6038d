"""A search whose event could not be kept shows nothing; the next one shows something, so it must be written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.errors import StoreError
from tests.unit.imap.imap_harness import bench, plain_message


async def test_the_next_search_is_the_first_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:

        async def fails(*_: object, **__: object) -> None:
            raise StoreError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(here.inbox, "record", fails)
            assert await client.cmd("SEARCH ALL") == [b"NO [UNAVAILABLE] Temporary failure, please try again"]
        assert await client.ok("SEARCH ALL") == [b"* SEARCH 1"]
        assert len(await here.practice.audit("message.searched")) == 1
        assert await client.ok("SEARCH UNSEEN") == [b"* SEARCH 1"]
        assert len(await here.practice.audit("message.searched")) == 1, "one an hour says enough of those without text"
