"""Decryption in place gives what the library gives out of place, and a key that does not fit leaves no trace."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from gateway.sta.algorithm_policy import CONTENT_ENCRYPTIONS
from gateway.sta.cms import content_cipher
from gateway.sta.cms.content_cipher import ContentCipher, open_aead, open_cbc
from gateway.sta.cms.content_info import DATA

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
SIZES = (0, 1, 15, 16, 17, 31, 32, 33, 100, 4096, 4111, 70_000)
SLICES = (16, 32, 4096, 1 << 20)
BEHIND = b"\x04\x10 and more"


def cipher(name: str) -> ContentCipher:
    row = next(row for row in CONTENT_ENCRYPTIONS.values() if row.name == name)
    if row.family == "aes-cbc":
        return ContentCipher(row, bytes(16))
    return ContentCipher(row, bytes(12), 16)


def text(size: int) -> bytes:
    return (
        (b"Subject: a\r\n\r\n" + random.Random(size).randbytes(size))[:size]
        if size > 20
        else b"A: bcdefghijklmnopqr"[:size]
    )


def cbc(plain: bytes) -> bytes:
    fill = 16 - len(plain) % 16
    encryptor = Cipher(algorithms.AES(KEY), modes.CBC(bytes(16))).encryptor()
    return encryptor.update(plain + bytes((fill,)) * fill) + encryptor.finalize()


@pytest.fixture(params=SLICES)
def slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_cipher, "SLICE_BYTES", request.param)
    monkeypatch.setattr(
        content_cipher, "FEW_BYTES", request.param if request.param < 1 << 20 else content_cipher.FEW_BYTES
    )


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("size", SIZES)
def test_cbc(size: int) -> None:
    plain = text(size)
    sealed = cbc(plain)
    buffer = bytearray(sealed + BEHIND)
    with memoryview(buffer) as view:
        content = view[: len(sealed)]
        for _ in range(2):  # A key that does not fit can be tried any number of times.
            assert open_cbc(cipher("aes-256-cbc"), OTHER, content, DATA) is None
            assert bytes(view) == sealed + BEHIND
        assert open_cbc(cipher("aes-256-cbc"), KEY, content, DATA) == size
        assert bytes(view[:size]) == plain
        assert bytes(view[len(sealed) :]) == BEHIND


@pytest.mark.parametrize("size", [0, 1, 15, 17, 33])
def test_content_that_is_no_number_of_blocks_is_not_touched(size: int) -> None:
    buffer = bytearray(bytes(size))
    with memoryview(buffer) as view:
        assert open_cbc(cipher("aes-256-cbc"), KEY, view, DATA) is None
    assert buffer == bytes(size)


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["aes-256-gcm", "chacha20-poly1305"])
def test_aead(name: str, size: int) -> None:
    plain = text(size)
    library = AESGCM(KEY) if name == "aes-256-gcm" else ChaCha20Poly1305(KEY)
    whole = library.encrypt(bytes(12), plain, b"attributes")
    sealed, tag = whole[:size], whole[size:]
    buffer = bytearray(sealed + bytes(16))
    one = cipher(name)
    with memoryview(buffer) as view:
        bad = bytes((tag[0] ^ 1,)) + tag[1:]
        for key, wrong_tag, associated in ((OTHER, tag, b"attributes"), (KEY, bad, b"attributes"), (KEY, tag, b"x")):
            assert open_aead(one, key, view, size, tag=wrong_tag, associated=associated) is None
            assert bytes(view[:size]) == sealed
        assert open_aead(one, KEY, view, size, tag=tag, associated=b"attributes") == size
        assert bytes(view[:size]) == plain


@pytest.mark.parametrize("name", ["aes-256-gcm", "chacha20-poly1305"])
@pytest.mark.parametrize("tag_bytes", [0, 4, 12, 15, 17])
def test_a_tag_of_another_length_than_announced_never_fits(name: str, tag_bytes: int) -> None:
    buffer = bytearray(64)
    with memoryview(buffer) as view:
        assert open_aead(cipher(name), KEY, view, 20, tag=bytes(tag_bytes), associated=b"") is None
    assert buffer == bytes(64)
