"""The index row: ENVELOPE, BODY, BODYSTRUCTURE, search text and date (EP-24, EP-15, AS-61).

The expected values stand here as IMAP clients read them: a small reader of IMAP values, written for these tests
from the grammar of RFC 3501 9, turns what the indexer made into Python values and refuses anything invalid.
"""

from __future__ import annotations

import base64
import logging
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.inbox import indexer as indexer_module
from gateway.inbox.indexer import MAX_SEARCH_TEXT_CHARS, MAX_STRUCTURE_BYTES, Indexer
from gateway.inbox.sections import section
from gateway.ports import IndexedMessage

Value = bytes | int | None | list["Value"]


class Reader:
    """Reads one IMAP value: a parenthesised list, a quoted string, a literal, a number or NIL."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0

    def whole(self) -> Value:
        value = self.value()
        assert self.at == len(self.raw), f"left over: {self.raw[self.at :]!r}"
        return value

    def value(self) -> Value:
        char = self.raw[self.at : self.at + 1]
        if char == b"(":
            return self.parenthesised()
        if char == b'"':
            return self.quoted()
        if char == b"{":
            end = self.raw.index(b"}\r\n", self.at)
            size = int(self.raw[self.at + 1 : end])
            self.at = end + 3 + size
            assert self.at <= len(self.raw)
            found = self.raw[end + 3 : self.at]
            assert b"\0" not in found
            return found
        end = self.at
        while end < len(self.raw) and self.raw[end] not in b" ()":
            end += 1
        word = self.raw[self.at : end]
        self.at = end
        if word == b"NIL":
            return None
        assert word.isdigit(), word
        return int(word)

    def parenthesised(self) -> list[Value]:
        self.at += 1
        values: list[Value] = []
        while True:
            char = self.raw[self.at : self.at + 1]
            if char == b")":
                self.at += 1
                assert values, "an empty list is no IMAP value"
                return values
            if char == b" ":
                assert values
                self.at += 1
            elif values:
                # Only lists may follow each other without a space (bodies, addresses).
                assert char == b"("
                assert isinstance(values[-1], list)
            values.append(self.value())

    def quoted(self) -> bytes:
        out = bytearray()
        self.at += 1
        while (byte := self.raw[self.at]) != 0x22:
            if byte == 0x5C:
                self.at += 1
                byte = self.raw[self.at]
                assert byte in b'"\\'
            assert 0 < byte < 0x80
            assert byte not in b"\r\n"
            out.append(byte)
            self.at += 1
        self.at += 1
        return bytes(out)


def read(raw: bytes) -> Value:
    return Reader(raw).whole()


def items(raw: bytes) -> list[Value]:
    value = read(raw)
    assert isinstance(value, list)
    return value


def index(data: bytes) -> IndexedMessage:
    return Indexer().index(data)


def crlf(text: str) -> bytes:
    return text.encode().replace(b"\n", b"\r\n")


def person(name: str | None, mailbox: str, host: str, route: str | None = None) -> list[Value]:
    return [name.encode() if name else None, route.encode() if route else None, mailbox.encode(), host.encode()]


# --- ENVELOPE ---


def test_a_full_envelope() -> None:
    data = crlf(
        """Message-ID: <msg@id>
In-Reply-To: <reply@to.id>
Date: Sat, 01 Feb 2007 01:02:03 +0200
Subject: subject header
From: From Real <fromuser@fromdomain.org>
To: To Real <touser@todomain.org>
Cc: Cc Real <ccuser@ccdomain.org>
Bcc: Bcc Real <bccuser@bccdomain.org>
Sender: Sender Real <senderuser@senderdomain.org>
Reply-To: ReplyTo Real <replytouser@replytodomain.org>

