"""CONDSTORE under concurrency (RFC 7162 section 3.1): one of several wins, and everybody is told what is true."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.unit.imap.imap_harness import RawClient, bench, plain_message
from tests.unit.imap.mutable_harness import mutable_bench

_MODSEQ = re.compile(rb"MODSEQ \((\d+)\)")


def modseq(responses: list[bytes]) -> int:
    """Of the only FETCH answer among them."""
    (found,) = [match for line in responses if (match := _MODSEQ.search(line))]
    return int(found[1])


async def highest(client: RawClient) -> int:
    answers = await client.ok("STATUS INBOX (HIGHESTMODSEQ)")
    (line,) = [line for line in answers if line.startswith(b"* STATUS")]
    return int(line.split()[-1].strip(b")"))


async def test_of_many_conditional_stores_one_wins(tmp_path: Path) -> None:
    """3.1.3: all ask for the state that they saw; the losers are told who was left alone, and then what is there."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(here.selected()) for _ in range(6)]
        for client in clients:
            await client.ok("ENABLE CONDSTORE")
        seen = modseq(await clients[0].ok("FETCH 1 (MODSEQ)"))
        commands = [f"STORE 1 (UNCHANGEDSINCE {seen}) +FLAGS.SILENT ($Taken{n})" for n in range(len(clients))]
        answers = await asyncio.gather(
            *(client.cmd(command) for client, command in zip(clients, commands, strict=True))
        )
        won = [n for n, answer in enumerate(answers) if b"[MODIFIED" not in answer[-1]]
        assert len(won) == 1
        assert all(b"OK [MODIFIED 1]" in answer[-1] for n, answer in enumerate(answers) if n not in won)
        assert {flag for flag in await here.practice.flags() if flag.startswith("$Taken")} == {f"$Taken{won[0]}"}
        told = {modseq(answer) for answer in answers}
        assert told == {await highest(clients[0])}


async def test_pipelined_conditional_stores_see_each_other(tmp_path: Path) -> None:
    """3.1.3: the second of two commands sent at once fails on what the first one did."""
    async with bench(tmp_path, contents=[plain_message(1), plain_message(2)]) as here, here.selected() as client:
        seen = await highest(client)
        await client.send(
            b"a STORE 1:2 (UNCHANGEDSINCE %d) +FLAGS.SILENT (\\Seen)\r\n"
            b"b UID STORE 1:2 (UNCHANGEDSINCE %d) +FLAGS.SILENT (\\Flagged)\r\n"
            b"c FETCH 1:* (FLAGS)\r\n" % (seen, seen)
        )
        assert (await client.until(b"a"))[-1].startswith(b"a OK STORE")
        assert (await client.until(b"b"))[-1].startswith(b"b OK [MODIFIED 1:2]")
        flags = await client.until(b"c")
        assert [line.split(b" MODSEQ")[0] for line in flags[:-1]] == [
            b"* 1 FETCH (FLAGS (\\Seen))",
            b"* 2 FETCH (FLAGS (\\Seen))",
        ]


async def test_modified_names_numbers_after_messages_left() -> None:
    """3.1.3: message numbers of this session, or UIDs."""
    async with mutable_bench(4) as here, here.selected() as client:
        await here.drop(1)
        await client.ok("NOOP")
        before = await here.modseq()
        async with here.selected() as other:
            await other.ok("UID STORE 3 +FLAGS (\\Flagged)")
        last = (await client.cmd(f"STORE 1:3 (UNCHANGEDSINCE {before}) +FLAGS (\\Seen)"))[-1]
        assert last.startswith(b"OK [MODIFIED 2]")
        last = (await client.cmd(f"UID STORE 3 (UNCHANGEDSINCE {before}) +FLAGS (\\Seen)"))[-1]
        assert last.startswith(b"OK [MODIFIED 3]")


