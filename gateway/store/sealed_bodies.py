"""Bodies at rest: sealed part by part under the key of their message, opened and checked when they are read.

Sealed are the bytes as they arrived, the verified content, and the text that SEARCH looks at (which is the content once
more). Every part is bound to its message, its kind, its position and to whether it is the last, so a part that was
altered, left out, cut off, put elsewhere or taken from another message does not open (F32).

A body is written as its parts come and is never whole in memory here. It is read into one buffer.

The search text has no key of its own. A key for all of it would save unwrapping one for each message, and leave the
whole text of a message readable after its key was destroyed at the end of its retention. The saving was measured and is
small: a search through 10,000 messages of 10 KB takes 0.46 s of CPU when every key must be unwrapped, 0.37 s when the
keys are remembered, and 0.33 s when nothing is sealed at all (one core; the rows cost most).

Failure modes: StoreError that names the message for what is damaged or missing; KeyUnavailableError while the key of
its key is away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from io import BytesIO

from sqlalchemy import Connection

from gateway.core.errors import SealBrokenError, StoreError
from gateway.core.message import Body, MemoryBody
from gateway.ports import BodySealer, PartName, PlacedBody
from gateway.store.body_parts import Kind, PartPlace
from gateway.store.message_keys import KeyMemory, MessageKeys, broken

_CHUNK = 500
"""Messages asked for at once: databases bound the parameters of a statement."""


class SealedBodies:
    """The bodies of messages, within one transaction."""

    def __init__(self, connection: Connection, memory: KeyMemory, place: PartPlace) -> None:
        self._keys = MessageKeys(connection, memory)
        self._sealer = memory.sealer
        self.headers = memory.headers
        """Headers that were opened lately, by any unit of the store."""
        self._place = place

    def begin(self, message_id: str, at: datetime, raw: Body, placed: PlacedBody | None = None) -> None:
        """Make the key of a new message and keep its raw bytes, or name where they were placed.

        Raises as :meth:`MessageKeys.make`; StoreError when it is another body that was placed.
        """
        key = self._keys.make(message_id, at, None if placed is None else placed.key)
        self._keep(key, message_id, Kind.RAW, raw, placed)

    def add(self, message_id: str, kind: Kind, body: bytes, placed: PlacedBody | None = None) -> None:
        """Keep another body of a message that is there, or name where it was placed.

        Raises as :meth:`MessageKeys.of`; StoreError when it is another body that was placed.
        """
        self._keep(self._keys.of(message_id), message_id, kind, MemoryBody(body), placed)

    def _keep(self, key: bytes, message_id: str, kind: Kind, body: Body, placed: PlacedBody | None) -> None:
        if placed is None:
            self._place.put(message_id, kind, sealed_parts(self._sealer, key, message_id, kind, body.parts()))
            return
        asked = (message_id, kind.value, body.sha256, key)
        if asked != (placed.message_id, placed.kind, placed.body_sha256, placed.key):
            raise StoreError(f"what was placed for the message {message_id} is another body")
        self._place.name(placed)

    def key_of(self, message_id: str) -> bytes:
        """The key of a message. Raises as :meth:`MessageKeys.of`."""
        return self._keys.of(message_id)

    def read(self, message_id: str, kind: Kind, sha256: str | None = None) -> bytes:
        """One body. Raises StoreError: damaged, missing, or not of that digest. KeyUnavailableError."""
        for _, body in self.read_many([message_id], kind):
            if sha256 is not None:
                require_digest(message_id, body, sha256)
            return body
        raise AssertionError("read_many gives what it was asked for, or raises")

    def read_many(self, message_ids: Sequence[str], kind: Kind) -> Iterator[tuple[str, bytes]]:
        """Each body with its message, in no order that could be relied on; memory for one body at a time.

        Raises:
            StoreError: one of them is damaged or missing. KeyUnavailableError: the key of its key is away.
        """
        for start in range(0, len(message_ids), _CHUNK):
            chunk = message_ids[start : start + _CHUNK]
            keys = self._keys.rows(chunk)
            left = set(chunk)
            for message_id, parts in self._place.take(chunk, kind):
                left.discard(message_id)
                yield message_id, self._opened(self._keys.open(message_id, keys), message_id, kind, parts)
            if left:
                raise broken(min(left), f"its {kind.value} is missing")

    def _opened(self, key: bytes, message_id: str, kind: Kind, sealed: Iterable[bytes]) -> bytes:
        buffer = BytesIO()
        try:
            for position, last, part in _marked(sealed):
                opened = self._sealer.open(key, PartName(message_id, kind.value, position, last), part)
                if last and position == 0:
                    return opened
                buffer.write(opened)
        except SealBrokenError:
            raise broken(message_id, f"its {kind.value} does not open") from None
        # The buffer hands out its own memory: a large body does not stand there twice.
        return buffer.getvalue()


def sealed_parts(
    sealer: BodySealer, key: bytes, message_id: str, kind: Kind, parts: Iterable[bytes]
) -> Iterator[bytes]:
    """Seal the parts of a body as they come."""
    for position, last, part in _marked(parts):
        yield sealer.seal(key, PartName(message_id, kind.value, position, last), part)


def require_digest(message_id: str, body: bytes, sha256: str) -> None:
    """Raises StoreError when the body is not the one of that digest."""
    if hashlib.sha256(body).hexdigest() != sha256:
        raise broken(message_id, "it does not match its digest")


def _marked(parts: Iterable[bytes]) -> Iterator[tuple[int, bool, bytes]]:
    """Each part with its position and whether it is the last one."""
    rest = iter(parts)
    current = next(rest, None)
    position = 0
    while current is not None:
        following = next(rest, None)
        yield position, following is None, current
        current, position = following, position + 1