body
"""
    )
    assert items(index(data).envelope) == [
        b"Sat, 01 Feb 2007 01:02:03 +0200",
        b"subject header",
        [person("From Real", "fromuser", "fromdomain.org")],
        [person("Sender Real", "senderuser", "senderdomain.org")],
        [person("ReplyTo Real", "replytouser", "replytodomain.org")],
        [person("To Real", "touser", "todomain.org")],
        [person("Cc Real", "ccuser", "ccdomain.org")],
        [person("Bcc Real", "bccuser", "bccdomain.org")],
        b"<reply@to.id>",
        b"<msg@id>",
    ]


def test_the_spelling_is_that_of_rfc_3501() -> None:
    data = b'From: "A \\"B\\" C" <a@x.org>\r\nSubject: back\\slash "q"\r\n\r\n'
    assert index(data).envelope == (
        b'(NIL "back\\\\slash \\"q\\"" (("A \\"B\\" C" NIL "a" "x.org")) (("A \\"B\\" C" NIL "a" "x.org"))'
        b' (("A \\"B\\" C" NIL "a" "x.org")) NIL NIL NIL NIL NIL)'
    )


@pytest.mark.parametrize("header", [b"", b"\r\n", b"X: y\r\n\r\n"])
def test_what_is_absent_is_nil(header: bytes) -> None:
    assert items(index(header).envelope) == [None] * 10


def test_what_is_present_but_empty() -> None:
    """RFC 3501 7.4.2: text becomes the empty string, an address list NIL, Sender and Reply-To those of From."""
    data = (
        b"Date:\r\nSubject: \r\nFrom: user@domain (Real Name)\r\nSender: \r\nReply-To:\r\nTo: \r\nMessage-ID:\r\n\r\n"
    )
    who: list[Value] = [person("Real Name", "user", "domain")]
    assert items(index(data).envelope) == [b"", b"", who, who, who, None, None, None, None, b""]


def test_groups_routes_and_addresses_without_a_host() -> None:
    data = crlf("From: <@route:user@domain>\nTo: group: g1@d1.org, g2@d2.org;, group2: ;, root\n\n")
    envelope = items(index(data).envelope)
    assert envelope[2] == [person(None, "user", "domain", "@route")]
    assert envelope[5] == [
        [None, None, b"group", None],
        person(None, "g1", "d1.org"),
        person(None, "g2", "d2.org"),
        [None, None, None, None],
        [None, None, b"group2", None],
        [None, None, None, None],
        person(None, "root", ""),
    ]


def test_a_field_given_twice_hides_no_address_and_no_subject() -> None:
    envelope = items(index(b"To: a@x\r\nSubject: one\r\nTo: b@x\r\nSubject: two\r\n\r\n").envelope)
    assert envelope[1] == b"one"
    assert envelope[5] == [person(None, "a", "x"), person(None, "b", "x")]


def test_encoded_words_pass_through_and_8_bit_text_becomes_encoded_words() -> None:
    data = (
        b"Subject: Gr\xc3\xbc\xc3\x9fe =?utf-8?q?=C3=A4?=\r\nFrom: J\xfcrgen <j@x.org>\r\n"
        b"To: =?utf-8?q?J=C3=BCrgen?= <j@x.org>\r\n\r\n"
    )
    envelope = items(index(data).envelope)
    assert envelope[1] == b"=?utf-8?B?" + base64.b64encode("Grüße ä".encode()) + b"?="
    assert envelope[2] == [[b"=?utf-8?B?" + base64.b64encode("Jürgen".encode()) + b"?=", None, b"j", b"x.org"]]
    assert envelope[5] == [[b"=?utf-8?q?J=C3=BCrgen?=", None, b"j", b"x.org"]]


def test_an_8_bit_mailbox_is_a_literal_of_its_utf_8() -> None:
    assert b'NIL NIL {7}\r\nj\xc3\xbcrgen "x.org"' in index("From: jürgen@x.org\r\n\r\n".encode()).envelope


def test_folding_control_characters_and_length() -> None:
    data = b"Subject: one\r\n two\0three\rfour\r\nIn-Reply-To: " + b"<i@x> " * 400 + b"\r\n\r\n"
    raw = index(data).envelope
    assert items(raw)[1] == b"one two three four"
    assert b"{2399}\r\n" in raw
    assert items(raw)[8] == (b"<i@x> " * 400).strip()


# --- BODYSTRUCTURE ---


def test_a_message_of_one_text_part() -> None:
    indexed = index(b"Subject: x\r\n\r\nline one\r\nline two\r\n")
    assert indexed.body == b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 20 2)'
    assert indexed.bodystructure == b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 20 2 NIL NIL NIL NIL)'
    assert indexed.header_end == 14
    assert indexed.size_bytes == 34


ALL_FIELDS = crlf(
    """Content-Type: multipart/mixed; boundary="b"; x=y