async def test_reading_a_body_tells_the_modseq_of_seen(tmp_path: Path) -> None:
    """3.1: once CONDSTORE is on, every change of flags comes with its MODSEQ, also the one that a FETCH makes."""
    async with bench(tmp_path, contents=[plain_message(1), plain_message(2)]) as here, here.selected() as client:
        await client.ok("ENABLE CONDSTORE")
        answers = await client.ok("FETCH 1 BODY[TEXT]")
        assert modseq(answers) == await highest(client)
        assert answers[-1].startswith(b"* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (")
        (answer,) = await client.ok("FETCH 2 (MODSEQ FLAGS BODY[TEXT])")
        assert modseq([answer]) == await highest(client)


async def test_nothing_is_unchanged_since_zero(tmp_path: Path) -> None:
    """3.1.3: UNCHANGEDSINCE 0 fails for every message."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        assert (await client.cmd("STORE 1 (UNCHANGEDSINCE 0) +FLAGS (\\Seen)"))[-1].startswith(b"OK [MODIFIED 1]")
        assert await here.practice.flags() == set()


async def test_what_the_mailbox_says_is_highest_covers_what_was_told(tmp_path: Path) -> None:
    """3.1.2.1: while others change flags, CHANGEDSINCE of any HIGHESTMODSEQ that was said misses nothing."""
    async with (
        bench(tmp_path, contents=[plain_message(n) for n in range(8)]) as here,
        here.selected() as reader,
        here.selected() as writer,
    ):
        await reader.ok("ENABLE CONDSTORE")
        known: dict[int, bytes] = {}
        since = 1

        async def write() -> None:
            for n in range(40):
                sign = "+" if n % 3 else "-"
                await writer.ok(f"STORE {n % 8 + 1} {sign}FLAGS.SILENT (\\Flagged $Word)")

        async def read() -> None:
            nonlocal since
            while not writing.done():
                line = await highest(reader)
                for answer in await reader.ok(f"UID FETCH 1:* (FLAGS) (CHANGEDSINCE {since})"):
                    if found := re.match(rb"\* \d+ FETCH \(UID (\d+) FLAGS (\([^)]*\))", answer):
                        known[int(found[1])] = found[2]
                since = line

        writing = asyncio.ensure_future(write())
        await read()
        await writing
        await read_once(reader, known, since)
        truth = {entry.uid: set(entry.flags) for entry in await here.practice.entries()}
        assert {uid: set(flags.strip(b"()").decode().split()) for uid, flags in known.items()} == truth


async def read_once(client: RawClient, known: dict[int, bytes], since: int) -> None:
    for answer in await client.ok(f"UID FETCH 1:* (FLAGS) (CHANGEDSINCE {since})"):
        if found := re.match(rb"\* \d+ FETCH \(UID (\d+) FLAGS (\([^)]*\))", answer):
            known[int(found[1])] = found[2]


@pytest.mark.parametrize(
    ("returns", "added"), [("MIN", 1), ("MAX", 2), ("MIN MAX", 2), ("ALL", 3), ("COUNT", 3), ("MIN COUNT", 3)]
)
async def test_the_modseq_of_an_extended_search(returns: str, added: int) -> None:
    """3.1.10: of the message that is told of; with ALL or COUNT of all that were found."""
    async with mutable_bench(3) as here, here.selected() as client:
        await client.ok("ENABLE CONDSTORE")
        base = await here.modseq()
        for uid in (1, 3, 2):
            await client.ok(f"UID STORE {uid} +FLAGS.SILENT (\\Flagged)")
        (line,) = await client.ok(f"SEARCH RETURN ({returns}) MODSEQ 1 FLAGGED")
        assert line.endswith(b" MODSEQ %d" % (base + added))


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ('MODSEQ "/flags/\\\\Seen" all 1', b"OK"),
        ('MODSEQ "/flags/$Word" priv 1', b"OK"),
        ('MODSEQ "/flags/$Word" everybody 1', b"BAD"),
        ('MODSEQ "/flags/$Word" 1', b"BAD"),
        ("MODSEQ", b"BAD"),
        ("MODSEQ 9223372036854775808", b"BAD"),
        ("MODSEQ -1", b"BAD"),
    ],
)
async def test_forms_of_the_modseq_key(query: str, answer: bytes) -> None:
    """3.1.5."""
    async with mutable_bench(1) as here, here.selected() as client:
        assert (await client.cmd(f"SEARCH {query}"))[-1].startswith(answer)
