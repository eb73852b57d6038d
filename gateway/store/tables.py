"""The tables. No type and no constraint here belongs to one database only.

Append-only tables carry ``info={"append_only": True}``; :mod:`gateway.store.schema` puts triggers on them that
refuse UPDATE and DELETE. A change of what they say is a new row: the newest ``seq`` counts. Mutable are only

* ``job``: the transactional outbox, whose rows are gone when the work is done;
* ``mailbox_counter`` and ``mailbox_flag``: the next UID, MODSEQ and the flags that mail clients set;
* ``account``: a replaced password hash is of no use to anybody but a thief, so it is not kept.

Wide values (bodies, search text) stand in tables of their own: a listing reads narrow rows only.
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

SCHEMA_VERSION = 1
_TIME_CHARS = 27
_ID_CHARS = 26
_DIGEST_CHARS = 64


class UTCTime(TypeDecorator[datetime]):
    """An aware datetime as fixed-width ISO 8601 text in UTC, which sorts as time does on every database."""

    impl = String(_TIME_CHARS)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the store takes aware datetimes only")
        utc = value.astimezone(UTC)
        return f"{utc.year:04d}{utc.strftime('-%m-%dT%H:%M:%S.%fZ')}"

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else datetime.fromisoformat(value)


class CleanString(TypeDecorator[str]):
    """Text that every database takes: lone surrogates and NUL, which hostile input holds, become U+FFFD."""

    impl = String
    cache_ok = True

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


def _append_only(name: str, *parts: Any, **options: Any) -> Table:
    return Table(name, metadata, *parts, info={"append_only": True}, **options)


def _mutable(name: str, *parts: Any, **options: Any) -> Table:
    return Table(name, metadata, *parts, **options)


def _message_id(**options: Any) -> Column[str]:
    return Column("message_id", CleanString(_ID_CHARS), ForeignKey("raw_message.id"), **options)


schema_version = _append_only(
    "schema_version",
    Column("version", Integer, primary_key=True, autoincrement=False),
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

raw_body = _append_only(
    "raw_body",
    _message_id(primary_key=True),
    Column("body", LargeBinary, nullable=False),
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

certificate = _append_only(
    "certificate",
    Column("sha256", CleanString(_DIGEST_CHARS), primary_key=True),
    Column("der", LargeBinary, nullable=False),
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

content_body = _append_only(
    "content_body",
    _message_id(primary_key=True),
    Column("content", LargeBinary, nullable=False),
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

message_search = _append_only(
    "message_search",
    _message_id(primary_key=True),
    Column("search_headers", CleanText, nullable=False),
    Column("search_text", CleanText, nullable=False),
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
    UniqueConstraint("message_id", "patient_id"),
)

link_receipt = _append_only(
    "link_receipt",
    Column("link_id", CleanString(64), ForeignKey("link.id"), primary_key=True),
    Column("importer", CleanText, primary_key=True),
    Column("receipt", CleanText, nullable=False),
    Column("at", UTCTime, nullable=False),
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
)

APPEND_ONLY: tuple[Table, ...] = tuple(t for t in metadata.sorted_tables if t.info.get("append_only"))
"""The tables whose rows never change and never go."""
