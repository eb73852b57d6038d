"""Whether the bodies that a backup refers to lie in the bucket. Reads only.

A backup does not hold them: nobody can remove or replace them there before their time (docs/s3.md). Failure modes:
StoreUnavailableError while the bucket is away.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from gateway.store.backup.checking import BackupReport
from gateway.store.backup.file import closed_engine
from gateway.store.backup.manifest import STORE_FILE
from gateway.store.s3_bodies import S3Bodies
from gateway.store.s3_orphans import compare


def check_bucket(path: Path, objects: S3Bodies, now: datetime, report: BackupReport) -> int:
    """Look for every body of the backup in the bucket; returns how many objects were seen there."""
    engine, seen = closed_engine(path / STORE_FILE), 0
    try:
        for page in compare(objects.bucket, engine, now):
            seen += page.seen
            for gone in page.missing:
                report.found(f"the {gone.kind} of the message {gone.message_id} is not in the bucket ({gone.name})")
    finally:
        engine.dispose()
    return seen
