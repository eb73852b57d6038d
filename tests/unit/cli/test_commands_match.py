"""``match evaluate`` and ``patient search`` as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli.main import main
from gateway.matching.labelled import QUERY_COLUMNS, REGISTRY_COLUMNS

ROW = "p1,M1,Ann,Lee,,1956-08-03,female,617-234-5678,12 Main St,02108,Boston,ann@direct.example"
QUESTION = "q1,exact,p1,Ann,Lee,1956-08-03,female,617-234-5678,12 Main St,02108,Boston"
STRANGER = QUESTION.replace("q1,exact,p1", "q2,stranger,")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    registry, queries = tmp_path / "registry.csv", tmp_path / "queries.csv"
    registry.write_text(f"{','.join(REGISTRY_COLUMNS)}\n{ROW}\n", encoding="utf-8-sig")
    queries.write_text(f"{','.join(QUERY_COLUMNS)}\n{QUESTION}\n", encoding="utf-8")
    return registry, queries


def evaluate(files: tuple[Path, Path], *more: str) -> int:
    return main(["match", "evaluate", "--registry", str(files[0]), "--queries", str(files[1]), *more])


def test_right_links_are_status_0(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(files) == 0
    assert "automatic links: 1 right, 0 wrong" in capsys.readouterr().out


def test_a_wrong_link_is_status_1(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with files[1].open("a", encoding="utf-8") as file:
        file.write(f"{STRANGER}\n")
    assert evaluate(files, "--json") == 1
    result = json.loads(capsys.readouterr().out)
    assert [one["automatic_wrong"] for one in result["classes"]] == [0, 1]
    assert result["wrong"][0]["query_id"] == "q2"
    assert set(result["milliseconds"]) == {"p50", "p95", "p99"}
    assert evaluate(files, "--policy", "suggest") == 0


def test_files_that_cannot_be_read_are_status_2(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate((tmp_path / "none.csv", files[1])) == 2
    assert "cannot be read: No such file" in capsys.readouterr().err
    assert evaluate((tmp_path, files[1])) == 2
    files[0].write_bytes(b"id\xff\xfe")
    assert evaluate(files) == 2
    assert "is not UTF-8 text" in capsys.readouterr().err


def test_patient_search(tmp_path: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "clinic"
    assert main(["init", str(config), "--domain", "direct.example.org", "--address", "desk"]) == 0
    options = ["--config", str(config)]
    assert main(["patient", "import", str(files[0]), *options]) == 0
    capsys.readouterr()
    assert main(["patient", "search", "leee", "8/3/56", "--given", "ann", "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [hit["patient"]["id"] for hit in found["hits"]] == ["p1"]
    assert {"birth date =", "given name =", "family name \u2248"} <= {r["text"] for r in found["hits"][0]["reasons"]}
    assert main(["patient", "search", "(617) 234-5678", *options]) == 0
    assert "phone =" in capsys.readouterr().out
    assert main(["patient", "search", "zzyzx", *options]) == 0
    assert "no patient is like that" in capsys.readouterr().out
    assert main(["patient", "search", *options]) == 2
    assert main(["patient", "search", "--dob", "31/31/1950", *options]) == 2
    assert "1950" not in capsys.readouterr().err
    capsys.readouterr()
    assert main(["audit", "list", "--json", *options]) == 0
    logged = capsys.readouterr().out
    assert logged.count("patient.search") == 3
    assert "zzyzx" not in logged
