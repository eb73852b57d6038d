"""Header blocks and parameter lists: what the lenient reader does beyond the limits, and RFC 2231."""

from __future__ import annotations

import time

import pytest

from gateway.core.mime.headers import (
    MAX_HEADER_BLOCK_BYTES,
    ResourceLimitError,
    decode_words,
    parse_content_type,
    read_headers,
    scan_headers,
)


def parameters(value: str) -> dict[str, str]:
    parsed = parse_content_type(value)
    assert parsed is not None
    return parsed.parameters


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text/plain; charset=utf-8", {"charset": "utf-8"}),
        ('text/plain; name="a;b\\"c\\\\"; x=1', {"name": 'a;b"c\\', "x": "1"}),
        # The samples of RFC 2231 sections 3 and 4.
        (
            'message/external-body; access-type=URL; URL*0="ftp://"; URL*1="cs.utk.edu/pub/moore/bulk-mailer.tar"',
            {"access-type": "URL", "url": "ftp://cs.utk.edu/pub/moore/bulk-mailer.tar"},
        ),
        (
            "application/x-stuff; title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A",
            {"title": "This is ***fun***"},
        ),
        (
            (
                "application/x-stuff; title*0*=us-ascii'en'This%20is%20even%20more%20; "
                'title*1*=%2A%2A%2Afun%2A%2A%2A%20; title*2="isn\'t it!"'
            ),
            {"title": "This is even more ***fun*** isn't it!"},
        ),
        ("a/b; n*0*=utf-8''%E2%82; n*1*=%AC; n*10=z; n*2=y", {"n": "€yz"}),
        ("a/b; n*=idna'en'%ff; m*=undefined''a", {"n": "ÿ", "m": "a"}),
        ("a/b; ; =x; y; z =  1 ;", {"z": "1"}),
        ('a/b; n="open; m=1', {"n": '"open', "m": "1"}),
    ],
)
def test_parameters(value: str, expected: dict[str, str]) -> None:
    assert parameters(value) == expected


def test_the_parameters_stay_available_as_they_were_written() -> None:
    parsed = parse_content_type("attachment; filename*0*=utf-8''%E2%82%AC; FILENAME*1=.pdf")
    assert parsed is not None
    assert parsed.given == (("filename*0*", "utf-8''%E2%82%AC"), ("filename*1", ".pdf"))


@pytest.mark.parametrize("value", ["a/b; x=1; X=2", "a/b; x=1; x*=''2", "a/b; x*=''1; x*0=2"])
def test_a_parameter_that_readers_could_take_either_way_is_named(value: str) -> None:
    parsed = parse_content_type(value)
    assert parsed is not None
    assert parsed.duplicates == ("x",)


@pytest.mark.parametrize("piece", [";", 'a="\\";', 'a="', "=", "a;", "a=", 'a="b";'])
def test_parameters_take_linear_time(piece: str) -> None:
    begun = time.perf_counter()
    parse_content_type("a/b;" + piece * (400_000 // len(piece)))
    assert time.perf_counter() - begun < 2


def test_a_header_block_beyond_its_limit_is_read_as_far_as_the_limit() -> None:
    data = b"Subject: s\r\n" + b"X: y\r\n" * 30_000 + b"\r\nbody"
    with pytest.raises(ResourceLimitError):
        scan_headers(data)
    block = read_headers(data)
    assert block.text(b"subject") == "s"
    assert data[block.body_start :] == b"body"
    assert block.defects[-1] == "header block beyond its limit"


def test_a_header_without_an_end_beyond_its_limit() -> None:
    data = b"Subject: s\r\nX: " + b"y" * (2 * MAX_HEADER_BLOCK_BYTES)
    block = read_headers(data)
    assert block.body_start == len(data)
    assert block.text(b"subject") == "s"


def test_the_lenient_reader_agrees_with_the_strict_one_within_the_limits() -> None:
    data = b"Subject: a\r\n b\r\nnonsense\r\nTo: c\n\nbody"
    assert read_headers(data) == scan_headers(data)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        # RFC 2047 section 8.
        ("=?ISO-8859-1?Q?a?=", "a"),
        ("=?ISO-8859-1?Q?a?= b", "a b"),
        ("=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
        ("=?ISO-8859-1?Q?a?=  \t =?ISO-8859-1?Q?b?=", "ab"),
        ("=?ISO-8859-1?Q?a_b?=", "a b"),
        ("=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b"),
        ("=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=", "If you can read this yo"),
        ("=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),
        ("x =?utf-8*de?q?=C3=BC?= y", "x ü y"),
        ("=?nosuch?q?=C3=BC?=", "ü"),
        ("=?utf-8?x?y?=", "=?utf-8?x?y?="),
        ("=?utf-8?q?open", "=?utf-8?q?open"),
    ],
)
def test_encoded_words(text: str, expected: str) -> None:
    assert decode_words(text) == expected


@pytest.mark.parametrize("piece", ["=?", "=?a?q?x", "=?a?q?", " =?a?q?b?= "])
def test_encoded_words_take_linear_time(piece: str) -> None:
    begun = time.perf_counter()
    decode_words(piece * (400_000 // len(piece)))
    assert time.perf_counter() - begun < 2
