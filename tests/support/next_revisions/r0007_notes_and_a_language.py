"""Keep a language with each content, a note with each message, and count in the quarantine.

A revision of a release that is not there yet, for tests: it does everything that a revision may do.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.store.migrations.columns import short, text

revision = "0007"
down_revision = "0006"
REWRITES: tuple[str, ...] = ("quarantine",)


def upgrade() -> None:
    """A column in an append-only table, a new one with rows in it, a mutable one made anew, an index."""
    op.add_column("message_content", sa.Column("language", short(8)))
    op.create_table(
        "message_note",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("note", text(), nullable=False),
    )
    note = sa.Table(
        "message_note",
        sa.MetaData(),
        sa.Column("message_id", sa.String, primary_key=True),
        sa.Column("note", sa.String, nullable=False),
        info={"fact": True},
    )
    connection = op.get_bind()
    ids = sa.select(sa.column("id", sa.String)).select_from(sa.table("raw_message"))
    messages: list[str] = list(connection.execute(ids).scalars())
    if messages:
        connection.execute(sa.insert(note), [{"message_id": one, "note": f"of {one}"} for one in messages])
    with op.batch_alter_table(
        "quarantine", recreate="always" if connection.dialect.name == "sqlite" else "never"
    ) as batch:
        batch.add_column(sa.Column("looks", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("audit_event_action", "audit_event", ["action"])
