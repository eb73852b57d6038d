"""The part tree: boundary rules of RFC 2046, limits, and offsets that always fit (EP-15, EP-24, AS-61)."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.mime.structure import MAX_DEPTH, MAX_PARTS, Part, parse_structure, single_text_part


def crlf(text: str) -> bytes:
    return text.encode().replace(b"\n", b"\r\n")


def shape(data: bytes, part: Part) -> object:
    """Nested lists of (type, body) for comparison."""
    if part.children:
        return [part.content_type.full, *(shape(data, child) for child in part.children)]
    if part.message is not None:
        return (part.content_type.full, shape(data, part.message))
    return (part.content_type.full, data[part.body_start : part.end])


def every(part: Part) -> list[Part]:
    inner = [*part.children, *([part.message] if part.message else [])]
    return [part, *(found for child in inner for found in every(child))]


def check_offsets(data: bytes, root: Part) -> None:
    assert (root.start, root.end) == (0, len(data))
    for part in every(root):
        assert 0 <= part.start <= part.body_start <= part.end <= len(data)
        assert part.lines <= part.size
        position = part.body_start
        for child in part.children:
            assert position <= child.start
            position = child.end
        assert position <= part.end
        if part.message is not None:
            assert (part.message.start, part.message.end) == (part.body_start, part.end)


SIMPLE = crlf(
    """From: Nathaniel Borenstein <nsb@bellcore.com>
To: Ned Freed <ned@innosoft.com>
Subject: Sample message
MIME-Version: 1.0
Content-type: multipart/mixed; boundary="simple boundary"

This is the preamble.  It is to be ignored, though it
is a handy place for composition agents to include an
explanatory note to non-MIME conformant readers.

--simple boundary

This is implicitly typed plain US-ASCII text.
It does NOT end with a linebreak.
--simple boundary
Content-type: text/plain; charset=us-ascii

This is explicitly typed plain US-ASCII text.
It DOES end with a linebreak.

--simple boundary--

This is the epilogue.  It is also to be ignored.
"""
)


@pytest.mark.parametrize("bare", [False, True], ids=["crlf", "lf"])
def test_the_sample_of_rfc_2046_5_1_1(*, bare: bool) -> None:
    data = SIMPLE.replace(b"\r\n", b"\n") if bare else SIMPLE
    end = b"\n" if bare else b"\r\n"
    assert shape(data, parse_structure(data)) == [
        "multipart/mixed",
        ("text/plain", b"This is implicitly typed plain US-ASCII text." + end + b"It does NOT end with a linebreak."),
        ("text/plain", b"This is explicitly typed plain US-ASCII text." + end + b"It DOES end with a linebreak." + end),
    ]
    first, second = parse_structure(data).children
    assert (first.lines, second.lines) == (2, 2)
    assert first.content_type.parameters == {"charset": "us-ascii"}


def test_digest_parts_are_messages_by_default() -> None:
    data = crlf(
        """Content-Type: multipart/digest; boundary=foo

--foo

From: m1@example.com

m1 body
--foo
Content-Type: text/plain

not a message
--foo--
"""
    )
    root = parse_structure(data)
    assert shape(data, root) == [
        "multipart/digest",
        ("message/rfc822", ("text/plain", b"m1 body")),
        ("text/plain", b"not a message"),
    ]
    check_offsets(data, root)


def test_a_message_within_a_message_and_all_the_described_fields() -> None:
    data = crlf(
        """Content-Type: Multipart/Mixed; boundary=a

--a
Content-Type: message/RFC822
Content-Description: forwarded

Subject: inner
Content-Type: multipart/alternative; boundary=b

--b
Content-Type: TEXT/Html; Charset="utf-8"
Content-Transfer-Encoding: Quoted-Printable (really)
Content-ID: <1@x>
Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==
Content-Language: en, de (comment)
Content-Location: http://example.org/x
Content-Disposition: Attachment;
 filename="a b.html"

