"""A settings file or a tree head with a value beyond all bounds ended as a fault of the program's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli.main import main


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 50_000, "a = " + "{a = " * 5_000, "[smtp]\nport = " + "9" * 5_000],
    ids=["list", "table", "number"],
)
def test_settings(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.toml").write_text(text)
    assert main(["config", "check", "--config", str(tmp_path)]) == 2
    assert f"{tmp_path / 'gateway.toml'} is not valid TOML" in capsys.readouterr().err


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_before_or_after_all_time(at: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clinic, head = tmp_path / "clinic", tmp_path / "head.json"
    assert main(["init", str(clinic), "--domain", "clinic.example", "--address", "inbox", "--json"]) == 0
    assert main(["audit", "head", "--out", str(head), "--config", str(clinic)]) == 0
    head.write_text(json.dumps({**json.loads(head.read_text()), "at": at}))
    capsys.readouterr()
    assert main(["audit", "verify", "--against", str(head), "--config", str(clinic)]) == 2
    assert "this is no tree head" in capsys.readouterr().err
