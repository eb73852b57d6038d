"""DATA as a pure function of chunks: EP-6, EP-8, EP-15, F17, F18 and findings 1 and 4."""

from __future__ import annotations

import re
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ingress.data_reader import DataReader, Problem
from gateway.ingress.limits import ByteBudget

MIB = 1024 * 1024


def reader(max_bytes: int = 10 * MIB, budget: ByteBudget | None = None) -> DataReader:
    return DataReader(max_bytes, (budget or ByteBudget(1024 * MIB)).reservation())


def feed(data: DataReader, chunks: Iterator[bytes] | list[bytes]) -> bytes:
    """Feed until the end; returns what came behind it in the chunk with the end."""
    for chunk in chunks:
        rest = data.feed(chunk)
        if rest is not None:
            return rest
    raise AssertionError("the end was not seen")


def stuffed(message: bytes) -> bytes:
    """The wire form by the letter of RFC 5321 section 4.5.2, line by line: an independent twin of the reader."""
    lines = message.split(b"\r\n")[:-1]
    return b"".join((b"." if line[:1] == b"." else b"") + line + b"\r\n" for line in lines) + b".\r\n"


line = st.lists(
    st.sampled_from([b".", b"..", b"a", b"MAIL FROM:<x@y>", b"\xff", b" ", b"-" * 300, b"=0D"]), max_size=4
).map(b"".join)
message = st.lists(line, max_size=30).map(lambda lines: b"".join(each + b"\r\n" for each in lines))


@settings(max_examples=400, deadline=None)
@given(message, st.lists(st.integers(1, 9), min_size=1, max_size=40), st.binary(max_size=20))
def test_any_message_of_crlf_lines_comes_out_byte_for_byte(content: bytes, sizes: list[int], behind: bytes) -> None:
    wire = stuffed(content)
    # The last chunk holds the end mark, whole or in part, and what comes behind it.
    chunks, at, turn = [], 0, 0
    while at < len(wire):
        step = sizes[turn % len(sizes)]
        chunks.append(wire[at : at + step])
        at, turn = at + step, turn + 1
    chunks[-1] += behind
    data = reader()
    assert feed(data, chunks) == behind
    assert data.problem is None
    assert data.size_bytes == len(content)
    assert data.take() == content


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"x", b"\r\n.\r", b"\n.\r\n", b"\r\r\n"]), max_size=25
    ),
    st.integers(1, 5),
)
def test_against_a_plain_model_in_any_chunking(pieces: list[bytes], step: int) -> None:
    wire = b"".join(pieces) + b"\r\n.\r\n"
    end = (b"\r\n" + wire).index(b"\r\n.\r\n") + 3
    before_dot = (b"\r\n" + wire)[: end - 1][2:]
    bare = re.search(rb"(?<!\r)\n|\r(?!\n)", before_dot)
    data = reader()
    rest = None
    for at in range(0, len(wire), step):
        rest = data.feed(wire[at : at + step])
        if rest is not None:
            rest += wire[at + step :]
            break
    assert rest == wire[end:]
    assert (data.problem is Problem.BARE_NEWLINE) == (bare is not None)
    if not bare:
        assert data.take() == re.sub(rb"(?:^|(?<=\r\n))\.", b"", before_dot)


@pytest.mark.parametrize("split", range(1, 12))
def test_every_chunk_border_around_the_end(split: int) -> None:
    wire = b"a\r\n..\r\n.\r\nQUIT\r\n"
    data = reader()
    first = data.feed(wire[:split])
    rest = (first + wire[split:]) if first is not None else data.feed(wire[split:])
    assert rest == b"QUIT\r\n"
    assert data.take() == b"a\r\n.\r\n"


WRONG_ENDS = {
    "lf dot lf": b"\n.\n",
    "lf dot crlf": b"\n.\r\n",
    "cr dot cr": b"\r.\r",
    "cr dot crlf": b"\r.\r\n",
    "crlf dot lf": b"\r\n.\n",
    "crlf dot cr": b"\r\n.\r",
    "crlf dot cr cr lf": b"\r\n.\r\r\n",
    "lf dot cr": b"\n.\r",
    "cr cr lf dot cr cr lf": b"\r\r\n.\r\r\n",
}


