"""Transfer encodings and charsets: exact on good input, never an exception on bad (AS-61)."""

from __future__ import annotations

import base64
import quopri

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.mime.encoding import (
    decode_encoded_words,
    decode_text,
    decode_transfer,
    encode_words,
    header_text,
)


@given(st.binary(max_size=2_000))
def test_what_others_encode_is_decoded(data: bytes) -> None:
    assert decode_transfer(base64.encodebytes(data).replace(b"\n", b"\r\n"), "BASE64 ") == data
    assert decode_transfer(data, "8bit") == data
    assert decode_transfer(data, "x-unknown") == data


@given(st.text(max_size=500).map(lambda text: text.replace("\r", "").encode("utf-8", "replace")))
def test_quoted_printable_round_trip(data: bytes) -> None:
    assert decode_transfer(quopri.encodestring(data), "quoted-printable") == data


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"aGVs\r\nbG8=\r\n-- added by a list --", b"hello" + base64.b64decode("addedbyalist")),
        (b"aGVsbG8", b"hello"),
        (b"aGVsbG8=d29ybGQ=", b"helloworld"),
        (b"aGVsbG8h!!!a", b"hello!"),
        (b"====", b""),
        (b"", b""),
    ],
)
def test_broken_base64(data: bytes, expected: bytes) -> None:
    assert decode_transfer(data, "base64") == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a=3Db=\r\nc", b"a=bc"),
        (b"soft=  \r\nbreak", b"softbreak"),
        (b"trailing  \r\nwhite\t\n", b"trailing\r\nwhite\n"),
        (b"bad =ZZ and =", b"bad =ZZ and "),
    ],
)
def test_broken_quoted_printable(data: bytes, expected: bytes) -> None:
    assert decode_transfer(data, "quoted-printable") == expected


@pytest.mark.parametrize(
    ("data", "charset", "expected"),
    [
        ("Grüße".encode(), "utf-8", "Grüße"),
        (b"\xef\xbb\xbfbom", "UTF-8", "bom"),
        ("Grüße".encode("latin-1"), "us-ascii", "Grüße"),
        ("Grüße".encode(), "us-ascii", "Grüße"),
        (b"\x93smart\x94", "iso-8859-1", "\u201csmart\u201d"),
        (b"\x81", "windows-1252", "\x81"),
        ("日本".encode("iso-2022-jp"), '"ISO-2022-JP"', "日本"),
        ("中".encode("gb18030"), "gb2312", "中"),
        (b"a\xffb", "utf-8", "a\ufffdb"),
        (b"+2AA-", "utf-7", "?"),
        (b"plain", "no such charset", "plain"),
        (b"plain", "a\0b", "plain"),
        (b"\\u0041", "unicode_escape", "\\u0041"),
        (b"abc", "rot13", "abc"),
        (b"abc", "x" * 10_000, "abc"),
    ],
)
def test_charsets(data: bytes, charset: str, expected: str) -> None:
    assert decode_text(data, charset) == expected


@given(st.binary(max_size=200), st.text(max_size=20) | st.sampled_from(["utf-7", "utf-16", "hz", "idna", "mbcs"]))
@example(b"\xd8\x00", "utf-16-be")
def test_any_charset_gives_text_that_can_be_stored(data: bytes, charset: str) -> None:
    decode_text(data, charset).encode("utf-8")


@given(st.text(max_size=300))
@example("Überweisung an Dr. =?utf-8?q?M=C3=BCller?=")
def test_encoding_to_words_is_ascii_and_reversible(text: str) -> None:
    encoded = encode_words(text)
    assert encoded.isascii()
    assert all(len(word) <= 75 for word in encoded.split(" ")) or text.isascii()
    if not text.isascii():
        assert decode_encoded_words(encoded) == decode_encoded_words(text).encode("utf-8", "replace").decode()


def test_a_header_value_is_unfolded_and_keeps_its_bytes_readable() -> None:
    assert header_text(b" a\r\n b\r\n\tc ") == "a b\tc"
    assert header_text("Gr\u00fc\u00dfe".encode("latin-1")) == "Grüße"
    assert header_text(b"a\0b\rc") == "a b c"
