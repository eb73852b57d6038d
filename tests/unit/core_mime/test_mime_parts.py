"""Leaves and the main text, for importers and readers (AS-61, EP-15)."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.mime.html_text import html_to_text
from gateway.core.mime.parts import Leaf, leaf_parts, main_text
from gateway.core.mime.structure import parse_structure

CCDA = (
    b'<?xml version="1.0"?>\n<ClinicalDocument xmlns="urn:hl7-org:v3"><title>CCD \xc3\xa9</title></ClinicalDocument>\n'
    * 30
)
PDF = b"%PDF-1.7\r\n" + bytes(range(256)) * 4


def attachment(kind: str, disposition: str, data: bytes) -> bytes:
    encoded = base64.encodebytes(data).replace(b"\n", b"\r\n")
    head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: {disposition}\r\n\r\n"
    return head.encode() + encoded


def multipart(*parts: bytes, boundary: bytes = b"=_b") -> bytes:
    body = b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts)
    head = b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="%b"\r\n\r\n' % boundary
    return head + body + b"--%b--\r\n" % boundary


TEXT = (
    b"Content-Type: text/plain; charset=iso-8859-1\r\n"
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\nPatient M=FCller\r\n"
)


def leaves(data: bytes) -> tuple[Leaf, ...]:
    return leaf_parts(data, parse_structure(data))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_text_ccda_and_pdf_in_any_order_are_intact(order: tuple[int, ...]) -> None:
    """EP-15: the payload is the same in any order."""
    parts = (
        (TEXT, "text/plain", "", b"Patient M\xfcller\r\n"),
        (attachment('text/xml; name="CCD.xml"', "attachment; filename=CCD.xml", CCDA), "text/xml", "CCD.xml", CCDA),
        (attachment("application/pdf", 'attachment; filename="r 1.pdf"', PDF), "application/pdf", "r 1.pdf", PDF),
    )
    data = multipart(*(parts[n][0] for n in order))
    found = leaves(data)
    assert [(leaf.content_type, leaf.filename) for leaf in found] == [parts[n][1:3] for n in order]
    assert [leaf.path for leaf in found] == ["1", "2", "3"]
    for leaf, n in zip(found, order, strict=True):
        assert leaf.data() == parts[n][3]
        assert leaf.is_attachment == (n != 0)
    assert main_text(data, parse_structure(data)) == "Patient Müller"


@pytest.mark.parametrize(
    ("kind", "disposition", "expected"),
    [
        ("a/b", "attachment; filename*=utf-8''Bericht%20M%C3%BCller.pdf", "Bericht Müller.pdf"),
        ("a/b", "attachment; filename*0=long; filename*1=er.xml", "longer.xml"),
        ("a/b", 'attachment; filename="=?utf-8?q?M=C3=BCller=2Epdf?="', "Müller.pdf"),
        ("a/b", 'attachment; filename="../../etc/passwd"', "../../etc/passwd"),
        ("a/b; name=n.txt", "attachment", "n.txt"),
        ("a/b; name=n.txt", "inline; filename=f.txt", "f.txt"),
        ("a/b", "attachment", ""),
        ("a/b", 'attachment; filename="a\0b"', "a b"),
    ],
)
def test_file_names_are_decoded_and_otherwise_as_the_sender_wrote_them(
    kind: str, disposition: str, expected: str
) -> None:
    assert leaves(attachment(kind, disposition, b"x"))[0].filename == expected


def test_leaves_of_an_attached_message_are_numbered_as_imap_does() -> None:
    inner = multipart(TEXT, attachment("text/xml", "attachment; filename=CCD.xml", CCDA), boundary=b"in")
    single = b"Subject: s\r\n\r\nenclosed text\r\n"
    data = multipart(
        b"Content-Type: text/html\r\n\r\n<p>outer &amp; <b>bo</b>ld</p>",
        b"Content-Type: message/rfc822\r\n\r\n" + inner,
        b"Content-Type: message/rfc822\r\n\r\n" + single,
    )
    found = leaves(data)
    assert [(leaf.path, leaf.enclosed) for leaf in found] == [("1", False), ("2.1", True), ("2.2", True), ("3.1", True)]
    assert found[2].data() == CCDA
    assert main_text(data, parse_structure(data)) == "outer & bold"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"Subject: x\r\n\r\n hello \r\n", "hello"),
        (b"", ""),
        (multipart(attachment("text/plain", "attachment; filename=a.txt", b"no")), ""),
        (multipart(attachment("application/pdf", "attachment", PDF)), ""),
        (multipart(b"Content-Type: text/plain\r\n\r\n", b"Content-Type: text/html\r\n\r\n<i>x</i>"), "x"),
        (multipart(b"Content-Type: message/rfc822\r\n\r\nSubject: s\r\n\r\nquoted"), ""),
    ],
)
def test_the_main_text_is_optional(data: bytes, expected: str) -> None:
    """AS-61: nothing depends on a text body."""
    assert main_text(data, parse_structure(data)) == expected


def test_the_leaf_of_a_message_shows_no_content_when_printed() -> None:
    leaf = leaves(b"Subject: secret\r\n\r\nsecret")[0]
    assert "secret" not in repr(leaf)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<html><head><title>t</title><style>a{}</style></head><body><p>one</p><p>two</p>", "one\ntwo"),
        ("HbA1c < 7 &lt; 8", "HbA1c < 7 < 8"),
        ("a<br>b<!-- c <p> --> d", "a\nb d"),
        ("<script>if (a<b) {}</script>x<SCRIPT>never closed", "x"),
        ("a <b", "a"),
        ("<!doctype html>x", "x"),
        ("İ<style>İ</style>x", "İ\nx"),
    ],
)
def test_html_becomes_text(html: str, expected: str) -> None:
    assert html_to_text(html) == expected


@pytest.mark.parametrize(
    "piece", ["<script ", "<a", "<!-- ", "<script></style>", "<script></script", "\n ", " ", "&", "<"]
)
def test_html_takes_linear_time(piece: str) -> None:
    begun = time.perf_counter()
    html_to_text(piece * (400_000 // len(piece)))
    assert time.perf_counter() - begun < 3


@settings(deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"text/html", b"text/plain; charset=utf-7", b"multipart/mixed; boundary=b"]),
)
def test_any_bytes_can_be_read(body: bytes, kind: bytes) -> None:
    data = b"Content-Type: " + kind + b"\r\n\r\n" + body
    root = parse_structure(data)
    for leaf in leaf_parts(data, root):
        assert isinstance(leaf.data(), bytes)
        leaf.text(10).encode()
    main_text(data, root).encode()
