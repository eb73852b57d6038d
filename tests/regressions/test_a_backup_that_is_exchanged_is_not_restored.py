"""The manifest was read twice: once to be restored by, and once to be checked, also against ``--manifest-sha256``.

Whoever could write to the medium at that moment had the one checked and the other restored.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.main import main
from gateway.store.backup import restoring
from gateway.store.backup.checking import read_backup
from gateway.store.backup.manifest import MANIFEST, manifest_digest


def test_what_is_restored_is_what_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clinic, good, other = tmp_path / "clinic", tmp_path / "good", tmp_path / "other"
    assert main(["init", str(clinic), "--domain", "clinic.example", "--address", "inbox", "--json"]) == 0
    for path in (good, other):
        assert main(["backup", "create", str(path), "--config", str(clinic), "--json"]) == 0
    told = manifest_digest(read_backup(good)[1])
    new = Path(shutil.copytree(clinic, tmp_path / "new", ignore=shutil.ignore_patterns("data")))
    shown = Path(shutil.copytree(other, tmp_path / "medium"))
    require_place = restoring.require_place

    def exchanged(*args: Any) -> None:
        require_place(*args)
        for name in (MANIFEST, "store.db"):
            shutil.copy(good / name, shown / name)

    monkeypatch.setattr(restoring, "require_place", exchanged)
    capsys.readouterr()
    words = ["backup", "restore", str(shown), "--manifest-sha256", told, "--config", str(new)]
    assert main(words) == 2
    assert "changed while it was checked" in capsys.readouterr().err
    assert not (new / "data" / "gateway.db").exists()
    monkeypatch.undo()
    assert main(words) == 0
