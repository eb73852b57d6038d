"""Arguments of MAIL and RCPT: EP-7, EP-8."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ingress.commands import MailCommand, SyntaxFault, parse_mail, parse_rcpt
from gateway.ingress.recipients import LocalRecipients, RecipientStatus


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("FROM:<>", MailCommand("", 0, smtputf8=False)),
        ("from: <Dr.A@Direct.Example>", MailCommand("Dr.A@Direct.Example", 0, smtputf8=False)),
        ("FROM:<a@b.example> SIZE=12 BODY=8BITMIME", MailCommand("a@b.example", 12, smtputf8=False)),
        ("FROM:<a@b.example> smtputf8 body=7bit", MailCommand("a@b.example", 0, smtputf8=True)),
        ("FROM:<@relay.example,@two.example:a@b.example>", MailCommand("a@b.example", 0, smtputf8=False)),
        ('FROM:<"a b\\"c"@b.example>', MailCommand('"a b\\"c"@b.example', 0, smtputf8=False)),
        ("FROM:<a@[192.0.2.1]>", MailCommand("a@[192.0.2.1]", 0, smtputf8=False)),
        ("FROM:<jürgen@b.example> SMTPUTF8", MailCommand("jürgen@b.example", 0, smtputf8=True)),
        (f"FROM:<{'l' * 64}@b.example>", MailCommand("l" * 64 + "@b.example", 0, smtputf8=False)),
    ],
)
def test_mail(argument: str, expected: MailCommand) -> None:
    assert parse_mail(argument) == expected


@pytest.mark.parametrize(
    ("argument", "code"),
    [
        ("", "501 5.5.4"),
        ("TO:<a@b>", "501 5.5.4"),
        ("FROM:", "501 5.1.7"),
        ("FROM:a@b.example", "501 5.1.7"),
        ("FROM:<a@b.example", "501 5.1.7"),
        ("FROM:<a b@c.example>", "501 5.1.7"),
        ("FROM:<a@b@c.example>", "501 5.1.7"),
        ("FROM:<nodomain>", "501 5.1.7"),
        ("FROM:<a@b.example>SIZE=1", "501 5.1.7"),
        (f"FROM:<{'l' * 65}@b.example>", "501 5.1.7"),
        (f"FROM:<a@{'d' * 300}>", "501 5.1.7"),
        ("FROM:<a@b.example> SIZE=", "501 5.5.4"),
        ("FROM:<a@b.example> SIZE=-1", "501 5.5.4"),
        ("FROM:<a@b.example> SIZE=" + "9" * 21, "501 5.5.4"),
        ("FROM:<a@b.example> SIZE=1 SIZE=1", "501 5.5.4"),
        ("FROM:<a@b.example> BODY=BINARYMIME", "501 5.5.4"),
        ("FROM:<a@b.example> SMTPUTF8=1", "501 5.5.4"),
        ("FROM:<a@b.example> AUTH=<>", "555 5.5.4"),
        ("FROM:<jürgen@b.example>", "553 5.6.7"),
    ],
)
def test_mail_is_refused(argument: str, code: str) -> None:
    with pytest.raises(SyntaxFault) as caught:
        parse_mail(argument)
    assert caught.value.reply.startswith(code)


def test_rcpt() -> None:
    assert parse_rcpt("TO:<A@B.example>", smtputf8=False) == "A@B.example"
    assert parse_rcpt("TO:<Postmaster>", smtputf8=False) == "Postmaster"
    assert parse_rcpt("TO:<jürgen@b.example>", smtputf8=True) == "jürgen@b.example"
    for argument, code in (
        ("TO:<>", "501 5.1.3"),
        ("TO:<a@b.example> NOTIFY=NEVER", "555 5.5.4"),
        ("TO:<jürgen@b.example>", "553 5.6.7"),
    ):
        with pytest.raises(SyntaxFault) as caught:
            parse_rcpt(argument, smtputf8=False)
        assert caught.value.reply.startswith(code)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    for argument in (text, "FROM:" + text, "FROM:<" + text + ">", "FROM:<a@b.example> " + text):
        try:
            parsed = parse_mail(argument)
        except SyntaxFault:
            continue
        assert "\r" not in parsed.address
        assert "\n" not in parsed.address


def test_recipients_are_compared_without_case() -> None:
    """AS-4."""
    policy = LocalRecipients(["Direct.Example.org"], ["Doctor@direct.example.org"])
    assert policy("DOCTOR@DIRECT.EXAMPLE.ORG") is RecipientStatus.LOCAL
    assert policy("other@direct.example.org") is RecipientStatus.UNKNOWN
    assert policy('"odd one"@direct.example.org') is RecipientStatus.UNKNOWN
    assert policy("postmaster") is RecipientStatus.UNKNOWN
    assert policy("doctor@sub.direct.example.org") is RecipientStatus.FOREIGN
    assert policy("doctor@example.org") is RecipientStatus.FOREIGN
    assert policy("doctor@direct.example.org@elsewhere.example") is RecipientStatus.FOREIGN
