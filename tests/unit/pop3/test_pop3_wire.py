"""Byte-stuffing and TOP (RFC 1939 sections 3 and 7): nothing of a message is lost, and none can write the session."""

from __future__ import annotations

import io
import poplib
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.pop3.wire import END, stuffed, top
from gateway.serving.connection import SLICE_BYTES
from tests.unit.pop3.pop3_harness import unstuffed

PIECES = st.lists(st.sampled_from([b".", b"..", b"\r\n", b"\n", b"\r", b"a", b" ", b"\0", b"\xff"]), max_size=30)


def on_the_wire(content: bytes) -> bytes:
    return b"".join(stuffed(content))


@given(st.lists(st.sampled_from([b".", b"..", b"\r\n", b"a", b"x.y"]), max_size=40).map(b"".join))
def test_a_message_of_whole_lines_comes_through_byte_for_byte(content: bytes) -> None:
    sent = on_the_wire(content)
    assert unstuffed(sent) == (content if content.endswith(b"\r\n") or not content else content + b"\r\n")


@settings(max_examples=500)
@given(PIECES.map(b"".join))
def test_the_end_of_the_response_stands_only_at_its_end(content: bytes) -> None:
    """Whatever a client takes for the end of a line, no line but the last is a dot alone."""
    sent = on_the_wire(content)
    assert not sent or sent.endswith(b"\r\n")
    for line_end in (b"\r\n", b"\n"):
        lines = [line.rstrip(b"\r") for line in sent.split(line_end)]
        assert b"." not in lines, (content, sent)


def _poplib_on(sent: bytes) -> Any:
    """Python's client, in front of what a server has said."""
    client: Any = object.__new__(poplib.POP3)
    client.file = io.BytesIO(sent)
    client._debugging = 0
    return client


@settings(max_examples=500)
@given(PIECES.map(b"".join))
@example(b"a\n.\nb\r\n")
@example(b"a\n..\nb\r\n")
@example(b"\r.\n-ERR forged\r\n")
@example(b"a\n\r.\n+OK forged\r\n")
@example(b"a\n.")
@example(b"\r.\r\n")
@example(b"\n\r..x\n")
@example(b"\n\r..x\r\n")
@example(b"\n.\r\r\n")
@example(b".")
def test_a_client_that_takes_a_line_feed_for_the_end_of_a_line_is_not_misled(content: bytes) -> None:
    """Python's poplib does. It must see every line of the message, and the next response where it is."""
    client = _poplib_on(b"+OK\r\n" + on_the_wire(content) + END + b"+OK next\r\n")
    _, lines, _ = client._getlongresp()
    assert client.file.read() == b"+OK next\r\n"
    whole = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    plain = _poplib_on(whole)
    expected = []
    while plain.file.tell() < len(whole):
        expected.append(plain._getline()[0])
    assert lines == expected


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        (b"", b""),
        (b".\r\n", b"..\r\n"),
        (b"a\r\n.\r\n..\r\n.b\r\n", b"a\r\n..\r\n...\r\n..b\r\n"),
        (b"no end", b"no end\r\n"),
        (b"half an end\r", b"half an end\r\r\n"),
        # To a strict client these are within a line, so they are left alone ...
        (b"a\n.b\r\n", b"a\n.b\r\n"),
        # ... but for those that would end the response for others, or lose a dot.
        (b"a\n.\nb\r\n", b"a\n..\nb\r\n"),
        (b"a\n..b\r\n", b"a\n...b\r\n"),
    ],
)
def test_which_dots_are_doubled(content: bytes, sent: bytes) -> None:
    assert on_the_wire(content) == sent


def test_a_large_message_leaves_in_slices() -> None:
    content = (b"x" * 998 + b"\r\n") * 1_000 + b".\r\n" + b"y" * 3 * SLICE_BYTES
    pieces = list(stuffed(content))
    assert max(map(len, pieces)) <= SLICE_BYTES + 1
    assert b"".join(pieces) == content.replace(b"\r\n.\r\n", b"\r\n..\r\n") + b"\r\n"


@settings(max_examples=300)
@given(PIECES.map(b"".join), st.integers(min_value=3, max_value=9))
def test_where_a_slice_ends_makes_no_difference_to_whole_lines(content: bytes, size: int) -> None:
    """To lines that end with CRLF and fit into a slice."""
    lines = [line[:6].replace(b"\n", b"") for line in content.split(b"\r\n")]
    whole = b"\r\n".join(lines) + b"\r\n"
    with mock.patch("gateway.pop3.wire.SLICE_BYTES", size):
        sent = on_the_wire(whole)
    assert unstuffed(sent) == whole
    assert sent == whole.replace(b"\r\n.", b"\r\n..") if not whole.startswith(b".") else sent.startswith(b"..")


@pytest.mark.parametrize(
    ("content", "lines", "shown"),
    [
        (b"A: b\r\n\r\n1\r\n2\r\n", 0, b"A: b\r\n\r\n"),
        (b"A: b\r\n\r\n1\r\n2\r\n", 1, b"A: b\r\n\r\n1\r\n"),
        (b"A: b\r\n\r\n1\r\n2\r\n", 9_999_999, b"A: b\r\n\r\n1\r\n2\r\n"),
        (b"A: b\r\n\r\n1\r\n2", 2, b"A: b\r\n\r\n1\r\n2"),
        (b"A: b\n\n1\n2\n", 1, b"A: b\n\n1\n"),
        (b"\r\nbody\r\n", 0, b"\r\n"),
        (b"A: b\r\nno empty line", 0, b"A: b\r\nno empty line"),
        (b"", 3, b""),
    ],
)
def test_top(content: bytes, lines: int, shown: bytes) -> None:
    assert top(content, lines) == shown


@given(st.integers(min_value=0, max_value=40), st.integers(min_value=1, max_value=9))
def test_top_of_many_lines(lines: int, size: int) -> None:
    header, body = b"A: b\r\n\r\n", [b"line %d\r\n" % number for number in range(30)]
    with mock.patch("gateway.pop3.wire.SLICE_BYTES", size):
        assert top(header + b"".join(body), lines) == header + b"".join(body[:lines])
        assert top(header + b"".join(body) + b"rest", lines) == header + b"".join([*body, b"rest"][:lines])
