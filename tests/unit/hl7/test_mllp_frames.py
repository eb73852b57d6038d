"""MLLP frames, whatever pieces they come in (HL7-6)."""

from __future__ import annotations

import random

import pytest

from gateway.hl7.mllp import MAX_STRAY_BYTES, FrameError, FrameReader, frame


def cut(octets: bytes, pieces: int, rng: random.Random) -> list[bytes]:
    places = sorted(rng.randrange(len(octets) + 1) for _ in range(pieces))
    return [octets[a:b] for a, b in zip([0, *places], [*places, len(octets)], strict=True)]


def test_messages_come_whole_and_in_order_however_the_stream_is_cut() -> None:
    rng = random.Random(7)
    messages = [b"one", b"", b"x" * 5_000, b"MSH|^~\\&|\rPID|1\r", "\u00fc".encode()]
    stream = b"\r\n".join(frame(message) for message in messages)
    for pieces in range(60):
        reader, found = FrameReader(5_000), []
        for piece in cut(stream, pieces, rng):
            reader.feed(piece)
            while (message := reader.next()) is not None:
                found.append(message)
        assert found == messages
        assert not reader.within


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: something quite long indeed, longer\r\n", "no_start"),
        (b"x" * (MAX_STRAY_BYTES + 1), "no_start"),
        (b"\x0babc\x1cd", "broken_end"),
        (b"\x0babc\x0bdef\x1c\r", "start_within"),
        (b"\x0b" + b"a" * 101 + b"\x1c\r", "too_large"),
        (b"\x0b" + b"a" * 103, "too_large"),
    ],
)
def test_what_is_no_frame_ends_with_a_reason(octets: bytes, reason: str) -> None:
    def read() -> None:
        reader = FrameReader(100)
        reader.feed(octets)
        reader.next()

    with pytest.raises(FrameError) as caught:
        read()
    assert caught.value.reason == reason


def test_a_message_of_exactly_the_limit_passes_octet_by_octet() -> None:
    reader = FrameReader(100)
    for octet in frame(b"a" * 100):
        assert reader.next() is None
        reader.feed(bytes([octet]))
    assert reader.next() == b"a" * 100


def test_random_octets_never_do_more_than_end_the_stream_and_hold_little() -> None:
    rng = random.Random(11)
    for _ in range(2_000):
        reader = FrameReader(64)
        try:
            for _ in range(20):
                reader.feed(bytes(rng.choice(b"\x0b\x1c\rab|\n\x00\xff") for _ in range(rng.randint(0, 40))))
                while (message := reader.next()) is not None:
                    assert len(message) <= 64
        except FrameError:
            continue
