"""Base64 at full speed is as strict as the slow way: what is no data and no white space refuses."""

from __future__ import annotations

import base64
import binascii
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.mime.transfer_decoding import decode_base64

TEXT = bytes(range(256)) * 2
GROUPS = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)?")


def slowly(body: bytes) -> bytes | None:
    """The same by the letter of RFC 2045 6.8, with RFC 4648 3.3 for what is foreign; None for a refusal."""
    dense = bytes(byte for byte in body if byte not in b" \t\r\n")
    return binascii.a2b_base64(dense) if GROUPS.fullmatch(dense) else None


def quickly(body: bytes, before: bytes = b"", after: bytes = b"") -> bytes | None:
    data = before + body + after
    try:
        return decode_base64(data, len(before), len(before) + len(body), "it")
    except RejectionError as fault:
        return None if fault.reason is Reason.MALFORMED else b"another reason"


def lines(width: int, ending: bytes, data: bytes = TEXT) -> bytes:
    encoded = base64.b64encode(data)
    return b"".join(encoded[i : i + width] + ending for i in range(0, len(encoded), width))


@given(
    st.lists(
        st.sampled_from([b"A", b"Zg", b"=", b"==", b"\r\n", b"\n", b"\r", b" ", b"\t", b"*", b"\xff", b"-", b"\0"])
    )
)
@example([b"A", b"=", b"A", b"="])
@example([b"="])
@example([b"Zg", b"==", b"Zg", b"=="])
def test_anything_is_decoded_or_refused_as_the_slow_way_does(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    assert quickly(body) == slowly(body)


@given(
    data=st.binary(max_size=300),
    width=st.integers(1, 90),
    ending=st.sampled_from([b"\r\n", b"\n", b"\r", b" \r\n", b"\n\n"]),
    place=st.integers(0, 600),
    stray=st.tuples(
        st.sampled_from([b"", b"*", b"=", b"A", b"\r", b"\n", b" ", b"\x0b", b"\xa0"]), st.sampled_from([0, 1])
    ),
)
def test_one_character_too_many_anywhere(
    data: bytes, width: int, ending: bytes, place: int, stray: tuple[bytes, int]
) -> None:
    body = lines(width, ending, data)
    place %= len(body) + 1
    character, overwritten = stray
    body = body[:place] + character + body[place + overwritten :]
    assert quickly(body) == slowly(body)
    # What stands around the range must not count, though it continues it.
    assert quickly(body, b"AAA=\r\n", b"AAAA\r\n") == slowly(body)


@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
@pytest.mark.parametrize("width", [15, 16, 17, 64, 75, 76, 77, 684, 1024, 2000])
def test_no_line_end_of_regular_lines_hides_a_stray_character(width: int, ending: bytes) -> None:
    """Only the line ends are looked at there, so each byte of each of them matters."""
    good = lines(width, ending)
    assert quickly(good) == TEXT
    for place, byte in enumerate(good):
        if byte in b"\r\n":
            for other in (b"*", b"\0", b"\x0b", b"=", b"A", b"\xff"):
                body = good[:place] + other + good[place + 1 :]
                assert quickly(body) == slowly(body), (place, other)


@pytest.mark.parametrize("tail", [b"", b"\r\n", b"\r\n\r\n \t\r\n", b"\r\n" * 400, b" " * 100, b"\0", b"\r\n--b--"])
def test_what_stands_behind_the_last_line(tail: bytes) -> None:
    body = lines(76, b"\r\n") + tail
    assert quickly(body) == slowly(body)
    assert quickly(body) == (None if tail.strip(b" \t\r\n") else TEXT)


def test_an_empty_body_is_empty() -> None:
    assert quickly(b"") == quickly(b"\r\n \t") == b""


@pytest.mark.parametrize(
    "unit", [b"\n", b" ", b"*", b"=", b"A\n", b"AA==", b"AAAA\r\n", b"A" * 16 + b"\n", b"A" * 17 + b"\r\n\t"]
)
def test_hostile_bodies_cost_linear_time(unit: bytes) -> None:
    body = unit * (8_000_000 // len(unit))
    began = time.process_time()
    quickly(body)
    assert time.process_time() - began < 1.5
