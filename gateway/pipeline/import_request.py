"""What an importer is asked: made from a link and what the store has of its message and its patient.

A link of one part gives that part away and nothing else: no other part, not the message around it, no text and no
subject, because they may be about somebody else.

Failure modes: NotFoundError for a link or a part that is not there; StoreError when the stored bytes are damaged or
away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from gateway.core.errors import NotFoundError
from gateway.core.mime.headers import scan_headers
from gateway.ports import ImportRequest, Link, MessagePart, UnitOfWork


@dataclass(frozen=True, slots=True)
class MessageView:
    """What an importer gets besides the bytes."""

    text: str = ""
    """The main text of the message, for people."""
    parts: tuple[MessagePart, ...] = ()
    """Every leaf part, decoded."""


def request_for(rows: UnitOfWork, link_id: str, *, with_bytes: bool) -> ImportRequest:
    """The request for a link, its text and parts left out. ``with_bytes`` False: the content as well."""
    link = rows.links.get(link_id)
    return request_of(rows, link, with_bytes=with_bytes)


def request_of(rows: UnitOfWork, link: Link, *, with_bytes: bool) -> ImportRequest:
    """The same for a link that need not be kept yet. Raises NotFoundError: no such message, content or patient."""
    content = rows.messages.content(link.message_id, with_bytes=with_bytes)
    return ImportRequest(
        link=link,
        patient=rows.patients.get(link.patient_id),
        sender=content.sender,
        recipients=content.delivered_to,
        subject="" if link.part else content.subject,
        sent_at=None,
        received_at=rows.messages.facts(link.message_id).received_at,
        rfc822_message_id=content.rfc822_message_id,
        content_sha256=content.content_sha256,
        content=content.content,
        text="",
    )


def completed(request: ImportRequest, take_apart: Callable[[bytes], MessageView]) -> ImportRequest:
    """The request with what is read from its bytes. Costs CPU time: to be called in a thread.

    Raises:
        NotFoundError: the message has no such part as the link says.
    """
    view = take_apart(request.content)
    sent, wanted = sent_at(request.content), request.link.part
    if not wanted:
        return replace(request, sent_at=sent, text=view.text, parts=view.parts)
    parts = tuple(part for part in view.parts if part.number == wanted)
    if not parts:
        raise NotFoundError("the message has no part of that number")
    return replace(request, sent_at=sent, content=b"", parts=parts)


def sent_at(content: bytes) -> datetime | None:
    """The Date field in UTC, or None when it is missing or unreadable; a zone of ``-0000`` counts as UTC."""
    try:
        moment = parsedate_to_datetime(scan_headers(content).text(b"date"))
        aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return aware.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
