"""The background part that keeps the audit log: heads on time, the folder of heads, the reserve, the clock."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.auditing.heads import TreeHeads
from gateway.auditing.keeper import LOOK_SECONDS, AuditKeeper
from gateway.auditing.lifecycle import CLOCK_JUMPED
from gateway.core.audit import AuditEvent, AuditQuery
from gateway.core.errors import StoreError
from gateway.keys.head_signing import HeadSigner
from gateway.store.sql_store import SQLStore
from tests.support.store_samples import SteadyClock, open_store

SIGNER = HeadSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
INTERVAL = 60


@dataclass
class Room:
    """A keeper over a real store, with a clock and a time that the test moves."""

    store: SQLStore
    folder: Path
    clock: SteadyClock = field(default_factory=SteadyClock)
    ticks: float = 1_000.0
    reserve_calls: int = 0
    reserve_fails: bool = False

    def __post_init__(self) -> None:
        self.heads = TreeHeads(self.store, self.clock, SIGNER, self.folder)
        self.keeper = AuditKeeper(
            self.store, self.clock, self.heads, node="main", interval_minutes=INTERVAL,
            keep_reserve=self._keep_reserve, monotonic=lambda: self.ticks,
        )  # fmt: skip

    async def _keep_reserve(self) -> None:
        self.reserve_calls += 1
        if self.reserve_fails:
            raise StoreError("no reserve")

    def pass_seconds(self, seconds: float, *, clock_moves: float | None = None) -> None:
        self.ticks += seconds
        self.clock.advance(seconds if clock_moves is None else clock_moves)

    def event(self) -> None:
        self.store.write_blocking(lambda tx: tx.audit.add(self.clock.now(), "test", "test", ""))

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("head-*.json"))

    def jumps(self) -> list[AuditEvent]:
        return self.store.read_blocking(lambda tx: tx.audit.find(AuditQuery(action=CLOCK_JUMPED, ascending=True)))


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    with open_store(tmp_path) as store:
        made = Room(store, tmp_path / "heads")
        made.event()
        made.folder.mkdir()
        yield made


# --- heads ---


async def test_a_head_is_made_at_once_and_then_when_it_is_due(room: Room) -> None:
    await room.keeper.look()
    assert len(room.files()) == 1
    room.pass_seconds(INTERVAL * 60 - 1)
    room.event()
    await room.keeper.look()
    assert len(room.files()) == 1
    room.pass_seconds(1)
    await room.keeper.look()
    sizes = [json.loads(path.read_text())["size"] for path in room.files()]
    assert (len(sizes), sizes[0] < sizes[1]) == (2, True)


async def test_a_head_that_could_not_be_made_is_tried_again_at_the_next_look(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = room.heads.make

    async def fails() -> None:
        raise StoreError("the store could not commit")

    monkeypatch.setattr(room.heads, "make", fails)
    await room.keeper.look()
    assert room.files() == []
    monkeypatch.setattr(room.heads, "make", make)
    room.pass_seconds(LOOK_SECONDS)
    await room.keeper.look()
    assert len(room.files()) == 1


async def test_a_folder_that_is_gone_is_told_for_as_long_as_it_is_and_then_gets_the_head(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    await room.keeper.look()
    assert room.keeper.heads_doubt == ""
    shutil.rmtree(room.folder)
    room.folder.write_text("a file in its place")
    for _ in range(3):
        room.pass_seconds(INTERVAL * 60)
        await room.keeper.look()
        assert "cannot be written to audit.heads_dir" in room.keeper.heads_doubt
    told = [record for record in caplog.records if record.message.startswith("audit_heads_dir_not_writable")]
    assert len(told) == 1, "once, and not at each look"
    room.folder.unlink()
    room.folder.mkdir()
    room.pass_seconds(LOOK_SECONDS)
    await room.keeper.look()
    assert room.keeper.heads_doubt == ""
    # The newest one: it covers those that were made meanwhile.
    [written] = room.files()
    assert json.loads(written.read_text())["size"] == room.store.read_blocking(lambda tx: tx.audit_tree.size())


async def test_a_folder_that_takes_no_file_is_told_before_a_head_is_due(room: Room) -> None:
    await room.keeper.look()
    shutil.rmtree(room.folder)
    room.pass_seconds(LOOK_SECONDS)
    await room.keeper.look()
    assert "mend the folder" in room.keeper.heads_doubt


# --- the clock ---


@pytest.mark.parametrize(("moves", "seconds"), [(LOOK_SECONDS + 3_600, 3_600), (LOOK_SECONDS - 60, -60)])
async def test_a_clock_that_jumps_is_written_down(room: Room, moves: float, seconds: int) -> None:
    await room.keeper.look()
    room.pass_seconds(LOOK_SECONDS, clock_moves=moves)
    await room.keeper.look()
    [event] = room.jumps()
    assert (event.subject, json.loads(event.detail)) == ("main", {"seconds": seconds})
    room.pass_seconds(LOOK_SECONDS)
    await room.keeper.look()
    assert len(room.jumps()) == 1, "told once"


async def test_a_clock_that_is_set_by_little_is_no_jump(room: Room) -> None:
    for drift in (0, 4.9, -4.9):
        await room.keeper.look()
        room.pass_seconds(LOOK_SECONDS, clock_moves=LOOK_SECONDS + drift)
    # The machine slept: the time went on, and the clock with it.
    room.pass_seconds(86_400)
    await room.keeper.look()
    assert room.jumps() == []


# --- one part that fails leaves the others ---


async def test_a_part_that_fails_ends_neither_the_look_nor_the_daemon(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    room.reserve_fails = True
    await room.keeper.look()
    assert room.reserve_calls == 1
    assert len(room.files()) == 1, "the head was made although the reserve was not"
    assert any(record.message.startswith("audit_upkeep_failed") for record in caplog.records)


async def test_a_mistake_in_the_program_is_not_swallowed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wrong() -> None:
        raise TypeError("a mistake")

    monkeypatch.setattr(room.heads, "make", wrong)
    with pytest.raises(TypeError):
        await room.keeper.look()


async def test_it_looks_again_and_again_until_it_is_cancelled(room: Room) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        room.pass_seconds(seconds)
        if len(slept) == 4:
            await asyncio.sleep(3_600)

    room.keeper._sleep = sleep
    task = asyncio.create_task(room.keeper.run())
    while len(slept) < 4:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (slept, room.reserve_calls) == ([LOOK_SECONDS] * 4, 4)
