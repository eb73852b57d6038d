"""What a backup is compared with is what the disk has kept, and not what the memory of this machine still holds.

A stick that loses blocks, or a disk that fails, is found by reading from it. Right after a file was written, its pages
are in the memory of the operating system, and reading it again would have proved nothing about the disk.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.store.backup import making
from gateway.store.sql_store import SQLStore
from tests.support.backups import back_up
from tests.support.body_keys import sealer_in
from tests.support.filled_store import fill
from tests.support.store_samples import settings_for


def bytes_in_memory(file: Path) -> int:
    done = subprocess.run(["fincore", "-nbo", "RES", str(file)], capture_output=True, check=True, text=True)
    return int(done.stdout)


def test_a_backup_is_read_again_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("fincore") is None:
        pytest.skip("fincore is not installed")
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, check=True, text=True)
    if kind.stdout.strip() in {"tmpfs", "ramfs"}:
        pytest.skip("the folder of the tests is in memory itself")
    settings = settings_for(tmp_path)
    with SQLStore.open(settings, sealer_in(tmp_path)) as store:
        store.write_blocking(fill)
    read_again, before = making._read_again, []

    def looked(store: Path, *arguments: Any) -> None:
        before.append((store.stat().st_size, bytes_in_memory(store)))
        read_again(store, *arguments)
        assert bytes_in_memory(store), "the look itself must see what is in memory"

    monkeypatch.setattr(making, "_read_again", looked)
    back_up(settings, tmp_path / "backup")
    [(size, in_memory)] = before
    assert size > 0
    assert in_memory == 0
