"""BODY sections of RFC 3501 6.4.5: numbering, headers, and bytes that are those of the message (EP-24)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.mime.structure import Part, parse_structure
from gateway.inbox.sections import encode_sections, section


def crlf(text: str) -> bytes:
    return text.encode().replace(b"\n", b"\r\n")


def fetch(data: bytes, path: str = "", kind: str = "", *fields: str) -> bytes | None:
    numbers = tuple(int(n) for n in path.split(".")) if path else ()
    return section(encode_sections(parse_structure(data)), data, numbers, kind, fields)


def text(data: bytes, path: str = "", kind: str = "", *fields: str) -> str | None:
    found = fetch(data, path, kind, *fields)
    return None if found is None else found.decode().replace("\r\n", "\n")


MIXED = crlf(
    """From: user@domain.org
Date: Sat, 24 Mar 2007 23:00:00 +0200
Mime-Version: 1.0
Content-Type: multipart/mixed; boundary="foo
 bar"

Root MIME prologue

--foo bar
Content-Type: text/x-myown; charset=us-ascii

hello

--foo bar
Content-Type: message/rfc822

From: sub@domain.org
Date: Sun, 12 Aug 2012 12:34:56 +0300
Subject: submsg
Content-Type: multipart/alternative; boundary="sub1"

Sub MIME prologue
--sub1
Content-Type: text/html

<p>Hello world</p>

--sub1
Content-Type: text/plain

Hello another world

--sub1--
Sub MIME epilogue

--foo bar--
Root MIME epilogue
"""
)
SUB_HEADER = """From: sub@domain.org
Date: Sun, 12 Aug 2012 12:34:56 +0300
Subject: submsg
Content-Type: multipart/alternative; boundary="sub1"

"""
SUB_BODY = """Sub MIME prologue
--sub1
Content-Type: text/html

<p>Hello world</p>

--sub1
Content-Type: text/plain

Hello another world

