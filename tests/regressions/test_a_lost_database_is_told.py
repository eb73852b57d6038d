"""A database that was gone was replaced by an empty one, and all that was said was how to make logins in that."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gateway import daemon
from gateway.settings import load
from gateway.store.made_anew import NOTE, leave_note, missing_database
from tests.unit.cli.clinic_harness import FRONT, LAB, Clinic
from tests.unit.cli.conftest import clinic, practice_template  # noqa: F401 - fixtures

# ruff: noqa: F811 - the fixtures


def lose(clinic: Clinic, how: str) -> Path:
    """Take the database away; returns its folder."""
    data = clinic.directory / "data"
    shutil.rmtree(data)
    if how == "empty folder":
        data.mkdir()
    return data


async def _must_not_run(*_: object, **__: object) -> None:
    raise AssertionError("the daemon was started")


@pytest.mark.parametrize("how", ["no folder", "empty folder"])
def test_the_start_says_so_again_and_again(
    clinic: Clinic, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = lose(clinic, how)
    monkeypatch.setattr(daemon, "serve", _must_not_run)
    for attempt in range(3):
        assert clinic.run("serve") == 2
        told = capsys.readouterr().err
        assert f"error: store.url: the database {data / 'gateway.db'} was made anew and empty" in told, attempt
        assert "restore a backup" in told
        assert "user add" not in told, "that would lead into the wrong database"
    assert (data / NOTE).is_file()


def test_config_check_says_so_before_and_after(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    data = lose(clinic, "no folder")
    assert clinic.run("config", "check", "--strict") == 1
    told = capsys.readouterr().err
    assert "this practice was in use before" in told
    assert f"keys in {clinic.directory / 'certs' / 'identities'}" in told
    assert not data.exists(), "a check makes nothing"
    assert clinic.run("message", "list") == 2
    assert "this practice was in use before" in capsys.readouterr().err
    assert clinic.run("serve") == 2
    capsys.readouterr()
    assert clinic.run("config", "check", "--strict") == 1
    assert "was made anew and empty" in capsys.readouterr().err


def test_a_new_database_that_is_meant_is_told_until_the_note_is_removed(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = lose(clinic, "no folder")
    assert clinic.run("serve") == 2
    assert clinic.run("user", "add", "desk", "--inbox", FRONT, LAB) == 0
    started: list[str] = []

    async def serve(*_: object, **__: object) -> None:
        started.append("yes")

    monkeypatch.setattr(daemon, "serve", serve)
    capsys.readouterr()
    assert clinic.run("serve") == 0
    assert started, "a warning stops no start"
    assert "warning: store.url: the database" in capsys.readouterr().err
    (data / NOTE).unlink()
    assert clinic.run("serve") == 0
    assert "store.url" not in capsys.readouterr().err


def test_the_right_database_put_back_is_not_doubted(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    data = clinic.directory / "data"
    data.rename(clinic.directory / "elsewhere")
    assert clinic.run("serve") == 2
    shutil.rmtree(data)
    (clinic.directory / "elsewhere").rename(data)
    capsys.readouterr()
    assert clinic.run("config", "check") == 0
    assert "store.url" not in capsys.readouterr().err


def test_a_new_practice_is_not_doubted(clinic: Clinic) -> None:
    settings = load(Path(clinic.config), {})
    leave_note(settings)
    assert missing_database(settings) == ""
    assert not (clinic.directory / "data" / NOTE).exists()
    shutil.rmtree(clinic.directory / "data")
    shutil.rmtree(clinic.directory / "certs" / "identities")
    (clinic.directory / "imap-login.txt").unlink()
    assert missing_database(settings) == "", "no trace of any use"
    leave_note(settings)
    assert not (clinic.directory / "data").exists()


@pytest.mark.parametrize("trace", ["charts", "wal", "login", "token"])
def test_other_traces_count_as_well(clinic: Clinic, trace: str) -> None:
    settings = load(Path(clinic.config), {})
    lose(clinic, "empty folder")
    shutil.rmtree(clinic.directory / "certs" / "identities")
    (clinic.directory / "imap-login.txt").unlink()
    assert missing_database(settings) == ""
    traces = {
        "charts": clinic.directory / "charts" / "p1",
        "wal": clinic.directory / "data" / "gateway.db-wal",
        "login": clinic.directory / "imap-login.txt",
    }
    if trace == "token":
        settings = replace(settings, trust=replace(settings.trust, pkcs11_module=Path("libtoken.so")))
        assert "keys on a token" in missing_database(settings)
        return
    traces[trace].parent.mkdir(exist_ok=True)
    traces[trace].write_bytes(b"")
    assert str(traces[trace] if trace != "charts" else clinic.directory / "charts") in missing_database(settings)
