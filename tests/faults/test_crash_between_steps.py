"""F06: the process ends at any boundary between the steps, and at any two of them: the result is that of no crash."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice
from tests.support.intake_faults import PROJECT
from tests.support.pki import Authority

SENDER = "lab@partner.example"


WAYS = ("at-once", "step-by-step")
"""As most mail goes, and as what was met half done goes."""


def crash(tmp_path: Path, authority: Authority, way: str, *bug: str, stride: int = 1, pairs: int = 0) -> dict[str, Any]:
    practice = Practice.make(tmp_path / "practice")
    practice.trust(authority.pem)
    inner = inner_message(SENDER, practice.addresses)
    raw = direct_message(
        CryptographyStack(), inner, sender=SENDER, recipients=practice.addresses,
        signer=authority.issue(address=SENDER), to=[practice.identity()],
    )  # fmt: skip
    path = tmp_path / "raw"
    path.write_bytes(raw)
    command = [sys.executable, "-m", "tests.support.crash_runner", str(practice.directory), str(path), SENDER]
    done = subprocess.run(
        [*command, practice.addresses[0], str(stride), str(pairs), way, *bug],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def judge(found: dict[str, Any], report: Callable[[str], None], name: str) -> None:
    wanted = found["wanted"]
    # The run without a crash did everything there is to do, or nothing would be proved.
    assert wanted["states"] == [["received"], ["unwrapped"], ["filed"], ["linked"]]
    assert (len(wanted["messages"]), len(wanted["uids"]), len(wanted["links"]), wanted["jobs"]) == (1, 1, 1, [])
    assert wanted["charts"]
    assert wanted["keywords"] == [[1, "$DirectLinked $DirectVerified"]]
    assert wanted["views"] == [[1, "linked"]]
    report(f"{name}: points={found['points']} boundaries={found['boundaries']} different={len(found['wrong'])}")
    # On both sides of what accepts the message, of what files it and of what puts it on the chart, and of the question
    # for more, in however many transactions a step does its work.
    assert found["boundaries"] >= 8
    assert found["wrong"] == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("way", WAYS)
def test_a_crash_at_a_few_boundaries_changes_nothing(
    tmp_path: Path, partner_ca: Authority, report: Callable[[str], None], way: str
) -> None:
    """Every fifth of them, or every seventh; all of them, and pairs, below."""
    found = crash(tmp_path, partner_ca, way, stride=5 if way == "at-once" else 7)
    judge(found, report, f"F06 (one crash at a few boundaries, {way})")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_harness_finds_a_job_in_a_transaction_of_its_own(
    tmp_path: Path, partner_ca: Authority, report: Callable[[str], None]
) -> None:
    found = crash(tmp_path, partner_ca, "step-by-step", "job-apart")
    report(f"F06 with the seeded bug job-apart: points={found['points']} different={len(found['wrong'])}")
    assert found["wrong"]
    # Without a crash nobody would notice.
    assert found["wanted"]["states"][-1] == ["linked"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", WAYS)
def test_two_crashes_change_nothing(
    tmp_path: Path, partner_ca: Authority, report: Callable[[str], None], way: str
) -> None:
    judge(crash(tmp_path, partner_ca, way, pairs=150), report, f"F06 (one and two crashes, {way})")
