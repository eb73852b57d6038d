"""Stores that are copied, and copies that are cut off."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.settings import StoreSettings
from gateway.store import copying_rows, table_rows
from gateway.store.audit_verify import verify_store
from gateway.store.copying import copy_store
from gateway.store.copying_marker import find_mark
from gateway.store.copying_report import Copying, CopyReport
from gateway.store.copying_rows import copied_tables
from gateway.store.opening import open_database
from gateway.store.sql_store import SQLStore
from gateway.store.table_rows import Row, read_rows
from gateway.store.tables import audit_event, metadata
from tests.support.body_keys import sealer_in
from tests.support.odd_rows import WITNESSES, fill_with_odd_rows
from tests.support.postgresql import shared_cluster

_NUMBERS = itertools.count(1)


def new_place(kind: str, folder: Path) -> StoreSettings:
    if kind == "postgresql":
        return shared_cluster().settings()
    return StoreSettings(url=f"sqlite:///{folder}/store{next(_NUMBERS)}.db", group_commit_wait_ms=1)


def opened(settings: StoreSettings, folder: Path, *, daemon: bool = False) -> SQLStore:
    return SQLStore.open(settings, sealer_in(folder), daemon=daemon)


def filled(kind: str, folder: Path) -> StoreSettings:
    settings = new_place(kind, folder)
    with opened(settings, folder) as store:
        fill_with_odd_rows(store)
    return settings


def copy(source: StoreSettings, target: StoreSettings, *, dry_run: bool = False, **more: Any) -> CopyReport:
    return copy_store(Copying(source, target, WITNESSES, "cli:test", **more), dry_run=dry_run)


@contextmanager
def reading(settings: StoreSettings) -> Iterator[Any]:
    database = open_database(settings, daemon=False)
    try:
        with database.reader.connect() as connection:
            yield connection
    finally:
        database.close()


def contents(settings: StoreSettings) -> dict[str, list[Row]]:
    with reading(settings) as connection:
        return {table.name: list(read_rows(connection, table)) for table in metadata.sorted_tables}


def raw(settings: StoreSettings, *statements: Any) -> None:
    """Write past the gateway."""
    database = open_database(settings, daemon=False)
    try:
        with database.writer.connect() as connection, connection.begin():
            for statement in statements:
                connection.execute(text(statement) if isinstance(statement, str) else statement)
    finally:
        database.close()


@contextmanager
def running(settings: StoreSettings) -> Iterator[None]:
    """What a daemon holds for as long as it runs."""
    database = open_database(settings, daemon=True)
    try:
        yield
    finally:
        database.close()


def kill_after(monkeypatch: pytest.MonkeyPatch, batches: int, until: str = "") -> None:
    """Let the copy end in the middle, as a kill does, after so many batches, or where that table begins."""
    monkeypatch.setattr(copying_rows, "BATCH_ROWS", 2)
    count = itertools.count(1)
    real = table_rows.append_rows

    def some(connection: Any, table: Any, batch: Any) -> int:
        if table.name == until or (not until and next(count) > batches):
            raise KeyboardInterrupt
        return real(connection, table, batch)

    monkeypatch.setattr(copying_rows, "append_rows", some)


def unfinished(source: StoreSettings, target: StoreSettings, batches: int = 25, *, until: str = "") -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, batches, until)
        with pytest.raises(KeyboardInterrupt):
            copy(source, target)


def require_same(source: StoreSettings, target: StoreSettings) -> None:
    before, after = contents(source), contents(target)
    for table in copied_tables():
        rows = [row for row in after[table.name] if table is not audit_event or row[4] != "store.copied"]
        assert rows == before[table.name], table.name
    assert verify_store(target, WITNESSES).findings == []
    with reading(target) as connection:
        assert find_mark(connection) is None
