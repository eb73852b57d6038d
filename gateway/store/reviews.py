"""Reviews: that a person has looked at a message, and that he or she has taken that back. Append-only.

The same content may have come several times, and a mailbox shows it once: whoever has looked at one copy has looked at
all of them. So the rows of all copies are one history: ``seq`` counts through it, and the newest one says how it is.

Crash story: a row is part of the transaction that changes the keywords of the message, with its event of the audit log.
Failure modes: NotFoundError where nothing was accepted; those of the statements.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, select

from gateway.core.errors import NotFoundError
from gateway.core.standing import ReviewState
from gateway.ports import Review
from gateway.store.prepared import Prepared
from gateway.store.tables import message_content, review

_CONTENT = Prepared(
    select(message_content.c.content_sha256).where(message_content.c.message_id == bindparam("message"))
)
_OF_CONTENT = Prepared(
    select(review)
    .join(message_content, message_content.c.message_id == review.c.message_id)
    .where(message_content.c.content_sha256 == bindparam("sha256"))
    .order_by(review.c.seq)
)
_ADD = Prepared.into(review)


class Reviews:
    """See :class:`gateway.ports.ReviewRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, message_id: str, at: datetime, actor: str, state: ReviewState) -> bool:
        """Append to the history; False, and nothing done, when it says so already. Raises NotFoundError."""
        earlier = self.for_message(message_id)
        now = earlier[-1].state if earlier else ReviewState.WITHDRAWN
        if now is state:
            return False
        seq = len(earlier) + 1
        _ADD.run(self._connection, message_id=message_id, seq=seq, at=at, actor=actor, state=state.value)
        return True

    def for_message(self, message_id: str) -> list[Review]:
        """The history of the message and its copies, oldest first. Raises NotFoundError: it was not accepted."""
        sha256 = _CONTENT.scalar(self._connection, message=message_id)
        if sha256 is None:
            raise NotFoundError("there is no accepted message with that id")
        rows = _OF_CONTENT.rows(self._connection, sha256=sha256)
        return [Review(row.message_id, row.seq, row.at, row.actor, ReviewState(row.state)) for row in rows]
