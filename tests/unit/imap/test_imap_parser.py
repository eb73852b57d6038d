"""The parser under hostile bytes: only ParseError (or BadCharsetError) escapes, in bounded time. EP-22, F20."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.imap.mailbox_names import decode_mailbox_name, encode_mailbox_name
from gateway.imap.parser import _READERS, BadCharsetError, ParseError, guess_tag, parse_arguments, parse_head
from gateway.imap.scanner import Scanner

TOKENS = [
    b" ", b"(", b")", b'"', b"{3}\r\nabc", b"{3+}\r\nabc", b"{999999999}\r\n", b"{", b"}", b"[", b"]", b"<0.5>", b"<",
    b"*", b"%", b":", b",", b"1", b"0", b"4294967296", b"1:*", b"\\Seen", b"\\", b"NIL", b"INBOX", b"ALL", b"NOT",
    b"OR", b"BODY", b"BODY.PEEK[", b"HEADER.FIELDS", b"RETURN", b"CHARSET", b"UTF-8", b"FLAGS", b"+FLAGS", b"UID",
    b"1-Feb-2024", b"\x00", b"\xff", b"\r", b"\n", b"&AOQ-", b"&", b"CHANGEDSINCE", b"TEXT", b"x",
]  # fmt: skip
COMMANDS = [name.encode() for name in _READERS]


def parse(raw: bytes) -> bool:
    try:
        parse_arguments(parse_head(raw))
    except (ParseError, BadCharsetError) as error:
        str(error).encode("ascii")  # It is sent as it is.
        return False
    return True


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes(raw: bytes) -> None:
    parse(raw)
    assert b" " not in guess_tag(raw)


@given(st.sampled_from(COMMANDS), st.lists(st.sampled_from(TOKENS), max_size=25))
@settings(deadline=None, max_examples=1_000)
def test_any_tokens(command: bytes, tokens: list[bytes]) -> None:
    parse(b"a " + command + b" " + b"".join(tokens))


@given(st.binary(max_size=100).filter(lambda content: b"\x00" not in content))
def test_a_string_is_read_back(content: bytes) -> None:
    literal = Scanner(b"{%d}\r\n%s" % (len(content), content))
    assert literal.astring() == content
    literal.end()
    if b"\r" not in content and b"\n" not in content:
        quoted = Scanner(b'"' + content.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"')
        assert quoted.astring() == content
        quoted.end()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_mailbox_names_come_back(name: str) -> None:
    assert decode_mailbox_name(encode_mailbox_name(name)) == name


@pytest.mark.parametrize(
    "arguments",
    [
        b"SEARCH " + b"(" * 60_000,
        b"SEARCH " + b"NOT " * 16_000 + b"ALL",
        b"SEARCH " + b"OR " * 20_000,
        b"SEARCH " + b"SEEN " * 13_000,
        b"SEARCH SUBJECT " + b'"' + b"\\\\" * 30_000,
        b"FETCH " + b"1," * 30_000 + b"1 FLAGS",
        b"FETCH 1 (" + b"FLAGS " * 10_000 + b"FLAGS)",
        b"FETCH 1 BODY[" + b"1." * 30_000 + b"1]",
        b"FETCH 1 BODY[HEADER.FIELDS (" + b"a " * 30_000 + b"a)]",
        b"STORE 1 FLAGS (" + b"a " * 30_000 + b"a)",
        b'LIST "" (' + b"* " * 30_000 + b"*)",
        b"ID (" + b'"a" "b" ' * 8_000 + b'"a" "b")',
        b"ENABLE" + b" X" * 30_000,
        b"STATUS INBOX (" + b"MESSAGES " * 7_000 + b"MESSAGES)",
        b"SELECT " + b"&" * 60_000,
        b"FETCH " + b"9" * 60_000 + b" FLAGS",
        b"FETCH " + b"{" * 60_000,
    ],
    ids=lambda value: value[:12].decode(),
)
def test_long_input_is_refused_quickly(arguments: bytes) -> None:
    start = time.process_time()
    assert not parse(b"a " + arguments)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "command",
    [
        'FETCH 1 (FLAGS BODY[HEADER.FIELDS (DATE "FROM")] BODY.PEEK[1.2.TEXT]<0.100>)',
        "UID FETCH 1:*,3 ALL",
        "UID FETCH 1:* (UID FLAGS) (CHANGEDSINCE 123)",
        'SEARCH RETURN (MIN) CHARSET UTF-8 OR (FROM a NOT SEEN) HEADER X "y" 1:3,*',
        "STORE 1 (UNCHANGEDSINCE 5) -FLAGS.SILENT (\\Seen $X)",
        "STORE 1 FLAGS ()",
        'LIST (SUBSCRIBED RECURSIVEMATCH) "" (a* "b%") RETURN (CHILDREN STATUS (MESSAGES))',
        "AUTHENTICATE PLAIN =",
        "UID EXPUNGE 1:5",
        "ID NIL",
        "ID ()",
        "RENAME a b",
    ],
)
def test_valid_commands(command: str) -> None:
    assert parse(b"a " + command.encode())


@pytest.mark.parametrize(
    "command",
    [
        "FETCH 1 BODY[MIME]", "FETCH 1 BODY[0]", "FETCH 1 BODY[1.]", "FETCH 1 BODY[TEXT", "FETCH 1 BODY[]<0.0>",
        "FETCH 1 BODY[HEADER.FIELDS ()]", "FETCH 1 BODY[HEADER.FIELDS]", "FETCH 1 BODY.PEEK", "FETCH 1 ()", "FETCH 1",
        "FETCH 1 (ALL)", "FETCH , FLAGS", "FETCH 1: FLAGS", "FETCH 4294967296 FLAGS", "STORE 1 FLAGS",
        "STORE 1 *FLAGS ()", "STORE 1 +FLAGS (\\)", 'LIST (RECURSIVEMATCH) "" *', "UID EXPUNGE", "ID",
        "LOGIN a", "LOGIN a b c",
        "AUTHENTICATE PLAIN ",
    ],
)  # fmt: skip
def test_invalid_commands(command: str) -> None:
    assert not parse(b"a " + command.encode())


def test_arguments_that_hold_a_password_do_not_show_it() -> None:
    assert "hunter2" not in repr(parse_arguments(parse_head(b"a LOGIN me hunter2")))
