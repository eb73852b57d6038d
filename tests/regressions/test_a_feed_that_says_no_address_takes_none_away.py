"""A feed that names all Direct addresses took them away with every message that has no field for them.

An address that a family shares was then documented for one of them alone, and mail from it went onto his chart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.matching import DecisionKind
from gateway.store.sql_store import SQLStore
from tests.support.stores import STORES
from tests.unit.hl7.test_adt_feed import RULES, adt, code, decided, feed_of, patient

FAMILY = "family@patients.direct.example"
OTHER = "bo@patients.direct.example"
REPLACING = replace(RULES, replaces_addresses=True)
HERS = f"1||7^^^HOSP^MR||Quimby^Ann||19610203|F|||||^NET^DIRECT^{FAMILY}"
HIS = f"1||8^^^HOSP^MR||Quimby^Bo||19600203|M|||||^NET^DIRECT^{FAMILY}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    with STORES["sqlite"](tmp_path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("event", "telecom", "more"),
    [
        ("A08", "", ()),
        ("A08", "|||||^NET^DIRECT^no address at all", ()),
        ("A40", "", ("MRG|9^^^HOSP^MR",)),
    ],
)
async def test_a_shared_address_stays_shared(store: SQLStore, event: str, telecom: str, more: tuple[str, ...]) -> None:
    feed = feed_of(store, REPLACING)
    assert await code(feed, adt("A08", HERS)) == await code(feed, adt("A08", HIS)) == "AA"
    assert decided(store, FAMILY)[0] is not DecisionKind.AUTOMATIC
    said = f"1||8^^^HOSP^MR||Quimby^Bo||19600203|M{telecom}"
    assert await code(feed, adt(event, said, *more, at="20260601081000")) == "AA"
    assert patient(store, "8").direct_addresses == (FAMILY,)
    assert decided(store, FAMILY)[0] is not DecisionKind.AUTOMATIC


@pytest.mark.parametrize(("telecom", "left"), [(f"^NET^DIRECT^{OTHER}", (OTHER,)), ('""', ()), ("555-1234", ())])
async def test_a_field_that_is_filled_names_all_of_them(store: SQLStore, telecom: str, left: tuple[str, ...]) -> None:
    feed = feed_of(store, REPLACING)
    assert await code(feed, adt("A08", HIS)) == "AA"
    said = f"1||8^^^HOSP^MR||Quimby^Bo||19600203|M|||||{telecom}"
    assert await code(feed, adt("A08", said, at="20260601081000")) == "AA"
    assert patient(store, "8").direct_addresses == left
