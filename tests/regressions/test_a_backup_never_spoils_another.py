"""``backup create PATH`` twice, where PATH was not there at first: the second went into the first, as into a folder.

A file more in a backup, and it does not hold any more and cannot be restored. And a medium that was not mounted became
a backup on the disk of the store, where a slash at the end says that a folder is meant.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from gateway.cli.main import main


def backup(capsys: pytest.CaptureFixture[str], clinic: Path, *words: str) -> tuple[int, str]:
    capsys.readouterr()
    status = main(["backup", *words, "--config", str(clinic)])
    told = capsys.readouterr()
    return status, told.out + told.err


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    folder = tmp_path / "clinic"
    assert main(["init", str(folder), "--domain", "clinic.example", "--address", "inbox", "--json"]) == 0
    return folder


def test_a_backup_is_no_place_for_another(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = tmp_path / "backup"
    assert backup(capsys, clinic, "create", str(first))[0] == 0
    for place in (first, first / "second", first / "settings" / "third"):
        status, told = backup(capsys, clinic, "create", str(place))
        assert status == 2
        assert f"{first} is a backup itself" in told
        assert "name a folder beside it" in told
    status, told = backup(capsys, clinic, "verify", str(first))
    assert (status, "the backup holds" in told) == (0, True), told


def test_a_folder_that_is_not_there_is_not_made(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told = backup(capsys, clinic, "create", f"{tmp_path}/unmounted/")
    assert (status, "there is no folder" in told) == (2, True), told
    assert not (tmp_path / "unmounted").exists()
    (tmp_path / "unmounted").mkdir()
    assert backup(capsys, clinic, "create", f"{tmp_path}/unmounted/")[0] == 0
    [made] = (tmp_path / "unmounted").iterdir()
    status, told = backup(capsys, clinic, "verify", str(made.parent))
    assert status == 2
    assert f"the newest of those in it is {made.name}" in told


def test_a_backup_on_the_disk_of_the_store_is_told(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "it lies on the disk of the store"
    assert words in backup(capsys, clinic, "create", str(tmp_path / "here"))[1]
    there = Path("/dev/shm")  # Another file system, where there is one.
    if not there.is_dir() or there.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=there) as folder:
        status, told = backup(capsys, clinic, "create", f"{folder}/")
        assert (status, words in told) == (0, False), told
