"""``store status`` of a store into which ``copy-store`` was killed said that all was well; no gateway opens it.

And a dry run of ``copy-store`` was content with a target that has no tables, where the copy itself then failed, with
the gateway stopped, because nobody was named who may make them.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.cli.main import main
from tests.support.copies import filled, new_place, unfinished
from tests.support.postgresql import shared_cluster


def test_a_mark_is_told_by_the_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = filled("sqlite", tmp_path), new_place("sqlite", tmp_path)
    unfinished(source, target)
    config = tmp_path / "gateway.toml"
    config.write_text(f'[store]\nurl = "{target.url}"\n')
    capsys.readouterr()
    assert main(["store", "status", "--config", str(config), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["usable"] is False
    assert "unfinished copy" in told["trouble"]
    with closing(sqlite3.connect(target.url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("DELETE FROM job WHERE id = -1")
    assert main(["store", "status", "--config", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usable"] is True


def test_a_dry_run_asks_who_makes_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clinic, target = tmp_path / "clinic", shared_cluster().settings()
    assert main(["init", str(clinic), "--domain", "clinic.example", "--address", "inbox", "--json"]) == 0
    words = ["copy-store", "--to", target.url, "--to-schema", target.schema, "--dry-run", "--config", str(clinic)]
    capsys.readouterr()
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "the target has no tables yet" in told
    assert "with --owner-url URL" in told
    assert main([*words, "--owner-url", "postgresql://nobody@127.0.0.1:1/none"]) == 3
    assert "--owner-url: the database does not answer" in capsys.readouterr().err
