"""Raw messages, contents and states. Append-only; bodies are sealed, and checked against their digest when read.

A *transport duplicate* is the same raw bytes with the same reverse path for the same recipient, when they came
before and were not refused. Somebody who captured a message and sends it again with a wrong envelope must not get
the genuine delivery taken for a duplicate of his refused one. So a delivery counts as seen only when

* it was accepted for this very recipient (trust is decided per recipient); or
* it is still to be judged, and its envelope asked for no recipient that this one does not ask for: then nothing
  in it can be refused that would be accepted here.

What slips through this as a second row is shown once all the same: a mailbox takes each content once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, select

from gateway.core.errors import ConflictError, NotFoundError
from gateway.core.lifecycle import FIRST, State, may_move
from gateway.core.message import Inbound, Source
from gateway.core.verdict import Judgement
from gateway.ports import MessageFacts, MessageSummary, PlacedBody, RawMessage, StoredContent
from gateway.store.body_parts import Kind
from gateway.store.message_facts import facts_of
from gateway.store.message_stand import Stands
from gateway.store.prepared import Prepared
from gateway.store.quarantine import put_in, take_out
from gateway.store.sealed_bodies import SealedBodies
from gateway.store.summaries import newest_summaries
from gateway.store.tables import (
    content_recipient,
    message_content,
    message_state,
    raw_message,
    raw_recipient,
)
from gateway.store.verdicts import Verdicts

_EARLIER_ATTEMPTS = 100

_ADD_RAW = Prepared.into(raw_message)
_ADD_RECIPIENT = Prepared.into(raw_recipient)
_ADD_STATE = Prepared.into(message_state)
_ADD_CONTENT = Prepared.into(message_content)
_ADD_DELIVERED_TO = Prepared.into(content_recipient)

_EARLIER = Prepared(
    select(raw_recipient.c.message_id, raw_recipient.c.attempt)
    .where(raw_recipient.c.dedup_key == bindparam("key"))
    .order_by(raw_recipient.c.attempt.desc())
    .limit(_EARLIER_ATTEMPTS)
)
_LAST_ATTEMPT = Prepared(select(func.max(raw_recipient.c.attempt)).where(raw_recipient.c.dedup_key == bindparam("key")))
_RAW = Prepared(select(raw_message).where(raw_message.c.id == bindparam("message")))
_RECIPIENTS = Prepared(
    select(raw_recipient.c.recipient)
    .where(raw_recipient.c.message_id == bindparam("message"))
    .order_by(raw_recipient.c.position)
)
_STATE = Prepared(
    select(message_state.c.state)
    .where(message_state.c.message_id == bindparam("message"))
    .order_by(message_state.c.seq.desc())
    .limit(1)
)
_CONTENT = Prepared(select(message_content).where(message_content.c.message_id == bindparam("message")))
_DELIVERED_TO = Prepared(
    select(content_recipient.c.recipient)
    .where(content_recipient.c.message_id == bindparam("message"))
    .order_by(content_recipient.c.position)
)
_COPIES = Prepared(
    select(message_content.c.message_id)
    .where(
        message_content.c.content_sha256 == bindparam("content_sha256"),
        message_content.c.message_id != bindparam("message"),
    )
    .order_by(message_content.c.message_id)
)
_OF_SENDER = Prepared(
    select(message_content.c.message_id)
    .where(message_content.c.sender == bindparam("sender"), message_content.c.message_id > bindparam("after"))
    .order_by(message_content.c.message_id)
    .limit(bindparam("most"))
)


class Messages(Verdicts):
    """See :class:`gateway.ports.MessageRows`; the evidence is the part of :class:`Verdicts`."""

    def __init__(self, connection: Connection, bodies: SealedBodies) -> None:
        self._stands = Stands(connection)
        super().__init__(connection, self._stands)
        self._bodies = bodies
        self._attempts: dict[str, int] = {}
        """The last attempt under a key of duplicates that the unit has looked at."""

    # --- arrival ---

    def find_transport_duplicate(self, inbound: Inbound, recipient: str) -> str | None:
        """Id of the earlier delivery that makes this one a duplicate for the (normalised) recipient, or None.

        The recipients of the envelope must be normalised as well.
        """
        wanted = set(inbound.envelope.recipients) | {recipient}
        key = self._dedup_key(inbound, recipient)
        earlier = _EARLIER.rows(self._connection, key=key)
        self._attempts[key] = earlier[0].attempt if earlier else 0
        for row in earlier:
            if self._counts_as_seen(row.message_id, recipient, wanted):
                return str(row.message_id)
        return None

    def _counts_as_seen(self, earlier: str, recipient: str, wanted: set[str]) -> bool:
        state = self.state(earlier)
        if state is State.REFUSED:
            return False
        if state is State.RECEIVED:
            return set(self._recipients(earlier)) <= wanted
        return recipient in self._delivered_to(earlier)

    def _dedup_key(self, inbound: Inbound, recipient: str) -> str:
        mail_from = inbound.envelope.mail_from
        path = b"none" if mail_from is None else b"path:" + mail_from.encode("utf-8", "surrogatepass")
        parts = (b"1", recipient.encode("utf-8", "surrogatepass"), inbound.raw.sha256.encode(), path)
        return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hexdigest()

    def add_raw(self, message_id: str, at: datetime, inbound: Inbound, placed: PlacedBody | None = None) -> None:
        """Keep the raw bytes and their envelope. ``set_state(RECEIVED)``, or KEPT, must follow in the same unit.

        Raises:
            KeyUnavailableError: the key that seals new mail is away; nothing can be kept now.
            StoreError: the body must be placed first, or what was placed is another body.
        """
        envelope = inbound.envelope
        _ADD_RAW.later(
            self._connection,
            id=message_id,
            received_at=at,
            source=inbound.source.value,
            peer=inbound.peer,
            mail_from=envelope.mail_from,
            sha256=inbound.raw.sha256,
            size_bytes=inbound.raw.size_bytes,
        )
        self._stands.added(message_id)
        self._bodies.begin(message_id, at, inbound.raw, placed)
        for position, recipient in enumerate(envelope.recipients):
            key = self._dedup_key(inbound, recipient)
            _ADD_RECIPIENT.later(
                self._connection,
                message_id=message_id,
                position=position,
                recipient=recipient,
                dedup_key=key,
                attempt=self._next_attempt(key),
            )

    def _next_attempt(self, key: str) -> int:
        last = self._attempts.get(key)
        if last is None:
            last = _LAST_ATTEMPT.scalar(self._connection, key=key) or 0
        self._attempts[key] = last + 1
        return last + 1

    def facts(self, message_id: str) -> MessageFacts:
        """Raises NotFoundError."""
        return facts_of(self._connection, message_id)

    def raw(self, message_id: str) -> RawMessage:
        """Raises NotFoundError; StoreError when the stored bytes are damaged; KeyUnavailableError."""
        row = _RAW.first(self._connection, message=message_id)
        if row is None:
            raise NotFoundError("there is no such message")
        return RawMessage(
            id=row.id,
            received_at=row.received_at,
            source=Source(row.source),
            peer=row.peer,
            mail_from=row.mail_from,
            recipients=self._recipients(message_id),
            sha256=row.sha256,
            body=self._bodies.read(message_id, Kind.RAW, row.sha256),
        )

    def _recipients(self, message_id: str) -> tuple[str, ...]:
        return tuple(_RECIPIENTS.scalars(self._connection, message=message_id))

    # --- states ---

    def set_state(self, message_id: str, state: State, at: datetime, detail: str = "") -> None:
        """Append a state row. Raises ConflictError when the table of moves forbids it."""
        newest = self._stands.of(message_id)
        seq = newest.seq + 1
        if not (state in FIRST if newest.state is None else may_move(newest.state, state)):
            here = "nothing" if newest.state is None else newest.state.value
            raise ConflictError(f"a message cannot go from {here} to {state.value}")
        _ADD_STATE.later(self._connection, message_id=message_id, seq=seq, state=state.value, at=at, detail=detail)
        self._stands.moved(message_id, seq, state)
        if state is State.REFUSED:
            put_in(self._connection, message_id, at)
        elif newest.state is State.REFUSED:
            take_out(self._connection, message_id)

    def state(self, message_id: str) -> State:
        """Raises NotFoundError."""
        newest = _STATE.scalar(self._connection, message=message_id)
        if newest is None:
            raise NotFoundError("there is no such message")
        return State(newest)

    # --- content ---

    def add_content(self, message_id: str, judgement: Judgement, placed: PlacedBody | None = None) -> None:
        """Keep the verified content; a no-op when it is there already.

        Raises:
            ConflictError: the judgement accepts nothing, or other content is there.
            StoreError: the content must be placed first, or what was placed is another body.
        """
        if not judgement.accepted or judgement.content is None or not judgement.delivered_to:
            raise ConflictError("only an accepted message has content")
        digest = judgement.content_sha256
        present = self._stands.of(message_id).content_sha256
        if present is not None:
            if present != digest:
                raise ConflictError("the message has other content already")
            return
        _ADD_CONTENT.later(
            self._connection,
            message_id=message_id,
            content_sha256=digest,
            sender=judgement.sender,
            subject=judgement.subject,
            rfc822_message_id=judgement.message_id,
            size_bytes=len(judgement.content),
            inner_sha256=judgement.inner_sha256,
            protected_offset=judgement.protected_offset,
        )
        self._stands.kept(message_id, digest)
        self._bodies.add(message_id, Kind.CONTENT, judgement.content, placed)
        for position, recipient in enumerate(judgement.delivered_to):
            _ADD_DELIVERED_TO.later(self._connection, message_id=message_id, position=position, recipient=recipient)

    def content(self, message_id: str, *, with_bytes: bool = True) -> StoredContent:
        """Raises NotFoundError when the message was not accepted; StoreError when the stored bytes are damaged."""
        row = _CONTENT.first(self._connection, message=message_id)
        if row is None:
            raise NotFoundError("there is no accepted message with that id")
        return StoredContent(
            message_id=row.message_id,
            content=self._bodies.read(message_id, Kind.CONTENT, row.content_sha256) if with_bytes else b"",
            content_sha256=row.content_sha256,
            sender=row.sender,
            subject=row.subject,
            rfc822_message_id=row.rfc822_message_id,
            delivered_to=self._delivered_to(message_id),
        )

    def filed_copies(self, message_id: str, content_sha256: str) -> list[str]:
        """Ids of other messages with the same content that are filed or linked, the oldest first."""
        copies = _COPIES.scalars(self._connection, content_sha256=content_sha256, message=message_id)
        return [copy for copy in copies if self.state(copy) in {State.FILED, State.LINKED}]

    def accepted_from(self, sender: str, *, after: str = "", limit: int = 500) -> list[str]:
        """Ids of the messages whose signature was bound to the (normalised) address, oldest first, keyset-paged."""
        return _OF_SENDER.scalars(self._connection, sender=sender, after=after, most=limit)

    def _delivered_to(self, message_id: str) -> tuple[str, ...]:
        return tuple(_DELIVERED_TO.scalars(self._connection, message=message_id))

    # --- lists ---

    def newest(
        self, *, states: Sequence[State] = (), limit: int = 50, before: str | None = None, duplicates: bool = True
    ) -> list[MessageSummary]:
        """Newest first, keyset-paged by id. With ``states``, only messages that stand there now."""
        return newest_summaries(self._connection, states, limit, before, duplicates=duplicates)
