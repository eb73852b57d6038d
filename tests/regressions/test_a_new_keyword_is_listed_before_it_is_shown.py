"""A FETCH showed a keyword that another session had set meanwhile, before any FLAGS response had listed it."""

from __future__ import annotations

from pathlib import Path

from tests.unit.imap.imap_harness import bench, plain_message


async def test_a_new_keyword_is_listed_before_a_message_shows_it(tmp_path: Path) -> None:
    """RFC 3501 7.2.6: somebody else has set it since this session was last told anything."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as one, here.selected() as other:
        for keyword, item in (("First", "FLAGS"), ("Second", "(FLAGS BODY[])")):
            await one.ok(f"STORE 1 +FLAGS ({keyword})")
            listed, shown, *_ = await other.ok(f"FETCH 1 {item}")
            assert listed.startswith(b"* FLAGS (")
            assert keyword.encode() in listed
            assert shown.startswith(b"* 1 FETCH (FLAGS (")
            assert keyword.encode() in shown