Content-Language: en
Content-Disposition: inline

--b
Content-Type: TEXT/plain; charset=UTF-8; format=flowed
Content-ID: <1@x>
Content-Description: the text
Content-Transfer-Encoding: 8BIT
Content-MD5: abc==
Content-Language: en, fr
Content-Location: http://x/
Content-Disposition: inline

hi
--b
Content-Type: application/xml; name="CCD.xml"
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename*0*=utf-8''M%C3%BC; filename*1=".xml"; size=5

PHgvPg==
--b
Content-Type: message/rfc822

Subject: inner
From: i@x.org
Content-Type: text/html

<p>one
two
--b--
"""
)


def test_every_field_of_a_bodystructure() -> None:
    who: list[Value] = [person(None, "i", "x.org")]
    inner: list[Value] = [None, b"inner", who, who, who, None, None, None, None, None]
    plain: list[Value] = [b"text", b"plain", [b"charset", b"UTF-8", b"format", b"flowed"]]
    plain += [b"<1@x>", b"the text", b"8bit", 2, 1]
    xml: list[Value] = [b"application", b"xml", [b"name", b"CCD.xml"], None, None, b"base64", 8]
    html: list[Value] = [b"text", b"html", None, None, None, b"7bit", 11, 2]
    message: list[Value] = [b"message", b"rfc822", None, None, None, b"7bit", 69, inner]
    indexed = index(ALL_FIELDS)
    assert items(indexed.body) == [plain, xml, [*message, html, 6], b"mixed"]
    named: list[Value] = [b"filename*0*", b"utf-8''M%C3%BC", b"filename*1", b".xml", b"size", b"5"]
    attached: list[Value] = [b"attachment", named]
    assert items(indexed.bodystructure) == [
        [*plain, b"abc==", [b"inline", None], [b"en", b"fr"], b"http://x/"],
        [*xml, None, attached, None, None],
        [*message, [*html, None, None, None, None], 6, None, None, None, None],
        b"mixed",
        [b"boundary", b"b", b"x", b"y"],
        [b"inline", None],
        [b"en"],
        None,
    ]


def test_an_8_bit_file_name_becomes_an_extended_parameter() -> None:
    data = 'Content-Type: a/b\r\nContent-Disposition: attachment; filename="Müller\'s.pdf"\r\n\r\n'.encode()
    expected: list[Value] = [b"attachment", [b"filename*", b"utf-8''M%C3%BCller%27s.pdf"]]
    assert items(index(data).bodystructure)[8] == expected
    latin = data.replace("ü".encode(), b"\xfc")
    assert items(index(latin).bodystructure)[8] == expected


def test_a_multipart_without_parts_is_still_valid() -> None:
    structure = items(index(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n").bodystructure)
    empty: list[Value] = [b"text", b"plain", [b"charset", b"us-ascii"], None, None, b"7bit", 0, 0, *[None] * 4]
    assert structure[:2] == [empty, b"mixed"]


def test_an_encoded_message_is_announced_as_a_file() -> None:
    """A client expects an envelope after message/rfc822; there is none to give."""
    data = b"Content-Type: message/rfc822; name=x.eml\r\nContent-Transfer-Encoding: base64\r\n\r\nRnJvbTo=\r\n"
    assert items(index(data).body) == [b"application", b"octet-stream", [b"name", b"x.eml"], None, None, b"base64", 10]


def test_nested_multiparts_stand_side_by_side_without_a_space() -> None:
    data = crlf(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/alternative; boundary=c\n\n"
        "--c\n\nx\n--c\nContent-Type: text/html\n\ny\n--c--\n--b\nContent-Type: a/b\n\nz\n--b--\n"
    )
    text = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1 1)'
    html = b'("text" "html" NIL NIL NIL "7bit" 1 1)'
    other = b'("a" "b" NIL NIL NIL "7bit" 1)'
    assert index(data).body == b"((" + text + html + b' "alternative")' + other + b' "mixed")'


def test_a_structure_too_large_for_clients_is_one_text_part() -> None:
    part = b'--b\r\nContent-Type: text/plain; x="' + b"y" * 900 + b'"\r\n\r\nhello\r\n'
    data = b"Subject: s\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 900 + b"--b--\r\n"
    indexed = index(data)
    assert len(indexed.bodystructure) < MAX_STRUCTURE_BYTES
    assert items(indexed.body)[:2] == [b"text", b"plain"]
    assert items(indexed.envelope)[1] == b"s"
    assert section(indexed.sections, data, (1,), "") == data[indexed.header_end :]


def test_many_attached_messages_with_many_recipients_take_bounded_time() -> None:
    part = b"--b\r\nContent-Type: message/rfc822\r\n\r\nTo: " + b"a@b," * 16_000 + b"\r\n\r\nx\r\n"
    data = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 100 + b"--b--\r\n"
    begun = time.perf_counter()
    indexed = index(data)
    assert time.perf_counter() - begun < 3
    assert items(indexed.body)[:2] == [b"text", b"plain"]
    assert "to: a@b," in indexed.search_text


def attachment_of(structure: Value) -> list[int]:
    """The path of the first part with an attachment disposition, as a client searches for it."""
    assert isinstance(structure, list)
    if isinstance(structure[0], list):
        for number, child in enumerate((v for v in structure if isinstance(v, list) and len(v) > 6), 1):
            if found := attachment_of(child):
                return [number, *found]
        return []
    found_here = any(isinstance(v, list) and v[:1] == [b"attachment"] for v in structure)
    return [0] if found_here else []


@pytest.mark.parametrize("order", ["text first", "document first"])
def test_a_ccda_is_retrieved_intact_by_its_bodystructure(order: str) -> None:
    """EP-24 and EP-15: what BODYSTRUCTURE announces is what BODY[n] gives, in any order of the parts."""
    document = b'<?xml version="1.0" encoding="UTF-8"?>\n<ClinicalDocument xmlns="urn:hl7-org:v3">\xc3\xa9\n' * 200
    encoded = base64.encodebytes(document).replace(b"\n", b"\r\n")
    text = b"Content-Type: text/plain\r\n\r\nSee the attached summary.\r\n"
    ccda = (
        b'Content-Type: text/xml; name="CCD.xml"\r\nContent-Transfer-Encoding: base64\r\n'
        b'Content-Disposition: attachment; filename="CCD.xml"\r\n\r\n' + encoded
    )
    parts = [text, ccda] if order == "text first" else [ccda, text]
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts)
    data = b"Subject: s\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + body + b"--b--\r\n"
    indexed = index(data)
    path = tuple(attachment_of(read(indexed.bodystructure))[:-1])
    assert path == ((2,) if order == "text first" else (1,))
    found = section(indexed.sections, data, path, "")
    assert found == encoded
    assert base64.b64decode(found) == document
    assert "clinicaldocument" in indexed.search_text
    assert "see the attached summary." in indexed.search_text


def test_real_documents_survive(shared_data: Path) -> None:
    for path in sorted((shared_data / "clinical" / "ccda").rglob("*.xml"))[:25]:
        document = path.read_bytes()
        head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/xml\r\n"
        encoded = base64.encodebytes(document).replace(b"\n", b"\r\n")
        data = head + b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded + b"\r\n--b--\r\n"
        indexed = index(data)
        found = section(indexed.sections, data, (1,), "")
        assert found is not None
        assert base64.b64decode(found) == document
        items(indexed.bodystructure)


# --- search and date ---


def test_search_headers_are_folded_lines() -> None:
    data = (
        b"Subject: =?utf-8?q?=C3=9Cberweisung?=\r\n\tVON\r\nFROM: J\xfcrgen <J@X.org>\r\nX-A: =?utf-8?q?a=0D=0Ab?=\r\n"
        b"X-Empty:\r\nX-Nul: a\0b\r\n\r\nbody"
    )
    assert index(data).search_headers == (
        "subject: überweisung von\nfrom: jürgen <j@x.org>\nx-a: a  b\nx-empty: \nx-nul: a b\n"
    )


def test_search_text_is_the_decoded_text_of_all_textual_parts() -> None:
    data = crlf(
        """Content-Type: multipart/mixed; boundary=b

