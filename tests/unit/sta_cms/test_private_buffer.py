"""A private buffer changes in place what is its own, and copies what anybody else holds."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sta.cms.private_buffer import PrivateBuffer, Span

SIZE = 4_000_000


@given(st.binary(max_size=200), st.data())
def test_what_is_cut_is_the_slice(content: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    expected = content[start:end]
    assert Span(PrivateBuffer(bytes(bytearray(content))), start, end).take() == expected
    assert Span(PrivateBuffer(bytearray(content)), start, end).take(b"X: y\r\n") == b"X: y\r\n" + expected
    span = Span(PrivateBuffer(content), start, end)
    assert (bytes(span.view), len(span)) == (expected, end - start)


def test_bytes_that_somebody_else_holds_never_change() -> None:
    mine = bytes(range(200))
    buffer = PrivateBuffer(mine)
    with buffer.writable() as view:
        view[:5] = b"other"
    assert mine == bytes(range(200))
    held = buffer.data
    assert buffer.cut(3, 9) == held[3:9] == b"er" + bytes(range(5, 9))
    assert held == b"other" + bytes(range(5, 200))


def test_a_view_that_is_still_looked_through_sees_no_change() -> None:
    buffer = PrivateBuffer(bytearray(b"0123456789"))
    view = buffer.writable()
    assert buffer.cut(3, 6) == b"345"
    assert bytes(view) == b"0123456789"
    view.release()


@pytest.mark.parametrize(("start", "end"), [(0, SIZE), (1, SIZE), (1000, SIZE - 1000), (SIZE // 2, SIZE)])
def test_nothing_is_copied_that_is_its_own(start: int, end: int) -> None:
    tracemalloc.start()
    try:
        buffer = PrivateBuffer(bytes(SIZE))
        with buffer.writable() as view:
            view[start] = 1
        content = buffer.cut(start, end)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(content), content[0]) == (end - start, 1)
    assert peak < 1.1 * SIZE
