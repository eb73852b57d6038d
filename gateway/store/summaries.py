"""One line for each message, for ``message list`` and the quarantine: one query a page for each kind of fact."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Column, Connection, Row, Table, func, select

from gateway.core.lifecycle import State
from gateway.ports import MessageSummary
from gateway.store.evidence import from_json
from gateway.store.kept import kept_among
from gateway.store.links import IN_FORCE
from gateway.store.tables import (
    content_recipient,
    link,
    message_content,
    message_state,
    quarantine,
    raw_message,
    verdict,
)

MAX_PAGE = 1_000
DUPLICATE = "duplicate"
"""First word of the detail of a state row, and the reason in a summary, when the same content was filed before."""


def newest_summaries(
    connection: Connection, states: Sequence[State], limit: int, before: str | None, *, duplicates: bool
) -> list[MessageSummary]:
    """Return the newest messages, newest first; ``before`` is the last id of the page before."""
    heads = _heads(connection, states, min(limit, MAX_PAGE), before, duplicates=duplicates)
    ids = [head.id for head in heads]
    contents = {row.message_id: row for row in _of(connection, message_content, ids)}
    verdicts = {row.message_id: row for row in _of(connection, verdict, ids, verdict.c.seq)}
    recipients = _grouped(_of(connection, content_recipient, ids, content_recipient.c.position), "recipient")
    patients = _grouped(_links_of(connection, ids), "patient_id")
    summaries = [
        _summary(head, contents.get(head.id), verdicts.get(head.id), recipients[head.id], patients[head.id])
        for head in heads
    ]
    return _with_kept(connection, summaries)


def _with_kept(connection: Connection, summaries: list[MessageSummary]) -> list[MessageSummary]:
    """What those that a mail client put here say of themselves."""
    kept = kept_among(connection, [one.id for one in summaries if one.state is State.KEPT])
    return [
        replace(one, claimed_sender=kept[one.id][0], subject=kept[one.id][1], message_id=kept[one.id][2])
        if one.id in kept
        else one
        for one in summaries
    ]


def _heads(
    connection: Connection, states: Sequence[State], limit: int, before: str | None, *, duplicates: bool
) -> Sequence[Row[Any]]:
    newest = (
        select(message_state.c.seq)
        .where(message_state.c.message_id == raw_message.c.id)
        .order_by(message_state.c.seq.desc())
        .limit(1)
        .correlate(raw_message)
        .scalar_subquery()
    )
    query = (
        select(raw_message, message_state.c.state, message_state.c.detail)
        .join(message_state, (message_state.c.message_id == raw_message.c.id) & (message_state.c.seq == newest))
        .order_by(raw_message.c.id.desc())
        .limit(limit)
    )
    if set(states) == {State.REFUSED}:
        # The few of them are known by name; to look for them among all messages takes long.
        query = query.where(raw_message.c.id.in_(select(quarantine.c.message_id)))
    elif states:
        query = query.where(message_state.c.state.in_([state.value for state in states]))
    if not duplicates:
        query = query.where(~message_state.c.detail.startswith(DUPLICATE))
    if before is not None:
        query = query.where(raw_message.c.id < before)
    return connection.execute(query).all()


def _of(connection: Connection, table: Table, ids: Sequence[str], *order: Column[Any]) -> Sequence[Row[Any]]:
    return connection.execute(select(table).where(table.c.message_id.in_(ids)).order_by(*order)).all() if ids else []


def _links_of(connection: Connection, ids: Sequence[str]) -> Sequence[Row[Any, Any]]:
    query = select(link.c.message_id, link.c.patient_id).where(link.c.message_id.in_(ids), IN_FORCE)
    # Several parts of a message may be on one chart.
    return connection.execute(query.group_by(link.c.message_id, link.c.patient_id).order_by(func.min(link.c.id))).all()


def _grouped(rows: Sequence[Row[*tuple[Any, ...]]], column: str) -> defaultdict[str, list[str]]:
    grouped: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        grouped[row.message_id].append(getattr(row, column))
    return grouped


def _summary(
    head: Row[Any], content: Row[Any] | None, judged: Row[Any] | None, recipients: list[str], patients: list[str]
) -> MessageSummary:
    sender, subject, message_id = "", "", ""
    if content is not None:
        sender, subject, message_id = content.sender, content.subject, content.rfc822_message_id
    elif judged is not None:
        document = from_json(judged.judgement)
        sender, subject, message_id = judged.sender, document["subject"], document["message_id"]
    reason = judged.reason if judged is not None else ""
    if head.detail.startswith(DUPLICATE):
        reason = DUPLICATE
    return MessageSummary(
        id=head.id,
        received_at=head.received_at,
        state=State(head.state),
        reason=reason,
        sender=sender,
        claimed_sender=head.mail_from or "",
        subject=subject,
        message_id=message_id,
        delivered_to=tuple(recipients),
        patient_ids=tuple(patients),
        size_bytes=head.size_bytes,
    )
