"""The index of a message with fields of the gateway is that of the bytes which mail clients are shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.shown_message import shown, without_fields
from gateway.inbox.indexer import Indexer
from gateway.ports import IndexedMessage
from tests.support.delivered_mail import inner
from tests.unit.core.test_shown_message import FORGED, MESSAGES, OURS


def of_shown(message: bytes) -> tuple[IndexedMessage, IndexedMessage]:
    """Put together, and made of the whole."""
    indexer = Indexer()
    together = indexer.with_fields(indexer.index(without_fields(message)), OURS)
    return together, indexer.index(shown(message, OURS))


@pytest.mark.parametrize("number", range(17))
def test_every_kind_of_message(number: int) -> None:
    for message in (inner(number, "a@b.example"), FORGED + inner(number, "a@b.example")):
        together, whole = of_shown(message)
        assert together == whole
        assert "direct-gateway-verdict: accepted\n" in together.search_headers


@given(MESSAGES, st.sampled_from([b"", b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\na\r\n--x--\r\n"]))
def test_any_message(head: bytes, rest: bytes) -> None:
    together, whole = of_shown(head + rest)
    assert together == whole


def test_what_could_not_be_indexed_is_still_text_below_the_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.inbox.indexer._index", lambda _content: 1 / 0)
    indexer = Indexer()
    plain = indexer.index(b"Subject: x\r\n\r\nbody\r\n")
    moved = indexer.with_fields(plain, OURS)
    assert (moved.header_end, moved.size_bytes) == (len(OURS), plain.size_bytes + len(OURS))
    same = replace(moved, size_bytes=0, header_end=0, sections=b"", search_headers="")
    assert same == replace(plain, size_bytes=0, header_end=0, sections=b"", search_headers="")
