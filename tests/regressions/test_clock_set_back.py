"""A clock that is set back while the daemon is down must not put accepted mail off (F11)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from gateway.core.lifecycle import JobKind
from tests.support.store_samples import NOW, open_store


def test_mail_that_was_accepted_before_the_clock_was_set_back_is_due_at_once(tmp_path: Path) -> None:
    ahead = NOW + timedelta(days=2)
    with open_store(tmp_path, daemon=True) as store:
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.UNWRAP, "leased", ahead))
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.UNWRAP, "waiting", ahead))
        assert len(store.write_blocking(lambda tx: tx.jobs.claim(ahead, 300, 1))) == 1
    with open_store(tmp_path, daemon=True) as store:
        claims = [store.write_blocking(lambda tx: tx.jobs.claim(NOW, 300, 10)) for _ in range(2)]
    assert sorted(job.subject for claim in claims for job in claim) == ["leased", "waiting"]


def test_the_delay_of_a_job_that_failed_outlives_a_restart(tmp_path: Path) -> None:
    retry_at = NOW + timedelta(seconds=30)
    with open_store(tmp_path, daemon=True) as store:
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.IMPORT, "link", NOW))
        [job] = store.write_blocking(lambda tx: tx.jobs.claim(NOW, 300, 1))
        assert store.write_blocking(lambda tx: tx.jobs.fail(job, NOW, "ImportFailedError", retry_at))
    with open_store(tmp_path, daemon=True) as store:
        assert store.write_blocking(lambda tx: tx.jobs.claim(NOW, 300, 10)) == []
        assert len(store.write_blocking(lambda tx: tx.jobs.claim(retry_at, 300, 10))) == 1
