"""``message recheck`` against a real store: what is kept, what is said, and that nothing else changes."""

import json
import sqlite3
from typing import Any

import pytest

from gateway.core.lifecycle import State
from tests.unit.cli.clinic_harness import FRONT, SENDER, Clinic


def _recheck(clinic: Clinic, capsys: pytest.CaptureFixture[str], *words: str, status: int) -> Any:
    capsys.readouterr()
    assert clinic.run("message", "recheck", *words, "--json") == status
    return json.loads(capsys.readouterr().out)


def _show(clinic: Clinic, capsys: pytest.CaptureFixture[str], message: str) -> Any:
    capsys.readouterr()
    assert clinic.run("message", "show", message, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_difference_is_shown_kept_and_audited_and_withdraws_nothing(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message of the harness was never sealed, so a second look finds another answer."""
    message = clinic.add_message(State.FILED)
    before = _show(clinic, capsys, message)
    found = _recheck(clinic, capsys, message[:20].lower(), status=1)
    assert (found["id"], found["same"]) == (message, False)
    assert (found["then"]["reason"], found["again"]["reason"]) == ("ok", "not_encrypted")
    assert found["judged_as_of"] == found["judged_at"]
    assert {d["what"] for d in found["differences"]} >= {"verdict", "reason", "delivered to", "sender", "signer"}
    assert found["checks_only_then"] == [{"name": "signature", "outcome": "passed", "detail": ""}]
    assert f"Tell {FRONT}" in found["what_to_do"]
    assert any("rules have changed" in note for note in found["notes"])
    after = _show(clinic, capsys, message)
    assert [one["reason"] for one in after["rechecks"]] == ["not_encrypted"]
    assert {k: v for k, v in after.items() if k != "rechecks"} == {k: v for k, v in before.items() if k != "rechecks"}
    assert clinic.run("message", "show", message) == 0
    assert "judged again (the verdict above stays in force)" in capsys.readouterr().out
    with sqlite3.connect(clinic.directory / "data" / "gateway.db") as connection:
        rows = connection.execute("select subject, detail from audit_event where action = 'message.recheck'").fetchall()
    assert [subject for subject, _ in rows] == [message]
    assert '"same":false' in rows[0][1]
    assert SENDER not in rows[0][1]


def test_both_sides_are_whole_and_in_columns_of_one_width(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    why = "the certificate of the sender was issued by an authority that nobody at this practice has ever trusted " * 2
    message = clinic.add_message(State.REFUSED, detail=why.strip())
    filed = clinic.add_message(State.FILED)
    for one in (message, filed):
        clinic.run("message", "recheck", one)
    text = capsys.readouterr().out
    assert "..." not in text
    heading = next(line for line in text.splitlines() if line.split() == ["THEN", "AGAIN"])
    then, again = heading.index("THEN"), heading.index("AGAIN")
    table = text.split("AGAIN\n", 1)[1].split("\n\n", 1)[0].splitlines()
    rows = table[next(n for n, line in enumerate(table) if " why " in line) :]
    rows = rows[: 1 + next(n for n, line in enumerate(rows[1:]) if line[:then].strip())]
    assert " ".join(" ".join(line[then:again] for line in rows).split()) == why.strip()
    assert len(rows) > 2
    assert all(line[again - 1 : again] in {" ", ""} for line in rows)
    digest = next(line for line in text.splitlines() if " signer " in line)
    assert "ab" * 32 in digest


def test_people_see_both_side_by_side(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    message = clinic.add_message(State.REFUSED)
    assert clinic.run("message", "recheck", message, "--as-of", "2026-03-01T12:00") == 1
    text = capsys.readouterr().out
    assert text.startswith(f"{message}: DIFFERENT, judged again as of 2026-03-01 12:00:00Z")
    line = next(line for line in text.splitlines() if " reason " in line)
    assert line.split() == ["!=", "reason", "untrusted", "not_encrypted"]
    assert "checks that differ:" in text
    assert "Nothing was changed" in text


@pytest.mark.parametrize("state", [State.REFUSED, State.FILED])
def test_a_hostile_verdict_cannot_drive_the_terminal(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], state: State
) -> None:
    message = clinic.add_message(state, subject="\x1b[2J\u202e")
    assert clinic.run("message", "recheck", message) == 1
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_misuse_and_what_cannot_be_judged_again(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    refused, received = clinic.add_message(State.REFUSED), clinic.add_message(State.RECEIVED)
    assert clinic.run("message", "recheck", refused, "--as-of", "yesterday") == 2
    assert "--as-of: 'yesterday'" in capsys.readouterr().err
    assert clinic.run("message", "recheck", received) == 1
    assert "has not been judged yet" in capsys.readouterr().err
    assert clinic.run("message", "recheck", "ZZZZZZ") == 1
    with pytest.raises(SystemExit) as misuse:
        clinic.run("message", "recheck")
    assert misuse.value.code == 2
    assert _show(clinic, capsys, refused)["rechecks"] == []


def test_damaged_evidence_is_told_and_not_judged_by(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    message = clinic.add_message(State.REFUSED, certificates=(b"evidence",))
    with sqlite3.connect(clinic.directory / "data" / "gateway.db") as connection:
        connection.execute("drop trigger certificate_no_update")
        connection.execute("update certificate set der = x'00'")
    assert clinic.run("message", "recheck", message) == 3
    assert "does not match its digest" in capsys.readouterr().err
    assert _show(clinic, capsys, message)["rechecks"] == []
