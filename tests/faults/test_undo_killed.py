"""The process ends before any statement of the transaction that undoes a link: all of it is there, or nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.intake_faults import PROJECT
from tests.support.undo_crash_runner import DIED


def test_an_undo_is_whole_or_not_at_all(tmp_path: Path, report: Callable[[str], None]) -> None:
    command = [sys.executable, "-m", "tests.support.undo_crash_runner", str(tmp_path), "4"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    before, after = found["before"], found["after"]
    # The run without a crash did all that there is to do.
    assert after["undo"] == [["LINK", "paul", "wrong"]]
    assert after["states"][-1] == ["filed"]
    assert [row[:2] for row in after["deliveries"]] == [["has", "retract"]]
    assert (after["jobs"], after["audit"][-1]) == ([], ["message.link_undone"])
    assert "$DirectLinked" not in after["flags"][0][0]
    assert before["jobs"] == [["import", "LINK"]]
    report(f"undo of a link: statements={found['statements']} deaths={len(found['lives'])}")
    assert found["statements"] > 15
    for life in found["lives"]:
        assert life["status"] == DIED, life["at"]
        assert life["dead"] in (before, after), life["at"]
        assert (life["again"], life["whole"]) == (0, after), life["at"]
    assert before in [life["dead"] for life in found["lives"]]
