"""The ``accept`` step: makes a message ours. Only when it has returned may anybody say ``250``.

One transaction: for the recipients that have not had this message yet, the raw row, the state ``received``, the
``unwrap`` job and the audit row; for a delivery that was seen before, the audit row alone.

Guarantees

* The raw bytes and the job are on the disk together, or neither is (promise 1).
* The same bytes from the same reverse path for the same recipient are one message: the answer is the id it has
  already, and nothing is filed twice (F13).
* A caller that is cancelled (the client left, a timer fired) does not cancel the commit: the store ends it. The
  sender, who saw no ``250``, comes again and is recognised.

Failure modes: StoreError or StoreFullError when the commit failed: nothing is kept, the sender is told to come
again. InputError when there is no recipient, or one is no address; ingress has refused those before.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from gateway.core.address import normalise
from gateway.core.errors import InputError
from gateway.core.lifecycle import JobKind, State
from gateway.core.message import Inbound
from gateway.ports import Clock, Store, UnitOfWork

ACTOR = "gateway"


class Accept:
    """Takes inbound messages, from whatever ingress."""

    def __init__(self, store: Store, clock: Clock, new_id: Callable[[], str], wake: Callable[[], None]) -> None:
        """``new_id`` makes a message id; ``wake`` tells the workers that there may be work (a hint)."""
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._wake = wake

    async def __call__(self, inbound: Inbound) -> str:
        """Keep the message and return its id, or the id of the same message that came before.

        Raises:
            StoreError: nothing is kept.
            InputError: no recipient, or one that is not a Direct address.
        """
        recipients = tuple(dict.fromkeys(normalise(recipient) for recipient in inbound.envelope.recipients))
        if not recipients:
            raise InputError("a message needs a recipient")
        known = replace(inbound, envelope=replace(inbound.envelope, recipients=recipients))
        sha256 = await asyncio.to_thread(_digest, inbound.raw)
        at = self._clock.now()
        message_id = self._new_id()
        try:
            return await self._store.write(lambda rows: _keep(rows, known, message_id, sha256, at))
        finally:
            # Also when the caller was cancelled: the commit goes on, and a hint too many does no harm.
            self._wake()


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _keep(rows: UnitOfWork, inbound: Inbound, message_id: str, sha256: str, at: datetime) -> str:
    recipients = inbound.envelope.recipients
    earlier = {recipient: rows.messages.find_transport_duplicate(inbound, recipient) for recipient in recipients}
    fresh = tuple(recipient for recipient in recipients if earlier[recipient] is None)
    seen = [known for known in earlier.values() if known is not None]
    if not fresh:
        rows.audit.add(at, ACTOR, "message.duplicate", seen[0], {"recipients": len(recipients), "sha256": sha256})
        return seen[0]
    rows.messages.add_raw(message_id, at, replace(inbound, envelope=replace(inbound.envelope, recipients=fresh)))
    rows.messages.set_state(message_id, State.RECEIVED, at)
    rows.jobs.enqueue(JobKind.UNWRAP, message_id, at)
    detail = {
        "sha256": sha256,
        "size_bytes": len(inbound.raw),
        "source": inbound.source.value,
        "recipients": len(fresh),
        "seen_before": sorted(set(seen)),
    }
    rows.audit.add(at, ACTOR, "message.received", message_id, detail)
    return message_id
