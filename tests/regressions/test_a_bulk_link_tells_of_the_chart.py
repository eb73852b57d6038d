"""``link add`` told that a patient is deceased or the record not active; ``link bulk`` linked everything in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.core.lifecycle import State
from tests.unit.cli.clinic_harness import SENDER, Clinic
from tests.unit.cli.conftest import clinic, practice_template

__all__ = ["clinic", "practice_template"]


def test_a_chart_that_is_closed_is_told_before_anything_is_linked(
    clinic: Clinic, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = {"resourceType": "Patient", "id": "p1", "active": False, "deceasedBoolean": True}
    path = tmp_path / "patients.ndjson"
    path.write_text(json.dumps({**patient, "name": [{"family": "Lee", "given": ["Ann"]}]}) + "\n", encoding="utf-8")
    assert clinic.run("patient", "import", str(path)) == 0
    clinic.add_message(State.FILED)
    capsys.readouterr()
    for more in (["--dry-run"], []):
        assert clinic.run("link", "bulk", "--sender", SENDER, "--patient", "p1", *more) == 0
        told = capsys.readouterr()
        assert told.out.startswith("1 message ")
        assert "warning: The patient is recorded as deceased." in told.err
        assert "warning: The patient's record is not active." in told.err
    assert clinic.run("link", "bulk", "--sender", SENDER, "--patient", "nobody") == 1
