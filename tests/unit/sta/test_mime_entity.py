"""The outer layers of MIME: exact boundaries, whole bodies, limits (S/MIME rules 1, 4, 9, 10, 14)."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.mime.boundaries import MAX_MIME_DEPTH, check_structure
from gateway.sta.mime.mime_entity import (
    canonical_line_ends,
    decode_body,
    first_header_offset,
    is_cms,
    is_multipart_signed,
    read_entity,
    split_signed,
)

SIGNATURE = b"Content-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n"


def _signed(body: bytes, boundary: bytes = b"b", extra: bytes = b"") -> bytes:
    head = b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; boundary="' + boundary + b'"\r\n'
    return head + extra + b"\r\n" + body


def _split(raw: bytes) -> bytes:
    parts = split_signed(read_entity(raw, what="it"))
    return raw[parts.start : parts.end]


@pytest.mark.parametrize(
    ("body", "signed"),
    [
        (b"--b\r\nX: y\r\n\r\ntext\r\n--b\r\n" + SIGNATURE + b"--b--\r\n", b"X: y\r\n\r\ntext"),
        (b"--b\r\nX: y\r\n\r\ntext\r\n\r\n--b\r\n" + SIGNATURE + b"--b--", b"X: y\r\n\r\ntext\r\n"),
        (b"--b\nX: y\n\ntext\n--b\n" + SIGNATURE + b"--b--\n", b"X: y\n\ntext"),
        (b"--b\r\nX: y\r\n\r\ntext\r\n\n--b\n" + SIGNATURE + b"--b--\n", b"X: y\r\n\r\ntext\r\n"),
        (b"--b \t\r\nx\r\n--b  \r\n" + SIGNATURE + b"--b-- \r\n", b"x"),
        (b"preamble\r\n--b\r\nx\r\n--b\r\n" + SIGNATURE + b"--b--\r\nepilogue\r\n--b\r\nmore", b"x"),
        (b"--b\r\n--bb\r\n--b-\r\n --b\r\nx--b\r\n--b\r\n" + SIGNATURE + b"--b--", b"--bb\r\n--b-\r\n --b\r\nx--b"),
        (b"--b\r\n\r\n--b\r\n" + SIGNATURE + b"--b--", b""),
        (b"--b\r\n--b\r\n" + SIGNATURE + b"--b--", b""),
    ],
)
def test_the_signed_range_is_exactly_what_stands_between_the_boundary_lines(body: bytes, signed: bytes) -> None:
    assert _split(_signed(body)) == signed


@pytest.mark.parametrize(
    "raw",
    [
        _signed(b"--b\r\nx\r\n--b\r\n" + SIGNATURE),
        _signed(b"--b\r\nx\r\n--b--\r\n"),
        _signed(b"--b\r\nx\r\n--b\r\n" + SIGNATURE + b"--b\r\nmore\r\n--b--\r\n"),
        _signed(b"--b\r\nx\r\n--b\r\nContent-Type: text/plain\r\n\r\nAAAA\r\n--b--\r\n"),
        _signed(b"--b\r\n" + SIGNATURE + b"--b\r\nx\r\n--b--\r\n"),
        _signed(b"--b\r\nx\r\n--b\r\n" + SIGNATURE + b"--b--", extra=b"Content-Transfer-Encoding: base64\r\n"),
        _signed(b"--b\r\nx\r\n--b\r\n" + SIGNATURE.replace(b"AAAA", b"A*AA") + b"--b--"),
        _signed(b"x", boundary=b""),
        _signed(b"x", boundary=b"b" * 71),
        _signed(b"x", boundary=b"b "),
        _signed(b"x").replace(b"pkcs7-signature", b"pgp-signature"),
    ],
)
def test_anything_but_two_closed_parts_with_a_signature_second_is_malformed(raw: bytes) -> None:
    with pytest.raises(RejectionError) as caught:
        _split(raw)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    "raw",
    [
        b"Content-Type: text/plain\r\nContent-Type: application/pkcs7-mime\r\n\r\n",
        b"Content-Transfer-Encoding: 7bit\r\ncontent-transfer-encoding: base64\r\n\r\n",
        b"Content-Type: multipart/signed; boundary=x; BOUNDARY=y\r\n\r\n",
        b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data; smime-type=signed-data\r\n\r\n",
        b"Content-Type: \r\n\r\n",
        b"Content-Type: application\r\n\r\n",
        b"Content-Type: application/pkcs7-mime\x00\r\n\r\n",
    ],
)
def test_an_ambiguous_structure_is_refused(raw: bytes) -> None:
    with pytest.raises(RejectionError) as caught:
        read_entity(raw, what="it")
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("head", "cms"),
    [
        (b"Content-Type: application/pkcs7-mime", True),
        (b"Content-Type: Application/X-PKCS7-MIME; name=x", True),
        (b"content-type:\r\n application/pkcs7-mime;\r\n\tsmime-type=anything", True),
        (b"Content-Type: application/octet-stream; name=smime.p7m", True),
        (b"Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=SMIME.P7M", True),
        (b"Content-Type: application/octet-stream; name=report.pdf", False),
        (b"Content-Type: application/pkcs7-signature", False),
        (b"Content-Type: text/plain; name=smime.p7m", False),
        (b"Subject: none", False),
    ],
)
def test_what_counts_as_a_cms_object(head: bytes, cms: bool) -> None:
    """AS-47: aliases, and no optional parameter is needed."""
    assert is_cms(read_entity(head + b"\r\n\r\nAAAA", what="it")) is cms


def test_only_the_whole_entity_can_be_a_multipart_signed() -> None:
    assert is_multipart_signed(read_entity(_signed(b""), what="it"))
    assert not is_multipart_signed(read_entity(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n", what="it"))


@given(data=st.binary(max_size=400), width=st.integers(1, 90), ending=st.sampled_from([b"\r\n", b"\n", b" \r\n\t"]))
def test_base64_of_any_width_and_line_end_is_decoded(data: bytes, width: int, ending: bytes) -> None:
    encoded = base64.b64encode(data)
    body = ending.join(encoded[i : i + width] for i in range(0, len(encoded), width))
    entity = read_entity(b"Content-Transfer-Encoding: BASE64\r\n\r\n" + body + ending, what="it")
    assert decode_body(entity, what="it") == data


@pytest.mark.parametrize(
    "body", [b"AAAA*", b"AAA", b"A", b"AA==AA==", b"AAAA=", b"AA==\r\nfooter", b"AAA\xa0", b"===="]
)
def test_stray_characters_and_cut_base64_are_malformed(body: bytes) -> None:
    entity = read_entity(b"Content-Transfer-Encoding: base64\r\n\r\n" + body, what="it")
    with pytest.raises(RejectionError):
        decode_body(entity, what="it")


def test_quoted_printable_is_decoded_exactly_or_refused() -> None:
    head = b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
    assert decode_body(read_entity(head + b"a=3Db=\r\nc\r\n", what="it"), what="it") == b"a=bc\r\n"
    for bad in (b"a=zz", b"a=3"):
        with pytest.raises(RejectionError):
            decode_body(read_entity(head + bad, what="it"), what="it")


def test_an_unknown_transfer_encoding_is_malformed() -> None:
    with pytest.raises(RejectionError):
        decode_body(read_entity(b"Content-Transfer-Encoding: uuencode\r\n\r\nx", what="it"), what="it")


def test_a_header_block_beyond_its_limit_is_a_resource_limit() -> None:
    with pytest.raises(RejectionError) as caught:
        read_entity(b"X: " + b"a" * 70_000, what="it")
    assert caught.value.reason is Reason.RESOURCE_LIMIT


@pytest.mark.parametrize("slice_bytes", [1, 2, 3, 1 << 20])
def test_only_bare_line_feeds_are_made_canonical(slice_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.sta.mime.mime_entity._SLICE_BYTES", slice_bytes)
    assert canonical_line_ends(memoryview(b"a\nb\r\nc\r\r\n\n")) == b"a\r\nb\r\nc\r\r\n\r\n"
    assert canonical_line_ends(memoryview(b"a\r\nb \r\n")) is None


def test_empty_lines_before_the_enclosed_headers_are_stepped_over() -> None:
    assert first_header_offset(b"\r\n \t\r\n\nFrom: x") == len(b"\r\n \t\r\n\n")
    assert first_header_offset(b"From: x") == 0
    assert first_header_offset(b"") == 0


def _nested(depth: int) -> bytes:
    return b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))


def test_the_depth_of_the_tree_is_limited() -> None:
    check_structure(_nested(MAX_MIME_DEPTH))
    with pytest.raises(RejectionError) as caught:
        check_structure(_nested(MAX_MIME_DEPTH + 1))
    assert caught.value.reason is Reason.RESOURCE_LIMIT


def test_messages_in_messages_count_as_depth() -> None:
    deep = b"Content-Type: message/rfc822\r\n\r\n" * 3_000
    with pytest.raises(RejectionError):
        check_structure(deep)


def test_parts_beside_each_other_do_not_count_as_depth_but_are_limited() -> None:
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    nested = b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n"
    check_structure(head + (b"--b\r\n" + nested) * 100 + b"--b--\r\n")
    with pytest.raises(RejectionError):
        check_structure(head + b"--b\r\n\r\nx\r\n" * 1_100)


@pytest.mark.parametrize("line", [b"--b\r\n", b"--\r\n", b"-", b"\n--x", b"--b", b"--b--\n", b"--b " * 60 + b"\n"])
def test_hostile_repetition_costs_linear_time(line: bytes) -> None:
    raw = b"Content-Type: multipart/signed; boundary=b\r\n\r\n" + line * (4_000_000 // len(line))
    began = time.process_time()
    for read in (_split, check_structure):
        try:
            read(raw)
        except RejectionError:
            continue
    assert time.process_time() - began < 3


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_rejections(raw: bytes) -> None:
    for head in (b"", b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n"):
        try:
            check_structure(head + raw)
            entity = read_entity(head + raw, what="it")
            decode_body(entity, what="it")
            split_signed(entity)
        except RejectionError:
            continue
