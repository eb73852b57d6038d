"""Write down with each schema which release made it, and when.

A release that is too old for a database can then say which one is needed.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.store.migrations.columns import moment, text

revision = "0004"
down_revision = "0003"
REWRITES: tuple[str, ...] = ()


def upgrade() -> None:
    """The row of schema 3 stays as it is: nobody wrote down who made it."""
    op.add_column("schema_version", sa.Column("release", text()))
    op.add_column("schema_version", sa.Column("at", moment()))
