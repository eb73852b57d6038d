"""The ``accept`` step: makes a message ours. Only when it has returned may anybody say ``250``.

One transaction: for the recipients that have not had this message yet, the raw row, the state ``received``, the
``unwrap`` job and the audit row; for a delivery that was seen before, the audit row alone.

Guarantees

* The raw bytes and the job are on the disk together, or neither is (promise 1). Where bodies are placed outside the
  database, they are there before the row that names them; a crash in between leaves bytes that no row names.
* The same bytes from the same reverse path for the same recipient are one message: the answer is the id it has
  already, and nothing is filed twice (F13).
* What is handed to the workers in memory was committed before (:mod:`gateway.pipeline.hand_over`).
* A caller that is cancelled (the client left, a timer fired) does not cancel the commit: the store ends it. The
  sender, who saw no ``250``, comes again and is recognised.

Failure modes: StoreError or StoreFullError when the commit failed: nothing is kept, the sender is told to come
again. InputError when there is no recipient, or one is no address; ingress has refused those before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from gateway.core.address import normalise
from gateway.core.errors import InputError
from gateway.core.lifecycle import JobKind, State
from gateway.core.message import PART_BYTES, Inbound, MemoryBody
from gateway.pipeline.hand_over import HandOver
from gateway.ports import BodyStore, Clock, PlacedBody, RawMessage, UnitOfWork

ACTOR = "gateway"
Also = Callable[[UnitOfWork, str], None]
HASHED_HERE_BYTES = 64 * 1024
"""A message of no more is hashed on the event loop, in less time than it takes to ask a thread for it."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the transaction did."""

    message_id: str
    recipients: tuple[str, ...]
    """Of the new row; none when there is no new row."""


class Accept:
    """Takes inbound messages, from whatever ingress."""

    def __init__(
        self,
        store: BodyStore,
        clock: Clock,
        new_id: Callable[[], str],
        wake: Callable[[], None],
        *,
        hand_over: HandOver | None = None,
    ) -> None:
        """``new_id`` makes a message id; ``wake`` tells the workers that there may be work (a hint).

        ``hand_over`` spares them reading what was just written.
        """
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._wake = wake
        self._hand_over = hand_over

    async def __call__(self, inbound: Inbound, also: Also | None = None) -> str:
        """Keep the message and return its id, or the id of the same message that came before.

        ``also`` writes in the same transaction, and is told that id: what the ingress must remember of the message is
        on the disk exactly when the message is.

        Raises:
            StoreError: nothing is kept.
            InputError: no recipient, or one that is not a Direct address.
        """
        recipients = tuple(dict.fromkeys(normalise(recipient) for recipient in inbound.envelope.recipients))
        if not recipients:
            raise InputError("a message needs a recipient")
        known = replace(inbound, envelope=replace(inbound.envelope, recipients=recipients))
        # Here, and not in the one writer of the store: of a large message it takes a while.
        small = isinstance(inbound.raw, MemoryBody) and inbound.raw.size_bytes <= HASHED_HERE_BYTES
        sha256 = inbound.raw.sha256 if small else await asyncio.to_thread(lambda: inbound.raw.sha256)
        at = self._clock.now()
        message_id = self._new_id()
        placed = await self._place(message_id, known)

        def keep(rows: UnitOfWork) -> _Kept:
            kept = _keep(rows, known, message_id, sha256, at, placed=placed)
            if also is not None:
                also(rows, kept.message_id)
            return kept

        try:
            kept = await self._store.write(keep)
            self._hand(known, kept, at)
        finally:
            # Also when the caller was cancelled: the commit goes on, and a hint too many does no harm.
            self._wake()
        return kept.message_id

    def _hand(self, inbound: Inbound, kept: _Kept, at: datetime) -> None:
        """Hand the message to the step that judges it, as the store would give it."""
        raw, mail_from = inbound.raw, inbound.envelope.mail_from
        if self._hand_over is None or not kept.recipients or not self._hand_over.takes(raw.size_bytes):
            return
        # What is in the spool stays there. Text that no database takes as it is would be read back as another text.
        if not isinstance(raw, MemoryBody) or raw.size_bytes > PART_BYTES or not _plain(mail_from, inbound.peer):
            return
        [body] = raw.parts()
        self._hand_over.offer(
            RawMessage(
                id=kept.message_id,
                received_at=at,
                source=inbound.source,
                peer=inbound.peer,
                mail_from=mail_from,
                recipients=kept.recipients,
                sha256=raw.sha256,
                body=body,
            )
        )

    async def _place(self, message_id: str, inbound: Inbound) -> PlacedBody | None:
        """Place the raw bytes, where bodies are placed; not those of a delivery that was seen before."""
        if not self._store.places_bodies or await self._store.read(lambda rows: _is_seen(rows, inbound)):
            return None
        return await self._store.place_raw(message_id, inbound.raw)


def _is_seen(rows: UnitOfWork, inbound: Inbound) -> bool:
    """Whether every recipient has it. Should that change before the write, that fails and the sender comes again."""
    recipients = inbound.envelope.recipients
    return all(rows.messages.find_transport_duplicate(inbound, recipient) is not None for recipient in recipients)


def _plain(*texts: str | None) -> bool:
    return all(text is None or (text.isascii() and "\0" not in text) for text in texts)


def _keep(
    rows: UnitOfWork, inbound: Inbound, message_id: str, sha256: str, at: datetime, *, placed: PlacedBody | None
) -> _Kept:
    recipients = inbound.envelope.recipients
    earlier = {recipient: rows.messages.find_transport_duplicate(inbound, recipient) for recipient in recipients}
    fresh = tuple(recipient for recipient in recipients if earlier[recipient] is None)
    seen = [known for known in earlier.values() if known is not None]
    if not fresh:
        rows.audit.add(at, ACTOR, "message.duplicate", seen[0], {"recipients": len(recipients), "sha256": sha256})
        return _Kept(seen[0], ())
    delivery = replace(inbound, envelope=replace(inbound.envelope, recipients=fresh))
    rows.messages.add_raw(message_id, at, delivery, placed)
    rows.messages.set_state(message_id, State.RECEIVED, at)
    rows.jobs.enqueue(JobKind.UNWRAP, message_id)
    detail = {
        "sha256": sha256,
        "size_bytes": inbound.raw.size_bytes,
        "source": inbound.source.value,
        "recipients": len(fresh),
        "seen_before": sorted(set(seen)),
    }
    rows.audit.add(at, ACTOR, "message.received", message_id, detail)
    return _Kept(message_id, fresh)
