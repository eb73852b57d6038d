"""Keep shown fields, links that are undone or of one part, what importers were given, and merges of patients.

No row of before says anything else, and none is made: messages that were filed before are shown as they are.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.store.migrations.columns import moment, row_id, short, text

revision = "0006"
down_revision = "0005"
REWRITES: tuple[str, ...] = ("link",)


def upgrade() -> None:
    """Tables first, each after those that it refers to."""
    _make_shown_fields()
    _widen_links()
    _make_imports()
    _make_feeds()
    _free_imports()


def _make_shown_fields() -> None:
    op.create_table(
        "shown_fields",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("at", moment(), nullable=False),
        sa.Column("format", sa.Integer(), nullable=False),
        sa.Column("fields", text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
    )


def _widen_links() -> None:
    """Let a message come onto the same chart again after it was taken off, and keep who took it off and why."""
    if op.get_bind().dialect.name == "sqlite":
        _make_links_anew()
    else:
        op.drop_constraint("link_message_id_patient_id_key", "link")
        op.add_column("link", sa.Column("part", text()))
        op.add_column("link", sa.Column("seq", sa.Integer()))
        op.create_unique_constraint("link_message_id_patient_id_seq_key", "link", ["message_id", "patient_id", "seq"])
    op.create_table(
        "link_undo",
        sa.Column("link_id", short(64), sa.ForeignKey("link.id"), primary_key=True),
        sa.Column("at", moment(), nullable=False),
        sa.Column("actor", text(), nullable=False),
        sa.Column("reason", text(), nullable=False),
    )
    op.create_table(
        "link_mark",
        sa.Column("link_id", short(64), sa.ForeignKey("link.id"), primary_key=True),
        sa.Column("kind", short(16), primary_key=True),
        sa.Column("sha256", short(64), primary_key=True),
        sa.Column("path", text(), nullable=False),
    )
    op.create_index("link_mark_sha256", "link_mark", ["sha256"])


def _make_links_anew() -> None:
    """SQLite gives up no constraint of a table that is there: the rows go into a new one, and its guards come back."""
    connection = op.get_bind()
    found = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'link'")
    guards: list[str] = list(found.scalars())
    op.create_table(
        "link_of_6",
        sa.Column("id", short(64), primary_key=True),
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), nullable=False),
        sa.Column("patient_id", text(), nullable=False),
        sa.Column("mode", short(16), nullable=False),
        sa.Column("actor", text(), nullable=False),
        sa.Column("rule", text(), nullable=False),
        sa.Column("linked_at", moment(), nullable=False),
        sa.Column("part", text()),
        sa.Column("seq", sa.Integer()),
        sa.UniqueConstraint("message_id", "patient_id", "seq"),
    )
    kept = "id, message_id, patient_id, mode, actor, rule, linked_at"
    op.execute(f"INSERT INTO link_of_6 ({kept}) SELECT {kept} FROM link ORDER BY rowid")  # noqa: S608 - our own names
    op.drop_table("link")
    op.rename_table("link_of_6", "link")
    op.create_index("ix_link_patient_id", "link", ["patient_id"])
    for guard in guards:
        # The one against REPLACE names the keys of the table.
        widened = guard.replace("patient_id = NEW.patient_id", "patient_id = NEW.patient_id AND seq = NEW.seq")
        connection.exec_driver_sql(widened)


def _make_imports() -> None:
    op.create_table(
        "link_retraction",
        sa.Column("link_id", short(64), sa.ForeignKey("link.id"), primary_key=True),
        sa.Column("importer", text(), primary_key=True),
        sa.Column("receipt", text(), nullable=False),
        sa.Column("actor", text(), nullable=False),
        sa.Column("reason", text(), nullable=False),
        sa.Column("at", moment(), nullable=False),
    )
    op.create_table(
        "import_delivery",
        sa.Column("id", row_id(), primary_key=True, autoincrement=True),
        sa.Column("link_id", short(64), sa.ForeignKey("link.id"), nullable=False),
        sa.Column("target", short(64), nullable=False),
        sa.Column("action", short(8), nullable=False),
        sa.Column("state", short(8), nullable=False),
        sa.Column("run_at", moment(), nullable=False),
        sa.Column("lease_until", moment()),
        sa.Column("node", short(64)),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("lost", sa.Integer(), nullable=False),
        sa.Column("last_error", short(64), nullable=False),
        sa.Column("asked_at", moment(), nullable=False),
        sa.Column("actor", text(), nullable=False),
        sa.Column("reason", text(), nullable=False),
        sa.UniqueConstraint("link_id", "target", "action"),
        sqlite_autoincrement=True,
    )
    op.create_index("import_delivery_due", "import_delivery", ["target", "state", "run_at"])
    op.create_table(
        "import_target",
        sa.Column("name", short(64), primary_key=True),
        sa.Column("stopped_at", moment(), nullable=False),
        sa.Column("reason", short(64), nullable=False),
    )


def _make_feeds() -> None:
    op.create_table(
        "patient_merge",
        sa.Column("patient_id", text(), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("into_id", text()),
        sa.Column("event_at", moment(), nullable=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("source", text(), nullable=False),
    )
    op.create_index("ix_patient_merge_into_id", "patient_merge", ["into_id"])
    op.create_table(
        "patient_event",
        sa.Column("patient_id", text(), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("event_at", moment(), nullable=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("source", text(), nullable=False),
    )
    op.create_table(
        "patient_detail",
        sa.Column("patient_id", text(), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("source", text(), nullable=False),
        sa.Column("detail", text(), nullable=False),
    )
    op.create_table(
        "patient_feed",
        sa.Column("sender", text(), primary_key=True),
        sa.Column("control_id", text(), primary_key=True),
        sa.Column("sha256", short(64), primary_key=True),
        sa.Column("outcome", short(16), primary_key=True),
        sa.Column("at", moment(), nullable=False),
        sa.Column("event", short(16), nullable=False),
        sa.Column("patient_id", text(), nullable=False),
        sa.Column("reason", text(), nullable=False),
    )
    op.create_index("ix_patient_feed_at", "patient_feed", ["at"])


def _free_imports() -> None:
    """Let every import that waits, or was set aside, go to the queues of the targets at the next start.

    From now on an import job only says for which targets a link is meant; what failed before is tried by the target's
    own schedule, from its beginning. A target that has given its receipt already is not asked again.
    """
    op.execute(
        "UPDATE job SET state = 'ready', run_at = '1970-01-01T00:00:00.000000Z', lease_until = NULL, node = NULL, "
        "attempt = 0, lost = 0, last_error = '' WHERE kind = 'import'"
    )
