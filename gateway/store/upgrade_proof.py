"""Proves, before an upgrade is committed, that no row that was kept says anything else than before.

The audit log answers for the rows of the append-only tables by digests (:mod:`gateway.store.facts`). A digest leaves
out what is NULL, so a column may be added to such a table as long as the rows of before hold NULL in it. Anything else,
a column that goes, gets another name or is filled, would break every digest of that table, and ``audit verify`` with
it, for ever: nobody can make the log anew. So each upgrade is held against

* the digests of the first and the last rows of every append-only table, which must be the same after it;
* the number of rows of each: as many as before and those that the upgrade itself has noted for the log, and no more;
* the names of the guarded tables: none may be gone.

Failure modes: StoreError that names the table; whoever runs the upgrade then rolls it back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, Table, func, inspect, select

from gateway.core.audit import Row
from gateway.core.errors import StoreError
from gateway.store.facts import fact, is_fact
from gateway.store.guards import guarded_tables
from gateway.store.tables import metadata

_SAMPLE: Final = 50
"""Rows from each end of a table. What a revision does to one row it does to all of its kind."""

Key = tuple[str | int, ...]


class UpgradeProof:
    """Made before the first revision runs; :meth:`check` comes after the last one, in the same transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._guarded = guarded_tables(connection)
        inspector = inspect(connection)
        there = set(inspector.get_table_names())
        self._counts: dict[str, int] = {}
        self._digests: dict[str, Mapping[Key, str]] = {}
        for table in _answered_for():
            if table.name not in there:
                self._counts[table.name] = 0
                continue
            columns = {column["name"] for column in inspector.get_columns(table.name)}
            if not {column.name for column in table.primary_key} <= columns:
                raise _broken(table.name)
            self._counts[table.name] = self._count(table)
            self._digests[table.name] = self._sample(table, columns)

    def check(self, noted: Iterable[Row]) -> None:
        """Hold everything against what was there before. ``noted``: the rows that the upgrade added and vouches for.

        Raises:
            StoreError: a revision breaks what the audit log says.
        """
        inspector = inspect(self._connection)
        if gone := self._guarded - set(inspector.get_table_names()):
            raise _broken(min(gone))
        added = Counter(name for name, _, _ in noted)
        for table in _answered_for():
            columns = {column["name"] for column in inspector.get_columns(table.name)}
            if not {column.name for column in table.c} <= columns:
                raise _broken(table.name)
            if not table.info["by_digest"] and self._count(table) != self._counts[table.name] + added[table.name]:
                raise _broken(table.name)
            before = self._digests.get(table.name, {})
            # Other rows may have come between them, but the ends of a table still hold the ones of before.
            after = self._at(table, before.keys())
            if before != after:
                raise _broken(table.name)

    def _count(self, table: Table) -> int:
        return self._connection.scalar(select(func.count()).select_from(table)) or 0

    def _sample(self, table: Table, columns: set[str]) -> Mapping[Key, str]:
        """Digests of the first and the last rows, by key, of the columns that are there."""
        known = [column for column in table.c if column.name in columns]
        keys = list(table.primary_key)
        first = select(*known).order_by(*keys).limit(_SAMPLE)
        last = select(*known).order_by(*(key.desc() for key in keys)).limit(_SAMPLE)
        try:
            return {
                key: digest
                for query in (first, last)
                for row in self._connection.execute(query).mappings()
                for _, key, digest in [_as_fact(table, row)]
            }
        except (TypeError, ValueError):
            raise StoreError(
                f"nothing was changed: a row of {table.name} cannot be read, so somebody altered it past the gateway; "
                f"direct-gateway audit verify, of the release that you had, names it"
            ) from None

    def _at(self, table: Table, keys: Iterable[Key]) -> Mapping[Key, str]:
        found = {}
        for key in keys:
            query = select(table).where(*(c == part for c, part in zip(table.primary_key, key, strict=True)))
            for row in self._connection.execute(query).mappings():
                _, at, digest = _as_fact(table, row)
                found[at] = digest
        return found


def _answered_for() -> list[Table]:
    return [table for table in metadata.sorted_tables if is_fact(table)]


def _as_fact(table: Table, row: Mapping[Any, Any]) -> Row:
    return fact(table, {column.name: row[column.name] for column in table.c if column.name in row})


def _broken(table: str) -> StoreError:
    return StoreError(
        f"nothing was changed: this upgrade would break what the audit log says of the table {table}; "
        f"keep the release that you had, and report this"
    )
