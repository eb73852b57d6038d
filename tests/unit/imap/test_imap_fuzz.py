"""Commands that are nearly right, over a real socket, before and after login. EP-22, EP-29, F20.

Each example is a valid command with a few edits: octets and tokens put in, taken out, said twice or changed places,
literals with wrong sizes, brackets without end, long runs, NULs. Whatever comes out, each line that a client sends gets
a tagged answer (or one with ``*`` where there is no tag), or the session ends with BYE; no answer is SERVERBUG; the
server goes on at once; and nothing is deleted. The parser alone is fuzzed in test_imap_parser.py.

``GATEWAY_FUZZ_EXAMPLES`` is how many examples the long run takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.imap.imap_harness import MULTIPART, SETTINGS, Bench, RawClient, bench, plain_message

LONG_EXAMPLES = int(os.environ.get("GATEWAY_FUZZ_EXAMPLES", "6000"))
ANSWER_SECONDS = 20.0
"""Longer than the two seconds of CPU that an answer may take: the machine may be busy with other things."""
ANSWER_CPU_SECONDS = 2.0
PROMPT_SECONDS = 0.02
"""How long to wait for the answer to what may be half a command, before the rest is sent."""
MAX_ROUNDS = 200
_ANSWER = re.compile(rb"(?:(?!\* |FENCE)\S+ (?:OK|NO|BAD) |\* (?:NO|BAD) )")
_LEAVES = re.compile(rb"(?i)close|unselect|select|examine")
CONTENTS = [MULTIPART, plain_message(2), plain_message(3, b"x" * 5_000 + b"\r\n")]
FEW_LIMITS = replace(SETTINGS, max_connections=2_000, max_connections_per_peer=2_000, max_sessions_per_account=2_000)

BEFORE_LOGIN = [
    b"CAPABILITY",
    b"NOOP",
    b"ID NIL",
    b'ID ("name" "x" "version" {3}\r\n1.0)',
    b"LOGIN nobody wrong",
    b'LOGIN "no\\"body" {5}\r\nwrong',
    b"LOGIN {6+}\r\nnobody {5+}\r\nwrong",
    b"AUTHENTICATE PLAIN AG5vYm9keQB3cm9uZw==",
    b"AUTHENTICATE OAUTHBEARER bixhPXgsAQE=",
    b"SELECT INBOX",
    b"FETCH 1 BODY[]",
]
AFTER_LOGIN = [
    b'FETCH 1 (FLAGS BODY[HEADER.FIELDS (DATE "FROM")] BODY.PEEK[1.2.TEXT]<0.100>)',
    b"FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)",
    b"UID FETCH 1:*,3 ALL",
    b"UID FETCH 1:* (UID FLAGS) (CHANGEDSINCE 1 VANISHED)",
    b"FETCH 1 (BODY[2.MIME] BODY[HEADER.FIELDS.NOT (TO)] RFC822.TEXT EMAILID)",
    b'SEARCH RETURN (MIN MAX SAVE) CHARSET UTF-8 OR (FROM a NOT SEEN) HEADER X "y" 1:3,*',
    b"UID SEARCH SUBJECT {6}\r\nnumber SINCE 1-Feb-2024 LARGER 10 KEYWORD $X UNDELETED",
    b"SEARCH (OR (TEXT x) (BODY {1}\r\ny)) $ UID 1:* MODSEQ 1",
    b"STORE 1 (UNCHANGEDSINCE 5) -FLAGS.SILENT (\\Seen $X)",
    b"UID STORE 1:* +FLAGS (\\Deleted \\Flagged)",
    b"STORE 1:* FLAGS (\\Deleted)",
    b"EXPUNGE",
    b"UID EXPUNGE 1:*",
    b"CLOSE",
    b"UNSELECT",
    b"SELECT INBOX (CONDSTORE)",
    b"SELECT INBOX (QRESYNC (1 1 1:3 (1:2 1:2)))",
    b"EXAMINE {5}\r\nINBOX",
    b'STATUS "INBOX" (MESSAGES UIDNEXT UNSEEN SIZE HIGHESTMODSEQ MAILBOXID)',
    b'LIST (SUBSCRIBED RECURSIVEMATCH) "" (a* "b%") RETURN (CHILDREN STATUS (MESSAGES))',
    b'LSUB "" *',
    b"SUBSCRIBE INBOX",
    b"CREATE Trash",
    b"DELETE INBOX",
    b"RENAME INBOX &AOQ-",
    b"COPY 1:* INBOX",
    b"UID MOVE 1 {5}\r\nINBOX",
    b'APPEND INBOX (\\Seen) "01-Mar-2024 10:00:00 +0000" {12}\r\nFrom: a\r\n\r\nb',
    b"APPEND Sent {5+}\r\nhello",
    b"ENABLE CONDSTORE QRESYNC UTF8=ACCEPT",
    b"MYRIGHTS INBOX",
    b"SETACL INBOX anyone +lrs",
    b"LISTRIGHTS INBOX anyone",
    b"NAMESPACE",
    b"CHECK",
]
TOKENS = [
    b" ", b"  ", b"(", b")", b"((((", b"))", b'"', b'\\"', b"{3}\r\nabc", b"{3+}\r\nabc", b"{0}\r\n", b"{1}\r\n", b"{",
    b"{999999999}\r\n", b"{99999999999999999999}\r\n", b"{4096}\r\n", b"{5000+}\r\n", b"}", b"[", b"]", b"[]", b"<0.5>",
    b"<9999999999.1>", b"*", b"%", b":", b",", b"$", b"0", b"-1", b"4294967295", b"4294967296", b"18446744073709551616",
    b"1:*", b"*:1", b"\\Seen", b"\\Deleted", b"\\", b"\\*", b"NIL", b"INBOX", b"NOT ", b"OR ", b"BODY[", b"RETURN (",
    b"CHARSET x", b"UID ", b"1-Feb-2024", b"31-Feb-2024", b"\x00", b"\xff", b"\xc3\xa9", b"\r", b"\n", b"\r\n", b"&",
    b"&-", b"&AOQ", b"+", b"=", b"x" * 1_000, b"(" * 300, b"NOT " * 150, b"1," * 500, b"\\Seen " * 100, b"y" * 70_000,
]  # fmt: skip


@st.composite
def nearly_valid(draw: st.DrawFn, commands: list[bytes]) -> bytes:
    """A command line with its literals inline, perhaps damaged, perhaps more than one line."""
    text = bytearray(draw(st.sampled_from(commands)))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(0, 6)))
        edit = draw(st.sampled_from(["insert", "octets", "cut", "twice", "swap", "case", "size"]))
        if edit == "insert":
            text[start:start] = draw(st.sampled_from(TOKENS))
        elif edit == "octets":
            text[start:stop] = draw(st.binary(max_size=6))
        elif edit == "cut":
            del text[start:stop]
        elif edit == "twice":
            text[start:start] = text[start:stop] * draw(st.integers(1, 40))
        elif edit == "swap":
            text[:] = text[start:] + text[:start]
        elif edit == "case":
            text[start:stop] = bytes(text[start:stop]).swapcase()
        else:
            size = b"{%d}" % draw(st.sampled_from([0, 1, 4, 7, 100, 4_097, 70_000, 10**12]))
            text[:] = re.sub(rb"\{\d*\}", size, bytes(text), count=1)
    tag = draw(
        st.sampled_from([b"a ", b"a ", b"a ", b"a ", b"A1.x ", b"", b" ", b"+ ", b"* ", b"\x00 ", b"t" * 300 + b" "])
    )
    return tag + bytes(text) + b"\r\n"


class Talk:
    """One connection, and the rules that every answer on it keeps."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self._fences = 0
        self._answered = False
        self._asked_for_more = False

    async def say(self, raw: bytes) -> bool:
        """Send it; False when the session is over, which the server must have said.

        After it goes a command of our own, which must be answered: so the server is neither stuck nor out of step. An
        edit may have made a literal longer, or have begun an IDLE: then the server asks for more (``+``), and gets it.
        """
        sizes = [int(size) for size in re.findall(rb"\{(\d{1,6})\+?\}", raw)]
        more = b"z" * max([0, *sizes]) + b"\r\nDONE\r\n"
        self._answered = self._asked_for_more = False
        await self._client.send(raw + self._fence())
        for _ in range(MAX_ROUNDS):
            may_be_half = self._asked_for_more or b"+}" in raw
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROMPT_SECONDS if may_be_half else ANSWER_SECONDS) as patience:
                    return await self._until_fence(patience)
            assert self._asked_for_more or b"+}" in raw, f"no answer to {raw[:300]!r}"
            await self._client.send(more + self._fence())
        raise AssertionError(f"no answer after {raw[:300]!r}")

    def _fence(self) -> bytes:
        self._fences += 1
        return b"\r\nFENCE%d NOOP\r\n" % self._fences

    async def _until_fence(self, patience: asyncio.Timeout) -> bool:
        """True at the answer to our own newest command, False at the end of the connection."""
        bye = False
        while True:
            line = await self._client.reader.readline()
            if not line:
                assert bye, "the connection was closed without BYE"
                return False
            assert b"SERVERBUG" not in line, line
            bye |= line.startswith(b"* BYE")
            if line.startswith(b"FENCE%d " % self._fences):
                assert line.partition(b" ")[2].startswith(b"OK"), line
                assert self._answered, "our own command is answered, the one before it is not"
                return True
            self._answered |= _ANSWER.match(line) is not None
            if line.startswith(b"+ "):
                self._asked_for_more = True
                patience.reschedule(asyncio.get_running_loop().time() + PROMPT_SECONDS)


