"""Raw messages, verdicts, contents and states. Append-only; bodies are checked against their digest when read.

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
from typing import Any

from sqlalchemy import Connection, func, insert, select

from gateway.core.errors import ConflictError, NotFoundError, StoreError
from gateway.core.lifecycle import State, may_move
from gateway.core.message import Inbound, Source
from gateway.core.verdict import Judgement
from gateway.ports import MessageSummary, RawMessage, StoredContent
from gateway.store.evidence import from_json, sha256_hex, to_json
from gateway.store.summaries import newest_summaries
from gateway.store.tables import (
    certificate,
    content_body,
    content_recipient,
    message_content,
    message_state,
    raw_body,
    raw_message,
    raw_recipient,
    verdict,
)

_EARLIER_ATTEMPTS = 100


class Messages:
    """See :class:`gateway.ports.MessageRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._digested: tuple[bytes, str] = (b"", sha256_hex(b""))

    # --- arrival ---

    def find_transport_duplicate(self, inbound: Inbound, recipient: str) -> str | None:
        """Id of the earlier delivery that makes this one a duplicate for the (normalised) recipient, or None.

        The recipients of the envelope must be normalised as well.
        """
        rows = self._connection.execute(
            select(raw_recipient.c.message_id)
            .where(raw_recipient.c.dedup_key == self._dedup_key(inbound, recipient))
            .order_by(raw_recipient.c.attempt.desc())
            .limit(_EARLIER_ATTEMPTS)
        )
        wanted = set(inbound.envelope.recipients) | {recipient}
        for earlier in rows.scalars():
            if self._counts_as_seen(earlier, recipient, wanted):
                return str(earlier)
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
        parts = (b"1", recipient.encode("utf-8", "surrogatepass"), self._digest(inbound.raw).encode(), path)
        return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hexdigest()

    def _digest(self, raw: bytes) -> str:
        # One unit asks for the same large body once for each recipient.
        if self._digested[0] is not raw:
            self._digested = (raw, sha256_hex(raw))
        return self._digested[1]

    def add_raw(self, message_id: str, at: datetime, inbound: Inbound) -> None:
        """Keep the raw bytes and their envelope. ``set_state(RECEIVED)`` must follow in the same unit."""
        envelope = inbound.envelope
        self._connection.execute(
            insert(raw_message).values(
                id=message_id,
                received_at=at,
                source=inbound.source.value,
                peer=inbound.peer,
                mail_from=envelope.mail_from,
                sha256=self._digest(inbound.raw),
                size_bytes=len(inbound.raw),
            )
        )
        self._connection.execute(insert(raw_body).values(message_id=message_id, body=inbound.raw))
        for position, recipient in enumerate(envelope.recipients):
            key = self._dedup_key(inbound, recipient)
            attempts = select(func.max(raw_recipient.c.attempt)).where(raw_recipient.c.dedup_key == key)
            self._connection.execute(
                insert(raw_recipient).values(
                    message_id=message_id,
                    position=position,
                    recipient=recipient,
                    dedup_key=key,
                    attempt=(self._connection.scalar(attempts) or 0) + 1,
                )
            )

    def raw(self, message_id: str) -> RawMessage:
        """Raises NotFoundError; StoreError when the stored bytes are damaged."""
        row = self._connection.execute(
            select(raw_message, raw_body.c.body).join(raw_body).where(raw_message.c.id == message_id)
        ).first()
        if row is None:
            raise NotFoundError("there is no such message")
        if sha256_hex(row.body) != row.sha256:
            raise StoreError("a stored message does not match its digest")
        return RawMessage(
            id=row.id,
            received_at=row.received_at,
            source=Source(row.source),
            peer=row.peer,
            mail_from=row.mail_from,
            recipients=self._recipients(message_id),
            sha256=row.sha256,
            body=row.body,
        )

    def _recipients(self, message_id: str) -> tuple[str, ...]:
        rows = self._connection.execute(
            select(raw_recipient.c.recipient)
            .where(raw_recipient.c.message_id == message_id)
            .order_by(raw_recipient.c.position)
        )
        return tuple(rows.scalars())

    # --- states ---

    def set_state(self, message_id: str, state: State, at: datetime, detail: str = "") -> None:
        """Append a state row. Raises ConflictError when the table of moves forbids it."""
        newest = self._newest_state(message_id)
        if newest is None:
            seq, allowed = 1, state is State.RECEIVED
        else:
            seq, allowed = newest[0] + 1, may_move(newest[1], state)
        if not allowed:
            here = "nothing" if newest is None else newest[1].value
            raise ConflictError(f"a message cannot go from {here} to {state.value}")
        self._connection.execute(
            insert(message_state).values(message_id=message_id, seq=seq, state=state.value, at=at, detail=detail)
        )

    def state(self, message_id: str) -> State:
        """Raises NotFoundError."""
        newest = self._newest_state(message_id)
        if newest is None:
            raise NotFoundError("there is no such message")
        return newest[1]

    def _newest_state(self, message_id: str) -> tuple[int, State] | None:
        row = self._connection.execute(
            select(message_state.c.seq, message_state.c.state)
            .where(message_state.c.message_id == message_id)
            .order_by(message_state.c.seq.desc())
            .limit(1)
        ).first()
        return None if row is None else (row.seq, State(row.state))

    # --- evidence ---

    def add_verdict(self, message_id: str, at: datetime, judgement: Judgement) -> None:
        newest = select(func.max(verdict.c.seq)).where(verdict.c.message_id == message_id)
        self._connection.execute(
            insert(verdict).values(
                message_id=message_id,
                seq=(self._connection.scalar(newest) or 0) + 1,
                at=at,
                reason=judgement.reason.value,
                sender=judgement.sender,
                judgement=to_json(judgement),
            )
        )
        for der in judgement.certificates:
            digest = sha256_hex(der)
            known = select(certificate.c.sha256).where(certificate.c.sha256 == digest)
            if self._connection.scalar(known) is None:
                self._connection.execute(insert(certificate).values(sha256=digest, der=der))

    def verdict(self, message_id: str) -> dict[str, Any] | None:
        """The newest verdict as stored (see :mod:`gateway.store.evidence`), or None."""
        text = self._connection.scalar(
            select(verdict.c.judgement)
            .where(verdict.c.message_id == message_id)
            .order_by(verdict.c.seq.desc())
            .limit(1)
        )
        return None if text is None else from_json(text)

    def certificate(self, sha256: str) -> bytes:
        """DER of a certificate of the evidence. Raises NotFoundError."""
        der = self._connection.scalar(select(certificate.c.der).where(certificate.c.sha256 == sha256))
        if der is None:
            raise NotFoundError("there is no such certificate")
        return bytes(der)

    # --- content ---

    def add_content(self, message_id: str, judgement: Judgement) -> None:
        """Keep the verified content; a no-op when it is there already.

        Raises:
            ConflictError: the judgement accepts nothing, or other content is there.
        """
        if not judgement.accepted or judgement.content is None or not judgement.delivered_to:
            raise ConflictError("only an accepted message has content")
        digest = sha256_hex(judgement.content)
        known = select(message_content.c.content_sha256).where(message_content.c.message_id == message_id)
        present = self._connection.scalar(known)
        if present is not None:
            if present != digest:
                raise ConflictError("the message has other content already")
            return
        self._connection.execute(
            insert(message_content).values(
                message_id=message_id,
                content_sha256=digest,
                sender=judgement.sender,
                subject=judgement.subject,
                rfc822_message_id=judgement.message_id,
                size_bytes=len(judgement.content),
                inner_sha256=judgement.inner_sha256,
                protected_offset=judgement.protected_offset,
            )
        )
        self._connection.execute(insert(content_body).values(message_id=message_id, content=judgement.content))
        recipients = [
            {"message_id": message_id, "position": position, "recipient": recipient}
            for position, recipient in enumerate(judgement.delivered_to)
        ]
        self._connection.execute(insert(content_recipient), recipients)

    def content(self, message_id: str) -> StoredContent:
        """Raises NotFoundError when the message was not accepted; StoreError when the stored bytes are damaged."""
        row = self._connection.execute(
            select(message_content, content_body.c.content)
            .join(content_body, content_body.c.message_id == message_content.c.message_id)
            .where(message_content.c.message_id == message_id)
        ).first()
        if row is None:
            raise NotFoundError("there is no accepted message with that id")
        if sha256_hex(row.content) != row.content_sha256:
            raise StoreError("a stored message does not match its digest")
        return StoredContent(
            message_id=row.message_id,
            content=row.content,
            content_sha256=row.content_sha256,
            sender=row.sender,
            subject=row.subject,
            rfc822_message_id=row.rfc822_message_id,
            delivered_to=self._delivered_to(message_id),
        )

    def filed_copies(self, message_id: str, content_sha256: str) -> list[str]:
        """Ids of other messages with the same content that are filed or linked, the oldest first."""
        copies = self._connection.execute(
            select(message_content.c.message_id)
            .where(message_content.c.content_sha256 == content_sha256, message_content.c.message_id != message_id)
            .order_by(message_content.c.message_id)
        )
        return [copy for copy in copies.scalars().all() if self.state(copy) in {State.FILED, State.LINKED}]

    def _delivered_to(self, message_id: str) -> tuple[str, ...]:
        rows = self._connection.execute(
            select(content_recipient.c.recipient)
            .where(content_recipient.c.message_id == message_id)
            .order_by(content_recipient.c.position)
        )
        return tuple(rows.scalars())

    # --- lists ---

    def newest(
        self, *, states: Sequence[State] = (), limit: int = 50, before: str | None = None, duplicates: bool = True
    ) -> list[MessageSummary]:
        """Newest first, keyset-paged by id. With ``states``, only messages that stand there now."""
        return newest_summaries(self._connection, states, limit, before, duplicates=duplicates)
