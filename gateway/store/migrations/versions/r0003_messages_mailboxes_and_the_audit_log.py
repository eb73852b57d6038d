"""Make every table of the first release.

There is nothing before it: earlier numbers were of the time of building, and no database of them is in use.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.store.migrations.columns import moment, row_id, short, text

revision = "0003"
down_revision = None
REWRITES: tuple[str, ...] = ()


def upgrade() -> None:
    """Tables in the order in which they refer to each other."""
    op.create_table(
        "account",
        sa.Column("id", row_id(), primary_key=True, autoincrement=True),
        sa.Column("login", text(), nullable=False),
        sa.Column("login_key", text(), nullable=False),
        sa.Column("password_hash", text(), nullable=False),
        sa.Column("created_at", moment(), nullable=False),
        sa.UniqueConstraint("login_key"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "anchor_set",
        sa.Column("name", short(64), primary_key=True),
        sa.Column("members", text(), nullable=False),
    )
    op.create_table(
        "audit_event",
        sa.Column("node", short(64), primary_key=True),
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("actor", text(), nullable=False),
        sa.Column("action", text(), nullable=False),
        sa.Column("subject", text(), nullable=False),
        sa.Column("detail", text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("rows", text(), nullable=False, server_default=""),
    )
    op.create_index("audit_event_at", "audit_event", ["at"])
    op.create_index("audit_event_subject", "audit_event", ["subject"])
    op.create_table(
        "audit_tree_head",
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("head", text(), nullable=False),
    )
    op.create_table(
        "audit_tree_node",
        sa.Column("level", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "audit_tree_span",
        sa.Column("start", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("node", short(64), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("node", "first_seq"),
    )
    op.create_table(
        "bundle_setting",
        sa.Column("name", short(64), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("location", text(), nullable=False),
        sa.Column("signer", sa.LargeBinary()),
        sa.Column("owners", text(), nullable=False),
        sa.Column("directions", short(32), nullable=False),
        sa.Column("refresh_hours", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "bundle_status",
        sa.Column("name", short(64), primary_key=True),
        sa.Column("last_attempt", moment()),
        sa.Column("last_success", moment()),
        sa.Column("error", text(), nullable=False),
        sa.Column("alarm", text(), nullable=False),
    )
    op.create_table(
        "bundle_version",
        sa.Column("name", short(64), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("sha256", short(64), nullable=False),
        sa.Column("source", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "certificate",
        sa.Column("sha256", short(64), primary_key=True),
        sa.Column("der", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "fetch_place",
        sa.Column("account", short(40), primary_key=True),
        sa.Column("place", short(64), primary_key=True),
        sa.Column("mark", sa.BigInteger(), nullable=False),
        sa.Column("at", moment(), nullable=False),
    )
    op.create_table(
        "fetch_status",
        sa.Column("account", short(40), primary_key=True),
        sa.Column("state", short(16), nullable=False),
        sa.Column("last_attempt", moment()),
        sa.Column("last_success", moment()),
        sa.Column("error", text(), nullable=False),
        sa.Column("waiting", sa.BigInteger(), nullable=False),
        sa.Column("next_attempt", moment()),
        sa.Column("asked", sa.BigInteger(), nullable=False),
        sa.Column("answered", sa.BigInteger(), nullable=False),
        sa.Column("new", sa.BigInteger(), nullable=False),
        sa.Column("place", short(64), nullable=False),
        sa.Column("owner", short(64), nullable=False),
        sa.Column("lease_until", moment()),
    )
    op.create_table(
        "job",
        sa.Column("id", row_id(), primary_key=True, autoincrement=True),
        sa.Column("kind", short(16), nullable=False),
        sa.Column("subject", short(64), nullable=False),
        sa.Column("state", short(8), nullable=False),
        sa.Column("run_at", moment(), nullable=False),
        sa.Column("lease_until", moment()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lost", sa.Integer(), nullable=False),
        sa.Column("node", short(64)),
        sa.Column("last_error", text(), nullable=False),
        sa.UniqueConstraint("kind", "subject"),
        sqlite_autoincrement=True,
    )
    op.create_index("job_due", "job", ["state", "run_at"])
    op.create_table(
        "key_encryption_key",
        sa.Column("kek_id", short(64), primary_key=True),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("since", moment(), nullable=False),
        sa.Column("proof", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("seq"),
    )
    op.create_table(
        "mailbox",
        sa.Column("id", row_id(), primary_key=True, autoincrement=True),
        sa.Column("name", text(), nullable=False),
        sa.Column("uid_validity", sa.BigInteger(), nullable=False),
        sa.Column("created_at", moment(), nullable=False),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "patient_version",
        sa.Column("patient_id", text(), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("source", text(), nullable=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("mrn", text(), nullable=False),
        sa.Column("family", text(), nullable=False),
        sa.Column("given", text(), nullable=False),
        sa.Column("birth_date", short(10), nullable=False),
        sa.Column("sex", text(), nullable=False),
        sa.Column("phone", text(), nullable=False),
        sa.Column("address_line", text(), nullable=False),
        sa.Column("city", text(), nullable=False),
        sa.Column("postal_code", text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("deceased", sa.Boolean(), nullable=False),
        sa.Column("search_text", text(), nullable=False),
    )
    op.create_table(
        "raw_message",
        sa.Column("id", short(26), primary_key=True),
        sa.Column("received_at", moment(), nullable=False),
        sa.Column("source", short(16), nullable=False),
        sa.Column("peer", text(), nullable=False),
        sa.Column("mail_from", text()),
        sa.Column("sha256", short(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "revocation_data",
        sa.Column("sha256", short(64), primary_key=True),
        sa.Column("der", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "schema_version",
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
    )
    op.create_table(
        "account_folder",
        sa.Column("account_id", row_id(), sa.ForeignKey("account.id"), primary_key=True, autoincrement=False),
        sa.Column("folder", text(), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("mailbox_id", row_id(), sa.ForeignKey("mailbox.id"), nullable=False),
        sa.Column("rights", short(32), nullable=False),
    )
    op.create_table(
        "body_object",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("kind", short(16), primary_key=True),
        sa.Column("name", text(), nullable=False),
        sa.Column("version", text(), nullable=False),
        sa.Column("sha256", short(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("retain_until", moment(), nullable=False),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "body_part",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("kind", short(16), primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "bundle_anchor",
        sa.Column("name", short(64), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("certificate_sha256", short(64), sa.ForeignKey("certificate.sha256"), nullable=False),
        sa.ForeignKeyConstraint(["name", "version"], ["bundle_version.name", "bundle_version.version"]),
    )
    op.create_table(
        "content_recipient",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("recipient", text(), nullable=False),
        sa.UniqueConstraint("message_id", "recipient"),
    )
    op.create_table(
        "fetch_item",
        sa.Column("account", short(40), primary_key=True),
        sa.Column("place", short(64), primary_key=True),
        sa.Column("uid", short(80), primary_key=True),
        sa.Column("state", short(8), nullable=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("sha256", short(64), nullable=False),
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id")),
        sa.Column("trouble", short(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger()),
    )
    op.create_index("fetch_item_sha256", "fetch_item", ["account", "sha256"])
    op.create_index("fetch_item_state", "fetch_item", ["account", "state"])
    op.create_table(
        "link",
        sa.Column("id", short(64), primary_key=True),
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), nullable=False),
        sa.Column("patient_id", text(), nullable=False),
        sa.Column("mode", short(16), nullable=False),
        sa.Column("actor", text(), nullable=False),
        sa.Column("rule", text(), nullable=False),
        sa.Column("linked_at", moment(), nullable=False),
        sa.UniqueConstraint("message_id", "patient_id"),
    )
    op.create_index("ix_link_patient_id", "link", ["patient_id"])
    op.create_table(
        "mailbox_counter",
        sa.Column("mailbox_id", row_id(), sa.ForeignKey("mailbox.id"), primary_key=True, autoincrement=False),
        sa.Column("uid_next", sa.BigInteger(), nullable=False),
        sa.Column("highest_modseq", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "mailbox_message",
        sa.Column("mailbox_id", row_id(), sa.ForeignKey("mailbox.id"), primary_key=True, autoincrement=False),
        sa.Column("uid", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), nullable=False),
        sa.Column("content_sha256", short(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("internal_date", moment(), nullable=False),
        sa.Column("sent_at", moment()),
        sa.UniqueConstraint("mailbox_id", "content_sha256"),
        sa.UniqueConstraint("mailbox_id", "message_id"),
    )
    op.create_table(
        "mailbox_route",
        sa.Column("address", text(), primary_key=True),
        sa.Column("mailbox_id", row_id(), sa.ForeignKey("mailbox.id"), primary_key=True, autoincrement=False),
    )
    op.create_table(
        "message_content",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("content_sha256", short(64), nullable=False),
        sa.Column("sender", text(), nullable=False),
        sa.Column("subject", text(), nullable=False),
        sa.Column("rfc822_message_id", text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("inner_sha256", short(64), nullable=False),
        sa.Column("protected_offset", sa.Integer(), nullable=False),
    )
    op.create_index("ix_message_content_content_sha256", "message_content", ["content_sha256"])
    op.create_table(
        "message_index",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("header_end", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", moment()),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("bodystructure", sa.LargeBinary(), nullable=False),
        sa.Column("sections", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "message_state",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("state", short(16), nullable=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("detail", text(), nullable=False),
    )
    op.create_table(
        "patient_address",
        sa.Column("patient_id", text(), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("address", text(), nullable=False),
        sa.Column("confirmed", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["patient_id", "version"], ["patient_version.patient_id", "patient_version.version"]),
    )
    op.create_index("ix_patient_address_address", "patient_address", ["address"])
    op.create_table(
        "quarantine",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("reason", short(32), nullable=False),
        sa.Column("since", moment(), nullable=False),
    )
    op.create_index("quarantine_reason", "quarantine", ["reason", "message_id"])
    op.create_table(
        "raw_recipient",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("recipient", text(), nullable=False),
        sa.Column("dedup_key", short(64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.UniqueConstraint("dedup_key", "attempt"),
        sa.UniqueConstraint("message_id", "recipient"),
    )
    op.create_table(
        "recheck",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("as_of", moment(), nullable=False),
        sa.Column("reason", short(32), nullable=False),
        sa.Column("judgement", text(), nullable=False),
    )
    op.create_table(
        "verdict",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("reason", short(32), nullable=False),
        sa.Column("sender", text(), nullable=False),
        sa.Column("judgement", text(), nullable=False),
    )
    op.create_table(
        "wrapped_key",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("kek_id", short(64), sa.ForeignKey("key_encryption_key.kek_id"), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
    )
    op.create_index("wrapped_key_kek", "wrapped_key", ["kek_id", "message_id"])
    op.create_table(
        "link_receipt",
        sa.Column("link_id", short(64), sa.ForeignKey("link.id"), primary_key=True),
        sa.Column("importer", text(), primary_key=True),
        sa.Column("receipt", text(), nullable=False),
        sa.Column("at", moment(), nullable=False),
    )
    op.create_table(
        "mailbox_flag",
        sa.Column("mailbox_id", row_id(), primary_key=True, autoincrement=False),
        sa.Column("uid", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("flags", text(), nullable=False),
        sa.Column("modseq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["mailbox_id", "uid"], ["mailbox_message.mailbox_id", "mailbox_message.uid"]),
    )
    op.create_index("mailbox_flag_modseq", "mailbox_flag", ["mailbox_id", "modseq"])
