"""``job list`` and ``job retry``: what was set aside stays visible and can be started afresh (F30)."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from gateway.core.audit import AuditQuery
from gateway.core.lifecycle import JobKind, State
from gateway.ports import UnitOfWork
from tests.unit.cli.clinic_harness import Clinic


def _poison(tx: UnitOfWork) -> None:
    [job] = [j for j in tx.jobs.claim(60, 10) if j.kind is JobKind.UNWRAP]
    assert tx.jobs.fail(job, "OSError at write", None)


def test_a_job_that_waits_for_its_next_attempt_is_listed_and_hastened(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    """An importer that fails is tried again for a day; the operator must see it before that."""
    message = clinic.add_message(State.RECEIVED)

    def fail(tx: UnitOfWork) -> None:
        [job] = tx.jobs.claim(60, 10)
        assert tx.jobs.fail(job, "OSError at write", timedelta(hours=9))

    clinic.write(fail)
    assert clinic.run("job", "list", "--json") == 0
    [job] = json.loads(capsys.readouterr().out)
    assert (job["subject"], job["set_aside"]) == (message, False)
    late = datetime.fromisoformat(job["due_at"]) - datetime.now(UTC) - timedelta(hours=9)
    assert abs(late) < timedelta(minutes=5)
    # Whose messages wait is information about them: that somebody looked is on record (ON-10).
    assert clinic.write(lambda tx: [event.detail for event in tx.audit.find(AuditQuery(action="job.list"))]) == [
        '{"shown":1}'
    ]
    assert clinic.write(lambda tx: tx.jobs.claim(60, 10)) == []
    assert clinic.run("job", "retry", str(job["id"])) == 0
    [claimed] = clinic.write(lambda tx: tx.jobs.claim(60, 10))
    assert claimed.attempt == 2, "the fencing token goes on"
    assert clinic.run("job", "retry", str(job["id"])) == 1, "it runs at this moment"


def test_a_poisoned_job_is_listed_and_started_afresh(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    message = clinic.add_message(State.RECEIVED)
    assert clinic.run("job", "list") == 0
    assert "no job has failed" in capsys.readouterr().out
    clinic.write(_poison)
    assert clinic.run("job", "list", "--json") == 0
    [job] = json.loads(capsys.readouterr().out)
    assert (job["kind"], job["subject"], job["error"]) == ("unwrap", message, "OSError at write")
    assert clinic.run("job", "list") == 0
    assert message in capsys.readouterr().out

    assert clinic.run("job", "retry", str(job["id"])) == 0
    claimed = clinic.write(lambda tx: tx.jobs.claim(60, 10))
    assert [(j.kind, j.subject) for j in claimed] == [(JobKind.UNWRAP, message)]
    capsys.readouterr()
    assert clinic.run("job", "retry", str(job["id"])) == 1
    assert "job list" in capsys.readouterr().err
