"""An answer of a FHIR server within its size, but of tens of millions of small values, took gigabytes and held the
interpreter, and so the mail, for seconds. So did numbers of thousands of digits, and a body in tens of thousands of
small chunks held the event loop.
"""

from __future__ import annotations

import asyncio
import json
import tracemalloc

import h11
import pytest

from gateway.importers.fhir.server import MAX_VALUES, _loaded
from gateway.importers.http_client import MAX_HEAD_BYTES, _body, _head


@pytest.mark.parametrize("unit", [b"{},", b"[],", b"0,", b"[[[[]]]],"])
def test_too_many_values_are_no_document(unit: bytes) -> None:
    body = b"[" + unit * (2 * MAX_VALUES // (unit.count(b",") + unit.count(b"[") + unit.count(b"{"))) + b"0]"
    tracemalloc.start()
    try:
        assert _loaded(body) is None
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_a_large_document_and_a_long_text_are_read() -> None:
    told = {"resourceType": "Communication", "payload": [{"contentString": "," * 1_000_000}], "data": "A" * 9_000_000}
    assert _loaded(json.dumps(told).encode()) == told


def test_numbers_are_of_a_length_that_fhir_has() -> None:
    assert _loaded(b'{"a": 2147483647, "b": -1.50, "c": 123456789012345678}') == {
        "a": 2147483647, "b": -1.5, "c": 123456789012345678,
    }  # fmt: skip
    assert _loaded(b"[" + b"9" * 4000 + b"]") is None


async def test_a_body_of_small_chunks_lets_others_run() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"2\r\nab\r\n" * 8000 + b"0\r\n\r\n")
    machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    machine.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    machine.send(h11.EndOfMessage())
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await _head(machine, reader)
    assert await _body(machine, reader, 100_000) == b"ab" * 8000
    beside.cancel()
    assert turns >= 10
