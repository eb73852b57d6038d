"""Large messages in the spool: nameless files, bounded memory, and a disk that fails refuses for now only."""

from __future__ import annotations

import asyncio
import errno
import gc
import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.errors import ConfigurationError
from gateway.core.message import PART_BYTES
from gateway.ingress import spool as spool_module
from gateway.ingress.arriving import ArrivingMessage
from gateway.ingress.data_reader import DataReader, Problem
from gateway.ingress.limits import ByteBudget
from gateway.ingress.spool import Spool, SpooledBody, SpoolFile
from tests.unit.ingress.smtp_harness import SETTINGS, bench

KIB, MIB = 1024, 1024 * 1024
LARGE = b"".join(b"%079d\r\n" % number for number in range(30_000))
"""2.4 MB: three parts."""


def descriptors() -> int:
    """How many nameless files this process holds."""
    held = 0
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            held += "(deleted)" in str(path.readlink())
    return held


async def let_go(before: int) -> bool:
    """Whether all files are closed; a thread or the loop may hold the last one for a moment."""
    for _ in range(100):
        gc.collect()
        if descriptors() <= before:
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "data" / "spool")
    assert made.prepare() == 0
    return made


def arriving(spool: Spool, *, memory: int = MIB, above: int = 64 * KIB, space: bool = True) -> ArrivingMessage:
    reader = DataReader(50 * MIB, ByteBudget(100 * MIB).reservation())
    return ArrivingMessage(reader, spool, ByteBudget(memory).reservation(), above, lambda _size: space)


async def receive(message: ArrivingMessage, content: bytes, step: int = 65_536) -> bytes | None:
    wire = content + b".\r\n"
    for start in range(0, len(wire), step):
        if message._reader.feed(wire[start : start + step]) is None:
            await message.settle()
            assert message._reader.buffered_bytes <= 128 * KIB + step
    body = await message.body()
    if body is None:
        return None
    assert body.size_bytes == len(content)
    assert body.sha256 == hashlib.sha256(content).hexdigest()
    assert all(len(part) == PART_BYTES for part in list(body.parts())[:-1])
    assert b"".join(body.parts()) == b"".join(body.parts())
    return b"".join(body.parts())


