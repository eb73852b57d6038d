"""``quarantine`` against a real store: what is refused, why, what to do, and judging it again."""

import json
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from gateway.core.errors import RejectionError
from gateway.core.lifecycle import JobKind, State
from gateway.core.verdict import REPAIRED_HERE, REPAIRS, Reason
from gateway.sta.algorithm_policy import AlgorithmPolicy
from tests.support.pki import Authority
from tests.unit.cli.clinic_harness import FRONT, LAB, SENDER, Clinic


def _json(clinic: Clinic, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
    capsys.readouterr()
    assert clinic.run("quarantine", *words, "--json") == status
    return json.loads(capsys.readouterr().out)


def _audited(clinic: Clinic) -> list[tuple[str, str, str]]:
    with sqlite3.connect(clinic.directory / "data" / "gateway.db") as connection:
        return list(connection.execute("select action, subject, detail from audit_event order by seq"))


def _jobs(clinic: Clinic) -> set[str]:
    jobs = clinic.write(lambda tx: tx.jobs.claim(60, 1000))
    return {job.subject for job in jobs if job.kind is JobKind.UNWRAP}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_repair_in_plain_words(reason: Reason) -> None:
    text = REPAIRS[reason]
    if reason is Reason.OK:
        assert text == ""
        return
    assert len(text) > 60
    assert text.endswith(".")
    assert len({*REPAIRS.values()}) == len(Reason)
    assert ("retry" in text) == (reason in REPAIRED_HERE) or reason is Reason.WEAK_ALGORITHM


# --- list and summary ---


def test_list_shows_newest_first_with_reason_repair_and_a_marked_claim(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    first = clinic.add_message(State.REFUSED, to=(FRONT, LAB))
    second = clinic.add_message(State.REFUSED, reason=Reason.EXPIRED, mail_from=None)
    clinic.add_message(State.FILED)
    found = _json(clinic, capsys, "list")
    assert [(line["id"], line["reason"], line["claimed_sender"]) for line in found] == [
        (second, "expired", None),
        (first, "untrusted", SENDER),
    ]
    assert found[1]["recipients"] == [FRONT, LAB]
    assert found[1]["repair"] == REPAIRS[Reason.UNTRUSTED]
    assert found[1]["hint"] == "The chain ends at CN=Partner CA."
    assert clinic.run("quarantine", "list") == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert "CLAIMS TO BE FROM" in lines[0]
    assert lines[1].startswith(second)
    assert "no envelope" in lines[1]
    assert SENDER in lines[2]
    assert lines[2].endswith("no anchor"), "what is to be done in particular is told by show"
    assert f"untrusted: {REPAIRS[Reason.UNTRUSTED]}" in text
    assert f"expired: {REPAIRS[Reason.EXPIRED]}" in text


def test_list_is_filtered_and_paged(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [clinic.add_message(State.REFUSED, reason=r) for r in (Reason.UNTRUSTED, Reason.EXPIRED, Reason.UNTRUSTED)]
    assert [line["id"] for line in _json(clinic, capsys, "list", "--reason", "expired")] == [ids[1]]
    page = _json(clinic, capsys, "list", "--limit", "2")
    assert [line["id"] for line in page] == [ids[2], ids[1]]
    assert [line["id"] for line in _json(clinic, capsys, "list", "--before", ids[1])] == [ids[0]]
    received = page[0]["received_at"]
    assert [line["id"] for line in _json(clinic, capsys, "list", "--since", received)] == [ids[2]]
    assert _json(clinic, capsys, "list", "--since", "2100-01-01") == []
    assert clinic.run("quarantine", "list", "--since", "yesterday") == 2
    assert "--since: 'yesterday'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as misuse:
        clinic.run("quarantine", "list", "--reason", "ok")
    assert misuse.value.code == 2
    assert clinic.run("quarantine", "list", "--limit", "2") == 0
    assert f"--before {ids[1]}" in capsys.readouterr().err


def test_an_empty_quarantine_is_no_fault(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    clinic.add_message(State.FILED)
    for words in (("list",), ("summary",)):
        assert clinic.run("quarantine", *words) == 0
        assert capsys.readouterr().out == "no refused messages\n"
        assert _json(clinic, capsys, *words) == []
    assert clinic.run("quarantine", "retry", "--all") == 0
    assert "nothing to do" in capsys.readouterr().out


def test_summary_counts_by_reason_and_says_where_the_repair_is(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    for reason in (Reason.UNTRUSTED, Reason.BAD_SIGNATURE, Reason.UNTRUSTED):
        clinic.add_message(State.REFUSED, reason=reason)
    counts = _json(clinic, capsys, "summary")
    assert [(c["reason"], c["count"], c["repaired_here"]) for c in counts] == [
        ("untrusted", 2, True),
        ("bad_signature", 1, False),
    ]
    assert counts[0]["repair"] == REPAIRS[Reason.UNTRUSTED]
    assert clinic.run("quarantine", "summary") == 0
    text = capsys.readouterr().out
    assert REPAIRS[Reason.BAD_SIGNATURE] in text
    assert "retry --all would judge 3 messages again" in text
    assert "retry --reason untrusted would judge 2 messages again" in text


def test_a_weak_algorithm_is_the_senders_unless_the_settings_here_forbid_it(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.quarantine.MAX_PAGE", 1)
    with pytest.raises(RejectionError) as forbidden:
        AlgorithmPolicy(refused=frozenset({"sha512"})).require_digest("sha512", "digest")
    for detail in (forbidden.value.detail, "digest sha1 is not allowed"):
        clinic.add_message(State.REFUSED, reason=Reason.WEAK_ALGORITHM, detail=detail)
    assert [count["repaired_here"] for count in _json(clinic, capsys, "summary")] == [True]
    assert clinic.run("quarantine", "summary") == 0
    assert "retry --reason weak_algorithm" in capsys.readouterr().out


def test_a_weak_algorithm_below_the_floor_is_not_repaired_here(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    clinic.add_message(State.REFUSED, reason=Reason.WEAK_ALGORITHM, detail="digest sha1 is not allowed")
    assert [count["repaired_here"] for count in _json(clinic, capsys, "summary")] == [False]
    assert clinic.run("quarantine", "summary") == 0
    text = capsys.readouterr().out
    assert "  sender  " in text
    assert "retry --reason" not in text


def test_summary_tells_of_messages_that_nobody_judges(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.add_message(State.RECEIVED)
    assert clinic.run("quarantine", "summary") == 0
    assert "1 message waits to be judged; no gateway is running" in capsys.readouterr().err
    clinic.add_message(State.RECEIVED)
    assert _json(clinic, capsys, "summary") == []
    assert clinic.run("quarantine", "summary") == 0
    assert "2 messages wait to be judged; no gateway is running" in capsys.readouterr().err
    monkeypatch.setattr("gateway.cli.commands_quarantine.MAX_WAITING_COUNTED", 1)
    assert clinic.run("quarantine", "summary") == 0
    assert "more than 1 messages wait" in capsys.readouterr().err
    (clinic.directory / "data" / "gateway.db.lock").write_text(f"{os.getpid()}\n")
    assert clinic.run("quarantine", "summary") == 0
    assert "no gateway" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("retry", "--all", "--wait", "x"), "argument --wait: must be a whole number of seconds, not 'x'"),
        (("list", "--limit", "x"), "argument --limit: must be a whole number, not 'x'"),
    ],
)
def test_a_number_that_is_none_is_told_in_words(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    with pytest.raises(SystemExit) as misuse:
        clinic.run("quarantine", *words)
    assert misuse.value.code == 2
    assert told in capsys.readouterr().err


def test_a_hostile_claim_cannot_drive_the_terminal(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    message = clinic.add_message(State.REFUSED, mail_from="\x1b[2J\u202e@evil.example", subject="\x1b]0;owned\x07")
    for words in (("list",), ("show", message), ("summary",)):
        assert clinic.run("quarantine", *words) == 0
        shown = capsys.readouterr().out
        assert "\x1b" not in shown
        assert "\u202e" not in shown


# --- show ---


@pytest.fixture(scope="module")
def chain() -> tuple[bytes, bytes]:
    authority = Authority.root("Partner CA")
    leaf = authority.issue(address=SENDER)
    der = serialization.Encoding.DER
    return leaf.certificate.public_bytes(der), authority.identity.certificate.public_bytes(der)


def test_show_tells_what_was_seen_but_no_content(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], chain: tuple[bytes, bytes]
) -> None:
    message = clinic.add_message(State.REFUSED, certificates=(*chain, b"not a certificate"))
    assert clinic.run("quarantine", "show", message[:20].lower()) == 0
    text = capsys.readouterr().out
    assert REPAIRS[Reason.UNTRUSTED] in text
    assert "The chain ends at CN=Partner CA." in text
    assert "CN=Partner CA" in text.partition("certificates that were seen:")[2]
    assert "(cannot be read)" in text
    assert "body 1" not in text
    document = _json(clinic, capsys, "show", message)
    assert [one["role"] for one in document["certificates"]] == ["seen", "seen", "seen"]
    assert document["certificates"][1]["subject"] == document["certificates"][0]["issuer"]
    assert document["verdict"]["hint"] == "The chain ends at CN=Partner CA."
    assert "body" not in document


def test_show_is_for_refused_messages(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    filed = clinic.add_message(State.FILED)
    assert clinic.run("quarantine", "show", filed) == 1
    assert f"direct-gateway message show {filed}" in capsys.readouterr().err
    capsys.readouterr()
    assert clinic.run("quarantine", "show", "ZZZZZZZZ") == 1
    assert "direct-gateway quarantine list" in capsys.readouterr().err
    assert clinic.run("quarantine", "show", "01") == 1
    assert "give at least 4 characters" in capsys.readouterr().err
    assert clinic.run("message", "show", "01") == 1
    told = capsys.readouterr().err
    assert "give at least 4 characters" in told
    assert "direct-gateway message list" in told


def test_certificates_are_written_as_pem_and_never_among_the_anchors(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], chain: tuple[bytes, bytes], tmp_path: Path
) -> None:
    message = clinic.add_message(State.REFUSED, certificates=chain)
    folder = tmp_path / "new" / "seen"
    written = _json(clinic, capsys, "show", message, "--certificates", str(folder))["written"]
    found = [x509.load_pem_x509_certificate(Path(path).read_bytes()) for path in written]
    assert tuple(one.public_bytes(serialization.Encoding.DER) for one in found) == chain
    assert {stat.S_IMODE(Path(path).stat().st_mode) for path in written} == {0o600}
    anchors = clinic.directory / "certs" / "anchors"
    before = sorted(anchors.rglob("*"))
    for target in (anchors, anchors / "sub", anchors.parent / "tls" / ".." / "anchors"):
        assert clinic.run("quarantine", "show", message, "--certificates", str(target)) == 2
        assert "everything is trusted" in capsys.readouterr().err
    link = tmp_path / "link"
    link.symlink_to(anchors)
    assert clinic.run("quarantine", "show", message, "--certificates", str(link)) == 2
    assert sorted(anchors.rglob("*")) == before
    file = tmp_path / "file"
    file.write_text("")
    assert clinic.run("quarantine", "show", message, "--certificates", str(file)) == 2


# --- retry ---


def test_retry_by_id_reason_and_all(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    untrusted = [clinic.add_message(State.REFUSED) for _ in range(2)]
    expired = clinic.add_message(State.REFUSED, reason=Reason.EXPIRED)
    revoked = clinic.add_message(State.REFUSED, reason=Reason.REVOKED)
    clinic.add_message(State.FILED)
    assert _json(clinic, capsys, "retry", "--all", "--dry-run")["would_retry"] == [*untrusted, expired, revoked]
    assert _jobs(clinic) == set()
    found = _json(clinic, capsys, "retry", "--reason", "untrusted", "--wait", "0")
    assert found == {"retried": untrusted, "accepted": [], "refused": [], "waiting": untrusted}
    assert _jobs(clinic) == set(untrusted)
    assert _json(clinic, capsys, "retry", expired, expired[:24], "--wait", "0")["retried"] == [expired]
    assert _json(clinic, capsys, "retry", "--all", "--wait", "0")["retried"] == [revoked]
    assert _json(clinic, capsys, "list") == []
    retried = [subject for action, subject, _ in _audited(clinic) if action == "message.retry"]
    assert retried == [*untrusted, expired, revoked]


def test_retry_of_what_is_not_refused_does_nothing_at_all(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    refused, filed = clinic.add_message(State.REFUSED), clinic.add_message(State.FILED)
    assert clinic.run("quarantine", "retry", refused, filed) == 1
    assert "nothing was done" in capsys.readouterr().err
    assert clinic.run("quarantine", "retry", refused, "ZZZZZZ") == 1
    assert [line["id"] for line in _json(clinic, capsys, "list")] == [refused]
    assert _jobs(clinic) == set()


@pytest.mark.parametrize("words", [(), ("01J9", "--all"), ("01J9", "--reason", "expired")])
def test_retry_must_be_told_which(clinic: Clinic, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert clinic.run("quarantine", "retry", *words) == 2
    assert "either ID..." in capsys.readouterr().err


def test_retry_of_many_goes_in_batches_with_progress(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cli.quarantine_retry.BATCH", 2)
    monkeypatch.setattr("gateway.store.quarantine.MAX_PAGE", 3)
    ids = [clinic.add_message(State.REFUSED) for _ in range(5)]
    assert clinic.run("quarantine", "retry", "--all", "--wait", "0") == 0
    captured = capsys.readouterr()
    assert "5 messages put back" in captured.out
    assert [line for line in captured.err.splitlines() if "put back" in line] == [
        "2 of 5 put back",
        "4 of 5 put back",
        "5 of 5 put back",
    ]
    assert _jobs(clinic) == set(ids)


def test_without_a_running_gateway_nobody_waits(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    clinic.add_message(State.REFUSED)
    assert clinic.run("quarantine", "retry", "--all", "--wait", "3600") == 1
    captured = capsys.readouterr()
    assert "no running gateway was found" in captured.err
    assert "1 message not judged yet" in captured.out


def test_the_wait_ends_and_says_what_is_not_judged_yet(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process holds the lock and does not judge: this one."""
    monkeypatch.setattr("gateway.cli.quarantine_retry.POLL_SECONDS", 0.01)
    lock = clinic.directory / "data" / "gateway.db.lock"
    message = clinic.add_message(State.REFUSED)
    lock.write_text(f"{os.getpid()}\n")
    found = _json(clinic, capsys, "retry", message, "--wait", "1", status=1)
    assert found["waiting"] == [message]
    assert clinic.run("message", "show", message) == 0


def test_every_look_is_audited_without_what_was_seen(clinic: Clinic) -> None:
    message = clinic.add_message(State.REFUSED, subject="Very private subject")
    for words in (("list",), ("summary",), ("show", message)):
        assert clinic.run("quarantine", *words) == 0
    rows = _audited(clinic)[-3:]
    assert [(action, subject) for action, subject, _ in rows] == [
        ("quarantine.list", ""),
        ("quarantine.summary", ""),
        ("quarantine.show", message),
    ]
    assert "private" not in str(rows)
    assert SENDER not in str(rows)
