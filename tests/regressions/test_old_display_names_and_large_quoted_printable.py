"""A display name in an old charset loses no recipient, and quoted-printable needs no third copy (AS-45, AS-48)."""

from __future__ import annotations

import tracemalloc

import pytest

from gateway.core.errors import RejectionError
from gateway.core.mime.headers import scan_headers
from gateway.core.verdict import Reason
from gateway.sta.identity import named_recipients, the_sender
from gateway.sta.mime.mime_entity import decode_body, read_entity


def test_a_recipient_behind_a_latin_1_name_is_named() -> None:
    headers = scan_headers(b'To: "B\xf6b" <bob@clinic.example>, ann@clinic.example\r\n\r\n')
    assert named_recipients(headers) == ("bob@clinic.example", "ann@clinic.example")


def test_a_sender_that_is_not_utf_8_is_refused_all_the_same() -> None:
    with pytest.raises(RejectionError) as caught:
        the_sender(scan_headers(b"From: J\xf6e <joe@clinic.example>\r\n\r\n"))
    assert caught.value.reason is Reason.MALFORMED


def test_decoding_quoted_printable_does_not_copy_its_input() -> None:
    body = b"line of text =3D here\r\n" * 200_000
    head = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    entity = read_entity(head + body, what="the entity")
    tracemalloc.start()
    try:
        decoded = decode_body(entity, what="the entity")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert decoded == body.replace(b"=3D", b"=")
    assert peak < 2.5 * len(body), "the decoder's own two buffers, and no copy of the input"
