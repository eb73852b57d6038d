"""The hash chain of the audit log, as pure functions (tamper evidence).

Every event of a node carries ``SHA-256(previous hash ‖ canonical bytes)``. To change, drop, insert or reorder an
event, every later hash must be made anew, which shows against a head that was kept elsewhere. What the chain
cannot show by itself is a log whose tail was cut off: that also needs the head from elsewhere.

The canonical form is versioned: it never changes for events that exist.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

GENESIS = bytes(32)
"""The hash before the first event of a node."""

CANONICAL_VERSION = 1


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event with its place in the chain of its node. ``detail`` is the JSON text as stored."""

    node: str
    seq: int
    """1, 2, 3 ... without a gap, for each node."""
    at: datetime
    actor: str
    action: str
    subject: str
    detail: str
    hash: bytes
    """32 bytes: of the previous event's hash and this event."""


def detail_text(detail: dict[str, Any] | None) -> str:
    """Return the one JSON spelling of the detail that is stored and hashed."""
    return json.dumps(detail or {}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def canonical_bytes(*, node: str, seq: int, at: datetime, actor: str, action: str, subject: str, detail: str) -> bytes:
    """Return the bytes of an event that are hashed: a JSON array of strings, which leaves no room for ambiguity."""
    moment = at.astimezone(UTC).isoformat(timespec="microseconds")
    fields = [str(CANONICAL_VERSION), node, str(seq), moment, actor, action, subject, detail]
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def next_hash(previous: bytes, canonical: bytes) -> bytes:
    """Return the hash of the event that follows the one whose hash is ``previous``."""
    return hashlib.sha256(previous + canonical).digest()


def first_broken(events: Iterable[AuditEvent], *, seq: int = 0, previous: bytes = GENESIS) -> int | None:
    """Return the sequence number at which the chain of one node does not hold, or None when all of it does.

    Args:
        events: the events of one node by ascending sequence number.
        seq: the number of the event before the first one given; 0 for the start of the log.
        previous: the hash of that event.
    """
    for event in events:
        seq += 1
        canonical = canonical_bytes(
            node=event.node,
            seq=event.seq,
            at=event.at,
            actor=event.actor,
            action=event.action,
            subject=event.subject,
            detail=event.detail,
        )
        if event.seq != seq or event.hash != next_hash(previous, canonical):
            return seq
        previous = event.hash
    return None