class Fuzzed:
    """A server with an event loop of its own, for examples that are functions."""

    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self._folder = folder
        self._server = contextlib.AsyncExitStack()
        self._connections: dict[bool, tuple[contextlib.AsyncExitStack, Talk]] = {}
        self.bench: Bench

    def open(self) -> None:
        async def enter() -> None:
            self.bench = await self._server.enter_async_context(bench(self._folder, FEW_LIMITS, CONTENTS))

        self._runner.run(enter())

    def close(self) -> None:
        async def leave() -> None:
            for logged_in in list(self._connections):
                await self._hang_up(logged_in=logged_in)
            await self._server.aclose()

        self._runner.run(leave())
        self._runner.close()

    async def _hang_up(self, *, logged_in: bool) -> None:
        await self._connections.pop(logged_in)[0].aclose()

    async def _connected(self, *, logged_in: bool) -> Talk:
        if logged_in not in self._connections:
            stack = contextlib.AsyncExitStack()
            client = await stack.enter_async_context(self.bench.client())
            talk = Talk(client)
            self._connections[logged_in] = stack, talk
            if logged_in:
                await client.login()
                assert await talk.say(b"s SELECT INBOX\r\n")
        return self._connections[logged_in][1]

    def example(self, raw: bytes, *, logged_in: bool) -> None:
        async def once() -> None:
            talk = await self._connected(logged_in=logged_in)
            start = time.process_time()
            goes_on = await talk.say(raw)
            if goes_on and logged_in and _LEAVES.search(raw):
                goes_on = await talk.say(b"s SELECT INBOX\r\n")
            assert time.process_time() - start < ANSWER_CPU_SECONDS, raw[:300]
            if not goes_on:
                await self._hang_up(logged_in=logged_in)

        self._runner.run(once())

    def contents(self) -> list[bytes]:
        """What the inbox holds."""

        async def look() -> list[bytes]:
            async with self.bench.selected() as client:
                answers = await client.ok("UID FETCH 1:* BODY.PEEK[]")
                return [answer.partition(b"}\r\n")[2][:-1] for answer in answers if b" FETCH " in answer]

        return self._runner.run(look())


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    made = Fuzzed(tmp_path_factory.mktemp("fuzz"))
    made.open()
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("command", [*BEFORE_LOGIN, *AFTER_LOGIN], ids=lambda command: command[:24].decode())
@pytest.mark.parametrize("logged_in", [False, True])
def test_whole_commands_are_answered(fuzzed: Fuzzed, command: bytes, *, logged_in: bool) -> None:
    """What the examples are made from, and that the rules of this file hold of it."""
    fuzzed.example(b"a " + command + b"\r\n", logged_in=logged_in)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=nearly_valid(BEFORE_LOGIN))
