"""The log and heads of it were written to a name beside their own that anybody could guess, and through a link there.

Who may make files in that folder had a file of the gateway's user overwritten, or the log put where he could read it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.main import main


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(("words", "mode"), [(["audit", "export"], 0o600), (["audit", "head"], 0o644)])
@pytest.mark.parametrize("planted", ["link", "file"])
@pytest.mark.usefixtures("no_umask")
def test_what_is_planted_is_not_written_to(words: list[str], mode: int, planted: str, tmp_path: Path) -> None:
    clinic, target, victim = tmp_path / "clinic", tmp_path / "out", tmp_path / "victim"
    assert main(["init", str(clinic), "--domain", "clinic.example", "--address", "inbox", "--json"]) == 0
    victim.write_text("precious")
    staged = tmp_path / f".out.{os.getpid()}.new"
    if planted == "link":
        staged.symlink_to(victim)
    else:
        os.link(victim, staged)
    assert main([*words, "--out", str(target), "--config", str(clinic)]) == 0
    assert victim.read_text() == "precious"
    assert target.read_text().startswith("{")
    assert target.stat().st_mode & 0o777 == mode
    assert not staged.exists()
