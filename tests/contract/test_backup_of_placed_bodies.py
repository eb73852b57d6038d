"""Bodies in a bucket are named by a backup, and looked for there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.settings import S3Settings
from gateway.store.backup.bucket import check_bucket
from gateway.store.backup.checking import Checks, check_backup
from gateway.store.s3_bodies import S3Bodies
from gateway.store.s3_bucket import Bucket
from gateway.store.sql_store import SQLStore
from tests.support.backups import PLAIN, back_up, check
from tests.support.body_keys import sealer_in
from tests.support.s3_server import S3Server, s3_server
from tests.support.store_samples import NOW, keep_raw, settings_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as found:
        yield found


async def test_a_body_that_is_gone_from_the_bucket_is_named(tmp_path: Path, server: S3Server) -> None:
    bucket = server.bucket()
    s3: S3Settings = server.settings(bucket)
    settings = replace(settings_for(tmp_path), bodies="s3")
    sealer = sealer_in(tmp_path)
    with SQLStore.open(settings, sealer, s3=s3) as store:
        ids = [await keep_raw(store, b"message %d" % number) for number in range(3)]
    made = back_up(settings, tmp_path / "copy")
    assert (made.manifest.objects, made.manifest.messages) == (3, 3)
    without = check(made.path, tmp_path)
    assert [one for one in without.findings if "received" not in one] == []
    assert without.messages_opened == 0, "nothing of them is here"
    objects = S3Bodies(Bucket(s3), s3, sealer, places=False)
    try:
        report = check_backup(made.path, Checks(PLAIN, sealer, 1.0, objects))
        assert report.messages_opened == 3
        before = len(report.findings)
        assert check_bucket(made.path, objects, NOW, report) == 3
        assert len(report.findings) == before
        name, version = next(one for one in server.names(bucket) if ids[1] in one[0])
        server.destroy(bucket, name, version)
        check_bucket(made.path, objects, NOW, report)
        assert f"the raw of the message {ids[1]} is not in the bucket" in report.findings[-1]
        again = check_backup(made.path, Checks(PLAIN, sealer, 1.0, objects))
        assert any(f"{ids[1]} is damaged: its raw is missing in the bucket" in one for one in again.findings)
    finally:
        objects.close()
