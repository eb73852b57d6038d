"""The BER walker: every fault of the input is a RejectionError, and no input costs more than linear time."""

from __future__ import annotations

import pytest
from asn1crypto import core
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.cms.ber import (
    FREE_CHUNKS,
    MAX_DEPTH,
    OCTET_STRING,
    SEQUENCE,
    Cursor,
    Document,
    Element,
)
from gateway.sta.cms.der import integer, octet_string, oid, sequence, set_of, tlv


def root(data: bytes) -> Element:
    return Document(data).root()


def rejected(data: bytes, reason: Reason = Reason.MALFORMED) -> None:
    with pytest.raises(RejectionError) as caught:
        walk(data)
    assert caught.value.reason is reason


def walk(data: bytes) -> int:
    """Visit everything in a document the way a hostile reader would."""
    seen = 0
    stack: list[Cursor] = []
    element = root(data)
    seen += 1
    if element.tag & 0x20:
        stack.append(element.open())
    while stack:
        if not stack[-1].more:
            stack.pop()
            continue
        child = stack[-1].next("child")
        seen += 1
        if child.tag & 0x20:
            stack.append(child.open())
        elif child.tag == 0x06:
            child.oid("oid")
        elif child.tag == 0x02:
            child.integer("integer")
    return seen


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x05\x02\x01\x01",  # longer than the input
        b"\x30\x84\xff\xff\xff\xff",  # 4 GB declared
        b"\x30\xfe" + b"\x01" * 126,  # length of 126 octets
        b"\x30\x89" + b"\0" * 9,  # length of nine octets
        b"\x30\x82\x01",  # length cut short
        b"\x04\x80\x00\x00",  # primitive and indefinite
        b"\x30\x80\x02\x01\x01",  # never closed
        b"\x30\x80",
        b"\x30\x80\x00",
        b"\x30\x02\x00\x00",  # end-of-contents in a definite element
        b"\x30\x04\x02\x05\x01\x01",  # child longer than its parent
        b"\x1f",  # tag cut short
        b"\x1f\x81\x81\x81\x81\x01\x00",  # tag number too long
        b"\x1f\x81",
        b"\x30\x02\x02\x00",  # empty integer
        b"\x30\x02\x06\x00",  # empty identifier
        b"\x30\x03\x06\x01\x80",  # identifier that never ends
        b"\x30\x04\x06\x02\x80\x01",  # padded arc
        b"\x30\x00garbage",
        b"\x00\x00",
    ],
)
def test_malformed_input_is_rejected_and_nothing_else_escapes(data: bytes) -> None:
    rejected(data)


def test_both_forms_of_length_read_alike() -> None:
    definite = sequence(integer(7), sequence(oid("1.2.840.113549.1.7.2")), octet_string(b"x" * 300))
    inner = b"\x30\x80" + oid("1.2.840.113549.1.7.2") + b"\0\0"
    chunked = b"\x24\x80" + octet_string(b"x" * 200) + b"\x24\x80" + octet_string(b"x" * 100) + b"\0\0" + b"\0\0"
    for data in (definite, b"\x30\x80" + integer(7) + inner + chunked + b"\0\0"):
        cursor = root(data).open()
        assert cursor.next("a").integer("a") == 7
        assert cursor.next("b").open().next("c").oid("c") == "1.2.840.113549.1.7.2"
        assert bytes(cursor.next("d").octets()) == b"x" * 300
        assert not cursor.more
        cursor.finish("all")


def test_definite_content_is_a_slice_of_the_input() -> None:
    data = memoryview(octet_string(b"payload" * 100))
    value = Document(data).root().octets()
    assert isinstance(value, memoryview)
    assert value.obj is data.obj


def test_padding_behind_the_root_is_tolerated_but_nothing_else() -> None:
    assert bytes(root(octet_string(b"a") + b"\r\n\0").content) == b"a"
    rejected(octet_string(b"a") + b"b")
    rejected(octet_string(b"a") + b"\0" * 2000)