--sub1--
Sub MIME epilogue
"""


@pytest.mark.parametrize(
    ("path", "kind", "expected"),
    [
        ("", "", MIXED.decode().replace("\r\n", "\n")),
        ("1", "", "hello\n"),
        ("1", "MIME", "Content-Type: text/x-myown; charset=us-ascii\n\n"),
        ("2", "", SUB_HEADER + SUB_BODY),
        ("2", "MIME", "Content-Type: message/rfc822\n\n"),
        ("2", "HEADER", SUB_HEADER),
        ("2", "TEXT", SUB_BODY),
        ("2.1", "", "<p>Hello world</p>\n"),
        ("2.1", "MIME", "Content-Type: text/html\n\n"),
        ("2.2", "", "Hello another world\n"),
        ("2.2", "MIME", "Content-Type: text/plain\n\n"),
        # No such section.
        ("", "MIME", None),
        ("0", "", None),
        ("3", "", None),
        ("1.1", "", None),
        ("2.3", "", None),
        ("2.1.1", "", None),
        ("1", "HEADER", None),
        ("1", "TEXT", None),
        ("2.1", "HEADER", None),
        ("1", "HEADER.FIELDS", None),
        ("1", "NONSENSE", None),
        ("", "NONSENSE", None),
    ],
)
def test_a_multipart_with_an_attached_message(path: str, kind: str, expected: str | None) -> None:
    assert text(MIXED, path, kind) == expected


def test_text_and_header_together_are_the_message() -> None:
    header, body = fetch(MIXED, "", "HEADER"), fetch(MIXED, "", "TEXT")
    assert header is not None
    assert body is not None
    assert header + body == MIXED
    assert body.startswith(b"Root MIME prologue")


@pytest.mark.parametrize(
    ("path", "kind", "fields", "expected"),
    [
        ("2", "HEADER.FIELDS", ("from", "SUBJECT", "X-foo"), "From: sub@domain.org\nSubject: submsg\n\n"),
        (
            "2",
            "HEADER.FIELDS.NOT",
            ("from", "subject", "X-foo"),
            'Date: Sun, 12 Aug 2012 12:34:56 +0300\nContent-Type: multipart/alternative; boundary="sub1"\n\n',
        ),
        ("", "HEADER.FIELDS", ("Content-Type",), 'Content-Type: multipart/mixed; boundary="foo\n bar"\n\n'),
        ("", "HEADER.FIELDS", ("Fro", "romF", "Dat.*"), "\n"),
        ("", "HEADER.FIELDS", (), "\n"),
        (
            "",
            "HEADER.FIELDS.NOT",
            ("content-type", "mime-version"),
            "From: user@domain.org\nDate: Sat, 24 Mar 2007 23:00:00 +0200\n\n",
        ),
    ],
)
def test_header_fields(path: str, kind: str, fields: tuple[str, ...], expected: str) -> None:
    assert text(MIXED, path, kind, *fields) == expected


def test_header_fields_are_whole_in_order_and_as_they_came() -> None:
    data = (
        b"Received: a\r\n\tfolded\r\nTo : spaced\r\nnonsense line\r\nReceived:b\r\nSubject: x\n folded: not-a-field\n"
        b"X-8bit: \xff\0\r\nEnd: z\r\n\r\nReceived: in the body\r\n"
    )
    received = b"Received: a\r\n\tfolded\r\nReceived:b\r\n\r\n"
    assert fetch(data, "", "HEADER.FIELDS", "RECEIVED") == received
    assert fetch(data, "", "HEADER.FIELDS", "to") == b"To : spaced\r\n\r\n"
    assert fetch(data, "", "HEADER.FIELDS", "folded") == b"\r\n"
    assert fetch(data, "", "HEADER.FIELDS", "Subject") == b"Subject: x\n folded: not-a-field\n\r\n"
    assert fetch(data, "", "HEADER.FIELDS", "end", "x-8BIT") == b"X-8bit: \xff\0\r\nEnd: z\r\n\r\n"
    assert fetch(data, "", "HEADER.FIELDS.NOT", "received", "to", "subject", "end") == b"X-8bit: \xff\0\r\n\r\n"
    everything = data[: data.index(b"\r\n\r\n") + 4].replace(b"nonsense line\r\n", b"")
    assert fetch(data, "", "HEADER.FIELDS.NOT") == everything


@pytest.mark.parametrize("data", [b"A: 1\r\nB: 2", b"A: 1\r\nB: 2\r\n", b"A: 1\r\nB: 2\r\n\r\n"])
def test_a_header_that_breaks_off_still_ends_with_an_empty_line(data: bytes) -> None:
    assert fetch(data, "", "HEADER.FIELDS", "b") == b"B: 2\r\n\r\n"
    assert fetch(data, "", "HEADER.FIELDS", "a") == b"A: 1\r\n\r\n"
    assert fetch(data, "", "TEXT") == b""


def test_a_message_that_is_no_multipart_has_one_part() -> None:
    data = crlf("Subject: s\nContent-Type: text/plain\n\nbody\n")
    assert text(data, "1") == "body\n"
    assert text(data, "1", "MIME") == "Subject: s\nContent-Type: text/plain\n\n"
    assert text(data, "1", "HEADER") is None
    assert text(data, "2") is None
    assert text(data, "1.1") is None


def test_an_attached_message_that_is_no_multipart() -> None:
    """RFC 3501 6.4.5: part 3.1 of a message/rfc822 part 3 whose message has only a body."""
    data = crlf(
        """Content-Type: multipart/mixed; boundary=b

--b

one
--b

two
--b
Content-Type: message/rfc822

Subject: three

