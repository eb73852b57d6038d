"""What is asked of ``copy-store``, and what it tells: values without behaviour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.settings import StoreSettings
from gateway.store.audit_verify import LogReport, Witnesses

Progress = Callable[[str, str, int, int], None]
"""``(what is done, table, rows done, rows in all)``."""


@dataclass(slots=True)
class TableCopy:
    """What became of one table."""

    name: str
    rows: int
    """In the source."""
    added: int = 0
    """By this run."""
    sha256: str = ""
    """Over all rows, the same on both sides (:class:`gateway.store.table_rows.RowsDigest`); empty: not compared."""


@dataclass(slots=True)
class CopyReport:
    """What was done, or with ``dry_run`` would be."""

    source: str
    target: str
    state: str = "complete"
    """``complete``, ``already complete`` or ``dry run``."""
    resumed: bool = False
    tables: list[TableCopy] = field(default_factory=list)
    bodies_in_bucket: int = 0
    lacks_tables: bool = False
    """A dry run: the target has no tables yet."""
    log: LogReport = field(default_factory=LogReport)
    """Of the target; of the source for a dry run."""

    @property
    def rows(self) -> int:
        """Of all tables."""
        return sum(table.rows for table in self.tables)


@dataclass(frozen=True, slots=True)
class Copying:
    """A copy that is asked for."""

    source: StoreSettings
    target: StoreSettings
    witnesses: Witnesses
    actor: str
    owner_url: str | None = None
    """PostgreSQL: the target, as the role that shall own the tables."""
    progress: Progress = lambda _what, _table, _done, _all: None
