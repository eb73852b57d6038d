"""Commands used to mix lines of the log into what they print, and to print nothing for a program when they refused."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from gateway.cli.main import build_parser, main
from gateway.core.lifecycle import State
from tests.support.gateway_process import COMMAND
from tests.unit.cli.clinic_harness import DOMAIN, Clinic


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("template") / "clinic"
    assert main(["init", str(directory), "--domain", DOMAIN, "--address", "front-desk", "--json"]) == 0
    return directory


@pytest.fixture
def clinic(template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Clinic:
    directory = tmp_path / "clinic"
    shutil.copytree(template, directory)
    capsys.readouterr()
    return Clinic(directory)


def test_no_line_of_the_log_is_among_the_output(clinic: Clinic) -> None:
    message_id = clinic.add_message(State.RECEIVED)
    with closing(sqlite3.connect(clinic.directory / "data" / "gateway.db")) as database, database:
        database.execute("UPDATE wrapped_key SET wrapped = zeroblob(41)")
    command = [*COMMAND, "--config", clinic.config, "keys", "rotate"]
    quiet = subprocess.run(command, capture_output=True, check=False, text=True, timeout=60)
    assert quiet.returncode == 1
    assert f"the key of message {message_id} does not open: the message is damaged" in quiet.stderr
    assert "stored_message_damaged" not in quiet.stderr + quiet.stdout
    told = subprocess.run([*command, "--debug"], capture_output=True, check=False, text=True, timeout=60)
    assert f"stored_message_damaged message_id={message_id}" in told.stderr
    assert "stored_message_damaged" not in told.stdout


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("fetch", "now", "nobody", "--json"), 1, "there is no [[fetch]] nobody"),
        (("store", "init", "--json"), 2, "store.url is a SQLite file"),
        (("store", "orphans", "--json"), 2, "s3.bucket"),
        (("keys", "retire", "nothing", "--json"), 1, "there is no key nothing"),
    ],
)
def test_a_refusal_is_json_as_well(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, said: str
) -> None:
    assert clinic.run(*words) == status
    captured = capsys.readouterr()
    assert said in json.loads(captured.out)["error"]
    assert f"error: {json.loads(captured.out)['error']}\n" == captured.err


def test_the_words_of_the_keys_are_the_same_for_people_and_programs(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> list[str]:
        assert clinic.run("keys", "list", "--json") == 0
        found = [line["state"] for line in json.loads(capsys.readouterr().out)]
        assert clinic.run("keys", "list") == 0
        lines = capsys.readouterr().out.splitlines()[1:]
        assert [line.endswith(f"  {state}") for line, state in zip(lines, found, strict=True)] == [True] * len(found)
        return found

    assert told() == ["will seal new mail"]
    clinic.add_message(State.RECEIVED)
    assert told() == ["seals new mail"]
    assert clinic.run("keys", "rotate") == 0
    capsys.readouterr()
    assert told() == ["seals new mail", "can be retired"]


def test_the_help_names_the_status_for_supervisors_where_it_occurs(capsys: pytest.CaptureFixture[str]) -> None:
    for words, named in ((["--help"], True), (["serve", "--help"], True), (["keys", "list", "--help"], False)):
        with pytest.raises(SystemExit):
            build_parser().parse_args(words)
        assert ("75 (serve)" in capsys.readouterr().out) is named
