"""The place where sealed bodies lie: a table of the database.

This is the one class that another place takes the part of (:mod:`gateway.store.body_objects`, for a bucket). It sees
sealed bytes only, and knows nothing of keys. Whoever writes gives the parts in their order, as they come; whoever
reads gets them in that order. That they are all there, and in the right order, is shown by opening them, not here.

Crash story: parts are rows of the transaction that keeps the message; a process killed in between leaves none of
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import groupby
from typing import Any, Protocol

from sqlalchemy import Connection, bindparam, select

from gateway.core.errors import StoreError
from gateway.ports import PlacedBody
from gateway.store.prepared import Prepared
from gateway.store.tables import body_part

_ROWS_AT_ONCE = 4
"""Rows of one body fetched ahead: with parts of a mebibyte this bounds what a large one needs."""
_ROWS_OF_MANY = 16
"""The same for many bodies, most of which are one small row."""

_ADD = Prepared.into(body_part)
_NEXT_OF_ONE = Prepared(
    select(body_part.c.position, body_part.c.sealed)
    .where(
        body_part.c.message_id == bindparam("message"),
        body_part.c.kind == bindparam("body"),
        body_part.c.position > bindparam("after"),
    )
    .order_by(body_part.c.position)
    .limit(_ROWS_AT_ONCE)
)
_OF_MANY = (
    select(body_part.c.message_id, body_part.c.sealed)
    .where(body_part.c.message_id.in_(bindparam("messages", expanding=True)), body_part.c.kind == bindparam("body"))
    .order_by(body_part.c.message_id, body_part.c.position)
)


class Kind(StrEnum):
    """What of a message a body is."""

    RAW = "raw"
    """The bytes as they arrived."""
    CONTENT = "content"
    """The verified content."""
    SEARCH = "search"
    """The case-folded texts that SEARCH looks at: all of the content, in other words."""


class PartPlace(Protocol):
    """Keeps the sealed parts of bodies. Bound to one transaction of the database."""

    def put(self, message_id: str, kind: Kind, parts: Iterable[bytes]) -> None:
        """Keep the sealed parts of one body; each is asked for when the one before it is written."""
        ...

    def name(self, placed: PlacedBody) -> None:
        """Write the row of a body that was placed outside the database."""
        ...

    def take(self, message_ids: Sequence[str], kind: Kind) -> Iterator[tuple[str, Iterator[bytes]]]:
        """The sealed parts of each body that is here, in the order of the ids' text.

        Read the parts of one before the next is asked for. What is not here is left out. Give a bounded number of ids.
        """
        ...


class TableParts:
    """Sealed parts as rows of the database; see :class:`PartPlace`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, message_id: str, kind: Kind, parts: Iterable[bytes]) -> None:
        """See :class:`PartPlace`."""
        for position, sealed in enumerate(parts):
            _ADD.later(self._connection, message_id=message_id, kind=kind.value, position=position, sealed=sealed)

    def name(self, placed: PlacedBody) -> None:
        """See :class:`PartPlace`."""
        raise StoreError(f"the body of the message {placed.message_id} was placed, but this store places none")

    def take(self, message_ids: Sequence[str], kind: Kind) -> Iterator[tuple[str, Iterator[bytes]]]:
        """See :class:`PartPlace`."""
        if len(message_ids) == 1:
            yield from self._take_one(message_ids[0], kind)
            return
        rows = self._connection.execute(
            _OF_MANY,
            {"messages": message_ids, "body": kind.value},
            execution_options={"yield_per": _ROWS_OF_MANY},
        )
        for message_id, group in groupby(rows, key=lambda row: str(row.message_id)):
            yield message_id, (bytes(row.sealed) for row in group)

    def _take_one(self, message_id: str, kind: Kind) -> Iterator[tuple[str, Iterator[bytes]]]:
        first = self._next(message_id, kind, -1)
        if first:
            yield message_id, self._parts(message_id, kind, first)

    def _parts(self, message_id: str, kind: Kind, rows: list[Any]) -> Iterator[bytes]:
        while rows:
            after = rows[-1].position if len(rows) == _ROWS_AT_ONCE else None
            rows.reverse()
            while rows:
                # Taken out, so that each part is let go before the next ones are fetched.
                yield bytes(rows.pop().sealed)
            if after is not None:
                rows = self._next(message_id, kind, after)

    def _next(self, message_id: str, kind: Kind, after: int) -> list[Any]:
        return _NEXT_OF_ONE.rows(self._connection, message=message_id, body=kind.value, after=after)
