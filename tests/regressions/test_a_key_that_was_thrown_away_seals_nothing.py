"""A key is taken into use only while it is in its ring on the disk, whatever a process remembers of the ring.

``keys rotate`` puts a new key into the ring and takes it into use a moment later. A ``keys retire`` of it found it
unused and threw it away just after it had come into use; the rotation still had it in memory, wrapped the key of every
stored message under it, and ended: nothing could be read ever again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from gateway.core.errors import KeyUnavailableError
from gateway.core.lifecycle import State
from gateway.keys.body_key_file import KeyFile, new_key, ring_text
from gateway.keys.body_sealer import AESBodySealer
from gateway.pipeline.body_keys import retire, rotate
from gateway.ports import UnitOfWork
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import key_file_in
from tests.support.store_samples import NOW, SteadyClock, inbound, settings_for


def keep(store: SQLStore, number: int) -> str:
    at = NOW + timedelta(seconds=number)
    message_id = new_id(at)

    def work(rows: UnitOfWork) -> None:
        rows.messages.add_raw(message_id, at, inbound(b"raw %d" % number))
        rows.messages.set_state(message_id, State.RECEIVED, at)

    store.write_blocking(work)
    return message_id


def read_by_a_new_process(folder: Path, ids: list[str]) -> list[bytes]:
    with SQLStore.open(settings_for(folder), AESBodySealer(KeyFile(folder / "bodies.keys")), daemon=True) as store:
        return [store.read_blocking(lambda rows, one=one: rows.messages.raw(one)).body for one in ids]  # type: ignore[misc]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    with SQLStore.open(settings_for(tmp_path), AESBodySealer(key_file_in(tmp_path))) as opened:
        yield opened


class Retiring(KeyFile):
    """The ring of a retirement that is slow to remove: another command may take the key into use meanwhile."""

    store: SQLStore
    about_to_remove: threading.Event

    def remove_key(self, kek_id: str) -> bool:
        self.about_to_remove.set()
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            if kek_id in {use.kek_id for use in self.store.read_blocking(lambda rows: rows.body_keys.keks())}:
                break
            time.sleep(0.01)
        return super().remove_key(kek_id)


class Rotating(KeyFile):
    """The ring of a rotation beside which its new key is retired."""

    store: SQLStore
    thread: threading.Thread

    def make_key(self, at: datetime) -> str:
        made = super().make_key(at)
        other = Retiring(self._path)
        other.store, other.about_to_remove = self.store, threading.Event()
        work = lambda: asyncio.run(retire(self.store, SteadyClock(), other, "cli:other", made))  # noqa: E731
        self.thread = threading.Thread(target=work)
        self.thread.start()
        assert other.about_to_remove.wait(10)
        return made


async def test_a_new_key_that_is_retired_at_its_first_use_takes_no_mail_with_it(
    tmp_path: Path, store: SQLStore
) -> None:
    ids = [keep(store, number) for number in range(3)]
    ring = Rotating(tmp_path / "bodies.keys")
    ring.store = store
    with pytest.raises(KeyUnavailableError):
        await rotate(store, SteadyClock(), ring, "cli:test")
    ring.thread.join(10)
    store.close()
    assert read_by_a_new_process(tmp_path, ids) == [b"raw 0", b"raw 1", b"raw 2"]


async def test_the_first_message_rests_on_a_key_that_is_on_the_disk(tmp_path: Path, store: SQLStore) -> None:
    """The file was exchanged while the gateway ran and had sealed nothing yet."""
    key_file_in(tmp_path)
    store._sealer.keys.ids()  # It has read the ring
    (tmp_path / "bodies.keys").write_text(ring_text([new_key(NOW)]))
    ids = [keep(store, 1)]
    store.close()
    assert read_by_a_new_process(tmp_path, ids) == [b"raw 1"]
