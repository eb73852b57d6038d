"""Rotation of the keys that stored messages rest on (F33), without processes: what each step leaves."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.errors import ConfigurationError, ConflictError, KeyUnavailableError, NotFoundError, StoreError
from gateway.core.lifecycle import State
from gateway.keys.body_key_file import KeyFile
from gateway.keys.body_sealer import AESBodySealer
from gateway.pipeline import body_keys
from gateway.pipeline.body_keys import Rotation, keys_in_order, retire, rotate
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import key_file_in
from tests.support.store_samples import NOW, SteadyClock, accepted, inbound, indexed, settings_for


@dataclass
class World:
    """A store, its ring as a command sees it, and another process beside it."""

    folder: Path
    store: SQLStore
    ring: KeyFile
    clock: SteadyClock
    count: int = 0

    def keep(self, store: SQLStore | None = None) -> str:
        """One more filed message; through another process's store when one is given."""
        self.count += 1
        at = NOW + timedelta(seconds=self.count)
        message_id = new_id(at)
        content = b"Subject: %d\r\n\r\ntext" % self.count
        judgement = accepted(content=content)

        def work(tx: object) -> None:
            tx.messages.add_raw(message_id, at, inbound(b"raw %d" % self.count))  # type: ignore[attr-defined]
            tx.messages.set_state(message_id, State.RECEIVED, at)  # type: ignore[attr-defined]
            tx.messages.add_verdict(message_id, at, judgement)  # type: ignore[attr-defined]
            tx.messages.add_content(message_id, judgement)  # type: ignore[attr-defined]
            tx.mailboxes.add(1, message_id, judgement.content_sha256, indexed(content), at)  # type: ignore[attr-defined]

        (store or self.store).write_blocking(work)
        return message_id

    def beside(self) -> SQLStore:
        """The store as another process has it, which read the ring when it started."""
        ring = KeyFile(self.folder / "bodies.keys")
        ring.ids()
        return SQLStore.open(settings_for(self.folder), AESBodySealer(ring))

    async def rotate(self, progress: Callable[[Rotation], None] = lambda _: None) -> Rotation:
        self.clock.advance(1)
        return await rotate(self.store, self.clock, self.ring, "cli:test", progress=progress)

    def resting(self) -> dict[str, int]:
        with closing(sqlite3.connect(self.store.path)) as other:
            return dict(other.execute("SELECT kek_id, count(*) FROM wrapped_key GROUP BY kek_id").fetchall())

    def readable(self, ids: list[str]) -> bool:
        """Whether a process that starts now reads all of them."""
        with SQLStore.open(
            settings_for(self.folder), AESBodySealer(KeyFile(self.folder / "bodies.keys")), daemon=True
        ) as new:
            for message_id in ids:
                new.read_blocking(lambda tx, m=message_id: (tx.messages.raw(m), tx.messages.content(m)))  # type: ignore[misc]
            return len(
                new.read_blocking(lambda tx: tx.mailboxes.search_text(1, "text", headers=False, body=True))
            ) == len(ids)

    def audit(self) -> list[str]:
        with closing(sqlite3.connect(self.store.path)) as other:
            return [
                row[0]
                for row in other.execute("SELECT action FROM audit_event WHERE action LIKE 'keys.%' ORDER BY seq")
            ]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(body_keys, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(body_keys, "BATCH", 4)
    ring = key_file_in(tmp_path)
    with SQLStore.open(settings_for(tmp_path), AESBodySealer(ring)) as store:
        store.write_blocking(lambda tx: tx.mailboxes.create("all", NOW, []))
        yield World(tmp_path, store, ring, SteadyClock())


async def test_every_message_comes_under_the_new_key_and_no_body_is_touched(world: World) -> None:
    ids = [world.keep() for _ in range(11)]
    first = world.ring.current_id
    with closing(sqlite3.connect(world.store.path)) as other:
        bodies = other.execute("SELECT * FROM body_part ORDER BY 1, 2, 3").fetchall()
    steps: list[int] = []
    done = await world.rotate(lambda rotation: steps.append(rotation.rewrapped))
    assert (done.made, done.total, done.rewrapped, done.damaged) == (True, 11, 11, [])
    assert steps == [0, 4, 8, 11], "bounded batches, each told"
    assert world.resting() == {done.kek_id: 11}
    assert done.kek_id != first
    with closing(sqlite3.connect(world.store.path)) as other:
        assert other.execute("SELECT * FROM body_part ORDER BY 1, 2, 3").fetchall() == bodies
    assert world.readable(ids)
    assert world.audit() == ["keys.rotation_begun", "keys.rotated"]
    [new, old] = await keys_in_order(world.store, world.ring)
    assert (new.kek_id, new.messages, new.current, new.at_hand) == (done.kek_id, 11, True, True)
    assert (old.kek_id, old.messages, old.current, old.at_hand) == (first, 0, False, True)


async def test_the_old_key_opens_nothing_any_more(world: World) -> None:
    """That the test above is not fooled: with the old ring alone nothing can be read."""
    message_id = world.keep()
    before = (world.folder / "bodies.keys").read_bytes()
    await world.rotate()
    old = world.folder / "old.keys"
    old.write_bytes(before)
    with (
        SQLStore.open(settings_for(world.folder), AESBodySealer(KeyFile(old))) as store,
        pytest.raises(KeyUnavailableError),
    ):
        store.read_blocking(lambda tx: tx.messages.raw(message_id))


async def test_a_process_that_does_not_know_the_new_key_takes_it_up_with_its_next_message(world: World) -> None:
    with world.beside() as daemon:
        world.keep(daemon)
        done = await world.rotate()
        ids = [world.keep(daemon)]
        assert world.resting() == {done.kek_id: 2}
        assert daemon.read_blocking(lambda tx: tx.messages.raw(ids[0])).body == b"raw 2"


async def test_a_process_beside_reads_what_was_wrapped_anew(world: World) -> None:
    with world.beside() as daemon:
        message_id = world.keep(daemon)
        await world.rotate()
        assert daemon.read_blocking(lambda tx: tx.messages.raw(message_id)).body == b"raw 1"


async def test_a_node_without_the_new_key_goes_on_with_the_old_one_and_loses_nothing(
    world: World, tmp_path: Path
) -> None:
    """Its copy of the ring comes later than the rotation."""
    world.keep()
    first = world.ring.current_id
    copy = world.folder / "copy.keys"
    copy.write_bytes((world.folder / "bodies.keys").read_bytes())
    with SQLStore.open(settings_for(world.folder), AESBodySealer(KeyFile(copy))) as node:
        world.keep(node)
        done = await world.rotate()
        late = world.keep(node)
        assert world.resting() == {done.kek_id: 2, first: 1}
        with pytest.raises(ConflictError, match=f"1 messages rest on the key {first}"):
            await retire(world.store, world.clock, world.ring, "cli:test", first)
        copy.write_bytes((world.folder / "bodies.keys").read_bytes())
        world.keep(node)
        assert world.resting() == {done.kek_id: 3, first: 1}
        again = await world.rotate()
        assert (again.made, again.kek_id, again.rewrapped) == (False, done.kek_id, 1)
        assert node.read_blocking(lambda tx: tx.messages.raw(late)).body == b"raw 3"


# --- cut short ---


class Killed(Exception):  # noqa: N818 - it stands for a kill
    """The process ends here."""


async def test_cut_short_in_the_batches_it_goes_on_and_makes_no_other_key(world: World) -> None:
    ids = [world.keep() for _ in range(11)]
    first = world.ring.current_id

    def dies(rotation: Rotation) -> None:
        if rotation.rewrapped >= 8:
            raise Killed

    with pytest.raises(Killed):
        await world.rotate(dies)
    assert world.resting() == {world.ring.current_id: 8, first: 3}
    ids.append(world.keep())
    assert world.readable(ids)
    with pytest.raises(ConflictError, match="3 messages rest"):
        await retire(world.store, world.clock, world.ring, "cli:test", first)
    done = await world.rotate()
    assert (done.made, done.total, done.rewrapped) == (False, 3, 3)
    assert world.ring.ids() == (done.kek_id, first)
    assert world.resting() == {done.kek_id: 12}
    assert world.readable(ids)


async def test_cut_short_before_the_store_knows_the_key_it_takes_that_one(world: World) -> None:
    ids = [world.keep()]
    made = KeyFile(world.folder / "bodies.keys").make_key(NOW)
    ids.append(world.keep())
    assert len(world.resting()) == 1, "nothing is sealed under a key that the store does not know"
    world.ring.reload()
    assert next(line.since for line in await keys_in_order(world.store, world.ring)) == ""
    done = await world.rotate()
    assert (done.made, done.kek_id, done.rewrapped) == (True, made, 2)
    assert len(world.ring.ids()) == 2
    assert world.readable(ids)


async def test_two_rotations_at_once_end_under_one_key(world: World) -> None:
    ids = [world.keep() for _ in range(9)]
    with world.beside() as beside:
        other_ring = KeyFile(world.folder / "bodies.keys")
        overtaken: list[Rotation] = []

        async def second() -> None:
            overtaken.append(await rotate(beside, SteadyClock(NOW + timedelta(days=1)), other_ring, "cli:other"))

        results = await asyncio.gather(world.rotate(), second())
    newest = world.store.read_blocking(lambda tx: tx.body_keys.newest())
    assert world.resting() == {newest: 9}
    assert newest in {results[0].kek_id, overtaken[0].kek_id}
    assert world.readable(ids)


async def test_a_damaged_key_stops_neither_this_rotation_nor_the_next(world: World) -> None:
    ids = [world.keep() for _ in range(6)]
    first = world.ring.current_id
    with closing(sqlite3.connect(world.store.path)) as other, other:
        other.execute("UPDATE wrapped_key SET wrapped = zeroblob(length(wrapped)) WHERE message_id = ?", (ids[2],))
    done = await world.rotate()
    assert (done.rewrapped, done.damaged) == (5, [ids[2]])
    assert world.resting() == {done.kek_id: 5, first: 1}
    with pytest.raises(ConflictError, match="1 messages rest"):
        await retire(world.store, world.clock, world.ring, "cli:test", first)
    again = await world.rotate()
    assert (again.made, again.rewrapped, again.damaged) == (True, 5, [ids[2]])
    with pytest.raises(StoreError, match=ids[2]):
        world.store.read_blocking(lambda tx: tx.messages.raw(ids[2]))


async def test_nothing_is_changed_while_a_key_that_mail_rests_on_is_missing(world: World) -> None:
    world.keep()
    path = world.folder / "bodies.keys"
    first = world.ring.current_id
    path.unlink()
    KeyFile(path).create(NOW)
    before = path.read_bytes()
    with pytest.raises(KeyUnavailableError, match=f"the key {first}, which stored mail rests on, is not at hand"):
        await world.rotate()
    assert path.read_bytes() == before
    [spare, lost] = await keys_in_order(world.store, world.ring)
    assert (lost.kek_id, lost.at_hand, lost.messages) == (first, False, 1)
    assert (spare.since, spare.messages, spare.at_hand) == ("", 0, True)


# --- retiring ---


async def test_a_key_is_retired_when_nothing_rests_on_it(world: World) -> None:
    ids = [world.keep()]
    first = world.ring.current_id
    with pytest.raises(ConflictError, match=f"new mail is sealed under the key {first}"):
        await retire(world.store, world.clock, world.ring, "cli:test", first)
    done = await world.rotate()
    assert await retire(world.store, world.clock, world.ring, "cli:test", first)
    assert KeyFile(world.folder / "bodies.keys").ids() == (done.kek_id,)
    assert [line.kek_id for line in await keys_in_order(world.store, world.ring)] == [done.kek_id]
    assert world.readable(ids)
    assert world.audit()[-1] == "keys.retired"
    with pytest.raises(NotFoundError, match="there is no key"):
        await retire(world.store, world.clock, world.ring, "cli:test", first)


async def test_a_slower_process_cannot_put_a_message_under_a_retired_key(world: World) -> None:
    """The race that would lose mail: it wrapped under the old key, and the key was thrown away meanwhile."""
    with world.beside() as daemon:
        world.keep(daemon)
        first = world.ring.current_id
        done = await world.rotate()
        await retire(world.store, world.clock, world.ring, "cli:test", first)
        ids = [world.keep(daemon)]
        assert world.resting() == {done.kek_id: 2}
        with closing(sqlite3.connect(world.store.path, isolation_level=None)) as other:
            other.execute("PRAGMA foreign_keys=ON")
            with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
                other.execute("UPDATE wrapped_key SET kek_id = ?", (first,))
        assert daemon.read_blocking(lambda tx: tx.messages.raw(ids[0])).body == b"raw 2"


async def test_retiring_that_was_cut_short_is_finished(world: World) -> None:
    world.keep()
    first = world.ring.current_id
    done = await world.rotate()
    world.store.write_blocking(lambda tx: tx.body_keys.end_use(first))
    world.keep()
    assert world.resting() == {done.kek_id: 2}
    assert await retire(world.store, world.clock, world.ring, "cli:test", first)
    assert world.ring.ids() == (done.kek_id,)


async def test_the_only_key_of_an_empty_store_stays(world: World) -> None:
    with pytest.raises(ConflictError, match="the first message will be sealed"):
        await retire(world.store, world.clock, world.ring, "cli:test", world.ring.current_id)
    assert len(world.ring.ids()) == 1


async def test_a_ring_that_cannot_be_changed_is_told_before_anything_is_done(world: World) -> None:
    world.keep()
    fixed = KeyFile(world.folder / "bodies.keys", read_only="ask the one who keeps it")
    with pytest.raises(ConfigurationError, match="ask the one who keeps it"):
        await rotate(world.store, world.clock, fixed, "cli:test")
    assert world.audit() == []
