"""The frame of the command line: exit statuses, where --config may stand, errors without tracebacks."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import commands_config
from gateway.cli.main import main
from gateway.core.errors import (
    ConfigurationError,
    ConflictError,
    InputError,
    NotFoundError,
    RefusedError,
    StoreError,
)
from tests.unit.cli.clinic_harness import Clinic


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["--version"],
        ["--help"],
        ["message", "--help"],
        ["init", "--help"],
        ["message", "verify", "--help"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        assert "direct-gateway" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["message"],
        ["message", "nonsense"],
        ["message", "list", "--limit", "0"],
        ["message", "list", "--limit", "many"],
        ["message", "list", "--unlinked", "--quarantine"],
        ["patient", "list", "--offset", "-1"],
        ["init", "x", "--address", "a"],
        ["link", "add", "only-one"],
        ["message", "verify"],
    ],
)
def test_misuse_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_config_may_stand_anywhere_and_be_a_folder(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    folder = str(clinic.directory)
    assert main(["--config", clinic.config, "config", "check"]) == 0
    assert main(["config", "--config", clinic.config, "check"]) == 0
    assert main(["config", "check", "--config", clinic.config]) == 0
    assert main(["config", "check", "--config", folder]) == 0
    monkeypatch.setenv("DIRECTGW_CONFIG", folder)
    assert main(["config", "check"]) == 0
    monkeypatch.delenv("DIRECTGW_CONFIG")
    assert main(["config", "check"]) == 2
    monkeypatch.chdir(folder)
    assert main(["config", "check"]) == 0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigurationError("wrong key"), 2),
        (InputError("wrong file"), 2),
        (NotFoundError("not there"), 1),
        (ConflictError("contradiction"), 1),
        (RefusedError("not allowed"), 1),
        (StoreError("the store failed"), 3),
        (OSError(13, "Permission denied", "/x"), 3),
        (ExceptionGroup("tasks", [NotFoundError("not there")]), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_status_and_one_line(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_args: object) -> Path:
        raise error

    monkeypatch.setattr(commands_config, "settings_of", fail)
    assert main(["config", "check"]) == status
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert told.count("\n") == (0 if status == 130 else 1)


def test_a_fault_of_ours_hides_its_text_unless_debug_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_args: object) -> Path:
        raise ValueError("Ada Quimby, born 1961")

    monkeypatch.setattr(commands_config, "settings_of", fail)
    assert main(["config", "check"]) == 3
    assert capsys.readouterr().err == "error: unexpected fault (ValueError); --debug shows where\n"
    assert main(["config", "check", "--debug"]) == 3
    assert "Traceback" in capsys.readouterr().err
    assert main(["--debug", "config", "check"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_help_and_offline_verify_import_no_heavy_room() -> None:
    """They must start fast: no database, no servers."""
    code = (
        "import sys; from gateway.cli.main import build_parser; build_parser(); "
        "print([name for name in ('sqlalchemy', 'aiosmtpd', 'uvicorn', 'cryptography') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_a_reader_that_goes_away_is_no_fault(clinic: Clinic) -> None:
    command = f"{sys.executable} -m gateway --config {clinic.config} config show | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[practice]\n"
    assert done.stderr == ""


def test_python_m_gateway_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("direct-gateway ")