three
--b--
"""
    )
    assert text(data, "3") == "Subject: three\n\nthree"
    assert text(data, "3.1") == text(data, "3", "TEXT") == "three"
    assert text(data, "3", "HEADER") == "Subject: three\n\n"
    assert text(data, "3.1", "MIME") == "Subject: three\n\n"
    assert text(data, "3.2") is None
    assert text(data, "3.1.1") is None


def test_messages_within_messages() -> None:
    inner = "From: sub@domain.org\nSubject: submsg\n\nHello world\n"
    middle = f"From: user2@domain.org\nContent-Type: message/rfc822\n\n{inner}"
    data = crlf(f"From: user@domain.org\nContent-Type: message/rfc822\n\n{middle}")
    assert text(data, "", "TEXT") == text(data, "1") == middle
    assert text(data, "1", "HEADER") == "From: user2@domain.org\nContent-Type: message/rfc822\n\n"
    assert text(data, "1.1") == text(data, "1", "TEXT") == inner
    assert text(data, "1.1", "HEADER") == "From: sub@domain.org\nSubject: submsg\n\n"
    assert text(data, "1.1.1") == text(data, "1.1", "TEXT") == "Hello world\n"
    assert text(data, "1.1.2") is None


def test_a_digest() -> None:
    data = crlf(
        """Content-Type: multipart/digest; boundary="foo"

--foo\x20

From: m1@example.com

m1 body

--foo
X-Mime: m2 header

From: m2@example.com

m2 body

--foo--
"""
    )
    assert text(data, "1", "MIME") == "\n"
    assert text(data, "1", "HEADER") == "From: m1@example.com\n\n"
    assert text(data, "1", "TEXT") == text(data, "1.1") == "m1 body\n"
    assert text(data, "2", "MIME") == "X-Mime: m2 header\n\n"


def test_a_multipart_without_parts_shows_its_body_as_part_one() -> None:
    data = crlf("Content-Type: multipart/mixed\n\nstill to be read\n")
    assert text(data, "1") == "still to be read\n"
    assert text(data, "1", "MIME") == ""


def test_offsets_that_cannot_be_used_are_computed_afresh() -> None:
    other = encode_sections(parse_structure(MIXED + b"x"))
    for stored in [other, b"", b"\x02" + encode_sections(parse_structure(MIXED))[1:], b"\x01", b"\x01" + bytes(15)]:
        assert section(stored, MIXED, (1,), "") == b"hello\r\n"
        assert section(stored, MIXED, (), "HEADER.FIELDS", ("from",)) == b"From: user@domain.org\r\n\r\n"


PIECES = st.sampled_from(
    [
        b"--b", b"--b--", b"--c", b"\r\n", b"\n", b"\r\n\r\n", b" ", b"x", b"\xff",
        b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: multipart/digest; boundary=c\r\n",
        b"Content-Type: message/rfc822\r\n", b"Content-Type: text/html\r\n",
    ]
)  # fmt: skip


def numbered(part: Part, path: tuple[int, ...] = ()) -> list[tuple[tuple[int, ...], Part]]:
    """Every part with its number, by the words of RFC 3501 and on the tree instead of the offsets."""
    if part.children:
        return [pair for n, child in enumerate(part.children, 1) for pair in below(child, (*path, n))]
    return below(part, (*path, 1))


def below(part: Part, path: tuple[int, ...]) -> list[tuple[tuple[int, ...], Part]]:
    found = [(path, part)]
    if part.message is not None:
        found += numbered(part.message, path)
    for n, child in enumerate(part.children, 1):
        found += below(child, (*path, n))
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=40).map(b"".join))
def test_every_part_is_reached_by_its_number(data: bytes) -> None:
    root = parse_structure(data)
    stored = encode_sections(root)
    for path, part in numbered(root):
        assert section(stored, data, path, "") == data[part.body_start : part.end]
        assert section(stored, data, path, "MIME") == data[part.start : part.body_start]
        header = section(stored, data, path, "HEADER")
        if part.message is None:
            assert header is None
        else:
            assert header == data[part.message.start : part.message.body_start]
            assert section(stored, data, path, "TEXT") == data[part.message.body_start : part.message.end]


@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(-1, 3), max_size=4), st.text(max_size=20))
def test_any_request_gets_an_answer(data: bytes, path: list[int], name: str) -> None:
    stored = encode_sections(parse_structure(data))
    for kind in ("", "HEADER", "TEXT", "MIME"):
        found = section(stored, data, tuple(path), kind)
        assert found is None or found in data
    for kind in ("HEADER.FIELDS", "HEADER.FIELDS.NOT"):
        found = section(stored, data, tuple(path), kind, (name,))
        assert found is None or found.endswith(b"\r\n")
