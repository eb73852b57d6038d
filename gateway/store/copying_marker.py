"""The mark of a store that is being filled by ``copy-store``: as long as it is there, nothing else opens the store.

It is a row of ``job``: the copy is work of that store, and a job's row is gone when its work is done. So the mark
needs no table of its own and no right that the gateway's role does not have, on whatever database, and it goes in the
same transaction that adds the last event. Its number is -1, which no counter ever gives out.

The mark holds what the copy is made from: the newest audit event of each node of the source, with its hash. A later
run holds the source against that. ``grown`` says that the source had more events in a later run than in the first one:
what is there then is a part of the source, and no longer its beginning in the order of the keys.

Crash story: one row, set and removed in transactions of their own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, inspect, select

from gateway.core.errors import ConfigurationError
from gateway.store.tables import job

KIND: Final = "copy"
"""No kind of work that a worker knows."""
MARK_ID: Final = -1
_STATE: Final = "copying"
_SUBJECT: Final = "store"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
UNFINISHED: Final = (
    "this store is an unfinished copy of another one; run direct-gateway copy-store again with the same --from and "
    "--to, which goes on where it stopped"
)

Heads = Mapping[str, tuple[int, str]]
"""By node: the number of its newest event, and its hash in hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What is being copied into the store that has this mark."""

    heads: Heads
    """Of the source, when the newest run began."""
    grown: bool = False


def find_mark(connection: Connection) -> Mark | None:
    """The mark, or None.

    Raises:
        ConfigurationError: there is one that cannot be read.
    """
    text = connection.scalar(select(job.c.last_error).where(job.c.kind == KIND, job.c.subject == _SUBJECT))
    if text is None:
        return None
    try:
        said = json.loads(text)
        heads = {str(node): (int(seq), str(digest)) for node, (seq, digest) in said["heads"].items()}
        return Mark(heads, bool(said["grown"]))
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise ConfigurationError(
            "the store has the mark of an unfinished copy, and the mark cannot be read: remove the store, and copy anew"
        ) from exc


def set_mark(connection: Connection, mark: Mark) -> None:
    """Mark the store, or put this mark in the place of the one that it has. Within the caller's transaction."""
    remove_mark(connection)
    said = {"heads": {node: list(head) for node, head in mark.heads.items()}, "grown": mark.grown}
    values: dict[str, Any] = {
        "id": MARK_ID,
        "kind": KIND,
        "subject": _SUBJECT,
        "state": _STATE,
        "run_at": _EPOCH,
        "attempt": 0,
        "lost": 0,
        "last_error": json.dumps(said, sort_keys=True),
    }
    connection.execute(insert(job).values(values))


def remove_mark(connection: Connection) -> None:
    """Take the mark away: the copy is complete. Within the caller's transaction."""
    connection.execute(delete(job).where(job.c.id == MARK_ID, job.c.kind == KIND))


def refuse_unfinished(connection: Connection, tables: Collection[str] | None = None) -> None:
    """Refuse a store that has the mark; ``tables``: the names of its tables, when they are known already.

    Raises:
        ConfigurationError: it has.
    """
    there = inspect(connection).has_table(job.name) if tables is None else job.name in tables
    if not there:
        return
    if connection.scalar(select(job.c.id).where(job.c.kind == KIND, job.c.subject == _SUBJECT)) is not None:
        raise ConfigurationError(f"store.url: {UNFINISHED}")