@pytest.mark.parametrize("size", [0, 80, 64 * KIB, 70 * KIB, MIB, len(LARGE)])
async def test_what_comes_out_is_what_came_in(spool: Spool, size: int) -> None:
    content = LARGE[: size // 81 * 81]
    assert await receive(arriving(spool), content) == content


async def test_small_ones_touch_no_disk_and_large_ones_hold_no_memory(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[SpoolFile] = []
    create = spool.create

    def counted() -> SpoolFile:
        made.append(create())
        return made[-1]

    monkeypatch.setattr(spool, "create", counted)
    assert await receive(arriving(spool), LARGE[:8100]) is not None
    assert made == []
    assert await receive(arriving(spool), LARGE) == LARGE
    assert len(made) == 1
    # The memory of all together is used up: a small one goes to the disk as well, and is not refused.
    assert await receive(arriving(spool, memory=KIB), LARGE[:8100]) == LARGE[:8100]
    assert len(made) == 2


async def test_no_file_has_a_name_and_each_is_closed_with_its_last_holder(spool: Spool) -> None:
    before = descriptors()
    file = spool.create()
    file.write(b"x" * 100)
    assert list(spool.folder.iterdir()) == []
    assert stat.S_IMODE(os.fstat(file._file.number).st_mode) == 0o600
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700
    body = file.finish()
    del file
    gc.collect()
    # A commit that goes on after its session has ended reads on.
    assert b"".join(body.parts()) == b"x" * 100
    del body
    assert await let_go(before)


async def test_a_file_system_without_nameless_files_will_do(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    assert await receive(arriving(spool), LARGE) == LARGE
    assert list(spool.folder.iterdir()) == []


def test_what_a_crash_left_is_swept_and_other_files_stay(spool: Spool) -> None:
    (spool.folder / "arriving-abc").write_bytes(b"left")
    (spool.folder / "notes.txt").write_bytes(b"mine")
    assert Spool(spool.folder).prepare() == 1
    assert [path.name for path in spool.folder.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"smtp\.spool_dir.*file"):
        Spool(tmp_path / "file").prepare()


@pytest.mark.parametrize(
    ("number", "problem"),
    [(errno.ENOSPC, Problem.NO_SPACE), (errno.EDQUOT, Problem.NO_SPACE), (errno.EIO, Problem.FAULT)],
)
async def test_a_failing_disk_refuses_for_now_and_gives_everything_back(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, number: int, problem: Problem
) -> None:
    def fail(_self: SpoolFile, _data: bytes) -> None:
        raise OSError(number, "injected", "/secret/path")

    monkeypatch.setattr(SpoolFile, "write", fail)
    before = descriptors()
    message = arriving(spool)
    assert await receive(message, LARGE) is None
    assert message._reader.problem is problem
    assert await let_go(before)


async def test_the_floor_of_free_space_holds_for_the_spool(spool: Spool) -> None:
    message = arriving(spool, space=False)
    assert await receive(message, LARGE) is None
    assert message._reader.problem is Problem.NO_SPACE


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_disk_that_gives_back_other_bytes_is_found_out(spool: Spool, damage: str) -> None:
    file = spool.create()
    file.write(LARGE)
    body = file.finish()
    if damage == "flip":
        os.pwrite(body._file.number, b"X", len(LARGE) // 2)
    else:
        os.ftruncate(body._file.number, len(LARGE) - 1)
    with pytest.raises(OSError, match="spooled message") as caught:
        list(body.parts())
    assert caught.value.errno == errno.EIO


async def test_a_large_message_through_a_session() -> None:
    settings = replace(SETTINGS, spool_above_kib=64)
    before = descriptors()
    async with bench(settings) as here, here.client() as client:
        await client.ehlo()
        assert (await client.deliver(LARGE + b".\r\n")).startswith("250 2.0.0")
        assert isinstance(here.accept.inbounds[0].raw, SpooledBody)
        assert here.accept.raws == [LARGE]
        here.accept.inbounds.clear()
        assert here.listener.memory.free_bytes == SETTINGS.max_in_memory_mib * MIB
    assert await let_go(before)


@pytest.mark.parametrize(("number", "reply"), [(errno.ENOSPC, "452 4.3.1"), (errno.EIO, "451 4.3.0")])
async def test_the_session_goes_on_after_a_full_spool(monkeypatch: pytest.MonkeyPatch, number: int, reply: str) -> None:
    """The rest of the message is read to its true end: none of it is taken for a command (F17)."""

    def fail(_folder: Path) -> int:
        raise OSError(number, "injected", "/secret/path")

    async with bench(replace(SETTINGS, spool_above_kib=64)) as here, here.client() as client:
        await client.ehlo()
        with monkeypatch.context() as patch:
            patch.setattr(spool_module, "_open_nameless", fail)
            answer = await client.deliver(LARGE + b"QUIT\r\nRSET\r\n.\r\n")
            assert answer.startswith(reply)
            assert "secret" not in answer
        assert (await client.deliver(LARGE + b".\r\n")).startswith("250 2.0.0")
        assert here.accept.raws == [LARGE]


async def test_a_client_that_leaves_midway_leaves_nothing() -> None:
    before = descriptors()
    async with bench(replace(SETTINGS, spool_above_kib=64)) as here:
        async with here.client() as client:
            await client.ehlo()
            await client.begin()
            await client.send(LARGE)
            await asyncio.sleep(0.1)
        async with asyncio.timeout(5):
            while here.listener.budget.free_bytes < SETTINGS.max_buffered_mib * MIB:
                await asyncio.sleep(0.01)
        assert here.listener.memory.free_bytes == SETTINGS.max_in_memory_mib * MIB
        await here.still_serves()
    assert await let_go(before)
