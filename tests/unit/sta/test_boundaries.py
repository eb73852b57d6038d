"""Boundary lines: the fast search finds exactly the lines that a slow reader finds, whatever surrounds them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.mime import boundaries
from gateway.sta.mime.boundaries import BoundaryLines, Delimiter, check_structure, split_multipart

PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"--",
    b"-",
    b"b",
    b"bb",
    b"c",
    b" ",
    b"\t",
    b"\n--b",
    b"\r\n--b\r\n",
    b"\r\n--b--\r\n",
]
PIECES += [b"\r\n--c\r\n", b"\n--bb \n", b"\n--b-\n"]


def slowly(data: bytes, start: int, end: int, open_boundaries: list[bytes]) -> list[Delimiter]:
    """Line by line, by the letter of RFC 2046 5.1.1; ``start`` is that of a line feed."""
    found = []
    for line_feed in range(start, end):
        if data[line_feed] != 0x0A:
            continue
        line_end = data.find(b"\n", line_feed + 1, end)
        line_end = end if line_end < 0 else line_end
        line = data[line_feed + 1 : line_end]
        for level, boundary in enumerate(open_boundaries):
            rest = line[2 + len(boundary) :] if line.startswith(b"--" + boundary) else None
            if rest is None:
                continue
            closing = rest.startswith(b"--")
            blank = (rest[2:] if closing else rest).removesuffix(b"\r")
            if not blank.strip(b" \t"):
                found.append(Delimiter(line_feed, level, closing, line_end))
                break
    return found


def quickly(data: bytes, start: int, end: int, open_boundaries: list[bytes]) -> list[Delimiter]:
    lines = BoundaryLines(data, end)
    found = []
    while (one := lines.next(open_boundaries, start)) is not None:
        found.append(one)
        start = one.end
    return found


@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=40),
    before=st.lists(st.sampled_from(PIECES), max_size=4),
    after=st.lists(st.sampled_from(PIECES), max_size=4),
    open_boundaries=st.sampled_from(
        [[b"b"], [b"bb"], [b"c", b"b"], [b"b", b"bb"], [b"bb", b"b"], [b"b--", b"b"], [b"b", b"b"]]
    ),
    limits=st.sampled_from(
        [
            (500, 1 << 16, 1 << 16),
            (500, 0, 0),
            (500, 1, 4),
            (0, 0, 0),
            (1, 0, 0),
            (2, 5, 5),
        ]
    ),
)
def test_every_way_of_searching_finds_the_same_lines(
    pieces: list[bytes], before: list[bytes], after: list[bytes], open_boundaries: list[bytes], limits: tuple[int, ...]
) -> None:
    names = ("MISSES_BEFORE_REGEX", "FEW_BYTES", "MOST_BYTES")
    head, body = b"".join(before), b"".join(pieces)
    data = head + body + b"".join(after)
    start, end = len(head), len(head) + len(body)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(names, limits, strict=True):
            patch.setattr(boundaries, name, value)
        assert quickly(data, start, end, open_boundaries) == slowly(data, start, end, open_boundaries)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (b"--b\r\n1\r\n--b\r\n2\r\n--b--", [b"1", b"2"]),
        (b"\r\n--b\r\n1\r\n--b\r\n2\r\n--b--\r\n", [b"1", b"2"]),
        (b"--b\n--b\n--b--", [b"", b""]),
        (b"--b\r\n\r\n\r\n--b\r\n--b--", [b"\r\n", b""]),
        (b"--b\r\n--bb\r\n--b-\r\n--b --\r\n--\r\n--b\r\n--b--", [b"--bb\r\n--b-\r\n--b --\r\n--", b""]),
        (b"--b\r\n1--b\r\n -b\r\n--B\r\n--b--", [b"1--b\r\n -b\r\n--B"]),
        (b"--b--", []),
    ],
)
@pytest.mark.parametrize(
    "around", [(b"\n\n", b""), (b"--b\n\n", b"\n--b--\n"), (b"X: y\r\n\r\n", b"\r\n"), (b"-\n\n", b"-")]
)
def test_only_the_range_counts(body: bytes, parts: list[bytes], around: tuple[bytes, bytes]) -> None:
    """The entity lies in a larger buffer: a delimiter that its neighbours would complete is none of it."""
    before, after = around
    data = before + body + after
    start, end = len(before), len(before) + len(body)
    found = split_multipart(data, start - 1, start, end, "b")
    assert [data[s:e] for s, e in found] == parts


@pytest.mark.parametrize("body", [b"--b", b"--b\r\n1\r\n--b\r\n2\r\n--b", b"--b\r\n1\r\n--b-", b"--b\r\n--b--x", b""])
def test_what_is_completed_only_behind_the_range_is_not_closed(body: bytes) -> None:
    with pytest.raises(RejectionError) as caught:
        split_multipart(b"\n" + body + b"--\r\n", 0, 1, 1 + len(body), "b")
    assert caught.value.reason is Reason.MALFORMED


def test_the_limits_of_a_tree_hold_for_a_range() -> None:
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(21))
    data = nested + b"\r\n" + nested
    check_structure(data, 0, len(nested) // 2)
    for start, end in ((0, len(nested)), (len(nested) + 2, len(data))):
        with pytest.raises(RejectionError) as caught:
            check_structure(data, start, end)
        assert caught.value.reason is Reason.RESOURCE_LIMIT


@pytest.mark.parametrize(
    "unit",
    [
        b"-",
        b"\n-",
        b"\n--",
        b"\n--bX",
        b"\n--b--X",
        b"\n--b \tX",
        b"\n--b" + b" " * 60 + b"X",
        b"a-" * 30,
        b"\n--c",
        b"\r",
    ],
)
@pytest.mark.parametrize("open_boundaries", [[b"b"], [b"bcd", b"bce"], [b"b", b"c"]])
def test_near_misses_cost_linear_time(unit: bytes, open_boundaries: list[bytes]) -> None:
    data = unit * (6_000_000 // len(unit))
    began = time.process_time()
    assert BoundaryLines(data, len(data)).next(open_boundaries, 0) is None or unit == b"\n--c"
    assert time.process_time() - began < 1.5


def test_many_parts_with_boundaries_of_their_own_cost_linear_time() -> None:
    part = b"\n--b\nContent-Type: multipart/mixed; boundary=c%d\n\n"
    data = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"".join(part % n for n in range(900)) + b"x-" * 2_000_000
    began = time.process_time()
    check_structure(data)
    assert time.process_time() - began < 1.5
