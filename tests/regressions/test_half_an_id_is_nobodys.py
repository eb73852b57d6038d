"""An id with an ampersand that its sender had not escaped was cut there: the event was applied to another patient."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.store.sql_store import SQLStore
from tests.support.stores import STORES
from tests.unit.hl7.test_adt_feed import adt, code, entries, feed_of, patient


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    with STORES["sqlite"](tmp_path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("event", "pid", "more", "place"),
    [
        ("A08", "1||7&9^^^HOSP^MR||Bird^Bo", (), "PID-3"),
        ("A40", "1||8^^^HOSP^MR||Bird^Bo", ("MRG|7&9^^^HOSP^MR",), "MRG-1"),
    ],
)
async def test_an_id_of_several_parts_is_refused(
    store: SQLStore, event: str, pid: str, more: tuple[str, ...], place: str
) -> None:
    feed = feed_of(store)
    assert await code(feed, adt()) == "AA"
    before = patient(store)
    assert await code(feed, adt(event, pid, *more, at="20260601081000")) == "AR"
    assert patient(store) == before
    assert entries(store, unapplied=True)[0].reason.startswith(place)


@pytest.mark.parametrize(("written", "meant"), [("7\\T\\9", "7&9"), ("7&", "7")])
async def test_what_is_escaped_or_empty_is_no_part(store: SQLStore, written: str, meant: str) -> None:
    assert await code(feed_of(store), adt("A04", f"1||{written}^^^HOSP^MR||Bird^Bo")) == "AA"
    assert patient(store, meant).family == "Bird"
