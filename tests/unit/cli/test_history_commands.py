"""What was judged and what was in force before is told: ``message show`` and ``bundle show``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.bundle_report import MAX_EARLIER_SHOWN
from gateway.core.lifecycle import State
from gateway.core.trust import BOTH_DIRECTIONS, BundleSetting
from gateway.core.verdict import Judgement, Reason
from gateway.ports import UnitOfWork
from tests.unit.cli.clinic_harness import Clinic

Capture = pytest.CaptureFixture[str]
LATER = datetime(2026, 2, 1, 8, 30, tzinfo=UTC)


def again(clinic: Clinic, message: str, reason: Reason, policy: str) -> None:
    judgement = Judgement(reason=reason, detail="as of that day", policy_version=policy)
    clinic.write(lambda tx: tx.messages.add_verdict(message, LATER, judgement))


def shown(clinic: Clinic, capsys: Capture, *words: str) -> Any:
    capsys.readouterr()
    clinic.run(*words, "--json")
    return json.loads(capsys.readouterr().out)


def test_earlier_verdicts_are_told_with_their_time_reason_and_policy(clinic: Clinic, capsys: Capture) -> None:
    message = clinic.add_message(State.REFUSED)
    first = shown(clinic, capsys, "message", "show", message)
    assert first["earlier_verdicts"] == []
    again(clinic, message, Reason.EXPIRED, "direct-1.3/1")
    again(clinic, message, Reason.REVOKED, "direct-1.3/2")
    told = shown(clinic, capsys, "message", "show", message)
    assert told["verdict"]["reason"] == "revoked"
    assert datetime.fromisoformat(told["judged_at"]) == LATER
    assert "at" not in told["verdict"]
    assert [(v["reason"], v["policy_version"]) for v in told["earlier_verdicts"]] == [
        ("untrusted", "direct-1.3/0"),
        ("expired", "direct-1.3/1"),
    ]
    assert [datetime.fromisoformat(v["at"]) for v in told["earlier_verdicts"]][1] == LATER
    assert clinic.run("message", "show", message) == 0
    text = capsys.readouterr().out
    table = text.split("judged before (the verdict above has replaced these):\n")[1].splitlines()
    assert table[0].split() == ["JUDGED", "AT", "REASON", "POLICY", "DETAIL"]
    assert [line.split()[2:4] for line in table[1:3]] == [["untrusted", "direct-1.3/0"], ["expired", "direct-1.3/1"]]


def test_a_message_that_was_judged_once_has_no_such_part(clinic: Clinic, capsys: Capture) -> None:
    message = clinic.add_message(State.FILED)
    assert clinic.run("message", "show", message) == 0
    assert "judged before" not in capsys.readouterr().out
    received = clinic.add_message(State.RECEIVED)
    assert shown(clinic, capsys, "message", "show", received)["judged_at"] is None


def test_rechecks_are_told_with_their_policy(clinic: Clinic, capsys: Capture) -> None:
    message = clinic.add_message(State.REFUSED)
    assert clinic.run("message", "recheck", message) == 1
    told = shown(clinic, capsys, "message", "show", message)["rechecks"]
    assert clinic.run("message", "show", message) == 0
    text = capsys.readouterr().out
    heading, row = text.split("judged again (the verdict above stays in force):\n")[1].splitlines()[:2]
    assert "POLICY" in heading
    assert told[0]["policy_version"] in row
    assert told[0]["reason"] in row


def test_bundle_show_lists_earlier_versions_the_newest_first(clinic: Clinic, capsys: Capture, tmp_path: Path) -> None:
    versions = MAX_EARLIER_SHOWN + 3

    def fill(tx: UnitOfWork) -> None:
        tx.bundles.set(BundleSetting("partners", str(tmp_path / "p.p7b"), None, (), BOTH_DIRECTIONS, 0), LATER)
        for number in range(versions):
            tx.bundles.add_version("partners", LATER, b"file %d" % number, [])

    clinic.write(fill)
    told = shown(clinic, capsys, "bundle", "show", "partners")
    assert told["version"] == versions
    assert [one["version"] for one in told["earlier_versions"]] == list(range(1, versions))
    assert told["earlier_versions"][0].keys() == {"version", "at", "sha256", "anchors"}
    clinic.run("bundle", "show", "partners")
    text = capsys.readouterr().out
    table = text.split("EARLIER VERSION")[1].splitlines()
    assert "TAKEN OVER" in table[0]
    newest = told["earlier_versions"][-1]
    assert table[1].split() == [str(versions - 1), "2026-02-01", "08:30:00Z", "0", newest["sha256"]]
    assert "and 2 older versions; --json has them all" in text


def test_a_bundle_with_one_version_has_no_such_part(clinic: Clinic, capsys: Capture, tmp_path: Path) -> None:
    setting = BundleSetting("partners", str(tmp_path / "p.p7b"), None, (), BOTH_DIRECTIONS, 0)
    clinic.write(lambda tx: tx.bundles.set(setting, LATER))
    assert shown(clinic, capsys, "bundle", "show", "partners")["earlier_versions"] == []
    clinic.write(lambda tx: tx.bundles.add_version("partners", LATER, b"file", []))
    clinic.run("bundle", "show", "partners")
    assert "EARLIER VERSION" not in capsys.readouterr().out
