"""The Merkle tree over the events of all nodes (RFC 9162), kept so that a head costs little however long the log is.

The chains of the nodes grow side by side; the tree needs one order that never changes. ``audit_tree_span`` is that
order: each row takes a run of events of one node into the tree. A leaf is the hash of its event, which stands for
everything before it in the node's chain. ``audit_tree_node`` keeps the complete subtrees of 256 leaves and more; what
is below them is made again from the events when a proof asks for it. So a head over ten million events reads the
events that came since the last one, at most 255 before them, and some twenty hashes.

Crash story: the spans, the subtrees and the head that was made of them are one transaction. Two nodes that make a
head at the same moment meet at the key of the span, and one of them is refused (ConflictError) and may try again.

Failure modes: StoreError where a stored subtree or event is missing; ``audit verify`` says which.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select

from gateway.core import merkle
from gateway.core.audit import AuditEvent
from gateway.core.errors import NotFoundError, StoreError
from gateway.core.tree_head import NodeHead
from gateway.store.audit_log import event_of
from gateway.store.tables import audit_event, audit_tree_head, audit_tree_node, audit_tree_span

BLOCK_LEVEL = 8
"""Subtrees of 2^8 leaves and more are stored."""
_BLOCK = 1 << BLOCK_LEVEL
_PAGE = 5_000


@dataclass(frozen=True, slots=True)
class Span:
    """A run of events of one node, and where its first leaf is."""

    start: int
    node: str
    first_seq: int
    count: int

    @property
    def stop(self) -> int:
        """The leaf after the last one."""
        return self.start + self.count


class AuditTree:
    """See :class:`gateway.ports.AuditTreeRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # --- growing ---

    def grow(self, limit: int) -> int:
        """Take at most so many events into the tree that are not in it yet; return the number of leaves."""
        size = old = self.size()
        for node, first, newest in self._waiting():
            last = min(newest, first + limit - (size - old) - 1)
            if last < first:
                break
            span = Span(size, node, first, last - first + 1)
            self._connection.execute(
                insert(audit_tree_span).values(start=size, node=node, first_seq=first, count=span.count)
            )
            size = span.stop
        if size > old:
            self._keep_subtrees(old, size)
        return size

    def _waiting(self) -> list[tuple[str, int, int]]:
        """For each node with events outside the tree: its name, the first and the last of them."""
        newest = self._connection.execute(
            select(audit_event.c.node, func.max(audit_event.c.seq)).group_by(audit_event.c.node)
        )
        waiting = []
        for node, last in sorted((row[0], row[1]) for row in newest):
            span = self._last_span(node)
            first = 1 if span is None else span.first_seq + span.count
            if first <= last:
                waiting.append((node, first, last))
        return waiting

    def _keep_subtrees(self, old: int, size: int) -> None:
        """Store the subtrees that the leaves from ``old`` to ``size`` complete."""
        begin = old - old % _BLOCK
        made: dict[tuple[int, int], bytes] = {}
        frontier = merkle.Frontier()
        for number, leaf in enumerate(self._leaves(begin, size), begin):
            frontier.append(leaf)
            if (number + 1) % _BLOCK == 0:
                self._climb(number // _BLOCK, frontier.root(), made)
                frontier = merkle.Frontier()
        rows = [{"level": level, "position": index, "hash": digest} for (level, index), digest in made.items()]
        if rows:
            self._connection.execute(insert(audit_tree_node), rows)

    def _climb(self, index: int, digest: bytes, made: dict[tuple[int, int], bytes]) -> None:
        """A block is complete: so is every subtree whose last block it is."""
        level = BLOCK_LEVEL
        made[level, index] = digest
        while index & 1:
            left = made.get((level, index - 1)) or self._stored(level, index - 1)
            digest = merkle.node_hash(left, digest)
            level, index = level + 1, index >> 1
            made[level, index] = digest

    # --- asking ---

    def size(self) -> int:
        """Leaves in the tree."""
        row = self._connection.execute(
            select(audit_tree_span.c.start, audit_tree_span.c.count).order_by(audit_tree_span.c.start.desc()).limit(1)
        ).first()
        return 0 if row is None else int(row.start + row[1])

    def root(self, size: int) -> bytes:
        """The root of the first ``size`` leaves."""
        return merkle.root(size, self.node)

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree (:data:`gateway.core.merkle.NodeHash`)."""
        if level >= BLOCK_LEVEL:
            return self._stored(level, index)
        frontier = merkle.Frontier()
        for leaf in self._leaves(index << level, (index + 1) << level):
            frontier.append(leaf)
        return frontier.root()

    def leaf_of(self, node: str, seq: int) -> int:
        """The number of the leaf of an event. Raises NotFoundError: it is not in the tree (yet)."""
        row = self._connection.execute(
            select(audit_tree_span)
            .where(audit_tree_span.c.node == node, audit_tree_span.c.first_seq <= seq)
            .order_by(audit_tree_span.c.first_seq.desc())
            .limit(1)
        ).first()
        span = None if row is None else _span(row)
        if span is None or seq >= span.first_seq + span.count:
            raise NotFoundError(f"event {node}/{seq} is not in the tree; make a head first: direct-gateway audit head")
        return span.start + seq - span.first_seq

    def spans(self, start: int = 0) -> Iterator[Span]:
        """Every span from the one that holds leaf ``start`` on, in the order of the tree."""
        first = select(func.max(audit_tree_span.c.start)).where(audit_tree_span.c.start <= start)
        at = self._connection.scalar(first) or 0
        while True:
            rows = self._connection.execute(
                select(audit_tree_span)
                .where(audit_tree_span.c.start >= at)
                .order_by(audit_tree_span.c.start)
                .limit(_PAGE)
            ).all()
            for row in rows:
                yield _span(row)
            if len(rows) < _PAGE:
                return
            at = rows[-1].start + 1

    def events(self) -> Iterator[tuple[int | None, AuditEvent]]:
        """Every event with its leaf in the order of the tree; then, with None, those that are not in it yet."""
        for span in self.spans():
            shift = span.start - span.first_seq
            for event in self._events(span.node, span.first_seq, span.first_seq + span.count - 1):
                yield event.seq + shift, event
        for node, first, last in self._waiting():
            for event in self._events(node, first, last):
                yield None, event

    def _events(self, node: str, first: int, last: int) -> Iterator[AuditEvent]:
        while first <= last:
            stop = min(last, first + _PAGE - 1)
            query = select(audit_event).where(audit_event.c.node == node, audit_event.c.seq.between(first, stop))
            for row in self._connection.execute(query.order_by(audit_event.c.seq)).all():
                yield event_of(row)
            first = stop + 1

    def node_heads(self, size: int) -> tuple[NodeHead, ...]:
        """The newest event of each node among the first ``size`` leaves, which end where a span ends."""
        heads = []
        names = self._connection.execute(select(audit_tree_span.c.node).distinct()).scalars()
        for node in sorted(names):
            span = self._last_span(node, below=size)
            if span is not None:
                seq = span.first_seq + span.count - 1
                heads.append(NodeHead(node, seq, self._event_hash(node, seq)))
        return tuple(heads)

    # --- heads ---

    def add_head(self, size: int, text: str) -> None:
        """Keep a signed head (JSON)."""
        number = (self._connection.scalar(select(func.max(audit_tree_head.c.number))) or 0) + 1
        self._connection.execute(insert(audit_tree_head).values(number=number, size=size, head=text))

    def newest_head(self) -> str | None:
        """The signed head that was made last (JSON), or None."""
        found: str | None = self._connection.scalar(
            select(audit_tree_head.c.head).order_by(audit_tree_head.c.number.desc()).limit(1)
        )
        return found

    def heads(self) -> list[tuple[int, int, str]]:
        """Number, size and text of every head, the oldest first."""
        rows = self._connection.execute(select(audit_tree_head).order_by(audit_tree_head.c.number))
        return [(row.number, row.size, row.head) for row in rows]

    # --- inside ---

    def _stored(self, level: int, index: int) -> bytes:
        found = self._connection.scalar(
            select(audit_tree_node.c.hash).where(audit_tree_node.c.level == level, audit_tree_node.c.position == index)
        )
        if found is None:
            raise StoreError("a subtree of the audit log is missing; see: direct-gateway audit verify")
        return bytes(found)

    def _last_span(self, node: str, *, below: int | None = None) -> Span | None:
        query = select(audit_tree_span).where(audit_tree_span.c.node == node)
        if below is not None:
            query = query.where(audit_tree_span.c.start < below)
        row = self._connection.execute(query.order_by(audit_tree_span.c.first_seq.desc()).limit(1)).first()
        return None if row is None else _span(row)

    def _leaves(self, begin: int, end: int) -> Iterator[bytes]:
        """The leaf hashes of ``[begin, end)``. Raises StoreError: an event is missing."""
        for span in self.spans(begin):
            if span.start >= end:
                return
            first = span.first_seq + max(0, begin - span.start)
            last = span.first_seq + min(span.count, end - span.start) - 1
            yield from self._event_leaves(span.node, first, last)

    def _event_leaves(self, node: str, first: int, last: int) -> Iterator[bytes]:
        while first <= last:
            stop = min(last, first + _PAGE - 1)
            rows = self._connection.execute(
                select(audit_event.c.hash)
                .where(audit_event.c.node == node, audit_event.c.seq.between(first, stop))
                .order_by(audit_event.c.seq)
            ).scalars()
            found = [merkle.leaf_hash(bytes(digest)) for digest in rows]
            if len(found) != stop - first + 1:
                raise StoreError("an event of the audit log is missing; see: direct-gateway audit verify")
            yield from found
            first = stop + 1

    def _event_hash(self, node: str, seq: int) -> bytes:
        found = self._connection.scalar(
            select(audit_event.c.hash).where(audit_event.c.node == node, audit_event.c.seq == seq)
        )
        if found is None:
            raise StoreError("an event of the audit log is missing; see: direct-gateway audit verify")
        return bytes(found)


def _span(row: Any) -> Span:
    # By position: a row has a method named count.
    return Span(int(row[0]), row[1], int(row[2]), int(row[3]))
