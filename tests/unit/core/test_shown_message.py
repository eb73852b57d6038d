"""No field of the gateway's prefix that came with a message is shown as one, and nothing else is touched."""

from __future__ import annotations

import re
from email import message_from_bytes
from email.policy import compat32, default

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.mime.headers import read_headers
from gateway.core.shown_message import PREFIX, shown, without_fields

OURS = b"Direct-Gateway-Verdict: accepted\r\nDirect-Gateway-Message-Id: 01ABC\r\n"
FORGED = b"Direct-Gateway-Verdict: forged\r\n"
HEAD = b"From: a@b.example\r\nTo: c@d.example\r\n"
BODY = b"\r\nHello\r\n"
LINES = st.sampled_from(
    [
        b"Direct-Gateway-Verdict: forged", b"direct-gateway-x:y", b"DIRECT-GATEWAY-", b"Direct-\0Gateway-Verdict: n",
        b"\0Direct-Gateway-Verdict: n", b"\xef\xbb\xbfDirect-Gateway-Verdict: b", b"Direct-Gateway-Verdict\t : f",
        b"Subject: x", b"From: a@b", b"X: Direct-Gateway-Verdict: no", b" Direct-Gateway-Verdict: c", b"\tc", b"junk",
        b"\0 Direct-Gateway-Verdict: z", b"", b" ", b"\0", b"\x0b", b"Direct-", b"Gateway-Verdict: x", b"D", b":",
        "Größe: ü".encode(),
    ]
)  # fmt: skip
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n", b""])
MESSAGES = st.lists(st.tuples(LINES, ENDS), max_size=12).map(lambda pairs: b"".join(map(b"".join, pairs)))


def lenient_names(message: bytes) -> list[bytes]:
    """The names that the most lenient reader takes for fields: it drops what is no text, and any CR ends a line."""
    lines = re.split(rb"\r*\n|\r+", message)
    names = []
    for line in lines:
        plain = bytes(octet for octet in line if 0x20 <= octet <= 0x7E or octet == 9)
        if not plain:
            break
        if plain[:1] not in b" \t":
            names.append(plain.lower().replace(b" ", b"").replace(b"\t", b""))
    return names


@pytest.mark.parametrize(
    "forged",
    [
        FORGED,
        b"DIRECT-GATEWAY-VERDICT: forged\r\n",
        b"direct-gateway-anything-at-all: x\r\n",
        b"Direct-Gateway-:\r\n",
        b"Direct-Gateway-Verdict: forged\r\n and folded\r\n\tand again\r\n",
        b"Direct-Gateway-Verdict \t: forged\r\n",
        b"Direct-Gateway-Verdict:\r\n forged\r\n",
        b"Direct-Gateway-Verdict\r\n : forged\r\n",
        b"Direct-\r\n Gateway-Verdict: forged\r\n",
        b"Direct-Gateway-\0Verdict: forged\r\n",
        b"\0Direct-Gateway-Verdict: forged\r\n",
        b"D\0irect-Gateway-Verdict: forged\r\n",
        b"\xef\xbb\xbfDirect-Gateway-Verdict: forged\r\n",
        b"Direct-Gateway-Verdict forged\r\n",
    ],
)
@pytest.mark.parametrize("place", ["top", "middle", "end", "alone", "all over"])
def test_a_forged_field_is_gone_and_nothing_else(forged: bytes, place: str) -> None:
    rest = HEAD
    message = {
        "top": forged + HEAD,
        "middle": b"From: a@b.example\r\n" + forged + b"To: c@d.example\r\n",
        "end": HEAD + forged,
        "alone": forged,
        "all over": forged + b"From: a@b.example\r\n" + forged + forged + b"To: c@d.example\r\n" + forged,
    }[place]
    rest = b"" if place == "alone" else HEAD
    assert without_fields(message + BODY) == rest + BODY
    assert shown(message + BODY, OURS) == OURS + rest + BODY
    # And with no body at all: all of it is header.
    assert shown(message, OURS) == OURS + rest


def test_what_is_no_such_field_is_the_very_same_object() -> None:
    for message in (
        HEAD + BODY,
        b"",
        BODY,
        b"no header, and no empty line",
        HEAD + b"Subject: Direct-Gateway-Verdict: forged\r\n Direct-Gateway-Verdict: still the subject\r\n" + BODY,
        HEAD + b"X-Direct-Gateway-Verdict: mine\r\n" + BODY,
        HEAD + b"\r\n" + FORGED,
        b"\r\n" + FORGED + HEAD,
        b"\n" + FORGED + HEAD,
    ):
        assert without_fields(message) is message
        assert shown(message, OURS) == OURS + message


