"""The release after this one, for tests: its tables, and a revision that makes them (``tests/support/next_revisions``).

``python -m tests.support.next_release ARGUMENTS`` is its ``direct-gateway``. :func:`become` changes what this process
takes for its own release, and must come before anything else of the gateway is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

REVISIONS = Path(__file__).with_name("next_revisions")
RELEASE = "9.0"
SCHEMA = 7


def become(revisions_in: Path = REVISIONS, *, change: Callable[[], None] | None = None) -> None:
    """Be the next release from now on, in this process; ``change`` makes its tables out of those of today."""
    import gateway
    from gateway.store import tables

    assert "gateway.store.schema_versions" not in sys.modules, "too late: the gateway is imported already"
    gateway.__version__ = RELEASE
    tables.SCHEMA_VERSION = SCHEMA
    (change or _change)()
    tables.APPEND_ONLY = tuple(t for t in tables.metadata.sorted_tables if t.info.get("append_only"))

    from gateway.store import revisions

    revisions.FOLDERS.append(revisions_in)


def _change() -> None:
    from sqlalchemy import Column, Index, Integer

    from gateway.store import tables

    tables.message_content.append_column(Column("language", tables.CleanString(8)))
    note = Column("note", tables.CleanText, nullable=False)
    tables._append_only("message_note", tables._message_id(primary_key=True), note)
    tables.quarantine.append_column(Column("looks", Integer, nullable=False, server_default="0"))
    Index("audit_event_action", tables.audit_event.c.action)


def _write_new_columns() -> None:
    """What the code of that release would do: it names its new columns where it adds rows."""
    from gateway.store.prepared import PreparedInsert

    new: dict[str, dict[str, Any]] = {"message_content": {"language": "en"}, "quarantine": {"looks": 0}}
    execute = PreparedInsert._execute

    def with_new(self: PreparedInsert, connection: Any, values: Mapping[str, Any], fetch: Any) -> Any:
        return execute(self, connection, {**new.get(self._statement.table.name, {}), **values}, fetch)

    later = PreparedInsert.later

    def later_with_new(self: PreparedInsert, connection: Any, /, **values: Any) -> None:
        later(self, connection, **{**new.get(self._statement.table.name, {}), **values})

    changed: Any = PreparedInsert
    changed._execute, changed.later = with_new, later_with_new


if __name__ == "__main__":
    become()
    _write_new_columns()
    from gateway.cli.main import main

    sys.exit(main())