PREAMBLE
--b
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

STRA=DFE so=
ft
--b
Content-Type: text/html

<style>hidden{}</style><p>An <b>apo</b>plexy&nbsp;&amp;c</p>
--b
Content-Type: application/octet-stream

BINARY
--b
Content-Type: message/rfc822

Subject: =?utf-8?q?inn=C3=A9r?=

enclosed
--b--
"""
    )
    found = index(data).search_text
    for needle in ("strasse soft", "an apoplexy &c", "subject: innér", "enclosed"):
        assert needle in found
    for absent in ("hidden", "<", "binary", "preamble"):
        assert absent not in found


def test_search_text_is_capped() -> None:
    part = b"--b\r\n\r\n" + b"\xc3\x9f" * (MAX_SEARCH_TEXT_CHARS // 2) + b"\r\n"
    data = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 4
    assert len(index(data).search_text) == MAX_SEARCH_TEXT_CHARS
    encoded = base64.encodebytes(b"a" * 3 * MAX_SEARCH_TEXT_CHARS)
    data = b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded
    assert index(data).search_text == "a" * MAX_SEARCH_TEXT_CHARS


DATES: list[tuple[bytes, datetime | None]] = [
    (b"Tue, 3 Mar 2026 10:00:00 +0130", datetime(2026, 3, 3, 10, tzinfo=UTC)),
    (b"3 Mar 2026 10:00:00 GMT (comment)", datetime(2026, 3, 3, 10, tzinfo=UTC)),
    (b"Tue, 3 Mar 2026 10:00:00 -0000", datetime(2026, 3, 3, 10, tzinfo=UTC)),
    (b"Tue, 3 Mar\r\n 2026 10:00 EST", datetime(2026, 3, 3, 10, tzinfo=UTC)),
    # F12: leap seconds, times that a change to summer time leaves out or has twice, and the end of 32 bits.
    (b"Sat, 31 Dec 2016 23:59:60 +0000", None),
    (b"30 Jun 2015 23:59:60 GMT", None),
    (b"29 Mar 2026 02:30:00 +0100", datetime(2026, 3, 29, 2, 30, tzinfo=UTC)),
    (b"25 Oct 2026 02:30:00 +0200", datetime(2026, 10, 25, 2, 30, tzinfo=UTC)),
    (b"25 Oct 2026 02:30:00 +0100", datetime(2026, 10, 25, 2, 30, tzinfo=UTC)),
    (b"8 Mar 2026 02:30:00 EST", datetime(2026, 3, 8, 2, 30, tzinfo=UTC)),
    (b"19 Jan 2038 03:14:07 +0000", datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)),
    (b"19 Jan 2038 03:14:08 +0000", datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC)),
    (b"7 Feb 2106 06:28:16 +0000", datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC)),
    (b"29 Feb 2028 12:00:00 +0000", datetime(2028, 2, 29, 12, tzinfo=UTC)),
    (b"29 Feb 2026 12:00:00 +0000", None),
    (b"31 Dec 1969 23:59:59 +0000", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
    (b"", None),
    (b"yesterday", None),
    (b"32 Mar 2026 10:00:00 +0000", None),
    (b"31 Dec 9999 23:59:59 -2359", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    (b"1 Jan 2026 00:00:00 +99999999", None),
    (b"1" * 5_000, None),
    (b"\xff\xfe", None),
]
"""What stands in a Date field, and day and time as they are written there; None for what is no date."""


@pytest.mark.parametrize(("value", "expected"), DATES)
def test_the_date(value: bytes, expected: datetime | None) -> None:
    assert index(b"Date: " + value + b"\r\n\r\n").sent_at == expected
    assert index(b"\r\n").sent_at is None


@pytest.mark.parametrize(
    "value",
    [
        b"<user-from (comment)@ (comment) domain.org>",
        b'Dr. A <"user-from"@domain.org>',
        b"user-from @domain.org",
        b"group: other@x.org, <user-from@(c)domain.org>;",
    ],
)
def test_an_address_is_found_however_it_is_written(value: bytes) -> None:
    """RFC 3501 6.4.4: FROM and its like look at the addresses of the envelope."""
    assert "user-from@domain.org" in index(b"From: " + value + b"\r\n\r\n").search_headers


# --- robustness ---


def test_a_defect_of_ours_does_not_keep_a_message_from_being_filed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(content: bytes) -> None:
        raise RecursionError("secret detail")

    monkeypatch.setattr(indexer_module, "parse_structure", broken)
    data = b"Subject: x\r\n\r\nStill Readable\r\n"
    with caplog.at_level(logging.ERROR):
        indexed = index(data)
    assert items(indexed.envelope) == [None] * 10
    assert items(indexed.body) == [b"text", b"plain", [b"charset", b"us-ascii"], None, None, b"8bit", len(data), 3]
    assert "still readable" in indexed.search_text
    monkeypatch.undo()
    assert section(indexed.sections, data, (1,), "") == data
    assert "secret" not in caplog.text
    assert [record.message.split()[0] for record in caplog.records] == ["index_fallback"]


def test_small_messages_are_indexed_quickly() -> None:
    header = b"Received: from a by b; Tue, 3 Mar 2026 10:00:00 +0000\r\n" * 5
    data = (
        header
        + b"From: A <a@x.org>\r\nTo: b@x.org\r\nSubject: s\r\nDate: Tue, 3 Mar 2026 10:00:00 +0000\r\n\r\nHello\r\n"
    )
    begun = time.perf_counter()
    for _ in range(200):
        index(data)
    # The aim is 1,000 a second on one core; a loaded machine gets ten times as long before this fails.
    assert time.perf_counter() - begun < 2


PIECES = st.sampled_from(
    [
        b"--b", b"--b--", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"x", b"\0", b"\xff", b'"', b"\\", b"(", b")",
        b"{3}",
        b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: message/rfc822\r\n",
        b"Content-Type: text/html; charset=utf-7\r\n", b"Content-Transfer-Encoding: ", b"Content-Language: ",
        b"Content-Disposition: ", b"; filename=", b"; n*0*=x''%f", b"Content-ID: ", b"Content-Description: ",
        b"Content-Type: ", b"text/", b"Subject: ", b"From: ", b"To: ", b"Date: ", b"a@b", b"<", b">", b",", b":", b";",
        b"=?utf-8?q?=C3?=", b"=?utf-16?b?2AA=?=",
    ]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=40).map(b"".join) | st.binary(max_size=300))
@example(b"")
def test_any_bytes_give_valid_imap_values(data: bytes) -> None:
    indexed = indexer_module._index(data)  # Not by way of the fall back, which would hide a defect.
    assert indexed == index(data)
    assert indexed.size_bytes == len(data)
    assert 0 <= indexed.header_end <= len(data)
    assert len(items(indexed.envelope)) == 10
    check_body(items(indexed.body), extended=False)
    check_body(items(indexed.bodystructure), extended=True)
    indexed.search_headers.encode()
    indexed.search_text.encode()
    assert "\0" not in indexed.search_headers + indexed.search_text
    assert indexed.sent_at is None or indexed.sent_at.tzinfo is UTC
    assert section(indexed.sections, data, (), "HEADER") == data[: indexed.header_end]


def check_body(body: Value, *, extended: bool) -> None:
    """The grammar of ``body`` in RFC 3501 9."""
    assert isinstance(body, list)
    if isinstance(body[0], list):
        children = [child for child in body if isinstance(child, list) and isinstance(child[0], list | bytes)]
        subtype = next(n for n, value in enumerate(body) if isinstance(value, bytes))
        assert len(body) == subtype + (5 if extended else 1)
        for child in children[:subtype]:
            check_body(child, extended=extended)
        return
    assert isinstance(body[0], bytes)
    assert isinstance(body[1], bytes)
    assert body[2] is None or (isinstance(body[2], list) and len(body[2]) % 2 == 0)
    assert isinstance(body[5], bytes)
    assert isinstance(body[6], int)
    length = 7
    if body[0] == b"text":
        assert isinstance(body[7], int)
        length = 8
    elif body[:2] == [b"message", b"rfc822"]:
        assert isinstance(body[7], list)
        assert len(body[7]) == 10
        check_body(body[8], extended=extended)
        assert isinstance(body[9], int)
        length = 10
    assert len(body) == length + (4 if extended else 0)
