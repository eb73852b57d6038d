"""The table of README.md: each test that it names is there, each experiment has a seeded bug and a report."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_name("README.md")
WANTED = [f"F{number:02d}" for number in (*range(1, 9), *range(10, 24), *range(29, 36), *range(38, 44))]
_TEST = re.compile(r"`(?:(test_\w+\.py))?(?:::(test_\w+))?`")


def rows() -> dict[str, list[str]]:
    """The cells of each row by its id."""
    lines = [line for line in TABLE.read_text().splitlines() if re.match(r"\| F\d\d \|", line)]
    return {cells[0]: cells[1:] for cells in ([one.strip() for one in line.strip("|").split("|")] for line in lines)}


@functools.cache
def functions(file: str) -> set[str]:
    [path] = TESTS.rglob(file)
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def named(cell: str) -> list[tuple[str, str]]:
    """The tests of a cell: file, and function or nothing."""
    found: list[tuple[str, str]] = []
    for file, function in _TEST.findall(cell):
        if file or function:
            found.append((file or found[-1][0], function))
    return found


@pytest.mark.parametrize("name", WANTED)
def test_each_experiment_is_there_with_its_seeded_bug_and_its_report(name: str) -> None:
    experiment, seeded, report = rows()[name]
    for cell in (experiment, seeded):
        tests = named(cell)
        assert any(function for _, function in tests), cell
        for file, function in tests:
            assert not function or function in functions(file), (file, function)
    assert re.search(r"\d", report)


def test_every_row_names_tests_that_exist() -> None:
    missing = [
        (name, file, function)
        for name, (experiment, seeded, _) in rows().items()
        for file, function in named(experiment) + named(seeded)
        if function and function not in functions(file)
    ]
    assert missing == []
    assert set(WANTED) <= set(rows())


def test_a_test_that_is_gone_would_be_missed() -> None:
    assert named("`test_pool.py::test_no_such_thing`, `::test_another`") == [
        ("test_pool.py", "test_no_such_thing"),
        ("test_pool.py", "test_another"),
    ]
    assert "test_no_such_thing" not in functions("test_pool.py")
