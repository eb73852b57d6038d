"""The report about a refused message: what it says, and that nothing of a stranger's text becomes more than text."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.core.verdict import REPAIRS, Reason
from gateway.inbox.indexer import Indexer
from gateway.inbox.quarantine_report import MAX_SHOWN_RECIPIENTS, make_report
from gateway.ports import RefusedMessage

REFUSED = RefusedMessage(
    id="01J9ABCDEFGHJKMNPQRSTVWXYZ",
    received_at=datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
    refused_at=datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC),
    reason=Reason.UNTRUSTED,
    detail="no anchor vouches for the signer",
    hint="issued by CN=Partner CA",
    claimed_sender="jane@phr.example",
    recipients=("desk@clinic.example", "lab@clinic.example"),
    size_bytes=4711,
)


def parsed(report: bytes) -> tuple[email.message.EmailMessage, str]:
    message = email.message_from_bytes(report, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    assert not message.defects
    return message, str(message.get_content())


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.OK])
def test_it_says_why_what_to_do_and_how_to_try_again(reason: Reason) -> None:
    message, body = parsed(make_report(7, replace(REFUSED, reason=reason)))
    words = " ".join(body.split())
    assert reason.value in message["Subject"]
    assert " ".join(REPAIRS[reason].split()) in words
    for said in (
        "no anchor vouches for the signer",
        "issued by CN=Partner CA",
        "4711 bytes",
        "2026-03-01 12:00:05 UTC",
    ):
        assert said in words
    for address in ("jane@phr.example", *REFUSED.recipients):
        assert address in words
    assert f"direct-gateway quarantine retry {REFUSED.id}" in body
    assert f"direct-gateway quarantine show {REFUSED.id}" in body


def test_it_is_the_same_each_time_and_another_one_for_another_entry() -> None:
    assert make_report(7, REFUSED) == make_report(7, REFUSED)
    assert make_report(7, REFUSED) != make_report(8, REFUSED)


@pytest.mark.parametrize(
    "hostile",
    [
        "a@x\r\nBcc: victim@x",
        "a\n\n<script>",
        "\x1b[2Jcleared",
        "\u202ereversed\ud800",
        "x" * 5_000,
        "müller@bücher.example",
        "\0",
    ],
)
def test_what_a_stranger_wrote_stays_in_its_line(hostile: str) -> None:
    report = make_report(
        1, replace(REFUSED, claimed_sender=hostile, recipients=(hostile,), detail=hostile, hint=hostile, reason=hostile)
    )
    plain = make_report(1, REFUSED)
    head, _, body = report.partition(b"\r\n\r\n")
    assert [line.partition(b":")[0] for line in head.split(b"\r\n")] == [
        line.partition(b":")[0] for line in plain.partition(b"\r\n\r\n")[0].split(b"\r\n")
    ]
    assert head.isascii()
    text = body.decode("utf-8")
    assert all(char.isprintable() or char in "\r\n" for char in text)
    assert b"\n" not in report.replace(b"\r\n", b"")
    assert b"\r" not in report.replace(b"\r\n", b"")
    assert max(map(len, report.split(b"\r\n"))) < 998
    assert f"direct-gateway quarantine retry {REFUSED.id}" in text


def test_the_null_sender_and_no_envelope_are_told_apart() -> None:
    assert "<> (a notification)" in parsed(make_report(1, replace(REFUSED, claimed_sender="")))[1]
    assert "the message was fetched" in parsed(make_report(1, replace(REFUSED, claimed_sender=None)))[1]


def test_many_recipients_are_counted() -> None:
    many = tuple(f"a{number}@x.example" for number in range(MAX_SHOWN_RECIPIENTS + 5))
    body = parsed(make_report(1, replace(REFUSED, recipients=many)))[1]
    assert "and 5 more" in body
    assert many[-1] not in body


def test_mail_clients_can_be_answered_from_it() -> None:
    indexed = Indexer().index(make_report(1, REFUSED))
    assert b"quarantine.direct-gateway.invalid" in indexed.envelope
    assert b'"TEXT" "PLAIN"' in indexed.bodystructure.upper()
    assert "partner ca" in indexed.search_text
