r"""The tables. No type and no constraint here belongs to one database only.

Append-only tables carry ``info={"append_only": True}``; :mod:`gateway.store.schema` puts triggers on them that
refuse UPDATE and DELETE. A change of what they say is a new row: the newest ``seq`` counts. Mutable are only

* ``job``: the transactional outbox, whose rows are gone when the work is done;
* ``import_delivery`` and ``import_target``: what waits for each target of the import hook, and which are stopped;
* ``mailbox_counter`` and ``mailbox_flag``: the next UID, MODSEQ and the flags that mail clients set;
* ``mailbox_seen``: the ``\\Seen`` of each account, where they do not share it;
* ``quarantine``: which messages are refused now, so that they are found without a look at every message. It repeats
  what ``message_state`` and ``verdict`` say, and is written with them in one transaction;
* ``bundle_status``: when a trust bundle was last asked for, and how that went;
* ``fetch_status``, ``fetch_place`` and ``fetch_item``: how fetching from each upstream mailbox stands;
* ``key_encryption_key`` and ``wrapped_key``: under which key the key of each message is wrapped. Rotation wraps them
  anew and touches no row of a body;
* ``account``: a replaced password hash is of no use to anybody but a thief, so it is not kept;
* ``client_session`` and ``login_use``: which mail clients are logged in now, and when a password was last used.

Wide values (bodies, search text) stand in a table of their own, sealed (:mod:`gateway.store.sealed_bodies`): a listing
reads narrow rows only.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

SCHEMA_VERSION = 6
"""The number of the newest revision (:mod:`gateway.store.migrations`): a change of a table needs a new one."""
_TIME_CHARS = 27
_TIME_MARKS = ("-", "-", "T", ".", "Z")
"""What stands at the places 4, 7, 10, 19 and 26 of a time."""
_ID_CHARS = 26
_DIGEST_CHARS = 64


def _plain_text(decorator: TypeDecorator[Any], dialect: Dialect) -> TypeEngine[str]:
    """The type of a text column: on PostgreSQL without a limit, and in the order of the bytes as SQLite has it.

    Ids, times and page keys are compared by the database; a language's order would put them elsewhere. Both databases
    then also keep the same texts: SQLite knows no limits.
    """
    if dialect.name == "postgresql":
        return dialect.type_descriptor(Text(collation="C"))
    return decorator.impl_instance


class UTCTime(TypeDecorator[datetime]):
    """An aware datetime as fixed-width ISO 8601 text in UTC, which sorts as time does on every database."""

    impl = String(_TIME_CHARS)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """See :func:`_plain_text`."""
        return _plain_text(self, dialect)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the store takes aware datetimes only")
        # Without its last six characters, which are +00:00.
        return value.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is None:
            return None
        moment = datetime.fromisoformat(value)
        if len(value) != _TIME_CHARS or (value[4], value[7], value[10], value[19], value[26]) != _TIME_MARKS:
            # The same moment in another spelling stands elsewhere in the order of the database, unseen.
            raise ValueError("a time of the store is not written as the store writes it")
        return moment


class CleanString(TypeDecorator[str]):
    """Text that every database takes: lone surrogates and NUL, which hostile input holds, become U+FFFD."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """See :func:`_plain_text`."""
        return _plain_text(self, dialect)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else clean(value)


class CleanText(CleanString):
    """The same without a limit."""

    impl = Text
    cache_ok = True


def clean(value: str) -> str:
    """Return the text as :class:`CleanString` keeps it."""
    if not value.isascii():
        value = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value.replace("\0", "\ufffd")


RowId = BigInteger().with_variant(Integer(), "sqlite")
"""An id that the database counts up: SQLite does that for INTEGER only."""

metadata = MetaData()


def _append_only(name: str, *parts: Any, fact: bool = True, by_digest: bool = False, **options: Any) -> Table:
    """A table whose rows never change and never go.

    ``fact`` False: the audit log does not answer for the rows. The table is the log or a witness of it, or it repeats
    what other rows say.

    ``by_digest``: the key is the digest of the rest, so whoever brings a row that is there already need not be refused.
    """
    return Table(name, metadata, *parts, info={"append_only": True, "fact": fact, "by_digest": by_digest}, **options)


def _mutable(name: str, *parts: Any, **options: Any) -> Table:
    return Table(name, metadata, *parts, **options)


def _message_id(**options: Any) -> Column[str]:
    return Column("message_id", CleanString(_ID_CHARS), ForeignKey("raw_message.id"), **options)


schema_version = _append_only(
    "schema_version",
    Column("version", Integer, primary_key=True, autoincrement=False),
    # Of the program that made it. The newest version counts; this table keeps these three columns for ever, so that
    # every release, older or newer, can say what a database is.
    Column("release", CleanText),
    Column("at", UTCTime),
    fact=False,
)

# --- messages ---

raw_message = _append_only(
    "raw_message",
    Column("id", CleanString(_ID_CHARS), primary_key=True),
    Column("received_at", UTCTime, nullable=False),
    Column("source", CleanString(16), nullable=False),
    Column("peer", CleanText, nullable=False),
    Column("mail_from", CleanText),
    Column("sha256", CleanString(_DIGEST_CHARS), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
)

body_part = _append_only(
    "body_part",
    _message_id(primary_key=True),
    Column("kind", CleanString(16), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False),
)

# A body that lies in the bucket: the row is written after the object is there, and says which bytes it must be.
body_object = _append_only(
    "body_object",
    _message_id(primary_key=True),
    Column("kind", CleanString(16), primary_key=True),
    Column("name", CleanText, nullable=False, unique=True),
    Column("version", CleanText, nullable=False),
    Column("sha256", CleanString(_DIGEST_CHARS), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("retain_until", UTCTime, nullable=False),
)

key_encryption_key = _mutable(
    "key_encryption_key",
    Column("kek_id", CleanString(64), primary_key=True),
    Column("seq", Integer, nullable=False, unique=True),
    Column("since", UTCTime, nullable=False),
    Column("proof", LargeBinary, nullable=False),
)

wrapped_key = _mutable(
    "wrapped_key",
    _message_id(primary_key=True),
    # The database itself refuses to forget a key that a message rests on, and to seal under one that was forgotten.
    Column("kek_id", CleanString(64), ForeignKey("key_encryption_key.kek_id"), nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Index("wrapped_key_kek", "kek_id", "message_id"),
)

raw_recipient = _append_only(
    "raw_recipient",
    _message_id(primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("recipient", CleanText, nullable=False),
    Column("dedup_key", CleanString(_DIGEST_CHARS), nullable=False),
    Column("attempt", Integer, nullable=False),
    UniqueConstraint("message_id", "recipient"),
    # Two nodes that take the same delivery at the same moment collide here, and one of them looks again.
    UniqueConstraint("dedup_key", "attempt"),
)

message_state = _append_only(
    "message_state",
    _message_id(primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("state", CleanString(16), nullable=False),
    Column("at", UTCTime, nullable=False),
    Column("detail", CleanText, nullable=False),
)

verdict = _append_only(
    "verdict",
    _message_id(primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", UTCTime, nullable=False),
    Column("reason", CleanString(32), nullable=False),
    Column("sender", CleanText, nullable=False),
    Column("judgement", CleanText, nullable=False),
)

quarantine = _mutable(
    "quarantine",
    _message_id(primary_key=True),
    Column("reason", CleanString(32), nullable=False),
    Column("since", UTCTime, nullable=False),
    Index("quarantine_reason", "reason", "message_id"),
)

# The reports about refused messages that operators read as mail: each refusal enters under a UID of its own, with the
# verdict that it reports, and leaves when the message is judged again. The rows repeat what the quarantine says.
quarantine_entry = _append_only(
    "quarantine_entry",
    Column("uid", BigInteger, primary_key=True, autoincrement=False),
    _message_id(nullable=False, index=True),
    Column("verdict_seq", Integer, nullable=False),
    Column("at", UTCTime, nullable=False),
    Column("modseq", BigInteger, nullable=False),
    fact=False,
)

quarantine_exit = _append_only(
    "quarantine_exit",
    Column("uid", BigInteger, ForeignKey("quarantine_entry.uid"), primary_key=True, autoincrement=False),
    Column("modseq", BigInteger, nullable=False),
    fact=False,
)

certificate = _append_only(
    "certificate",
    Column("sha256", CleanString(_DIGEST_CHARS), primary_key=True),
    Column("der", LargeBinary, nullable=False),
    by_digest=True,
)

revocation_data = _append_only(
    "revocation_data",
    Column("sha256", CleanString(_DIGEST_CHARS), primary_key=True),
    Column("der", LargeBinary, nullable=False),
    by_digest=True,
)

anchor_set = _append_only(
    "anchor_set",
    Column("name", CleanString(_DIGEST_CHARS), primary_key=True),
    Column("members", CleanText, nullable=False),
    by_digest=True,
)

recheck = _append_only(
    "recheck",
    _message_id(primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", UTCTime, nullable=False),
    Column("as_of", UTCTime, nullable=False),
    Column("reason", CleanString(32), nullable=False),
    Column("judgement", CleanText, nullable=False),
)

message_content = _append_only(
    "message_content",
    _message_id(primary_key=True),
    Column("content_sha256", CleanString(_DIGEST_CHARS), nullable=False, index=True),
    Column("sender", CleanText, nullable=False),
    Column("subject", CleanText, nullable=False),
    Column("rfc822_message_id", CleanText, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("inner_sha256", CleanString(_DIGEST_CHARS), nullable=False),
    Column("protected_offset", Integer, nullable=False),
)

content_recipient = _append_only(
    "content_recipient",
    _message_id(primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("recipient", CleanText, nullable=False),
    UniqueConstraint("message_id", "recipient"),
)

message_index = _append_only(
    "message_index",
    _message_id(primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("header_end", BigInteger, nullable=False),
    Column("sent_at", UTCTime),
    Column("envelope", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("bodystructure", LargeBinary, nullable=False),
    Column("sections", LargeBinary, nullable=False),
)

# The header fields of the gateway in front of a message that was filed while imap.verdict_headers was on, for ever. All
# that mailboxes and the index say of such a message is computed of it with its fields; its content stays what it is.
shown_fields = _append_only(
    "shown_fields",
    _message_id(primary_key=True),
    Column("at", UTCTime, nullable=False),
    # How they are spelt (gateway.core.verdict_fields).
    Column("format", Integer, nullable=False),
    Column("fields", CleanText, nullable=False),
    # Of the message with its fields, and without any that came with it.
    Column("size_bytes", BigInteger, nullable=False),
)

# --- jobs ---

job = _mutable(
    "job",
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("kind", CleanString(16), nullable=False),
    Column("subject", CleanString(64), nullable=False),
    Column("state", CleanString(8), nullable=False),
    Column("run_at", UTCTime, nullable=False),
    Column("lease_until", UTCTime),
    Column("attempt", Integer, nullable=False),
    Column("lost", Integer, nullable=False),
    # Who holds the lease.
    Column("node", CleanString(64)),
    Column("last_error", CleanText, nullable=False),
    UniqueConstraint("kind", "subject"),
    Index("job_due", "state", "run_at"),
    # An id that came back after its row was removed would let a late worker finish somebody else's job.
    sqlite_autoincrement=True,
)

# --- mailboxes ---

mailbox = _append_only(
    "mailbox",
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("name", CleanText, nullable=False, unique=True),
    Column("uid_validity", BigInteger, nullable=False),
    Column("created_at", UTCTime, nullable=False),
)

mailbox_route = _append_only(
    "mailbox_route",
    Column("address", CleanText, primary_key=True),
    Column("mailbox_id", RowId, ForeignKey("mailbox.id"), primary_key=True, autoincrement=False),
)

mailbox_counter = _mutable(
    "mailbox_counter",
    Column("mailbox_id", RowId, ForeignKey("mailbox.id"), primary_key=True, autoincrement=False),
    Column("uid_next", BigInteger, nullable=False),
    Column("highest_modseq", BigInteger, nullable=False),
)

mailbox_message = _append_only(
    "mailbox_message",
    Column("mailbox_id", RowId, ForeignKey("mailbox.id"), primary_key=True, autoincrement=False),
    Column("uid", BigInteger, primary_key=True, autoincrement=False),
    _message_id(nullable=False),
    Column("content_sha256", CleanString(_DIGEST_CHARS), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("internal_date", UTCTime, nullable=False),
    Column("sent_at", UTCTime),
    UniqueConstraint("mailbox_id", "content_sha256"),
    UniqueConstraint("mailbox_id", "message_id"),
)

mailbox_flag = _mutable(
    "mailbox_flag",
    Column("mailbox_id", RowId, primary_key=True, autoincrement=False),
    Column("uid", BigInteger, primary_key=True, autoincrement=False),
    Column("flags", CleanText, nullable=False),
    Column("modseq", BigInteger, nullable=False),
    ForeignKeyConstraint(["mailbox_id", "uid"], ["mailbox_message.mailbox_id", "mailbox_message.uid"]),
    Index("mailbox_flag_modseq", "mailbox_id", "modseq"),
)

# Which messages of a mailbox are in one of its views (``unlinked``, ``linked``), each under a UID of its own there. The
# rows repeat what links and the rows above say, for which the log answers; ``audit verify`` holds them against those.
view_entry = _append_only(
    "view_entry",
    Column("mailbox_id", RowId, primary_key=True, autoincrement=False),
    Column("view", CleanString(16), primary_key=True),
    Column("uid", BigInteger, primary_key=True, autoincrement=False),
    Column("of_uid", BigInteger, nullable=False),
    Column("modseq", BigInteger, nullable=False),
    ForeignKeyConstraint(["mailbox_id", "of_uid"], ["mailbox_message.mailbox_id", "mailbox_message.uid"]),
    Index("view_entry_of_uid", "mailbox_id", "of_uid"),
    fact=False,
)

view_exit = _append_only(
    "view_exit",
    Column("mailbox_id", RowId, primary_key=True, autoincrement=False),
    Column("view", CleanString(16), primary_key=True),
    Column("uid", BigInteger, primary_key=True, autoincrement=False),
    Column("modseq", BigInteger, nullable=False),
    ForeignKeyConstraint(["mailbox_id", "view", "uid"], ["view_entry.mailbox_id", "view_entry.view", "view_entry.uid"]),
    Index("view_exit_modseq", "mailbox_id", "view", "modseq"),
    fact=False,
)

# That a person has looked at a message, or has taken that back.
review = _append_only(
    "review",
    _message_id(primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", UTCTime, nullable=False),
    Column("actor", CleanText, nullable=False),
    Column("state", CleanString(16), nullable=False),
)

# What one account made of the \Seen of a message, where each has his own (imap.seen). The account may read the
# mailbox, or could; the row is his, and nobody else is shown it.
mailbox_seen = _mutable(
    "mailbox_seen",
    Column("account_id", RowId, ForeignKey("account.id"), primary_key=True, autoincrement=False),
    Column("mailbox_id", RowId, primary_key=True, autoincrement=False),
    Column("uid", BigInteger, primary_key=True, autoincrement=False),
    Column("seen", Boolean, nullable=False),
    Column("modseq", BigInteger, nullable=False),
    ForeignKeyConstraint(["mailbox_id", "uid"], ["mailbox_message.mailbox_id", "mailbox_message.uid"]),
    Index("mailbox_seen_modseq", "account_id", "mailbox_id", "modseq"),
)

# Whose \Seen was shown from when on: ``shared`` or ``per_user``. Without a row: shared.
seen_setting = _append_only(
    "seen_setting",
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("mode", CleanString(16), nullable=False),
    Column("at", UTCTime, nullable=False),
)

# The mailbox that keeps what is sent by those who work with an INBOX.
sent_mailbox = _append_only(
    "sent_mailbox",
    Column("inbox_id", RowId, ForeignKey("mailbox.id"), primary_key=True, autoincrement=False),
    Column("mailbox_id", RowId, ForeignKey("mailbox.id"), nullable=False, unique=True),
)

# A message that a mail client put here (its copy of what it sent): who did, and what the message says of itself, which
# nobody has verified. It has no verdict and no content row; its bytes are the raw ones.
kept_message = _append_only(
    "kept_message",
    _message_id(primary_key=True),
    Column("account_id", RowId, ForeignKey("account.id"), nullable=False),
    Column("claimed_sender", CleanText, nullable=False),
    Column("subject", CleanText, nullable=False),
    Column("rfc822_message_id", CleanText, nullable=False),
)

# --- accounts ---

account = _mutable(
    "account",
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("login", CleanText, nullable=False),
    Column("login_key", CleanText, nullable=False, unique=True),
    Column("password_hash", CleanText, nullable=False),
    Column("created_at", UTCTime, nullable=False),
    sqlite_autoincrement=True,
)

account_folder = _append_only(
    "account_folder",
    Column("account_id", RowId, ForeignKey("account.id"), primary_key=True, autoincrement=False),
    Column("folder", CleanText, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("mailbox_id", RowId, ForeignKey("mailbox.id"), nullable=False),
    Column("rights", CleanString(32), nullable=False),
)

# A second secret of an account, for one mail client. The gateway makes it: what is kept of it opens nothing to anybody.
app_password = _append_only(
    "app_password",
    Column("account_id", RowId, ForeignKey("account.id"), primary_key=True, autoincrement=False),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", UTCTime, nullable=False),
    Column("name", CleanText, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
)

app_password_end = _append_only(
    "app_password_end",
    Column("account_id", RowId, primary_key=True, autoincrement=False),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", UTCTime, nullable=False),
    Column("actor", CleanText, nullable=False),
    ForeignKeyConstraint(["account_id", "seq"], ["app_password.account_id", "app_password.seq"]),
)

# ``enabled`` or ``disabled``; the newest row counts, and an account without any is enabled.
account_status = _append_only(
    "account_status",
    Column("account_id", RowId, ForeignKey("account.id"), primary_key=True, autoincrement=False),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", UTCTime, nullable=False),
    Column("state", CleanString(16), nullable=False),
    Column("actor", CleanText, nullable=False),
    Column("reason", CleanText, nullable=False),
)

# When an account was last used, to the hour; ``app_password`` 0 is its own password, or a token.
login_use = _mutable(
    "login_use",
    Column("account_id", RowId, ForeignKey("account.id"), primary_key=True, autoincrement=False),
    Column("app_password", Integer, primary_key=True, autoincrement=False),
    Column("at", UTCTime, nullable=False),
)

client_session = _mutable(
    "client_session",
    Column("id", CleanString(16), primary_key=True),
    Column("node", CleanString(64), nullable=False),
    Column("account_id", RowId, ForeignKey("account.id"), nullable=False),
    Column("protocol", CleanString(16), nullable=False),
    Column("peer", CleanText, nullable=False),
    Column("method", CleanString(16), nullable=False),
    Column("app_password", Integer, nullable=False),
    Column("since", UTCTime, nullable=False),
    # Set by whoever wants the session to end; its own node looks for that.
    Column("ended_at", UTCTime),
    Column("ended_by", CleanText, nullable=False),
    Index("client_session_ended", "node", "ended_at"),
)

# What an account's POP3 clients have deleted: gone from its listing there, and from nowhere else. A row is a run of
# UIDs, because clients delete what lies side by side. The rows of the newest round count; a new round shows everything
# again.
pop3_hidden = _append_only(
    "pop3_hidden",
    Column("account_id", RowId, ForeignKey("account.id"), primary_key=True, autoincrement=False),
    Column("mailbox_id", RowId, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("uid", BigInteger, primary_key=True, autoincrement=False),
    Column("last_uid", BigInteger, nullable=False),
    Column("at", UTCTime, nullable=False),
    ForeignKeyConstraint(["mailbox_id", "uid"], ["mailbox_message.mailbox_id", "mailbox_message.uid"]),
    ForeignKeyConstraint(["mailbox_id", "last_uid"], ["mailbox_message.mailbox_id", "mailbox_message.uid"]),
)

pop3_restored = _append_only(
    "pop3_restored",
    Column("account_id", RowId, ForeignKey("account.id"), primary_key=True, autoincrement=False),
    # The round that it began.
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("at", UTCTime, nullable=False),
    Column("actor", CleanText, nullable=False),
)

# --- patients ---

patient_version = _append_only(
    "patient_version",
    Column("patient_id", CleanText, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("source", CleanText, nullable=False),
    Column("at", UTCTime, nullable=False),
    Column("mrn", CleanText, nullable=False),
    Column("family", CleanText, nullable=False),
    Column("given", CleanText, nullable=False),
    Column("birth_date", CleanString(10), nullable=False),
    Column("sex", CleanText, nullable=False),
    Column("phone", CleanText, nullable=False),
    Column("address_line", CleanText, nullable=False),
    Column("city", CleanText, nullable=False),
    Column("postal_code", CleanText, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("deceased", Boolean, nullable=False),
    Column("search_text", CleanText, nullable=False),
)

patient_address = _append_only(
    "patient_address",
    Column("patient_id", CleanText, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("address", CleanText, nullable=False, index=True),
    Column("confirmed", Boolean, nullable=False),
    ForeignKeyConstraint(["patient_id", "version"], ["patient_version.patient_id", "patient_version.version"]),
)

# Which record was merged into which. The newest seq counts; into_id is NULL when the record stands for itself again.
patient_merge = _append_only(
    "patient_merge",
    Column("patient_id", CleanText, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("into_id", CleanText, index=True),
    Column("event_at", UTCTime, nullable=False),
    Column("at", UTCTime, nullable=False),
    Column("source", CleanText, nullable=False),
)

# The newest event of a feed that was applied to a patient: an older one must not change him any more.
patient_event = _append_only(
    "patient_event",
    Column("patient_id", CleanText, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("event_at", UTCTime, nullable=False),
    Column("at", UTCTime, nullable=False),
    Column("source", CleanText, nullable=False),
)

# What is known of a patient besides his row in patient_version: other names, numbers, phones and addresses (JSON).
patient_detail = _append_only(
    "patient_detail",
    Column("patient_id", CleanText, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", UTCTime, nullable=False),
    Column("source", CleanText, nullable=False),
    Column("detail", CleanText, nullable=False),
)

# What a feed sent, and what became of it. The same message is known by its sender, its number and its digest.
patient_feed = _append_only(
    "patient_feed",
    Column("sender", CleanText, primary_key=True),
    Column("control_id", CleanText, primary_key=True),
    Column("sha256", CleanString(_DIGEST_CHARS), primary_key=True),
    Column("outcome", CleanString(16), primary_key=True),
    Column("at", UTCTime, nullable=False, index=True),
    Column("event", CleanString(16), nullable=False),
    Column("patient_id", CleanText, nullable=False),
    Column("reason", CleanText, nullable=False),
)

# --- links ---

link = _append_only(
    "link",
    Column("id", CleanString(64), primary_key=True),
    _message_id(nullable=False),
    Column("patient_id", CleanText, nullable=False, index=True),
    Column("mode", CleanString(16), nullable=False),
    Column("actor", CleanText, nullable=False),
    Column("rule", CleanText, nullable=False),
    Column("linked_at", UTCTime, nullable=False),
    # The one part of the message that is meant (its IMAP part number); NULL: the whole message.
    Column("part", CleanText),
    # How many links of this message to this patient there were before. NULL: made before schema 6, when there was one.
    Column("seq", Integer),
    # A link that was taken back stays, and the next one to the same patient is another.
    UniqueConstraint("message_id", "patient_id", "seq"),
)

# That a person has taken a link back; it is in force until then. Whoever imported it is asked to take that back.
link_undo = _append_only(
    "link_undo",
    Column("link_id", CleanString(64), ForeignKey("link.id"), primary_key=True),
    Column("at", UTCTime, nullable=False),
    Column("actor", CleanText, nullable=False),
    Column("reason", CleanText, nullable=False),
)

# By what the linked message, and each clinical document in it, is known when it comes again: digests and part numbers.
link_mark = _append_only(
    "link_mark",
    Column("link_id", CleanString(64), ForeignKey("link.id"), primary_key=True),
    Column("kind", CleanString(16), primary_key=True),
    Column("sha256", CleanString(_DIGEST_CHARS), primary_key=True),
    Column("path", CleanText, nullable=False),
    Index("link_mark_sha256", "sha256"),
)

link_receipt = _append_only(
    "link_receipt",
    Column("link_id", CleanString(64), ForeignKey("link.id"), primary_key=True),
    Column("importer", CleanText, primary_key=True),
    Column("receipt", CleanText, nullable=False),
    Column("at", UTCTime, nullable=False),
)

# What a target has taken back. The import and its receipt stay on record.
link_retraction = _append_only(
    "link_retraction",
    Column("link_id", CleanString(64), ForeignKey("link.id"), primary_key=True),
    Column("importer", CleanText, primary_key=True),
    Column("receipt", CleanText, nullable=False),
    Column("actor", CleanText, nullable=False),
    Column("reason", CleanText, nullable=False),
    Column("at", UTCTime, nullable=False),
)

# The queue of each target: a row is gone once the target has answered with its receipt.
import_delivery = _mutable(
    "import_delivery",
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("link_id", CleanString(64), ForeignKey("link.id"), nullable=False),
    Column("target", CleanString(64), nullable=False),
    Column("action", CleanString(8), nullable=False),
    Column("state", CleanString(8), nullable=False),
    Column("run_at", UTCTime, nullable=False),
    Column("lease_until", UTCTime),
    Column("node", CleanString(64)),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("lost", Integer, nullable=False),
    Column("last_error", CleanString(64), nullable=False),
    Column("asked_at", UTCTime, nullable=False),
    # Of a retraction.
    Column("actor", CleanText, nullable=False),
    Column("reason", CleanText, nullable=False),
    UniqueConstraint("link_id", "target", "action"),
    Index("import_delivery_due", "target", "state", "run_at"),
    # An id that came back after its row was removed would let a late answer end another delivery.
    sqlite_autoincrement=True,
)

# A target that wants nothing more, until a person starts it again.
import_target = _mutable(
    "import_target",
    Column("name", CleanString(64), primary_key=True),
    Column("stopped_at", UTCTime, nullable=False),
    Column("reason", CleanString(64), nullable=False),
)

# --- trust bundles ---

bundle_setting = _append_only(
    "bundle_setting",
    Column("name", CleanString(64), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", UTCTime, nullable=False),
    Column("location", CleanText, nullable=False),
    Column("signer", LargeBinary),
    Column("owners", CleanText, nullable=False),
    Column("directions", CleanString(32), nullable=False),
    Column("refresh_hours", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False),
)

bundle_version = _append_only(
    "bundle_version",
    Column("name", CleanString(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("at", UTCTime, nullable=False),
    Column("sha256", CleanString(_DIGEST_CHARS), nullable=False),
    Column("source", LargeBinary, nullable=False),
)

bundle_anchor = _append_only(
    "bundle_anchor",
    Column("name", CleanString(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("certificate_sha256", CleanString(_DIGEST_CHARS), ForeignKey("certificate.sha256"), nullable=False),
    ForeignKeyConstraint(["name", "version"], ["bundle_version.name", "bundle_version.version"]),
)

bundle_status = _mutable(
    "bundle_status",
    Column("name", CleanString(64), primary_key=True),
    Column("last_attempt", UTCTime),
    Column("last_success", UTCTime),
    Column("error", CleanText, nullable=False),
    Column("alarm", CleanText, nullable=False),
)

# --- fetching ---

fetch_status = _mutable(
    "fetch_status",
    Column("account", CleanString(40), primary_key=True),
    Column("state", CleanString(16), nullable=False),
    Column("last_attempt", UTCTime),
    Column("last_success", UTCTime),
    Column("error", CleanText, nullable=False),
    Column("waiting", BigInteger, nullable=False),
    Column("next_attempt", UTCTime),
    Column("asked", BigInteger, nullable=False),
    Column("answered", BigInteger, nullable=False),
    Column("new", BigInteger, nullable=False),
    Column("place", CleanString(64), nullable=False),
    Column("owner", CleanString(64), nullable=False),
    Column("lease_until", UTCTime),
)

fetch_place = _mutable(
    "fetch_place",
    Column("account", CleanString(40), primary_key=True),
    Column("place", CleanString(64), primary_key=True),
    Column("mark", BigInteger, nullable=False),
    Column("at", UTCTime, nullable=False),
)

fetch_item = _mutable(
    "fetch_item",
    Column("account", CleanString(40), primary_key=True),
    Column("place", CleanString(64), primary_key=True),
    Column("uid", CleanString(80), primary_key=True),
    Column("state", CleanString(8), nullable=False),
    Column("at", UTCTime, nullable=False),
    # Of the bytes and of whom they are for: the same again is the same message, wherever it lies.
    Column("sha256", CleanString(_DIGEST_CHARS), nullable=False),
    Column("message_id", CleanString(_ID_CHARS), ForeignKey("raw_message.id")),
    Column("trouble", CleanString(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("size_bytes", BigInteger),
    Index("fetch_item_state", "account", "state"),
    Index("fetch_item_sha256", "account", "sha256"),
)

# --- audit ---

audit_event = _append_only(
    "audit_event",
    Column("node", CleanString(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UTCTime, nullable=False),
    Column("actor", CleanText, nullable=False),
    Column("action", CleanText, nullable=False),
    Column("subject", CleanText, nullable=False),
    Column("detail", CleanText, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    # The rows that were written with the event, each with its digest (gateway.core.audit.rows_text).
    Column("rows", CleanText, nullable=False, server_default=""),
    Index("audit_event_at", "at"),
    Index("audit_event_subject", "subject"),
    fact=False,
)

# The leaves of the Merkle tree in their order: each row is a run of events of one node.
audit_tree_span = _append_only(
    "audit_tree_span",
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("node", CleanString(64), nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    UniqueConstraint("node", "first_seq"),
    fact=False,
)

# Complete subtrees of 256 leaves and more; the hashes below them are made from the events again.
audit_tree_node = _append_only(
    "audit_tree_node",
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    fact=False,
)

audit_tree_head = _append_only(
    "audit_tree_head",
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    # The signed head as it is exported: JSON.
    Column("head", CleanText, nullable=False),
    fact=False,
)

APPEND_ONLY: tuple[Table, ...] = tuple(t for t in metadata.sorted_tables if t.info.get("append_only"))
"""The tables whose rows never change and never go."""
