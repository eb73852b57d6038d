"""By what a copy knows its source again: the newest audit event of each node, with its hash.

Each hash stands for everything that its node wrote down before, so a store whose log holds that event is that store,
then or later. The same digest is in the event ``store.copied``, which ends a copy.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from sqlalchemy import Connection, func, select

from gateway.store.copying_marker import Heads
from gateway.store.tables import audit_event

COPIED: Final = "store.copied"


def missing_event(rows: Connection, heads: Heads) -> str:
    """The first of those events that the log does not hold, as NODE/NUMBER; empty when it holds all of them."""
    table = audit_event.c
    for node, (seq, digest) in heads.items():
        found = rows.scalar(select(table.hash).where(table.node == node, table.seq == seq))
        if found is None or bytes(found).hex() != digest:
            return f"{node}/{seq}"
    return ""


def newest_events(rows: Connection) -> dict[str, tuple[int, str]]:
    """Of each node, the number of its newest event and its hash in hexadecimal digits."""
    table = audit_event.c
    newest = rows.execute(select(table.node, func.max(table.seq)).group_by(table.node).order_by(table.node)).all()
    found = {}
    for node, seq in newest:
        digest = rows.scalar(select(table.hash).where(table.node == node, table.seq == seq))
        found[node] = (int(seq), bytes(digest or b"").hex())
    return found


def heads_digest(heads: Heads) -> str:
    """One digest for the newest events of all nodes."""
    text = json.dumps([[node, *heads[node]] for node in sorted(heads)], separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def was_copied(rows: Connection, heads: Heads) -> bool:
    """Whether the store is a complete copy of a source with those newest events."""
    details = rows.execute(select(audit_event.c.detail).where(audit_event.c.action == COPIED)).scalars()
    wanted = heads_digest(heads)
    return any(json.loads(detail).get("heads_sha256") == wanted for detail in details)
