"""SENTON and its like took the day in UTC: a letter of late evening in America was of the next day."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.imap.imap_harness import bench


@pytest.mark.parametrize(("day", "expected"), [("1-Mar-2024", b" 1"), ("2-Mar-2024", b" 2")])
async def test_the_day_is_the_one_that_the_sender_wrote(tmp_path: Path, day: str, expected: bytes) -> None:
    """RFC 3501 6.4.4."""
    dates = [b"Fri, 1 Mar 2024 23:30:00 -0800", b"Sat, 2 Mar 2024 00:30:00 +0900"]
    contents = [b"Date: " + date + b"\r\n\r\n" for date in dates]
    async with bench(tmp_path, contents=contents) as here, here.selected() as client:
        assert await client.ok(f"SEARCH SENTON {day}") == [b"* SEARCH" + expected]
