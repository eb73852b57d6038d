"""Compares the bucket with the rows that name its objects: what no row names, and what a row names and is not there.

An orphan is left behind when a process was killed, or a commit refused, between the put and the commit, and when a
message came a second time at the same moment. No message is made of it, and it stays until its retention ends: nothing
is removed here.

Reads only, in pages: the bucket lists by name, the table is asked for the names in between.

Failure modes: StoreUnavailableError while the bucket is away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, select

from gateway.store.s3_bucket import Bucket, ObjectGoneError, StoredVersion
from gateway.store.s3_lock import CANARY
from gateway.store.tables import body_object

IN_FLIGHT = timedelta(hours=1)
"""What is younger may be named by a commit that is on its way."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A body whose row is there and whose object is not."""

    message_id: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Page:
    """What one page of the bucket showed."""

    seen: int
    """Objects, without canaries."""
    orphans: tuple[StoredVersion, ...]
    missing: tuple[Missing, ...]


def compare(bucket: Bucket, engine: Engine, now: datetime) -> Iterator[Page]:
    """Walk through the bucket and the rows side by side.

    A row that is committed while this runs is not missed: its object was there before.
    """
    after = ""
    for page in bucket.versions():
        last = page[-1].name if page else after
        rows = _rows(engine, after, last)
        yield _compared(bucket, page, rows, now)
        # The versions of one name may go on on the next page, so its row is looked at again there.
        after = last
    yield _compared(bucket, [], _rows(engine, after, None), now)


def _rows(engine: Engine, first: str, upto: str | None) -> dict[str, tuple[Missing, str]]:
    """Rows by the name of their object: from ``first`` on, and up to ``upto`` where that is given."""
    wanted = select(body_object).where(body_object.c.name >= first)
    if upto is not None:
        wanted = wanted.where(body_object.c.name <= upto)
    with engine.connect() as connection:
        return {
            row.name: (Missing(row.message_id, row.kind, row.name), row.version) for row in connection.execute(wanted)
        }


def _compared(bucket: Bucket, page: list[StoredVersion], rows: dict[str, tuple[Missing, str]], now: datetime) -> Page:
    ours = [one for one in page if not one.name.startswith(bucket.prefix + CANARY)]
    named = {(name, version) for name, (_, version) in rows.items()}
    there = {(one.name, one.version) for one in ours}
    orphans = tuple(one for one in ours if (one.name, one.version) not in named and now - one.modified_at > IN_FLIGHT)
    unseen = [(missing, version) for name, (missing, version) in rows.items() if (name, version) not in there]
    return Page(len(ours), orphans, tuple(missing for missing, version in unseen if _is_gone(bucket, missing, version)))


def _is_gone(bucket: Bucket, missing: Missing, version: str) -> bool:
    """Ask for the object itself: it may stand on another page, or have come since the page was made."""
    try:
        bucket.retention(missing.name, version)
    except ObjectGoneError:
        return True
    return False
