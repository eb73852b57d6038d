"""``copy-store`` killed at every boundary and in the middle of writes, and run again.

After each kill the target must be refused as unfinished, or be empty, or be the whole store; the next run must end with
exactly what the source has. The harness is believed because it finds four seeded bugs.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import StoreSettings
from tests.support.copies import contents, filled
from tests.support.copy_runner import BUGS, differences, half_done
from tests.support.gateway_process import COMMAND
from tests.support.odd_rows import SIGNER
from tests.support.postgresql import shared_cluster

PROJECT = Path(__file__).resolve().parents[2]
Report = Callable[[str], None]


MANY = [("sqlite", 4, 20), ("postgresql", 20, 8)]
"""Kind of the target, every how manieth boundary, and how many pairs of them."""
if os.environ.get("GATEWAY_FAULT_ALL"):
    MANY = [("sqlite", 1, 60), ("postgresql", 5, 20)]


def killed(kind: str, folder: Path, stride: int, pairs: int = 0, bug: str = "") -> Any:
    folder.mkdir(exist_ok=True)
    place = shared_cluster().url() if kind == "postgresql" else "-"
    words = [sys.executable, "-m", "tests.support.copy_runner", kind, place, str(folder), str(stride), str(pairs), bug]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_killed_at_boundaries(kind: str, tmp_path: Path, report: Report) -> None:
    """A few points, from the first commit to behind the last; all of them below."""
    found = killed(kind, tmp_path / "work", stride=100)
    assert found["wrong"] == []
    assert found["boundaries"] > 100
    assert found["points"] >= 3
    report(f"copy-store to {kind}: killed at {found['points']} of {found['boundaries']} boundaries, 0 wrong")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kind", "stride", "pairs"), MANY)
def test_killed_at_many_boundaries_and_twice(
    kind: str, stride: int, pairs: int, tmp_path: Path, report: Report
) -> None:
    """The boundaries are those of the copy, and the same on both: on SQLite, where a run is short, more are tried."""
    found = killed(kind, tmp_path / "work", stride=stride, pairs=pairs)
    assert found["wrong"] == []
    report(
        f"copy-store to {kind}: killed at {found['points'] - pairs} of {found['boundaries']} boundaries and at {pairs} "
        f"pairs of them ({found['rows']} rows): 0 rows lost, 0 twice, 0 times taken for whole"
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", [next(iter(BUGS)), *(pytest.param(b, marks=pytest.mark.slow) for b in [*BUGS][1:])])
def test_the_harness_finds_a_seeded_bug(bug: str, tmp_path: Path) -> None:
    found = killed("sqlite", tmp_path / "work", stride=1 if bug == "end in two steps" else 7, bug=bug)
    assert found["wrong"] != []


# --- the real command, killed in the middle of a write ---


def command(source: StoreSettings, target: StoreSettings, folder: Path) -> list[str]:
    key = folder / "heads.pub.pem"
    key.write_bytes(SIGNER.pem)
    schema = ["--to-schema", target.schema] if target.url.startswith("postgresql") else []
    return [*COMMAND, "copy-store", "--from", source.url, "--to", target.url, *schema, "--public-key", str(key)]


def kill(words: Sequence[str], folder: Path, seconds: float | None = None) -> int:
    """Run it, after so many seconds kill it; returns the status."""
    process = subprocess.Popen(
        words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=60 if seconds is None else seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
    return process.returncode


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_in_the_middle_of_writes(tmp_path: Path, report: Report) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    source = filled("sqlite", tmp_path)
    wanted = contents(source)
    hit = 0
    calls = "pwrite64,fdatasync,fsync"
    points = [1, 2, 5, 20, 60, 130, 200, 260, 300, 340, 380, 420]
    for number, point in enumerate(points):
        target = StoreSettings(url=f"sqlite:///{tmp_path}/t{number}.db")
        words = command(source, target, tmp_path)
        strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e",
                  f"inject={calls}:signal=SIGKILL:when={point}", *words]  # fmt: skip
        hit += kill(strace, tmp_path) != 0
        assert half_done(wanted, target, tmp_path) == []
        assert kill(words, tmp_path) == 0, f"after a kill at write {point}"
        assert differences(wanted, contents(target)) == []
    assert hit >= len(points) // 2, "the injection must have hit"
    report(f"copy-store to sqlite: killed at {hit} writes of the real command, 0 wrong")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_any_moment_on_postgresql(tmp_path: Path, report: Report) -> None:
    source = filled("sqlite", tmp_path)
    wanted = contents(source)
    begun = time.monotonic()
    whole = shared_cluster().settings(frozen_after_seconds=10)
    assert kill(command(source, whole, tmp_path), tmp_path) == 0
    seconds, random_moment, hit = time.monotonic() - begun, random.Random(7), 0
    for _ in range(12):
        target = shared_cluster().settings(frozen_after_seconds=10)
        words = command(source, target, tmp_path)
        hit += kill(words, tmp_path, seconds=random_moment.uniform(0.3, 1.0) * seconds) != 0
        # A session whose client was killed may hold its last transaction for a moment.
        time.sleep(0.2)
        assert half_done(wanted, target, tmp_path) == []
        assert kill(words, tmp_path) == 0
        assert differences(wanted, contents(target)) == []
    assert hit >= 6, "the kill must have come before the end"
    report(f"copy-store to postgresql: killed at {hit} moments of the real command, 0 wrong")
