"""Lines of FETCH made by columns: what is asked for in any mixture stands in a line as it would alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.imap import fetch
from gateway.imap.fetch_columns import date_of
from gateway.imap.responses import internal_date
from gateway.serving.connection import SLICE_BYTES
from tests.unit.imap.imap_harness import MULTIPART, bench, plain_message

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "moment",
    [
        EPOCH,
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2024, 2, 29, 0, 0, 0, tzinfo=UTC),
        datetime(2026, 11, 3, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2100, 12, 31, 12, 0, 1, tzinfo=UTC),
    ],
)
def test_a_date_is_spelt_as_ever(moment: datetime) -> None:
    assert date_of((moment - EPOCH) // timedelta(microseconds=1)) == internal_date(moment)


@pytest.mark.parametrize("large", [False, True])
async def test_a_mixture_is_what_each_item_gives_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """In batches of two, with messages that go out in one line and one that goes out in slices."""
    monkeypatch.setattr(fetch, "BATCH_MESSAGES", 2)
    items = (
        "UID",
        "FLAGS",
        "INTERNALDATE",
        "RFC822.SIZE",
        "ENVELOPE",
        "BODYSTRUCTURE",
        'BODY.PEEK[HEADER.FIELDS (From "x%s" Subject)]',
        "BODY.PEEK[HEADER.FIELDS.NOT (Subject)]",
        "BODY.PEEK[1.MIME]",
        "BODY.PEEK[TEXT]<3.7>",
        "BODY.PEEK[9]",
        "BODY.PEEK[]",
    )
    contents = [plain_message(number, b"100% of it\r\n" * (SLICE_BYTES // 8 if large else 2)) for number in range(4)]
    async with bench(tmp_path, contents=[*contents, MULTIPART]) as here, here.selected() as client:
        alone = [await client.ok(f"FETCH 1:* ({item})") for item in items]
        together = await client.ok(f"FETCH 1:* ({' '.join(items)})")
        backwards = await client.ok(f"FETCH 1:* ({' '.join(reversed(items))})")
    for number in range(5):
        head = b"* %d FETCH (" % (number + 1)
        values = [lines[number].removeprefix(head).removesuffix(b")") for lines in alone]
        assert together[number] == head + b" ".join(values) + b")"
        assert backwards[number] == head + b" ".join(reversed(values)) + b")"
