"""Hostile text cannot drive the terminal; output never fails for a character."""

import io
import json
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from gateway.cli.output import cell, clean, out, print_json, print_table, when


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x1b]0;title\x07", "a\rb", "a\nb", "\u202egpj", "\u2066x", "\x9b31m"])
def test_control_and_bidirectional_characters_are_replaced(hostile: str) -> None:
    cleaned = clean(f"Subject {hostile}")
    assert cleaned.isprintable()
    assert "\ufffd" in cleaned


def test_a_table_is_aligned_and_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("ID", "SUBJECT"), [("1", "x" * 100), ("22", "\x1b[31mred")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ID  SUBJECT")
    assert lines[1] == "1   " + "x" * 57 + "..."
    assert "\x1b" not in lines[2]
    assert cell("short") == "short"


def test_times_are_shown_in_utc() -> None:
    moment = datetime(2026, 1, 5, 10, 30, tzinfo=timezone(timedelta(hours=1)))
    assert when(moment) == "2026-01-05 09:30:00Z"


def test_a_terminal_without_the_character_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii", write_through=True))
    out("caf\u00e9")
    assert buffer.getvalue() == b"caf\\xe9\n"


def test_json_is_ascii_with_iso_times(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"at": datetime(2026, 1, 5, tzinfo=UTC), "flags": frozenset({"b", "a"}), "text": "\u202e"})
    text = capsys.readouterr().out
    assert text.isascii()
    assert json.loads(text) == {"at": "2026-01-05T00:00:00+00:00", "flags": ["a", "b"], "text": "\u202e"}
