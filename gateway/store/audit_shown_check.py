"""``audit verify``: whether the header fields that mail clients are shown of a message are those of its verdict.

The log answers for each row by its digest, as for any fact. Here its meaning is held against the evidence: the fields
are made anew from every verdict that accepted the message, and must be one of those; one that says *linked* needs a
link; and the size that mail clients are told is that of the message with its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from gateway.core.errors import StoreError
from gateway.core.standing import Standing
from gateway.core.verdict_fields import FORMAT, link_words, verdict_fields
from gateway.store.evidence import from_json
from gateway.store.prepared import Prepared
from gateway.store.tables import link, mailbox_message, message_content, message_index, shown_fields, verdict

Report = Callable[[str, int, str], None]
"""``(node, seq, what is wrong)``; here always without an event: ``("", 0, ...)``."""

_PAGE = 500
_LINKED = link_words(Standing(linked=True))
_LINKS = (_LINKED, link_words(Standing(decided=True)), link_words(Standing()))
_SHOWN = "accepted"
_VERDICTS = Prepared(select(verdict.c.at, verdict.c.judgement).where(verdict.c.message_id == bindparam("message")))
_SIZES = Prepared(select(mailbox_message.c.size_bytes).where(mailbox_message.c.message_id == bindparam("message")))
_LINK = Prepared(
    # Of the message, or of a copy of it.
    select(link.c.id)
    .join(message_content, message_content.c.message_id == link.c.message_id)
    .where(
        message_content.c.content_sha256
        == select(message_content.c.content_sha256)
        .where(message_content.c.message_id == bindparam("message"))
        .scalar_subquery()
    )
    .limit(1)
)


def check_shown(connection: Connection, report: Report) -> None:
    """Look at every message that has fields. Raises DBAPIError for what cannot be read."""
    for row in _rows(connection):
        what = _wrong(connection, row)
        if what:
            report("", 0, f"the message {row.message_id} {what}")


def _rows(connection: Connection) -> Iterator[Row[Any]]:
    query = (
        select(shown_fields, message_index.c.size_bytes.label("indexed"))
        .join(message_index, message_index.c.message_id == shown_fields.c.message_id, isouter=True)
        .order_by(shown_fields.c.message_id)
        .limit(_PAGE)
    )
    found = connection.execute(query).all()
    while found:
        yield from found
        found = connection.execute(query.where(shown_fields.c.message_id > found[-1].message_id)).all()


def _wrong(connection: Connection, row: Row[Any]) -> str:
    """What does not hold of a message with fields; empty when everything does."""
    if row.format != FORMAT:
        return f"has header fields of format {row.format}, and this release makes format {FORMAT}"
    sizes = {row.indexed, *_SIZES.scalars(connection, message=row.message_id)}
    if sizes != {row.size_bytes}:
        return "is told to mail clients with another size than it has with its header fields"
    try:
        words = _link_of(connection, row)
    except (StoreError, KeyError, TypeError, AttributeError):
        return "has header fields of a verdict that cannot be read"
    if not words:
        return "is shown to mail clients with header fields that its verdict does not say"
    if words == _LINKED and _LINK.scalar(connection, message=row.message_id) is None:
        return "is shown to mail clients as linked when it was filed, and was never linked"
    return ""


def _link_of(connection: Connection, row: Row[Any]) -> str:
    """The link state that the fields tell; empty when no verdict of the message says the rest."""
    for at, judgement in _VERDICTS.rows(connection, message=row.message_id):
        evidence = from_json(judgement)
        for words in _LINKS if evidence["verdict"] == _SHOWN else ():
            made = verdict_fields(evidence, message_id=row.message_id, verified_at=at, link=words)
            if made == row.fields:
                return words
    return ""
