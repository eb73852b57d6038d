"""An answer of a FHIR server within its size, but of tens of millions of small values, took gigabytes and held the
interpreter, and so the mail, for seconds.
"""

from __future__ import annotations

import json
import tracemalloc

import pytest

from gateway.importers.fhir.server import MAX_VALUES, _loaded


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
