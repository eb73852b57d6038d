"""Holds what mail clients are told of each message against what links and contents say: keywords and views.

Those rows repeat what the audit log answers for already, and the keywords stand in a table that changes. So whoever
can write to the database could hide a message from the queue of the unlinked ones, or call something verified or linked
that is not. Here each is worked out anew.

Failure modes: those of the statements; whoever runs the check tells them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, Select, and_, exists, func, or_, select

from gateway.core.standing import LINKED, NEEDS_REVIEW, REVIEWED, VERIFIED, ReviewState, View
from gateway.store.links import IN_FORCE
from gateway.store.tables import (
    link,
    mailbox_flag,
    mailbox_message,
    message_content,
    review,
    view_entry,
    view_exit,
)

_NAMED: Final = 5
"""Of one kind of finding so many are named."""

_ON_CHART = mailbox_message.c.content_sha256.in_(
    select(message_content.c.content_sha256)
    .join(link, link.c.message_id == message_content.c.message_id)
    .where(IN_FORCE)
)
_OF_REVIEW = review.join(message_content, message_content.c.message_id == review.c.message_id)
_LAST_REVIEWS = (
    select(message_content.c.content_sha256, func.max(review.c.seq).label("seq"))
    .select_from(_OF_REVIEW)
    .group_by(message_content.c.content_sha256)
    .subquery()
)
# The reviews of all copies of a content are one history.
_REVIEWED = mailbox_message.c.content_sha256.in_(
    select(message_content.c.content_sha256)
    .select_from(
        _OF_REVIEW.join(
            _LAST_REVIEWS,
            and_(
                _LAST_REVIEWS.c.content_sha256 == message_content.c.content_sha256,
                _LAST_REVIEWS.c.seq == review.c.seq,
            ),
        )
    )
    .where(review.c.state == ReviewState.REVIEWED.value)
)
_STANDS = view_entry.outerjoin(
    view_exit,
    and_(
        view_exit.c.mailbox_id == view_entry.c.mailbox_id,
        view_exit.c.view == view_entry.c.view,
        view_exit.c.uid == view_entry.c.uid,
    ),
)
_SHOWN = (
    select(mailbox_message.c.mailbox_id, mailbox_message.c.uid)
    .select_from(
        _STANDS.join(
            mailbox_message,
            and_(mailbox_message.c.mailbox_id == view_entry.c.mailbox_id, mailbox_message.c.uid == view_entry.c.of_uid),
        ).join(
            mailbox_flag,
            and_(
                mailbox_flag.c.mailbox_id == mailbox_message.c.mailbox_id, mailbox_flag.c.uid == mailbox_message.c.uid
            ),
        )
    )
    .where(view_exit.c.uid.is_(None))
)
_HAS_VIEW = exists().where(
    view_entry.c.mailbox_id == mailbox_message.c.mailbox_id, view_entry.c.of_uid == mailbox_message.c.uid
)
_FLAGGED = select(mailbox_message.c.mailbox_id, mailbox_message.c.uid).join(
    mailbox_flag,
    and_(mailbox_flag.c.mailbox_id == mailbox_message.c.mailbox_id, mailbox_flag.c.uid == mailbox_message.c.uid),
)


def _has(keyword: str) -> Any:
    return (" " + mailbox_flag.c.flags + " ").contains(f" {keyword} ", autoescape=True)


_WRONG: Final[tuple[tuple[str, Select[Any]], ...]] = (
    ("is in the view of the linked ones, and on no chart", _SHOWN.where(view_entry.c.view == View.LINKED, ~_ON_CHART)),
    (
        "is on a chart, and in the view of the unlinked ones",
        _SHOWN.where(view_entry.c.view == View.UNLINKED, _ON_CHART),
    ),
    (
        "is told to mail clients as something else than it is",
        _SHOWN.where(
            or_(
                ~_has(VERIFIED),
                and_(_ON_CHART, or_(~_has(LINKED), _has(NEEDS_REVIEW))),
                and_(~_ON_CHART, _has(LINKED)),
                and_(_REVIEWED, or_(~_has(REVIEWED), _has(NEEDS_REVIEW))),
                and_(~_REVIEWED, _has(REVIEWED)),
            )
        ),
    ),
    (
        "is in no view, or in several",
        select(mailbox_message.c.mailbox_id, mailbox_message.c.uid)
        .join(message_content, message_content.c.message_id == mailbox_message.c.message_id)
        .where(
            select(func.count())
            .select_from(_STANDS)
            .where(
                view_entry.c.mailbox_id == mailbox_message.c.mailbox_id,
                view_entry.c.of_uid == mailbox_message.c.uid,
                view_exit.c.uid.is_(None),
            )
            .correlate(mailbox_message)
            .scalar_subquery()
            != 1
        ),
    ),
    (
        "was never verified, and is called so",
        _FLAGGED.where(~_HAS_VIEW, or_(_has(VERIFIED), _has(LINKED), _has(NEEDS_REVIEW))),
    ),
)


def check_views(connection: Connection, report: Callable[[str, int, str], None]) -> None:
    """Name messages whose keywords or view are not what follows from the rows. Raises DBAPIError."""
    for what, query in _WRONG:
        for row in connection.execute(
            query.order_by(mailbox_message.c.mailbox_id, mailbox_message.c.uid).limit(_NAMED)
        ):
            report("", 0, f"message {row.uid} of mailbox {row.mailbox_id} {what}")
