"""A clock that is set back while the daemon is down must not put accepted mail off (F11)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from gateway.core.lifecycle import JobKind
from gateway.core.retry import SCHEDULES
from tests.support.store_samples import NOW, SteadyClock, open_store


def test_mail_that_was_accepted_before_the_clock_was_set_back_is_due_at_once(tmp_path: Path) -> None:
    clock = SteadyClock(NOW + timedelta(days=2))
    with open_store(tmp_path, daemon=True, clock=clock) as store:
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.UNWRAP, "leased"))
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.UNWRAP, "waiting"))
        assert len(store.write_blocking(lambda tx: tx.jobs.claim(300, 1))) == 1
    clock.time = NOW
    with open_store(tmp_path, daemon=True, clock=clock) as store:
        claims = [store.write_blocking(lambda tx: tx.jobs.claim(300, 10)) for _ in range(2)]
    assert sorted(job.subject for claim in claims for job in claim) == ["leased", "waiting"]


def test_the_delay_of_a_job_that_failed_outlives_a_restart(tmp_path: Path) -> None:
    clock = SteadyClock()
    with open_store(tmp_path, daemon=True, clock=clock) as store:
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.IMPORT, "link"))
        [job] = store.write_blocking(lambda tx: tx.jobs.claim(300, 1))
        assert store.write_blocking(lambda tx: tx.jobs.fail(job, "ImportFailedError", timedelta(seconds=30)))
    with open_store(tmp_path, daemon=True, clock=clock) as store:
        assert store.write_blocking(lambda tx: tx.jobs.claim(300, 10)) == []
        clock.advance(30)
        assert len(store.write_blocking(lambda tx: tx.jobs.claim(300, 10))) == 1


def test_a_clock_set_back_while_the_daemon_runs_puts_nothing_off_for_long(tmp_path: Path) -> None:
    """Without a restart: what lies further ahead than any schedule reaches is due; what a schedule put off waits."""
    clock, delay = SteadyClock(), 1.2 * timedelta(seconds=max(map(max, SCHEDULES.values())))
    with open_store(tmp_path, daemon=True, clock=clock) as store:
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.IMPORT, "scheduled"))
        [job] = store.write_blocking(lambda tx: tx.jobs.claim(300, 10))
        assert store.write_blocking(lambda tx: tx.jobs.fail(job, "ImportFailedError", delay))
        clock.time = NOW + timedelta(days=5 * 365)
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.UNWRAP, "before"))
        clock.time = NOW
        claimed = store.write_blocking(lambda tx: tx.jobs.claim(300, 10))
        assert [job.subject for job in claimed] == ["before"]
        clock.time = NOW + delay
        later = store.write_blocking(lambda tx: tx.jobs.claim(300, 10))
        assert [job.subject for job in later] == ["scheduled"]
