"""Which schema a database has, and whether this release may work on it: looked at before anything else is.

The truth is the table ``schema_version``, which is append-only as the mail is: the greatest number counts, and each
says which release made it and when. Alembic's own table is not used, because it is overwritten at each step: whoever
can write to it changes what the program takes a database for, and nothing tells what was there before.

A look reads two statements and imports nothing of alembic, so that a start and every command can afford it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, inspect, select

import gateway
from gateway.core.errors import ConfigurationError
from gateway.store.tables import SCHEMA_VERSION, schema_version

OLDEST_SCHEMA: Final = 3
"""The first that was released: what is older cannot be brought up to date."""
_RELEASE_SINCE: Final = 4
"""The first that names its release."""


@dataclass(frozen=True, slots=True)
class FoundSchema:
    """The schema of a database."""

    version: int
    release: str = ""
    """Of the program that made it; empty where nobody wrote that down."""


def found_schema(connection: Connection, tables: set[str] | None = None) -> FoundSchema | None:
    """Return the schema of the database; None when it has no tables.

    Args:
        connection: a read or write transaction.
        tables: the names of its tables, when they are known already.

    Raises:
        ConfigurationError: the tables are none of ours.
    """
    names = set(inspect(connection).get_table_names()) if tables is None else tables
    if not names:
        return None
    if schema_version.name not in names:
        raise ConfigurationError("store.url names a database of another program")
    version = connection.scalar(select(func.max(schema_version.c.version)))
    if version is None:
        # Tables and number are written in one transaction: no crash leaves one without the other.
        raise ConfigurationError(
            "store.url: the database does not say which schema it has; somebody altered it: restore a backup"
        )
    if version < _RELEASE_SINCE:
        return FoundSchema(version)
    release = connection.scalar(select(schema_version.c.release).where(schema_version.c.version == version))
    return FoundSchema(version, release or "")


def other_schema(found: FoundSchema) -> str:
    """What to tell of a schema that this release does not work on, and what to do; empty when it is the right one."""
    if found.version == SCHEMA_VERSION:
        return ""
    ours = f"this release ({gateway.__version__})"
    if found.version > SCHEMA_VERSION:
        made = f", made by direct-gateway {found.release}," if found.release else ""
        which = f"direct-gateway {found.release} or newer" if found.release else "the newer release that made it"
        return (
            f"the database has schema {found.version}{made} and {ours} knows {SCHEMA_VERSION}: "
            f"start {which}, or restore a backup from before its upgrade"
        )
    if found.version < OLDEST_SCHEMA:
        return (
            f"the database has schema {found.version}, from before the first release, and {ours} needs "
            f"{SCHEMA_VERSION}: it cannot convert it; keep the program that wrote it, or begin with a new database"
        )
    return (
        f"the database has schema {found.version}, and {ours} needs {SCHEMA_VERSION}: see what would be done with "
        f"direct-gateway store upgrade --dry-run, stop every gateway on it, and run: direct-gateway store upgrade"
    )


def refuse_other(found: FoundSchema) -> None:
    """Raises ConfigurationError for a schema that this release does not work on."""
    if told := other_schema(found):
        raise ConfigurationError(told)
