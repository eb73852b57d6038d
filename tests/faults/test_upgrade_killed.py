"""F35: an upgrade of the tables that is killed at each of its statements, and an older and a newer release together.

The old practice is a real one (``tests/data``); the newer release is the one after this, with everything that a
revision may do (``tests/support/next_release.py``). That a node which runs stops the upgrade, and that the older
release refuses the newer tables before it opens a port, is in ``tests/protocol/test_upgrade_end_to_end.py``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.old_practice import OldPractice, old_practice, old_practice_on_postgresql
from tests.support.postgresql import ENGINES, shared_cluster

PROJECT = Path(__file__).resolve().parents[2]
OLD: dict[str, Callable[[Path], OldPractice]] = {
    "postgresql": lambda folder: old_practice_on_postgresql(folder, shared_cluster()),
    "sqlite": old_practice,
}


STRIDES = {"sqlite": 1, "postgresql": 1 if os.environ.get("GATEWAY_FAULT_ALL") else 3}
"""Every how manieth statement; each takes a life, and PostgreSQL keeps the whole upgrade in one transaction."""


def walk(practice: OldPractice, *words: str, stride: int = 1) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.upgrade_runner", str(practice.config), str(stride), *words],
        capture_output=True, check=False, timeout=600, cwd=PROJECT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_an_upgrade_that_commits_by_halves_is_caught(engine: str, tmp_path: Path) -> None:
    """The harness finds the mistake that it is there for."""
    found = walk(OLD[engine](tmp_path), "seeded")
    assert len(found["wrong"]) == 1
    assert "not as it was" in found["wrong"][0]


def test_an_upgrade_killed_at_a_few_statements_is_whole_or_nothing(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    found = walk(OLD["sqlite"](tmp_path), stride=8)
    report(f"F35 sqlite: upgrade killed at a few points, {found['points']}: {len(found['wrong'])} half done")
    assert found["wrong"] == []
    assert found["findings"] == []
    assert found["points"] >= 4


@pytest.mark.slow
@pytest.mark.timeout(700)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_upgrade_killed_at_each_statement_is_whole_or_nothing(
    engine: str, tmp_path: Path, report: Callable[[str], None]
) -> None:
    found = walk(OLD[engine](tmp_path), stride=STRIDES[engine])
    report(f"F35 {engine}: upgrade killed at {found['points']} points: {len(found['wrong'])} half done")
    assert found["wrong"] == []
    assert found["findings"] == []
    assert found["points"] > 25
    assert found["committed"] == 1 or STRIDES[engine] > 1
    assert found["rows"] > 60


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_an_upgrade_killed_at_its_writes_and_syncs_is_whole_or_nothing(
    call: str, tmp_path: Path, report: Callable[[str], None]
) -> None:
    """strace ends the real command at its Nth write or sync of the file, and not only between two statements."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    practice = old_practice(tmp_path)
    kept = tmp_path / "kept.db"
    shutil.copy(tmp_path / "gateway.db", kept)
    command = [sys.executable, "-m", "gateway", "store"]
    config = ["--config", str(practice.config)]
    points = old = new = 0
    # Ever further apart: what SQLite does at the thirtieth page it does at the fortieth.
    for number in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233):
        for beside in ("gateway.db", "gateway.db-wal", "gateway.db-shm"):
            (tmp_path / beside).unlink(missing_ok=True)
        shutil.copy(kept, tmp_path / "gateway.db")
        traced = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                  f"inject={call}:signal=KILL:when={number}"]  # fmt: skip
        done = subprocess.run([*traced, *command, "upgrade", *config], capture_output=True, check=False, timeout=60)
        if done.returncode == 0:
            break
        points += 1
        status = subprocess.run([*command, "status", "--json", *config], capture_output=True, check=False, timeout=60)
        version = json.loads(status.stdout)["from"]
        old, new = old + (version == 3), new + (version != 3)
        finished = subprocess.run([*command, "upgrade", *config], capture_output=True, check=False, timeout=60)
        assert finished.returncode == 0, finished.stderr
        assert practice.found() == (practice.uids, practice.raw_sha256)
    report(f"F35 sqlite: upgrade killed at {points} calls of {call}: {old} undone, {new} done, 0 half done")
    assert points >= 1
    verified = subprocess.run(
        [sys.executable, "-m", "gateway", "audit", "verify", "--against", str(practice.head), *config],
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert verified.returncode == 0, verified.stdout
