"""The rows of bodies that lie in a bucket, and the place that reads both kinds: rows of the database, and objects.

An object is the sealed parts of one body, each after its length (four bytes, big-endian). Its row says which bytes it
must be; the row is append-only and the audit log answers for it, so an object cannot be exchanged without a trace.

A store may hold both: what came before the setting was changed stays where it is.

Crash story: the object was placed before the transaction began, so a row that is there has its object. Failure modes:
StoreError that names the message when its object is missing or altered (F32): nothing of it is served, and the log
tells the operator; StoreUnavailableError while the bucket is away, which says nothing about the message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from sqlalchemy import Connection, Engine, insert, select

from gateway.core.errors import ConfigurationError, StoreError
from gateway.ports import PlacedBody
from gateway.store.body_parts import Kind, TableParts
from gateway.store.message_keys import broken
from gateway.store.tables import body_object

_LENGTH_BYTES = 4
PLACED_KINDS = frozenset({Kind.RAW, Kind.CONTENT})
"""What goes into the bucket. The text for SEARCH stays in the database: a search looks at that of every message."""


class Objects(Protocol):
    """Where objects are read."""

    def fetch(self, name: str, version: str, most_bytes: int) -> bytes | None:
        """The bytes of an object, at most so many; None when it is not there. Raises StoreUnavailableError."""
        ...


class ObjectParts:
    """Sealed parts in the database and in a bucket; see :class:`gateway.store.body_parts.PartPlace`."""

    def __init__(self, connection: Connection, objects: Objects | None, *, places: bool, may_fetch: bool) -> None:
        """Bind to a transaction.

        ``places``: new bodies go to the bucket. ``may_fetch`` False: this is the writer, which waits for no network.
        """
        self._connection = connection
        self._table = TableParts(connection)
        self._objects = objects
        self._places = places
        self._may_fetch = may_fetch

    def put(self, message_id: str, kind: Kind, parts: Iterable[bytes]) -> None:
        """See PartPlace. Raises StoreError for a body that must be placed first."""
        if self._places and kind in PLACED_KINDS:
            raise StoreError(f"the {kind.value} of the message {message_id} was not placed before its row")
        self._table.put(message_id, kind, parts)

    def name(self, placed: PlacedBody) -> None:
        """See PartPlace."""
        if not self._places:
            raise StoreError(f"the body of the message {placed.message_id} was placed, but this store places none")
        row = {
            "message_id": placed.message_id,
            "kind": placed.kind,
            "name": placed.name,
            "version": placed.version,
            "sha256": placed.sha256,
            "size_bytes": placed.size_bytes,
            "retain_until": placed.retain_until,
        }
        self._connection.execute(insert(body_object), row)

    def take(self, message_ids: Sequence[str], kind: Kind) -> Iterator[tuple[str, Iterator[bytes]]]:
        """See PartPlace. Raises StoreError, StoreUnavailableError."""
        if kind not in PLACED_KINDS or self._objects is None:
            here = set()
            for message_id, parts in self._table.take(message_ids, kind):
                here.add(message_id)
                yield message_id, parts
            # Only for what is not here: who keeps all bodies in the database pays for no second look.
            if self._objects is None and kind in PLACED_KINDS and (left := set(message_ids) - here):
                self._refuse_placed(left, kind)
            return
        yield from self._take_placed(self._objects, message_ids, kind)

    def _take_placed(
        self, objects: Objects, message_ids: Sequence[str], kind: Kind
    ) -> Iterator[tuple[str, Iterator[bytes]]]:
        rows = self._connection.execute(
            select(body_object).where(body_object.c.message_id.in_(message_ids), body_object.c.kind == kind.value)
        ).all()
        for row in rows:
            data = self._fetch(objects, row.message_id, kind, (row.name, row.version, row.size_bytes))
            if len(data) != row.size_bytes or hashlib.sha256(data).hexdigest() != row.sha256:
                raise broken(row.message_id, f"its {kind.value} in the bucket was altered")
            yield row.message_id, unpacked(data)
        placed = {row.message_id for row in rows}
        if rest := [message_id for message_id in message_ids if message_id not in placed]:
            yield from self._table.take(rest, kind)

    def _fetch(self, objects: Objects, message_id: str, kind: Kind, named: tuple[str, str, int]) -> bytes:
        if not self._may_fetch:
            raise StoreError(f"the {kind.value} of the message {message_id} was asked for by a unit that writes")
        name, version, size_bytes = named
        data = objects.fetch(name, version, size_bytes + 1)
        if data is None:
            raise broken(message_id, f"its {kind.value} is missing in the bucket")
        return data

    def _refuse_placed(self, message_ids: set[str], kind: Kind) -> None:
        rows = select(body_object.c.message_id).where(
            body_object.c.message_id.in_(message_ids), body_object.c.kind == kind.value
        )
        if (found := self._connection.scalar(rows.limit(1))) is not None:
            raise StoreError(f"the {kind.value} of the message {found} lies in a bucket, and s3.bucket names none")


def packed(parts: Iterable[bytes]) -> bytes:
    """Join sealed parts into an object."""
    joined = bytearray()
    for part in parts:
        joined += len(part).to_bytes(_LENGTH_BYTES, "big")
        joined += part
    return bytes(joined)


def unpacked(data: bytes) -> Iterator[bytes]:
    """The parts again. Of an object that was not made by :func:`packed` they are parts that do not open."""
    position = 0
    while position < len(data):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(data[position:start], "big")
        yield data[start:position]


def require_bucket(engine: Engine) -> None:
    """See that no mail lies in a bucket, when the settings name none.

    Raises:
        ConfigurationError: some does.
    """
    with engine.connect() as connection:
        if connection.execute(select(body_object.c.message_id).limit(1)).first() is not None:
            raise ConfigurationError("s3.bucket: stored mail lies in a bucket; name it, whatever store.bodies says now")
