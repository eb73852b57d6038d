"""Which jobs are due: one question to the database, each part of it answered from the index in order.

A job is due when it is ready and its time has come; when its lease has run out; or when it is put off further than any
schedule goes, because the clock was set back while the process ran (F11). With OR the database would sort the whole
backlog at every look, so these are parts of a UNION ALL, and so are the shares of kinds that are asked for apart. Each
part reads no more rows of the index than it gives back, however long the backlog is, as long as the backlog is of the
kinds that are asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, Integer, Select, bindparam, func, literal, literal_column, select, union_all

from gateway.core.lifecycle import JobKind
from gateway.store.prepared import Prepared
from gateway.store.tables import job

READY: Final = "ready"
LEASED: Final = "leased"
POISON: Final = "poison"
"""What ``job.state`` says."""


def due_jobs(
    connection: Connection,
    at: datetime,
    never_later: datetime,
    shares: Sequence[tuple[Collection[JobKind] | None, int]],
    lost_below: int | None,
) -> list[list[Any]]:
    """The jobs that are due, the oldest first, for each share of them.

    Args:
        connection: within the transaction that will lease them.
        at: now, in the database's clock.
        never_later: a job that is put off beyond this is due as well.
        shares: kinds (None: all), and how many jobs of them are wanted.
        lost_below: leave out those whose leases were lost so often; None leaves out none.
    """
    asked = tuple(None if kinds is None else tuple(sorted(kinds)) for kinds, _ in shares)
    values: dict[str, Any] = {"at": at, "never_later": never_later}
    values |= {f"limit_{number}": limit for number, (_, limit) in enumerate(shares)}
    if lost_below is not None:
        values["lost_below"] = lost_below
    found: list[list[Any]] = [[] for _ in shares]
    for row in _question(asked, trusting=lost_below is None).rows(connection, **values):
        found[row.share].append(row)
    for rows in found:
        rows.sort(key=lambda row: (row.run_at, row.id))
    return found


@lru_cache(maxsize=16)
def _question(shares: tuple[tuple[JobKind, ...] | None, ...], *, trusting: bool) -> Prepared:
    """The statement, made once for each form of it: to build it costs far more than to run it."""
    parts = [part for number, kinds in enumerate(shares) for part in _parts(number, kinds, trusting=trusting)]
    return Prepared(union_all(*(select(part.subquery()) for part in parts)))


def _parts(share: int, kinds: tuple[JobKind, ...] | None, *, trusting: bool) -> list[Select[Any]]:
    at = bindparam("at", type_=job.c.run_at.type)
    limit = bindparam(f"limit_{share}", type_=Integer)
    columns = (job.c.id, job.c.kind, job.c.subject, job.c.state, job.c.run_at, job.c.attempt, job.c.lost)
    question = select(*columns, literal_column(str(share)).label("share")).order_by(job.c.run_at, job.c.id).limit(limit)
    if kinds is not None:
        # Not the bare column: its index would be taken, and the whole backlog sorted at every claim.
        question = question.where(func.coalesce(job.c.kind, "").in_([literal(kind.value) for kind in kinds]))
    if not trusting:
        question = question.where(job.c.lost < bindparam("lost_below"))
    return [
        question.where(job.c.state == READY, job.c.run_at <= at),
        question.where(job.c.state == LEASED, job.c.lease_until <= at),
        question.where(job.c.state == READY, job.c.run_at > bindparam("never_later", type_=job.c.run_at.type)),
    ]
