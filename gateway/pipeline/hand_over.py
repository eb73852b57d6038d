"""What was accepted a moment ago, handed to the step that judges it, so that it need not be read back and opened.

A shortcut and never the truth. What is here may be missing at any time (another node took the job, the process was
started again, there was no room), and then the step reads the store. What is here belongs to a message whose commit has
returned; whether that message still waits to be judged, and whether the worker may speak for it, is decided by the rows
of the transaction that keeps the judgement, as always.

Guarantees: at most ``MOST_BYTES`` are held, and no message of more than ``ONE_BYTES``; the oldest goes first. Nothing
is handed out twice. Bytes that do not have their digest any more are not handed out. Nothing here was decrypted.

Failure modes: none. All calls are made on one event loop.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from gateway.observability.log import get_log
from gateway.ports import RawMessage

MOST_BYTES = 8 * 1024 * 1024
ONE_BYTES = 256 * 1024

log = get_log("pipeline")


class HandOver:
    """Raw messages by id."""

    def __init__(self, *, most_bytes: int = MOST_BYTES, one_bytes: int = ONE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._one_bytes = one_bytes
        self._waiting: OrderedDict[str, RawMessage] = OrderedDict()
        self.held_bytes = 0

    def takes(self, size_bytes: int) -> bool:
        """Whether a message of that size may be offered."""
        return size_bytes <= self._one_bytes

    def offer(self, raw: RawMessage) -> None:
        """Hold a message whose commit has returned. One that is too large is let go."""
        if not self.takes(len(raw.body)) or raw.id in self._waiting:
            return
        self._waiting[raw.id] = raw
        self.held_bytes += len(raw.body)
        while self.held_bytes > self._most_bytes:
            _, dropped = self._waiting.popitem(last=False)
            self.held_bytes -= len(dropped.body)

    def take(self, message_id: str) -> RawMessage | None:
        """The message, once; None when it is not here, or is damaged."""
        raw = self._waiting.pop(message_id, None)
        if raw is None:
            return None
        self.held_bytes -= len(raw.body)
        if hashlib.sha256(raw.body).hexdigest() != raw.sha256:
            log.error("handed_over_message_damaged", message_id=message_id)
            return None
        return raw
