"""The quarantine: the messages that are refused now, found without a look at all the others.

Its rows repeat what the newest state and verdict of a message say. :meth:`gateway.store.messages.Messages.set_state`
writes them in the transaction of the state row itself, so the two cannot disagree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select

from gateway.ports import RefusedCount, RefusedMessage
from gateway.store.evidence import from_json
from gateway.store.quarantine_folder import enter, leave
from gateway.store.tables import quarantine, raw_message, raw_recipient, verdict

MAX_PAGE = 1_000


def put_in(connection: Connection, message_id: str, at: datetime) -> None:
    """A message was refused; its newest verdict says why."""
    newest = select(verdict.c.reason).where(verdict.c.message_id == message_id).order_by(verdict.c.seq.desc()).limit(1)
    reason = connection.scalar(newest) or ""
    connection.execute(insert(quarantine).values(message_id=message_id, reason=reason, since=at))
    enter(connection, message_id, at)


def take_out(connection: Connection, message_id: str) -> None:
    """A message is to be judged again."""
    connection.execute(delete(quarantine).where(quarantine.c.message_id == message_id))
    leave(connection, message_id)


class Quarantine:
    """See :class:`gateway.ports.QuarantineRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def refused(
        self, *, reason: str | None = None, since: datetime | None = None, limit: int = 50, before: str | None = None
    ) -> list[RefusedMessage]:
        """Newest first, keyset-paged by id, at most MAX_PAGE at once."""
        query = (
            select(quarantine, raw_message.c.received_at, raw_message.c.mail_from, raw_message.c.size_bytes)
            .join(raw_message, raw_message.c.id == quarantine.c.message_id)
            .order_by(quarantine.c.message_id.desc())
            .limit(min(limit, MAX_PAGE))
        )
        if reason is not None:
            query = query.where(quarantine.c.reason == reason)
        if since is not None:
            query = query.where(raw_message.c.received_at >= since)
        if before is not None:
            query = query.where(quarantine.c.message_id < before)
        heads = self._connection.execute(query).all()
        ids = [head.message_id for head in heads]
        recipients, verdicts = self._recipients(ids), self._verdicts(ids)
        return [_line(head, verdicts.get(head.message_id, {}), recipients[head.message_id]) for head in heads]

    def ids(self, *, reason: str | None = None, limit: int = MAX_PAGE, after: str = "") -> list[str]:
        """Ids only, the oldest first, keyset-paged."""
        query = (
            select(quarantine.c.message_id)
            .where(quarantine.c.message_id > after)
            .order_by(quarantine.c.message_id)
            .limit(min(limit, MAX_PAGE))
        )
        if reason is not None:
            query = query.where(quarantine.c.reason == reason)
        return list(self._connection.execute(query).scalars())

    def counts(self) -> list[RefusedCount]:
        """By reason, the most frequent first."""
        count = func.count().label("count")
        rows = self._connection.execute(
            select(
                quarantine.c.reason,
                count,
                func.min(quarantine.c.since).label("oldest"),
                func.max(quarantine.c.since).label("newest"),
            )
            .group_by(quarantine.c.reason)
            .order_by(count.desc(), quarantine.c.reason)
        )
        return [RefusedCount(reason, number, oldest, newest) for reason, number, oldest, newest in rows]

    def _recipients(self, ids: Sequence[str]) -> defaultdict[str, list[str]]:
        grouped: defaultdict[str, list[str]] = defaultdict(list)
        if ids:
            rows = self._connection.execute(
                select(raw_recipient.c.message_id, raw_recipient.c.recipient)
                .where(raw_recipient.c.message_id.in_(ids))
                .order_by(raw_recipient.c.message_id, raw_recipient.c.position)
            )
            for message_id, recipient in rows:
                grouped[message_id].append(recipient)
        return grouped

    def _verdicts(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The newest verdict of each message."""
        if not ids:
            return {}
        rows = self._connection.execute(
            select(verdict.c.message_id, verdict.c.judgement)
            .where(verdict.c.message_id.in_(ids))
            .order_by(verdict.c.message_id, verdict.c.seq)
        )
        newest: dict[str, str] = {message_id: text for message_id, text in rows}  # noqa: C416 - rows are no pairs to mypy
        return {message_id: from_json(text) for message_id, text in newest.items()}


def _line(head: Row[Any], judged: dict[str, Any], recipients: Sequence[str]) -> RefusedMessage:
    return RefusedMessage(
        id=head.message_id,
        received_at=head.received_at,
        refused_at=head.since,
        reason=head.reason,
        detail=judged.get("detail", ""),
        hint=judged.get("hint", ""),
        claimed_sender=head.mail_from,
        recipients=tuple(recipients),
        size_bytes=head.size_bytes,
    )