@pytest.mark.parametrize("end", WRONG_ENDS.values(), ids=WRONG_ENDS.keys())
def test_no_other_end_of_data_form_ends_a_message_and_it_is_refused(end: bytes) -> None:
    """F17, EP-6: what a neighbour may take for the end is text here, and it makes the message refused."""
    smuggled = (
        b"Subject: a\r\n\r\nb" + end + b"MAIL FROM:<evil@x>\r\nRCPT TO:<doctor@y>\r\nDATA\r\nforged\r\n.\r\nQUIT\r\n"
    )
    data = reader()
    assert data.feed(smuggled) == b"QUIT\r\n"
    assert data.problem is Problem.BARE_NEWLINE


def test_a_nul_before_the_dot_is_no_end() -> None:
    data = reader()
    assert data.feed(b"a\r\n\0.\r\nb\r\n.\r\n") == b""
    assert data.problem is Problem.NUL


def test_a_message_may_be_empty() -> None:
    data = reader()
    assert data.feed(b".\r\n") == b""
    assert data.take() == b""


def test_size_is_counted_without_stuffing_and_end_mark() -> None:
    """RFC 1870 section 5: exactly at the limit passes, one byte more does not."""
    exact = reader(max_bytes=5)
    assert exact.feed(b"..ab\r\n.\r\n") == b""
    assert exact.problem is None
    assert exact.take() == b".ab\r\n"
    over = reader(max_bytes=5)
    assert over.feed(b"..abc\r\n.\r\n") == b""
    assert over.problem is Problem.TOO_LARGE


def test_a_refused_message_is_read_to_its_end_without_being_kept() -> None:
    budget = ByteBudget(10 * MIB)
    hold = budget.reservation()
    data = DataReader(1 * MIB, hold)
    for _ in range(64):
        assert data.feed(b"x" * 65_534 + b"\r\n") is None
    assert budget.free_bytes == 10 * MIB
    assert data.feed(b".\r\nNOOP\r\n") == b"NOOP\r\n"
    assert data.problem is Problem.TOO_LARGE
    with pytest.raises(ValueError, match="no content"):
        data.take()


def test_the_budget_is_shared_and_given_back() -> None:
    budget = ByteBudget(100_000)
    first_hold = budget.reservation()
    first = DataReader(MIB, first_hold)
    assert first.feed(b"x" * 70_000) is None
    second_hold = budget.reservation()
    second = DataReader(MIB, second_hold)
    assert second.feed(b"y" * 40_000 + b"\r\n.\r\n") == b""
    assert second.problem is Problem.NO_BUDGET
    assert first.feed(b"\r\n.\r\n") == b""
    assert first.problem is None
    first_hold.release()
    second_hold.release()
    assert budget.free_bytes == 100_000
    first_hold.release()
    assert budget.free_bytes == 100_000


def test_what_never_passes_is_told_before_what_may_pass_later() -> None:
    data = reader(budget=ByteBudget(4))
    assert data.feed(b"more than the budget\nand a bare newline\r\n.\r\n") == b""
    assert data.problem is Problem.BARE_NEWLINE


@pytest.mark.parametrize("unit", [b"\r\n", b"..\r\n", b"\r\n.."], ids=["blank lines", "dot lines", "dots"])
def test_line_bomb_is_bounded_in_memory_and_time(unit: bytes) -> None:
    """Finding 1 and F18: aiosmtpd 1.4.6 needs 80 bytes of memory for each byte of this and minutes for 33 MB."""
    size = 8 * MIB
    chunk = unit * (65_536 // len(unit))
    data = reader(max_bytes=2 * size)
    assert data.feed(b"\r\n") is None
    slowest = 0.0
    tracemalloc.start()
    started = time.perf_counter()
    for _ in range(size // len(chunk)):
        before = time.perf_counter()
        assert data.feed(chunk) is None
        slowest = max(slowest, time.perf_counter() - before)
    assert data.feed(b"\r\n.\r\n") == b""
    content = data.take()
    seconds = time.perf_counter() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(content) == data.size_bytes
    assert peak < 3 * size
    assert seconds < 5
    assert slowest < 0.1, "the event loop would stall"
