"""What the role of the gateway may do on PostgreSQL: add everywhere, change only what is mutable, and no more.

The tables belong to another role, which only ``store init`` and migrations use. So the program that takes mail from
strangers can neither change what was kept nor take the guards off, whatever becomes of it (B.3 rule 2 of the design).
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from gateway.core.errors import ConfigurationError
from gateway.store.tables import APPEND_ONLY, metadata, schema_version


def grant_rights(connection: Connection, schema: str, role: str) -> None:
    """Give the role its rights, and take away what else it had on the schema. Within the caller's transaction.

    Raises:
        ConfigurationError: there is no such role, or it owns the tables.
    """
    owner = connection.scalar(text("SELECT current_user"))
    if role == owner:
        raise ConfigurationError(f"the role {role} owns the tables; the gateway needs one of its own in store.url")
    if connection.scalar(text("SELECT count(*) FROM pg_roles WHERE rolname = :role"), {"role": role}) == 0:
        raise ConfigurationError(f"there is no role {role}; make it: CREATE ROLE {role} LOGIN")
    quote = connection.dialect.identifier_preparer.quote_identifier
    place, grantee = quote(schema), quote(role)
    fixed = ", ".join(f"{place}.{quote(table.name)}" for table in APPEND_ONLY if table is not schema_version)
    mutable = ", ".join(f"{place}.{quote(t.name)}" for t in metadata.sorted_tables if t not in set(APPEND_ONLY))
    for statement in (
        f"REVOKE ALL ON SCHEMA {place} FROM PUBLIC, {grantee}",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA {place} FROM PUBLIC, {grantee}",
        f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA {place} FROM PUBLIC, {grantee}",
        f"GRANT USAGE ON SCHEMA {place} TO {grantee}",
        f"GRANT SELECT, INSERT ON {fixed} TO {grantee}",
        # What a database is, only those who make it say.
        f"GRANT SELECT ON {place}.{quote(schema_version.name)} TO {grantee}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {mutable} TO {grantee}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {place} TO {grantee}",
    ):
        connection.exec_driver_sql(statement)
