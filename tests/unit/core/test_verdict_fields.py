"""The fields that tell mail clients of the verdict: what they say, and that no value can break out of its line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email import message_from_string
from email.header import decode_header, make_header
from email.policy import compat32
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.standing import Standing
from gateway.core.verdict_fields import LINE_CHARS, MAX_ANCHORS, MAX_CHARS, link_words, verdict_fields

AT = datetime(2026, 3, 1, 13, 0, 5, 9, tzinfo=timezone(timedelta(hours=1)))


def evidence(**changes: Any) -> dict[str, Any]:
    trust = [
        {"reason": "ok", "anchor_sha256": "cd" * 32, "anchor_sources": ["folder"]},
        {"reason": "untrusted", "anchor_sha256": None, "anchor_sources": []},
        {"reason": "ok", "anchor_sha256": "cd" * 32, "anchor_sources": ["folder"]},
        {"reason": "ok", "anchor_sha256": "ef" * 32, "anchor_sources": ["bundle p version 3"]},
    ]
    signer = {"identity": "partner.example", "sha256": "ab" * 32}
    sender = "dr@partner.example"
    made = {"verdict": "accepted", "sender": sender, "signer": signer, "trust": trust, "policy_version": "1-a"}
    return made | changes


def made(**changes: Any) -> str:
    return verdict_fields(evidence(**changes), message_id="01ABC", verified_at=AT, link="undecided")


def read(fields: str) -> list[tuple[str, str]]:
    items = message_from_string(fields + "\r\n", policy=compat32).items()
    return [(name, str(make_header(decode_header(value.replace("\r\n", "")))).strip()) for name, value in items]


def test_the_fields_say_what_the_evidence_says() -> None:
    assert made() == (
        "Direct-Gateway-Verdict: accepted\r\n"
        "Direct-Gateway-Sender: dr@partner.example\r\n"
        "Direct-Gateway-Signer: partner.example\r\n"
        f"Direct-Gateway-Signer-Certificate:\r\n sha256={'ab' * 32}\r\n"
        f"Direct-Gateway-Anchor:\r\n sha256={'cd' * 32};\r\n folder\r\n"
        f"Direct-Gateway-Anchor:\r\n sha256={'ef' * 32};\r\n bundle p version 3\r\n"
        "Direct-Gateway-Policy: 1-a\r\n"
        "Direct-Gateway-Verified-At: 2026-03-01T12:00:05Z\r\n"
        "Direct-Gateway-Message-Id: 01ABC\r\n"
        "Direct-Gateway-Link-At-Filing: undecided\r\n"
    )


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        (Standing(), "undecided"),
        (Standing(decided=True), "unlinked"),
        (Standing(decided=True, reviewed=True), "unlinked"),
        (Standing(linked=True, decided=True), "linked"),
    ],
)
def test_the_link_state_has_one_word(standing: Standing, words: str) -> None:
    assert link_words(standing) == words


def test_a_value_that_could_break_out_stays_in_its_field() -> None:
    hostile = "a\r\nDirect-Gateway-Verdict: forged\r\n\r\nbody\0\u2028\u202e=?utf-8?B?eA==?="
    fields = read(made(sender=hostile, policy_version=hostile, signer={"identity": hostile, "sha256": "x\r\ny"}))
    assert [name for name, _ in fields].count("Direct-Gateway-Verdict") == 1
    said = dict(fields)
    assert said["Direct-Gateway-Sender"] == "a Direct-Gateway-Verdict: forged body =?utf-8?B?eA==?="
    assert said["Direct-Gateway-Signer-Certificate"] == "sha256=x y"


def test_other_scripts_come_through_and_long_values_are_cut() -> None:
    sources = ["Bündel 漢字 \U0001fa7a version 3"]
    trust = [{"reason": "ok", "anchor_sha256": "cd" * 32, "anchor_sources": sources}]
    assert dict(read(made(trust=trust)))["Direct-Gateway-Anchor"] == f"sha256={'cd' * 32}; {sources[0]}"
    long = "x" * (MAX_CHARS + 1)
    assert dict(read(made(policy_version=long)))["Direct-Gateway-Policy"] == "x" * (MAX_CHARS - 3) + "..."


def test_only_a_few_anchors_are_named_and_a_verdict_without_a_signer_is_told() -> None:
    trust = [{"reason": "ok", "anchor_sha256": f"{n:064x}", "anchor_sources": []} for n in range(9)]
    names = [name for name, _ in read(made(trust=trust, signer=None))]
    assert names.count("Direct-Gateway-Anchor") == MAX_ANCHORS
    assert "Direct-Gateway-Signer" not in names


TEXTS = st.text(alphabet=st.characters(codec=None), max_size=400)


@given(TEXTS, TEXTS, TEXTS)
def test_any_value_leaves_ascii_lines_that_a_reader_takes_for_the_same_fields(a: str, b: str, c: str) -> None:
    trust = [{"reason": "ok", "anchor_sha256": "cd" * 32, "anchor_sources": [b, c]}]
    fields = made(sender=a, signer={"identity": b, "sha256": "ab" * 32}, trust=trust, policy_version=c)
    assert fields.isascii()
    assert fields.endswith("\r\n")
    lines = fields[:-2].split("\r\n")
    assert all(line.strip() and "\r" not in line and "\n" not in line and "\0" not in line for line in lines)
    assert [name for name, _ in read(fields)] == [name for name, _ in read(made(trust=trust))]
    for line in lines:
        # Longer is only what has no place to fold.
        assert len(line) <= LINE_CHARS or " " not in line.strip()


def test_the_moment_is_told_in_utc() -> None:
    early = datetime(1, 1, 1, tzinfo=UTC)
    fields = verdict_fields(evidence(), message_id="m", verified_at=early, link="linked")
    assert "Direct-Gateway-Verified-At: 0001-01-01T00:00:00Z\r\n" in fields