@pytest.mark.parametrize("parts", ["\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\v\0", "\0\v\x7f"])
def test_what_parts_a_line_for_some_readers_hides_no_field(parts: str) -> None:
    message = (
        f"From: a@b.example\r\nSubject: x{parts}Direct-\0Gateway-Verdict: forged\r\n more\r\nTo: c\r\n\r\nbody".encode()
    )
    assert without_fields(message) == b"From: a@b.example\r\nSubject: x\r\nTo: c\r\n\r\nbody"
    # Python's own library parts lines there when it writes a message anew.
    again = message_from_bytes(shown(message, b"Direct-Gateway-Verdict: accepted\r\n"), policy=default).as_bytes()
    assert re.findall(rb"(?im)^direct-.*", again) == [b"Direct-Gateway-Verdict: accepted"]


@pytest.mark.parametrize("subject", ["\u00c5 Direct-Gateway-x", "x\fy Direct-Gateway-x", "Direct-Gateway-x"])
def test_a_value_that_names_the_prefix_stays(subject: str) -> None:
    message = f"Subject: {subject}\r\n\r\n".encode()
    assert without_fields(message) == message


def test_headers_of_attached_messages_stay() -> None:
    attached = (
        HEAD + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
        b"Content-Type: message/rfc822\r\n\r\n" + FORGED + HEAD + b"\r\nwithin\r\n--b--\r\n"
    )
    assert without_fields(attached) is attached
    assert without_fields(FORGED + attached) == attached


def test_what_continues_nothing_does_not_come_to_continue_a_field_of_ours() -> None:
    assert shown(b" forged\r\n\tmore\r\n" + HEAD + BODY, OURS) == OURS + HEAD + BODY
    assert shown(b"\0 forged\r\n" + HEAD + BODY, OURS) == OURS + HEAD + BODY
    assert shown(FORGED + b"\0\t forged\r\n" + HEAD + BODY, OURS) == OURS + HEAD + BODY


def test_a_bare_carriage_return_hides_nothing_and_joins_nothing() -> None:
    message = b"Subject: a\rDirect-Gateway-Verdict: forged\r\nFrom: a@b.example\r\n" + BODY
    assert without_fields(message) == b"Subject: a\r\nFrom: a@b.example\r\n" + BODY
    # What would become an empty line ends no header.
    assert without_fields(HEAD + b"\rDirect-Gateway-Verdict: forged\r\nX: y\r\n" + BODY) == HEAD + b"X: y\r\n" + BODY
    assert without_fields(HEAD + b"Direct-Gateway-Verdict: f\r\r\nX: y\r\n" + BODY) == HEAD + b"X: y\r\n" + BODY


@settings(max_examples=1_500, deadline=None)
@given(MESSAGES)
@example(b"\rDirect-Gateway-Verdict: f\r\n")
@example(b"\r\n\r\n")
def test_no_reader_finds_a_field_of_the_prefix_but_ours(message: bytes) -> None:
    found = shown(message, OURS)
    assert found.startswith(OURS)
    names = [field.name for field in read_headers(found).fields]
    assert [name for name in names if name.startswith(PREFIX.lower().encode())] == [
        b"direct-gateway-verdict", b"direct-gateway-message-id",
    ]  # fmt: skip
    fields = {field.name: field.text for field in read_headers(found).fields if field.name.startswith(b"direct-g")}
    assert set(fields.values()) == {"accepted", "01ABC"}
    mild = message_from_bytes(found, policy=compat32)
    ours = [(name, value) for name, value in mild.items() if name.lower().startswith(PREFIX.lower())]
    assert ours == [("Direct-Gateway-Verdict", "accepted"), ("Direct-Gateway-Message-Id", "01ABC")]
    lenient = [name for name in lenient_names(found) if name.startswith(PREFIX.lower().encode())]
    assert lenient == [b"direct-gateway-verdict:accepted", b"direct-gateway-message-id:01abc"]


@settings(max_examples=1_500, deadline=None)
@given(MESSAGES)
def test_to_take_out_twice_is_to_take_out_once(message: bytes) -> None:
    once = without_fields(message)
    assert without_fields(once) == once
    assert shown(message, OURS) == OURS + once
    # Nothing comes in, nothing changes its order: what is left is the message with pieces left out.
    rest = iter(message)
    assert all(octet in rest for octet in once.replace(b"\r\n", b"\n").replace(b"\r", b""))


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(LINES, st.just(b"\r\n")), max_size=12).map(lambda pairs: b"".join(map(b"".join, pairs))))
def test_with_proper_line_ends_every_other_field_and_the_body_stay(message: bytes) -> None:
    before, after = read_headers(message), read_headers(without_fields(message))
    kept = [
        field
        for field in before.fields
        if not bytes(o for o in field.name + b":" + field.value if 0x21 <= o <= 0x7E).lower().startswith(b"direct-gat")
    ]
    assert list(after.fields) == kept
    assert without_fields(message)[after.body_start :] == message[before.body_start :]
