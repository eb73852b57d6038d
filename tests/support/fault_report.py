"""Every experiment tells what it tried and what it found; the lines stand together at the end of the run.

A line travels with the result of its test, so that it is told as well when the tests run in several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.intake_faults import end_all

_LINE = "experiment"


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Write one line of the summary: points tried, lost, duplicated."""

    def write(line: str) -> None:
        request.node.user_properties.append((_LINE, line))

    return write


@pytest.fixture(autouse=True)
def no_node_stays() -> Iterator[None]:
    """A test that fails must leave no process behind."""
    yield
    end_all()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    results = [one for outcome in ("passed", "failed") for one in terminalreporter.getreports(outcome)]
    lines = sorted(line for one in results if one.when == "call" for name, line in one.user_properties if name == _LINE)
    if lines:
        terminalreporter.section("fault and load experiments")
        for line in lines:
            terminalreporter.write_line(line)
