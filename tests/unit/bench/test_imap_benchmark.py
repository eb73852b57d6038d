"""The IMAP benchmark: its mail, its client, its sums and its report; how fast anything is, is not tested."""

from __future__ import annotations

import email
import json
import random
from collections.abc import Sequence

import pytest

from gateway.inbox.indexer import Indexer
from tests.bench import imap
from tests.bench.imap_client import fetched, flags, searched
from tests.bench.imap_corpus import (
    LARGE_BYTES,
    RARE_FIELD,
    RARE_SENDER,
    RARE_SUBJECT,
    RARE_WORD,
    SMALL_BYTES,
    corpus,
    message,
)
from tests.bench.imap_idle import Crowd, Noticed
from tests.bench.imap_operations import OPERATIONS, Cost, Costs, Operation, Size, _require_same
from tests.bench.imap_report import Found, document, render, verdicts
from tests.bench.world import BenchError


def found(**ratios: float) -> Found:
    """Two rounds, in which ours takes that many times the 10 ms of Dovecot."""
    made = Found(Size(1_000, 10), 2)
    for key, ratio in ratios.items():
        for _ in range(2):
            made.costs.add(key, "gateway", Cost(10 * ratio, 5 * ratio))
            made.costs.add(key, "dovecot", Cost(10, 5))
    return made


def test_the_mail_is_what_it_is_said_to_be() -> None:
    mail = list(corpus(400, 2))
    assert mail == list(corpus(400, 2)), "the same bytes every time"
    assert len(set(mail)) == len(mail) == 402
    small, large = mail[:400], mail[400:]
    assert all(0.9 * SMALL_BYTES < len(one) < 1.1 * SMALL_BYTES for one in small)
    assert all(0.9 * LARGE_BYTES < len(one) < 1.1 * LARGE_BYTES for one in large)
    parsed = [email.message_from_bytes(one) for one in mail]
    assert sum(one.is_multipart() for one in parsed[:400]) == 100
    attachments = [list(one.walk())[2].get_payload(decode=True) for one in parsed if one.is_multipart()]
    assert all(isinstance(attachment, bytes) and len(attachment) > 500 for attachment in attachments)
    assert all(b"\n" not in one.replace(b"\r\n", b"") for one in mail)


def test_what_is_searched_for_is_in_every_hundredth_message() -> None:
    indexed = [Indexer().index(message(number)) for number in range(300)]
    name, value = RARE_FIELD
    for needle in (f"subject: {RARE_SUBJECT}", RARE_SENDER, f"{name.lower()}: {value}"):
        assert sum(needle in one.search_headers for one in indexed) == 3, needle
    assert sum(RARE_WORD in one.search_text for one in indexed) == 3
    assert not any(RARE_WORD in one.search_headers for one in indexed)


def test_answers_are_taken_apart() -> None:
    answer = (
        b"* 1 FETCH (UID 4 BODY[] {5}\r\na)\r\nb FLAGS (\\Seen \\Recent x))\r\n"
        b"* 2 FETCH (UID 5 BODY[HEADER] {2}\r\n\r\n BODY[TEXT] {3}\r\nxyz)\r\n"
        b"* 3 FETCH (UID 6 FLAGS ())\r\n"
    )
    assert fetched(answer) == {1: (b"a)\r\nb",), 2: (b"\r\n", b"xyz"), 3: ()}
    assert flags(b"* 3 FETCH (UID 6 FLAGS (\\Seen \\Recent x))\r\n* 4 FETCH (FLAGS ())\r\n") == {
        3: {b"\\Seen", b"x"},
        4: set(),
    }
    assert searched(b"* OK x\r\n* SEARCH 2 3 11\r\n") == [2, 3, 11]
    assert searched(b"* SEARCH\r\n") == []


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        ([b"* SEARCH 1\r\n", b"* SEARCH 1 2\r\n"], "do not answer the same"),
        ([b"* SEARCH\r\n", b"* SEARCH\r\n"], "nothing was found"),
    ],
)
def test_servers_that_answer_differently_break_the_benchmark(answers: Sequence[bytes], complaint: str) -> None:
    operation = next(one for one in OPERATIONS if one.key == "subject")
    with pytest.raises(BenchError, match=complaint):
        _require_same(operation, {"a": [answers[0]], "b": [answers[1]]})


def test_every_operation_asks_for_what_is_there() -> None:
    for operation in OPERATIONS:
        for size in (Size(5, 1), Size(10_000, 200)):
            lines = operation.lines(size, random.Random(1))
            assert lines
            assert all(line and b"{" not in line and b"\r" not in line for line in lines)


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    costs = Costs()
    for ours, theirs in ((1.0, 1.0), (30.0, 10.0), (4.0, 2.0)):
        costs.add("noop", "gateway", Cost(ours, 2 * ours))
        costs.add("noop", "dovecot", Cost(theirs, theirs))
    assert costs.ratio("noop", "gateway", "dovecot") == Cost(2.0, 4.0)
    assert costs.median("noop", "gateway") == Cost(4.0, 8.0)
    assert costs.ratio("noop", "gateway", "nobody") is None


def test_targets_are_met_at_their_limits_and_not_beyond() -> None:
    met = {one.title: one.met for one in verdicts(found(envelope=1.0, noop=2.1, body=1.0, text=0.9, random=50.0))}
    titles = {operation.key: operation.title for operation in OPERATIONS}
    assert met == {titles["envelope"]: True, titles["noop"]: False, titles["body"]: False, titles["text"]: True}


def test_the_report_names_every_target_and_what_was_not_measured() -> None:
    made = found(envelope=1.5)
    made.synced["always"] = found(store=1.0).costs
    made.first_select_ms = {"gateway": 301.0}
    made.noticed["gateway"] = Noticed(12.0, 9.0, 0.5)
    made.crowds["gateway"] = Crowd(2_000, 3.0, 30 * 1024, 5.0, 60.0)
    shown = render([made], {"dovecot": "Dovecot is not installed"})
    for line in (
        "at most 1 times dovecot: 1.50 missed by 0.50",
        "under 300 ms: 301.00 missed by 1.00",
        "under 10 ms: 9.00 met",
        "under 20 KiB: 30.00 missed by 10.00",
        "mail_fsync = always",
        "not measured: dovecot: Dovecot is not installed",
    ):
        assert line in shown, line
    document_made = json.loads(json.dumps(document([made], {})))
    assert [target["met"] for target in document_made["sizes"][0]["targets"]] == [False, False, True, False]


@pytest.mark.parametrize("arguments", [["--messages", "0"], ["--only", "nothing"], ["--sessions", "6000"]])
def test_misuse_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        imap.main(arguments)
    assert end.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_operations_have_names_of_their_own() -> None:
    keys = [operation.key for operation in OPERATIONS]
    assert len(keys) == len(set(keys))
    assert all(isinstance(operation, Operation) and operation.title for operation in OPERATIONS)
