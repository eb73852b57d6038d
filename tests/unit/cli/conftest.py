"""A practice made once by the real ``init``, copied for each test."""

import shutil
from pathlib import Path

import pytest

from gateway.cli.main import main
from tests.unit.cli.clinic_harness import DOMAIN, Clinic


@pytest.fixture(scope="session")
def practice_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("template") / "clinic"
    words = ["init", str(directory), "--domain", DOMAIN, "--address", "front-desk", "--address", "lab", "--json"]
    assert main(words) == 0
    return directory


@pytest.fixture
def clinic(practice_template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Clinic:
    directory = tmp_path / "clinic"
    shutil.copytree(practice_template, directory)
    capsys.readouterr()
    return Clinic(directory)
