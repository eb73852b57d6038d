"""Keep the views of a mailbox, reviews, and what mail clients of one person see; tell clients verdict and link.

Every message that is in a mailbox gets the keywords that say what the gateway knows of it, as one change of its
mailbox, and its place in the view ``unlinked`` or ``linked``.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.store.migrations.columns import moment, row_id, short, text

revision = "0005"
down_revision = "0004"
REWRITES: tuple[str, ...] = ("mailbox_flag",)

_KEYWORDS = frozenset({"$directverified", "$directlinked", "$directneedsreview", "$directreviewed"})
"""Until now any mail client could set them, and they said nothing."""


def upgrade() -> None:
    """Tables first, each after those that it refers to; then what the messages of before are given."""
    _make_views()
    _make_review()
    _make_seen()
    _make_sent()
    _make_quarantine_folder()
    _make_logins()
    _make_pop3()
    _forget_made_up_keywords()
    _place_in_views()
    _tell_keywords()


def _make_views() -> None:
    op.create_table(
        "view_entry",
        sa.Column("mailbox_id", row_id(), primary_key=True, autoincrement=False),
        sa.Column("view", short(16), primary_key=True),
        sa.Column("uid", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("of_uid", sa.BigInteger(), nullable=False),
        sa.Column("modseq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["mailbox_id", "of_uid"], ["mailbox_message.mailbox_id", "mailbox_message.uid"]),
    )
    op.create_index("view_entry_of_uid", "view_entry", ["mailbox_id", "of_uid"])
    op.create_table(
        "view_exit",
        sa.Column("mailbox_id", row_id(), primary_key=True, autoincrement=False),
        sa.Column("view", short(16), primary_key=True),
        sa.Column("uid", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("modseq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["mailbox_id", "view", "uid"], ["view_entry.mailbox_id", "view_entry.view", "view_entry.uid"]
        ),
    )
    op.create_index("view_exit_modseq", "view_exit", ["mailbox_id", "view", "modseq"])


def _make_review() -> None:
    op.create_table(
        "review",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("actor", text(), nullable=False),
        sa.Column("state", short(16), nullable=False),
    )


def _make_seen() -> None:
    op.create_table(
        "mailbox_seen",
        sa.Column("account_id", row_id(), sa.ForeignKey("account.id"), primary_key=True, autoincrement=False),
        sa.Column("mailbox_id", row_id(), primary_key=True, autoincrement=False),
        sa.Column("uid", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("seen", sa.Boolean(), nullable=False),
        sa.Column("modseq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["mailbox_id", "uid"], ["mailbox_message.mailbox_id", "mailbox_message.uid"]),
    )
    op.create_index("mailbox_seen_modseq", "mailbox_seen", ["account_id", "mailbox_id", "modseq"])
    op.create_table(
        "seen_setting",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("mode", short(16), nullable=False),
        sa.Column("at", moment(), nullable=False),
    )


def _make_sent() -> None:
    op.create_table(
        "sent_mailbox",
        sa.Column("inbox_id", row_id(), sa.ForeignKey("mailbox.id"), primary_key=True, autoincrement=False),
        sa.Column("mailbox_id", row_id(), sa.ForeignKey("mailbox.id"), nullable=False, unique=True),
    )
    op.create_table(
        "kept_message",
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), primary_key=True),
        sa.Column("account_id", row_id(), sa.ForeignKey("account.id"), nullable=False),
        sa.Column("claimed_sender", text(), nullable=False),
        sa.Column("subject", text(), nullable=False),
        sa.Column("rfc822_message_id", text(), nullable=False),
    )


def _make_logins() -> None:
    op.create_table(
        "app_password",
        sa.Column("account_id", row_id(), sa.ForeignKey("account.id"), primary_key=True, autoincrement=False),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("name", text(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "app_password_end",
        sa.Column("account_id", row_id(), primary_key=True, autoincrement=False),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("actor", text(), nullable=False),
        sa.ForeignKeyConstraint(["account_id", "seq"], ["app_password.account_id", "app_password.seq"]),
    )
    op.create_table(
        "account_status",
        sa.Column("account_id", row_id(), sa.ForeignKey("account.id"), primary_key=True, autoincrement=False),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("state", short(16), nullable=False),
        sa.Column("actor", text(), nullable=False),
        sa.Column("reason", text(), nullable=False),
    )
    op.create_table(
        "login_use",
        sa.Column("account_id", row_id(), sa.ForeignKey("account.id"), primary_key=True, autoincrement=False),
        sa.Column("app_password", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", moment(), nullable=False),
    )
    op.create_table(
        "client_session",
        sa.Column("id", short(16), primary_key=True),
        sa.Column("node", short(64), nullable=False),
        sa.Column("account_id", row_id(), sa.ForeignKey("account.id"), nullable=False),
        sa.Column("protocol", short(16), nullable=False),
        sa.Column("peer", text(), nullable=False),
        sa.Column("method", short(16), nullable=False),
        sa.Column("app_password", sa.Integer(), nullable=False),
        sa.Column("since", moment(), nullable=False),
        sa.Column("ended_at", moment()),
        sa.Column("ended_by", text(), nullable=False),
    )
    op.create_index("client_session_ended", "client_session", ["node", "ended_at"])


def _make_pop3() -> None:
    op.create_table(
        "pop3_hidden",
        sa.Column("account_id", row_id(), sa.ForeignKey("account.id"), primary_key=True, autoincrement=False),
        sa.Column("mailbox_id", row_id(), primary_key=True, autoincrement=False),
        sa.Column("round", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("uid", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("last_uid", sa.BigInteger(), nullable=False),
        sa.Column("at", moment(), nullable=False),
        sa.ForeignKeyConstraint(["mailbox_id", "uid"], ["mailbox_message.mailbox_id", "mailbox_message.uid"]),
        sa.ForeignKeyConstraint(["mailbox_id", "last_uid"], ["mailbox_message.mailbox_id", "mailbox_message.uid"]),
    )
    op.create_table(
        "pop3_restored",
        sa.Column("account_id", row_id(), sa.ForeignKey("account.id"), primary_key=True, autoincrement=False),
        sa.Column("round", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("actor", text(), nullable=False),
    )


def _forget_made_up_keywords() -> None:
    connection = op.get_bind()
    found = connection.execute(
        sa.text("SELECT mailbox_id, uid, flags FROM mailbox_flag WHERE lower(flags) LIKE :pattern"),
        {"pattern": "%$direct%"},
    ).all()
    kept = [
        {"mailbox": mailbox_id, "uid": uid, "flags": " ".join(f for f in flags.split() if f.lower() not in _KEYWORDS)}
        for mailbox_id, uid, flags in found
    ]
    if kept:
        connection.execute(
            sa.text("UPDATE mailbox_flag SET flags = :flags WHERE mailbox_id = :mailbox AND uid = :uid"), kept
        )


def _place_in_views() -> None:
    """In the order of their UIDs. What is on a chart, itself or as a copy of the same content, is linked."""
    op.execute(
        """
        INSERT INTO view_entry (mailbox_id, view, uid, of_uid, modseq)
        SELECT placed.mailbox_id, placed.view,
               row_number() OVER (PARTITION BY placed.mailbox_id, placed.view ORDER BY placed.uid),
               placed.uid, mailbox_counter.highest_modseq + 1
        FROM (
            SELECT mailbox_id, uid, CASE WHEN content_sha256 IN (
                SELECT c.content_sha256 FROM link JOIN message_content c ON c.message_id = link.message_id
            ) THEN 'linked' ELSE 'unlinked' END AS view
            FROM mailbox_message
        ) AS placed JOIN mailbox_counter ON mailbox_counter.mailbox_id = placed.mailbox_id
        """
    )


def _tell_keywords() -> None:
    op.execute(
        """
        UPDATE mailbox_flag SET
            flags = (
                SELECT CASE view WHEN 'linked' THEN '$DirectLinked' ELSE '$DirectNeedsReview' END FROM view_entry
                WHERE view_entry.mailbox_id = mailbox_flag.mailbox_id AND view_entry.of_uid = mailbox_flag.uid
            ) || ' $DirectVerified' || CASE flags WHEN '' THEN '' ELSE ' ' || flags END,
            modseq = (
                SELECT highest_modseq + 1 FROM mailbox_counter
                WHERE mailbox_counter.mailbox_id = mailbox_flag.mailbox_id
            )
        """
    )
    op.execute(
        """
        UPDATE mailbox_counter SET highest_modseq = highest_modseq + 1
        WHERE mailbox_id IN (SELECT mailbox_id FROM mailbox_flag)
        """
    )


def _make_quarantine_folder() -> None:
    op.create_table(
        "quarantine_entry",
        sa.Column("uid", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("message_id", short(26), sa.ForeignKey("raw_message.id"), nullable=False),
        sa.Column("verdict_seq", sa.Integer(), nullable=False),
        sa.Column("at", moment(), nullable=False),
        sa.Column("modseq", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_quarantine_entry_message_id", "quarantine_entry", ["message_id"])
    op.create_table(
        "quarantine_exit",
        sa.Column("uid", sa.BigInteger(), sa.ForeignKey("quarantine_entry.uid"), primary_key=True, autoincrement=False),
        sa.Column("modseq", sa.BigInteger(), nullable=False),
    )
