"""``keys rotate`` beside other nodes used to make a key that they did not have, and then they could read nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.errors import ConflictError
from gateway.keys.body_key_file import new_key, ring_text
from gateway.pipeline.body_keys import rotate
from tests.support.body_keys import key_file_in
from tests.support.store_samples import NOW, SteadyClock, inbound, open_store


async def test_no_key_is_made_that_others_do_not_have(tmp_path: Path) -> None:
    ring, path, clock = key_file_in(tmp_path), tmp_path / "bodies.keys", SteadyClock()
    with open_store(tmp_path) as store:
        with pytest.raises(ConflictError, match="nothing to rotate"):
            await rotate(store, clock, ring, "cli:test", others=["b"])
        await store.write(lambda tx: tx.messages.add_raw("01", NOW, inbound(b"raw")))
        before, known = path.read_bytes(), await store.read(lambda rows: rows.body_keys.keks())
        with pytest.raises(ConflictError, match=r"other nodes run .*\(b, c\).*keys make --print.*--shared-ring"):
            await rotate(store, clock, ring, "cli:test", others=["b", "c"])
        assert path.read_bytes() == before
        assert await store.read(lambda rows: rows.body_keys.keks()) == known
        given = new_key(NOW)
        path.write_text(ring_text([given]) + before.decode())
        done = await rotate(store, clock, ring, "cli:test", others=["b", "c"])
        assert (done.kek_id, done.rewrapped) == (given.id, 1), "the key that all have been given"
        again = await rotate(store, clock, ring, "cli:test")
        assert again.made, "alone, a key is made"