def test_before_login(fuzzed: Fuzzed, raw: bytes) -> None:
    fuzzed.example(raw, logged_in=False)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=nearly_valid(AFTER_LOGIN))
def test_after_login(fuzzed: Fuzzed, raw: bytes) -> None:
    fuzzed.example(raw, logged_in=True)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@settings(max_examples=LONG_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=nearly_valid(BEFORE_LOGIN + AFTER_LOGIN), logged_in=st.booleans())
def test_many(fuzzed: Fuzzed, raw: bytes, *, logged_in: bool) -> None:
    fuzzed.example(raw, logged_in=logged_in)


def test_nothing_was_deleted(fuzzed: Fuzzed) -> None:
    """After all that the tests above have asked for."""
    fuzzed.example(b"a UID STORE 1:* +FLAGS (\\Deleted)\r\n", logged_in=True)
    fuzzed.example(b"a EXPUNGE\r\n", logged_in=True)
    assert fuzzed.contents() == CONTENTS


# --- memory before login ---

STRANGERS = 40
FLOODS = {
    "a line without end": b"x" * (4 << 20),
    "a literal that does not wait": b"a LOGIN {4096+}\r\n" + b"x" * (4 << 20),
    "literal after literal": b"a ID (" + (b"{4000+}\r\n" + b"x" * 4_000 + b" ") * 1_000,
    "a literal too large": b"a LOGIN {99999999+}\r\n" + b"x" * (4 << 20),
    "lines that are refused": b"a BAD\r\n" * 100_000,
}
STRANGERS_BYTES = 1_000_000
"""What one may take: an input buffer, a command, and their copies while they are put together."""


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
async def test_strangers_take_no_more_memory_than_their_limits(tmp_path: Path, flood: bytes) -> None:
    async with bench(tmp_path, FEW_LIMITS) as here:
        tracemalloc.start()
        try:
            async with asyncio.TaskGroup() as group:
                asked = [
                    group.create_task(asyncio.to_thread(_send_all, here.starttls_port, flood)) for _ in range(STRANGERS)
                ]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < STRANGERS * STRANGERS_BYTES
        # Each is shown out. A connection that is closed on who still sends is reset, which some find sooner than BYE.
        assert any(b"* BYE" in task.result() for task in asked), asked[0].result()


def _send_all(port: int, flood: bytes) -> bytes:
    """Push it as fast as it is taken, without memory of our own; the last that the server said."""
    with socket.create_connection(("localhost", port), timeout=30) as client:
        said = client.recv(4_096)
        with contextlib.suppress(ConnectionError):
            client.sendall(flood)
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(4_096):
                said = said[-4_096:] + piece
    return said