<p>hi</p>
--b--
--a--
"""
    )
    root = parse_structure(data)
    check_offsets(data, root)
    outer = root.children[0]
    assert outer.description == "forwarded"
    assert outer.message is not None
    html = outer.message.children[0]
    assert html.content_type.full == "text/html"
    assert html.content_type.parameters == {"charset": "utf-8"}
    assert html.encoding == "quoted-printable"
    assert (html.content_id, html.md5) == ("<1@x>", "Q2hlY2sgSW50ZWdyaXR5IQ==")
    assert html.language == ("en", "de")
    assert html.location == "http://example.org/x"
    assert html.disposition is not None
    assert html.disposition.maintype == "attachment"
    assert html.disposition.parameters == {"filename": "a b.html"}
    assert data[html.body_start : html.end] == b"<p>hi</p>"
    assert html.header_end == html.body_start


NEAR_MISSES = b"x\r\n--bb\r\n--b-x\r\n --b"


def mixed(body: str, boundary: str = "b") -> bytes:
    return crlf(f'Content-Type: multipart/mixed; boundary="{boundary}"\n\n{body}')


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(mixed("--b  \t\n\nx\n--b-- \n"), [("text/plain", b"x")], id="white space after the delimiter"),
        pytest.param(mixed("--b\n\nx\n--bb\n--b-x\n --b\n--b--"), [("text/plain", NEAR_MISSES)], id="near misses"),
        pytest.param(mixed("--b\n\nx"), [("text/plain", b"x")], id="no close delimiter"),
        pytest.param(mixed("--b\n\nx\n--b"), [("text/plain", b"x"), ("text/plain", b"")], id="cut off"),
        pytest.param(mixed("--b\n--b\n\n--b--"), [("text/plain", b""), ("text/plain", b"")], id="empty parts"),
        pytest.param(mixed("--b\nX-A: b\n--b--"), [("text/plain", b"")], id="header only"),
        pytest.param(mixed("--b\n\nx\n--b--\n--b\n\ny\n--b--"), [("text/plain", b"x")], id="after the close"),
        pytest.param(mixed("--b--\n"), [("text/plain", b"--b--\r\n")], id="closed at once"),
        pytest.param(mixed("only text\n"), [("text/plain", b"only text\r\n")], id="no delimiter at all"),
        pytest.param(mixed(""), [("text/plain", b"")], id="nothing"),
        pytest.param(mixed("x\n--b\n", boundary=""), [("text/plain", b"x\r\n--b\r\n")], id="empty boundary"),
        pytest.param(mixed("--a+(.*)\n\nx\n--a+(.*)--", boundary="a+(.*)"), [("text/plain", b"x")], id="no pattern"),
        pytest.param(mixed("--foo b\n\nx\n--foo b--", boundary="foo\n b"), [("text/plain", b"x")], id="folded"),
        pytest.param(mixed("--b\nContent-Type: oops\n\nx\n--b--"), [("text/plain", b"x")], id="unreadable type"),
        pytest.param(mixed("--b\nContent-Type: a/b/c\n\nx\n--b--"), [("text/plain", b"x")], id="type with two slashes"),
    ],
)  # fmt: skip
def test_boundaries(data: bytes, expected: list[object]) -> None:
    root = parse_structure(data)
    assert shape(data, root) == ["multipart/mixed", *expected]
    check_offsets(data, root)


def test_a_nested_boundary_that_begins_like_the_outer_one() -> None:
    inner = 'Content-Type: multipart/alternative; boundary="b1"\n\n--b1\n\nx\n--b1\n\ny\n--b1--\n'
    data = mixed(f"--b\n{inner}--b\n\nz\n--b--")
    assert shape(data, parse_structure(data)) == [
        "multipart/mixed",
        ["multipart/alternative", ("text/plain", b"x"), ("text/plain", b"y")],
        ("text/plain", b"z"),
    ]


def test_the_outer_boundary_ends_an_inner_multipart_that_is_not_closed() -> None:
    inner = "Content-Type: multipart/alternative; boundary=i\n\n--i\n\nx\n"
    data = mixed(f"--b\n{inner}--b\n\nz\n--i\n--b--")
    assert shape(data, parse_structure(data)) == [
        "multipart/mixed",
        ["multipart/alternative", ("text/plain", b"x")],
        ("text/plain", b"z\r\n--i"),
    ]


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "x-what"])
def test_an_encoded_message_is_not_looked_into(encoding: str) -> None:
    data = crlf(f"Content-Type: message/rfc822\nContent-Transfer-Encoding: {encoding}\n\nRnJvbTo=\n")
    root = parse_structure(data)
    assert root.message is None
    assert root.content_type.full == "message/rfc822"


def test_an_encoded_multipart_can_still_be_decoded_by_a_reader() -> None:
    data = crlf("Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\nLS1i\n")
    (only,) = parse_structure(data).children
    assert (only.content_type.full, only.encoding) == ("text/plain", "base64")


def nested(depth: int) -> bytes:
    head = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(depth))
    return crlf(head + "\nthe end\n")


def depth_of(part: Part) -> int:
    inner = [*part.children, *([part.message] if part.message else [])]
    return 1 + max((depth_of(child) for child in inner), default=0)


def test_beyond_the_depth_the_rest_is_one_opaque_leaf() -> None:
    data = nested(60)
    root = parse_structure(data)
    check_offsets(data, root)
    assert depth_of(root) == MAX_DEPTH
    deepest = every(root)[-1]
    assert deepest.content_type.full == "application/octet-stream"
    assert data[deepest.body_start : deepest.end].endswith(b"the end\r\n")
    assert depth_of(parse_structure(nested(MAX_DEPTH - 1))) == MAX_DEPTH
    messages = b"Content-Type: message/rfc822\r\n\r\n" * 100
    assert depth_of(parse_structure(messages)) == MAX_DEPTH


def test_beyond_the_number_of_parts_the_rest_is_one_opaque_leaf() -> None:
    data = mixed("--b\n\nx\n" * 5_000 + "--b--")
    root = parse_structure(data)
    check_offsets(data, root)
    assert len(every(root)) == MAX_PARTS
    last = root.children[-1]
    assert last.content_type.full == "application/octet-stream"
    assert last.start == last.body_start
    assert data[last.start : last.end].count(b"--b\r\n") == 5_000 - len(root.children)
    assert last.end == len(data)


def test_many_nested_parts_stay_below_the_limit() -> None:
    part = "--b\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\nx\n--c--\n"
    data = mixed(part * 3_000 + "--b--")
    root = parse_structure(data)
    check_offsets(data, root)
    assert len(every(root)) <= MAX_PARTS


MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    "data",
    [
        mixed("--bx\n" * (MEGABYTE // 5)),
        mixed("--b" + " " * MEGABYTE + "x\n" + "--b" + " " * MEGABYTE),
        mixed("--\n" * (MEGABYTE // 3)),
        nested(19) + b"--b0x\r\n" * (MEGABYTE // 7),
        nested(19) + b"".join(b"--b%d \t" % n + b"\r\n" for n in range(19)) * 5_000,
        b"".join(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" for _ in range(MEGABYTE // 50)),
        b"Content-Type: message/rfc822\r\n\r\n" * (MEGABYTE // 32),
        b"X: y\r\n" * (MEGABYTE // 6),
        b"X" * MEGABYTE,
        b"\r\n" * (MEGABYTE // 2),
        mixed("--b\nContent-Type: multipart/mixed; boundary=c\n\n" * (MEGABYTE // 50)),
        mixed("\n".join(f"--b\n{'X: y' * 100}" for _ in range(2_000))),
    ],
    ids=range(12),
)
def test_hostile_input_takes_bounded_time(data: bytes) -> None:
    begun = time.perf_counter()
    root = parse_structure(data)
    assert time.perf_counter() - begun < 5
    check_offsets(data, root)


PIECES = st.sampled_from(
    [
        b"--b", b"--b--", b"--c", b"--c--", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"x", b"\0", b"\xff", b"--",
        b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: multipart/digest; boundary=c\r\n",
        b"Content-Type: message/rfc822\r\n", b"Content-Type: text/html\r\n", b"Content-Transfer-Encoding: base64\r\n",
        b"Subject: =?utf-8?q?x?=\r\n", b"Content-Disposition: attachment; filename*=utf-8''%ff\r\n",
    ]
)  # fmt: skip
MESSAGES = st.lists(PIECES, max_size=40).map(b"".join) | st.binary(max_size=400)


@settings(max_examples=400, deadline=None)
@given(MESSAGES)
@example(b"")
@example(b"\n")
def test_any_bytes_give_a_tree_of_slices(data: bytes) -> None:
    root = parse_structure(data)
    check_offsets(data, root)
    for part in every(root):
        assert bool(part.children) == (part.content_type.maintype == "multipart")


def test_the_fall_back_shows_everything_as_one_text_part() -> None:
    part = single_text_part(SIMPLE)
    assert shape(SIMPLE, part) == ("text/plain", SIMPLE[part.body_start :])
    assert SIMPLE[part.body_start :].startswith(b"This is the preamble.")
