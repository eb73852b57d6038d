"""A patient who was nearly the one in everything, and exact in nothing, was not among those who were compared.

So the rule that the next patient must stand two points lower was not kept, and a message was linked that ``match
explain`` would have left to a person. Likewise with houses in Wisconsin, whose number begins with a letter: who lived
together there was not found.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from gateway.core.lifecycle import State
from gateway.ports import Patient
from tests.unit.evidence.evidence_messages import cda, message, part
from tests.unit.pipeline.test_link_by_index import BY_DEMOGRAPHICS, QUIMBY, ROLE, practice

ADA = replace(QUIMBY, address_line="", city="", postal_code="")
NEAR = Patient(
    "p2", "", "Quimby", "Ada Mae", date(1961, 3, 15), "female", "617-234-5679", "12 Mian Street", "Boston"
)  # fmt: skip
GRID = "W204N11912 Goldendale Rd"
FATHER = replace(NEAR, given="Ada M", birth_date=date(1931, 3, 14), address_line=GRID, postal_code="02108", phone="")


@pytest.mark.parametrize(("other", "street"), [(NEAR, "12 Main St"), (FATHER, GRID)], ids=["near", "same house"])
async def test_he_is_compared(tmp_path: Path, other: Patient, street: str) -> None:
    said = ROLE.format(number="", given="Ada", family="Quimby", born="19610314").replace("12 Main St", street)
    with practice(tmp_path, BY_DEMOGRAPHICS) as own:
        own.add(ADA, other)
        state, detail = await own.take(message(part(cda(said).encode(), "text/xml")))
    assert (detail["candidates"][0]["patient"], detail["points"]) == ("p1", 9.0)
    assert (state, detail["rule"]) == (State.FILED, "evidence-1:runner_up")


async def test_who_is_farther_away_hinders_nothing(tmp_path: Path) -> None:
    said = ROLE.format(number="", given="Ada", family="Quimby", born="19610314")
    with practice(tmp_path, BY_DEMOGRAPHICS) as own:
        own.add(ADA, replace(NEAR, address_line="14 Elm Street"))
        state, detail = await own.take(message(part(cda(said).encode(), "text/xml")))
    assert (state, detail["rule"]) == (State.LINKED, "evidence-1:exact_demographics")
