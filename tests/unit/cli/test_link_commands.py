"""``link undo``, ``list``, ``bulk`` and parts: what an operator types, and what is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.core.lifecycle import State
from tests.unit.cli.clinic_harness import PATIENTS, SENDER, Clinic

PARTS = (
    b"From: x@y.example\r\nSubject: two of them\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\nfor Ada\r\n--b\r\nContent-Type: text/plain\r\n\r\nfor Ben\r\n--b--\r\n"
)


@pytest.fixture
def patients(clinic: Clinic, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Clinic:
    path = tmp_path / "patients.ndjson"
    path.write_text(PATIENTS, encoding="utf-8")
    assert clinic.run("patient", "import", str(path)) == 0
    capsys.readouterr()
    return clinic


def _json(clinic: Clinic, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
    capsys.readouterr()
    assert clinic.run(*words, "--json") == status
    return json.loads(capsys.readouterr().out)


def test_an_undo_takes_the_message_off_and_keeps_the_history(
    patients: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    message = patients.add_message(State.FILED)
    link = _json(patients, capsys, "link", "add", message, "p1")["link"]["id"]
    assert patients.run("link", "undo", link, "--reason", "other Ada") == 0
    assert capsys.readouterr().out == f"took {message} off the chart of patient p1 (link {link})\n"
    assert _json(patients, capsys, "link", "list", "p1") == []
    [kept] = _json(patients, capsys, "link", "list", "p1", "--all")
    assert (kept["id"], kept["undone"]["reason"]) == (link, "other Ada")
    assert kept["undone"]["actor"].startswith("cli:")
    assert [one["id"] for one in _json(patients, capsys, "message", "list", "--unlinked")] == [message]
    again = _json(patients, capsys, "link", "add", message, "p1")
    assert again["created"]
    assert again["link"]["id"] != link
    history = _json(patients, capsys, "link", "list", message)
    assert history["message_id"] == message
    assert [(one["id"], one["undone"] is None) for one in history["links"]] == [
        (link, False),
        (again["link"]["id"], True),
    ]
    assert history["reviewed"] is None
    shown = _json(patients, capsys, "message", "show", message)
    assert [one["id"] for one in shown["links"]] == [again["link"]["id"]]
    assert [one["link"]["id"] for one in shown["undone_links"]] == [link]
    assert patients.run("message", "show", message) == 0
    assert "other Ada" in capsys.readouterr().out
    assert patients.run("link", "list", message[:22]) == 0
    assert "other Ada" in capsys.readouterr().out


def test_an_undo_by_message_and_patient_twice(patients: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    message = patients.add_message(State.FILED)
    assert patients.run("link", "add", message, "p1") == 0
    words = ("link", "undo", message, "--patient", "p1", "--reason", "not hers")
    [first] = _json(patients, capsys, *words)
    [second] = _json(patients, capsys, *words)
    assert (first["changed"], second["changed"], first["undone"] == second["undone"]) == (True, False, True)
    assert patients.run(*words) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "undone already" in captured.err


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("link", "undo", "absent", "--reason", "x"), 1),
        (("link", "undo", "absent"), 2),
        (("link", "undo", "absent", "--reason", " "), 2),
        (("link", "undo", "absent", "--part", "1", "--reason", "x"), 2),
        (("link", "list", "nobody"), 1),
        (("link", "bulk", "--sender", "no address", "--patient", "p1"), 2),
        (("link", "bulk", "--sender", "a@b.example", "--patient", "nobody"), 1),
    ],
)
def test_what_cannot_be_done(patients: Clinic, words: tuple[str, ...], status: int) -> None:
    assert patients.run(*words) == status


@pytest.mark.parametrize("part", ["0", "1.", "a", "1.0", "1/2", ""])
def test_a_part_is_a_number(patients: Clinic, part: str) -> None:
    with pytest.raises(SystemExit) as caught:
        patients.run("link", "add", "01ABCDEF", "p1", "--part", part)
    assert caught.value.code == 2


def test_parts_go_to_two_charts(patients: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    message = patients.add_message(State.FILED, content=PARTS)
    assert patients.run("link", "add", message, "p1", "--part", "1") == 0
    assert f"linked part 1 of {message} to patient p1" in capsys.readouterr().out
    assert patients.run("link", "add", message, "p2", "--part", "2") == 0
    assert patients.run("link", "add", message, "p2", "--part", "3") == 1
    capsys.readouterr()
    assert patients.run("link", "add", message, "p2") == 1
    assert "part 1, linked" in capsys.readouterr().err
    links = _json(patients, capsys, "link", "list", message)["links"]
    assert [(one["patient_id"], one["part"]) for one in links] == [("p1", "1"), ("p2", "2")]
    [undone] = _json(patients, capsys, "link", "undo", message, "--patient", "p1", "--part", "1", "--reason", "x")
    assert undone["link"]["part"] == "1"
    assert [one["part"] for one in _json(patients, capsys, "link", "list", "p2")] == ["2"]


def test_bulk_links_what_is_clear_and_names_the_rest(patients: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [patients.add_message(State.FILED) for _ in range(3)]
    assert patients.run("link", "add", ids[1], "p2") == 0
    words = ("link", "bulk", "--sender", SENDER.upper(), "--patient", "p1")
    tried = _json(patients, capsys, *words, "--dry-run", status=1)
    assert (tried["dry_run"], tried["linked"]) == (True, [ids[0], ids[2]])
    assert _json(patients, capsys, "link", "list", "p1") == []
    assert patients.run(*words) == 1
    captured = capsys.readouterr()
    assert "2 messages linked to patient p1; 0 linked before" in captured.out
    assert ids[1] in captured.out
    assert "patient p2" in captured.out
    assert [one["rule"] for one in _json(patients, capsys, "link", "list", "p1")] == ["manual-bulk"] * 2
    again = _json(patients, capsys, *words, status=1)
    assert (again["linked"], again["already"], [one["message_id"] for one in again["left"]]) == ([], 2, [ids[1]])


def test_what_comes_again_is_told_with_the_chart_that_has_it(
    patients: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    """The harness gives every message the same Message-ID."""
    first, again = patients.add_message(State.FILED), patients.add_message(State.FILED)
    assert patients.run("link", "add", first, "p1") == 0
    [seen] = _json(patients, capsys, "message", "show", again)["same_elsewhere"]
    assert (seen["mark"]["kind"], seen["link"]["message_id"]) == ("message", first)
    assert _json(patients, capsys, "link", "list", again)["same_elsewhere"] == [seen]
    told = f"same Message-ID is on the chart of patient p1 already, by message {first}"
    for words in (("message", "show", again), ("link", "list", again), ("link", "add", again, "p2")):
        assert patients.run(*words) == 0
        assert told in capsys.readouterr().err, words
    assert _json(patients, capsys, "message", "show", patients.add_message(State.REFUSED))["same_elsewhere"] == []