def test_depth_is_bounded_in_both_forms() -> None:
    assert walk(b"\x30\x80" * MAX_DEPTH + b"\0\0" * MAX_DEPTH) == MAX_DEPTH
    rejected(b"\x30\x80" * (MAX_DEPTH + 1) + b"\0\0" * (MAX_DEPTH + 1), Reason.RESOURCE_LIMIT)
    rejected(b"\x30\x80" * 200_000, Reason.RESOURCE_LIMIT)
    nested = b"\x05\x00"
    for _ in range(5000):
        nested = tlv(SEQUENCE, nested)
    rejected(nested, Reason.RESOURCE_LIMIT)


def test_constructed_strings_nest_no_deeper_than_the_bound() -> None:
    deep = octet_string(b"x")
    for _ in range(40):
        deep = tlv(OCTET_STRING | 0x20, deep)
    with pytest.raises(RejectionError) as caught:
        root(deep).octets()
    assert caught.value.reason is Reason.RESOURCE_LIMIT


def test_chunks_of_a_wrong_type_are_malformed() -> None:
    with pytest.raises(RejectionError) as caught:
        root(tlv(0x24, integer(1))).octets()
    assert caught.value.reason is Reason.MALFORMED


def test_many_tiny_chunks_are_refused_and_many_large_ones_joined() -> None:
    tiny = b"\x24\x80" + octet_string(b"x") * (FREE_CHUNKS + 1) + b"\0\0"
    with pytest.raises(RejectionError) as caught:
        root(tiny).octets()
    assert caught.value.reason is Reason.RESOURCE_LIMIT
    large = b"\x24\x80" + octet_string(b"y" * 1000) * 20_000 + b"\0\0"
    assert root(large).octets() == b"y" * 20_000_000


def test_element_budget_bounds_the_work() -> None:
    rejected(b"\x30\x80" + b"\x05\x00" * 300_000 + b"\0\0", Reason.RESOURCE_LIMIT)


def test_nested_indefinite_elements_are_scanned_once() -> None:
    """Not once more for every level above them: the work stays linear."""
    chunks = octet_string(b"z" * 1000) * 10_000
    data = b"\x30\x80" * 10 + b"\x24\x80" + chunks + b"\0\0" * 11
    document = Document(data)
    before = document._budget
    element = document.root()
    for _ in range(9):
        element = element.open().next("level")
    assert len(element.open().next("string").octets()) == 10_000_000
    assert before - document._budget < 10_100


def test_long_integers_and_identifiers_are_refused_before_conversion() -> None:
    rejected(sequence(tlv(0x02, b"\x01" * 1_000_000)), Reason.RESOURCE_LIMIT)
    rejected(sequence(tlv(0x06, b"\x81" * 1_000_000 + b"\x01")), Reason.RESOURCE_LIMIT)


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    try:
        walk(data)
        root(data).octets()
    except RejectionError as error:
        assert error.reason in (Reason.MALFORMED, Reason.RESOURCE_LIMIT)  # noqa: PT017


@given(st.integers(min_value=-(2**400), max_value=2**400))
def test_integers_agree_with_asn1crypto(value: int) -> None:
    assert integer(value) == core.Integer(value).dump()
    assert root(core.Integer(value).dump()).integer("value") == value


@given(
    st.integers(0, 2),
    st.integers(0, 39),
    st.lists(st.integers(min_value=0, max_value=2**40), max_size=6),
)
def test_identifiers_agree_with_asn1crypto(first: int, second: int, rest: list[int]) -> None:
    dotted = ".".join(map(str, (first, second, *rest)))
    encoded = core.ObjectIdentifier(dotted).dump()
    assert oid(dotted) == encoded
    assert root(encoded).oid("dotted") == dotted


def test_large_second_arc_below_joint_iso() -> None:
    assert root(oid("2.999.3")).oid("dotted") == "2.999.3"


def test_set_of_is_sorted() -> None:
    assert set_of([integer(300), integer(2), integer(1)]) == tlv(0x31, integer(1), integer(2), integer(300))
