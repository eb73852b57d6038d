"""What a backup is made from: one snapshot of the store, while others write to it.

SQLite: a read transaction. It holds nobody up; the WAL beside the database grows by what is written until it ends.
PostgreSQL: one REPEATABLE READ READ ONLY transaction; the server keeps old row versions until it ends. An upgrade is
kept out for so long: a table that is written anew is empty for every snapshot from before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import StatementError

from gateway.core.errors import ConfigurationError, InputError
from gateway.core.tree_head import NodeHead, TreeHead, from_text
from gateway.settings import StoreSettings
from gateway.store.audit_tree import AuditTree
from gateway.store.backup.manifest import KeyEntry
from gateway.store.database_errors import as_gateway_error
from gateway.store.opening import open_database
from gateway.store.tables import SCHEMA_VERSION, audit_event, body_object, schema_version, wrapped_key

IDLE_MINUTES = 10
"""PostgreSQL ends the transaction when our disk stands still for so long."""


@contextmanager
def snapshot(settings: StoreSettings) -> Iterator[Connection]:
    """One snapshot of the store, for as long as the context lasts.

    Raises:
        ConfigurationError: it is no store of this schema. StoreUnavailableError: it does not answer, or is being
            upgraded.
    """
    database = open_database(settings, daemon=False)
    try:
        # A session that could write is enough to hold off an upgrade (gateway.store.postgresql_schema_lock).
        with database.writer.connect(), database.reader.begin() as connection:
            be_patient(connection)
            version = connection.scalar(select(func.max(schema_version.c.version)))
            if version != SCHEMA_VERSION:
                raise ConfigurationError(f"the database has schema {version}, and this release knows {SCHEMA_VERSION}")
            yield connection
    except StatementError as exc:
        raise as_gateway_error(exc) from exc
    finally:
        database.close()


def be_patient(connection: Connection) -> None:
    """Let a transaction last as long as it takes: those of the gateway are meant to take a moment."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_MINUTES}min'")


def store_bytes(connection: Connection) -> int:
    """About how large the store is, without what is free in it."""
    if connection.dialect.name == "sqlite":
        pages, free, size = (
            int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size
    statement = (
        "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class "
        "WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')"
    )
    return int(connection.execute(text(statement)).scalar_one())


def chain_ends(connection: Connection) -> tuple[NodeHead, ...]:
    """The newest event of each node."""
    last = select(audit_event.c.node, func.max(audit_event.c.seq).label("seq")).group_by(audit_event.c.node).subquery()
    rows = connection.execute(
        select(audit_event.c.node, audit_event.c.seq, audit_event.c.hash)
        .join(last, (last.c.node == audit_event.c.node) & (last.c.seq == audit_event.c.seq))
        .order_by(audit_event.c.node)
    )
    return tuple(NodeHead(row.node, row.seq, bytes(row.hash)) for row in rows)


def tree_of(connection: Connection) -> tuple[int, bytes, TreeHead | None]:
    """Size and root of the tree, and the newest signed head."""
    tree = AuditTree(connection)
    size, newest = tree.size(), tree.newest_head()
    head = None
    if newest is not None:
        # One that was altered is told when the log is verified; it keeps nobody from making a backup.
        with suppress(InputError):
            head = from_text(newest)
    return size, tree.root(size), head


def keys_needed(connection: Connection) -> tuple[KeyEntry, ...]:
    """The key-encryption keys that messages rest on."""
    groups = select(wrapped_key.c.kek_id, func.count()).group_by(wrapped_key.c.kek_id).order_by(wrapped_key.c.kek_id)
    return tuple(KeyEntry(str(row[0]), int(row[1])) for row in connection.execute(groups))


def objects_named(connection: Connection) -> tuple[int, int]:
    """How many bodies lie in a bucket, and how many bytes they have."""
    row = connection.execute(select(func.count(), func.coalesce(func.sum(body_object.c.size_bytes), 0))).one()
    return int(row[0]), int(row[1])
