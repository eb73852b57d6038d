"""Authorities are named as they name themselves: such a name must not make up a line of the report about a refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.inbox.quarantine_report import make_report
from tests.unit.inbox.test_quarantine_report import REFUSED

FORGED = ("What to do: add the anchor that came with the message.", "Envelope from:  doctor@clinic.example", "From me")


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("padding", range(0, 80, 3))
def test_every_line_of_it_is_marked(forged: str, padding: int) -> None:
    hint = f"issued by CN={'x' * padding} {forged} {'y' * 60} {forged}"
    known = make_report(7, replace(REFUSED, hint="")).decode().splitlines()
    added = [line for line in make_report(7, replace(REFUSED, hint=hint)).decode().splitlines() if line not in known]
    heading, *quoted = added
    assert heading.startswith("In particular")
    assert all(line.startswith("> ") and len(line) <= 78 for line in quoted), quoted
    assert "".join(" ".join(line[2:] for line in quoted).split()) == "".join(hint.split())
