"""OBJECTID (RFC 8474): EMAILID is the store's id of the message, MAILBOXID that of the mailbox; no threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.imap.imap_harness import bench, plain_message
from tests.unit.imap.mutable_harness import mutable_bench


async def test_fetch_tells_the_id_of_the_store(tmp_path: Path) -> None:
    """5.1, 5.2: EMAILID in parentheses, THREADID NIL."""
    async with bench(tmp_path, contents=[plain_message(n) for n in range(3)]) as here, here.selected() as client:
        assert await client.ok("FETCH 1:* (EMAILID THREADID)") == [
            b"* %d FETCH (EMAILID (m%05d) THREADID NIL)" % (number, number) for number in (1, 2, 3)
        ]
        assert await client.ok("UID FETCH 2 EMAILID") == [b"* 2 FETCH (UID 2 EMAILID (m00002))"]
        assert await here.practice.audit("message.read") == []


async def test_search_by_id(tmp_path: Path) -> None:
    """5.3; ids differ by case; an id that is none is bad syntax."""
    async with bench(tmp_path, contents=[plain_message(n) for n in range(3)]) as here, here.selected() as client:
        assert await client.ok("SEARCH EMAILID m00002") == [b"* SEARCH 2"]
        assert await client.ok("SEARCH NOT EMAILID m00002") == [b"* SEARCH 1 3"]
        assert await client.ok("SEARCH OR EMAILID m00001 EMAILID m00003") == [b"* SEARCH 1 3"]
        assert await client.ok("SEARCH EMAILID M00002") == [b"* SEARCH"]
        assert await client.ok("SEARCH EMAILID nobody") == [b"* SEARCH"]
        assert await client.ok("SEARCH THREADID m00002") == [b"* SEARCH"]
        for query in ("EMAILID", 'EMAILID "a b"', "EMAILID " + "a" * 256, "THREADID a.b"):
            assert (await client.cmd(f"SEARCH {query}"))[-1].startswith(b"BAD"), query
        assert (await client.cmd("SEARCH " + " ".join(f"EMAILID m{n}" for n in range(60))))[-1].startswith(b"BAD")


async def test_a_message_in_two_folders_has_one_id(tmp_path: Path) -> None:
    """5.1: the same content in two mailboxes."""
    async with mutable_bench(1) as here, here.selected() as client:
        await client.ok("CREATE Other")
        await client.ok("COPY 1 Other")
        inbox = await client.ok("FETCH 1 EMAILID")
        await client.ok("SELECT Other")
        assert await client.ok("FETCH 1 EMAILID") == inbox


@pytest.mark.parametrize("command", ["SELECT", "EXAMINE"])
async def test_the_id_of_a_mailbox(tmp_path: Path, command: str) -> None:
    """4.2, 4.3: in the answer to SELECT, as an item of STATUS and of LIST RETURN (STATUS)."""
    async with bench(tmp_path) as here, here.client() as client:
        await client.login()
        code = b"* OK [MAILBOXID (F%d)]" % here.practice.inbox_id
        assert any(line.startswith(code) for line in await client.ok(f"{command} inbox"))
        status = b"* STATUS INBOX (MAILBOXID (F%d) MESSAGES 0)" % here.practice.inbox_id
        assert await client.ok("STATUS INBOX (MAILBOXID MESSAGES)") == [status]
        listed = await client.ok('LIST "" "*" RETURN (STATUS (MAILBOXID))')
        ids = [line for line in listed if line.startswith(b"* STATUS")]
        assert len(ids) == len(set(ids)) == 2


async def test_the_id_of_a_mailbox_outlives_its_name() -> None:
    """4.1: RENAME keeps it, and a mailbox that is made anew has another one. CREATE says it."""
    async with mutable_bench() as here, here.client() as client:
        await client.login()

        async def status(name: str) -> bytes:
            (line,) = await client.ok(f"STATUS {name} (MAILBOXID)")
            return line.removesuffix(b"))").split(b"(")[-1]

        (created,) = await client.cmd("CREATE One")
        first = await status("One")
        assert created.startswith(b"OK [MAILBOXID (" + first + b")]")
        await client.ok("RENAME One Two")
        assert await status("Two") == first
        await client.ok("DELETE Two")
        await client.ok("CREATE Two")
        assert await status("Two") != first
