"""What stood in the files of ``match evaluate``, and what a plug-in answered, reached the terminal as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.import_dry_run import _print
from gateway.cli.main import main

REGISTRY = "id,mrn,given,family,maiden,dob,sex,phone,line,zip,city,direct"
QUERIES = "query_id,mutation,true_patient_id,given,family,dob,sex,phone,line,zip,city"
PERSON = "1961-02-03,female,5551234567,1 Elm St,02139,Town"


def test_a_wrong_link_is_told_without_controls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry, queries = tmp_path / "registry.csv", tmp_path / "queries.csv"
    registry.write_text(f"{REGISTRY}\nP1\x1b[2J,m,Ann,Quimby,,{PERSON},a@b.example\n")
    queries.write_text(f"{QUERIES}\nq\x1b]0;x\x07,m\x1b[31m,,Ann,Quimby,{PERSON}\n")
    assert main(["match", "evaluate", "--registry", str(registry), "--queries", str(queries)]) == 1
    shown = capsys.readouterr()
    assert "linked to P1" in shown.err
    assert "\x1b" not in shown.out + shown.err
    assert "\x07" not in shown.out + shown.err


def test_a_dry_run_shows_no_controls(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"target": "ehr", "kind": "plugin", "content_type": "a/b\x1b[2J", "error": "", "text": "one\x1b[2J\ntwo"}
    _print(document)
    _print(document | {"error": "no (\x1b]0;x\x07)"})
    shown = capsys.readouterr().out
    assert "two" in shown
    assert "\x1b" not in shown
