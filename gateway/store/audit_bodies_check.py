"""``audit verify``, third part: whether the stored bodies open, and are what the rows say of them.

The audit log answers for the sealed bytes of a body. It does not answer for the key that opens them: wrapped keys are
wrapped anew at each rotation, so their table is mutable, and somebody who overwrites or exchanges one makes a message
unreadable while every digest of the log still holds. So, where the key-encryption keys are at hand, each wrapped key is
unwrapped and the first part of each body opened under it, which proves both; a body of one part (up to a mebibyte, most
mail) is compared with its SHA-256 as well. With ``every_part`` all of every body is opened and compared.

What is not looked at is counted, and the report says so: bodies that lie in a bucket, and messages whose
key-encryption key is not here. That is no finding: a backup may be verified where the keys must not be.

Failure modes: none of its own; it reads one part at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Connection, func, select

from gateway.core.errors import ConfigurationError, KeyUnavailableError, SealBrokenError
from gateway.ports import BodySealer, PartName
from gateway.store.body_parts import Kind
from gateway.store.tables import body_object, body_part, message_content, raw_message, wrapped_key

_PAGE: Final = 200
"""Messages looked at together; of their parts one is in memory at a time."""
_ROWS_AT_ONCE: Final = 16
_NAMED: Final = 5
"""Messages that are named; the rest is counted."""

Report = Callable[[str, int, str], None]


@dataclass(slots=True)
class BodiesLooked:
    """What was opened, and what could not be."""

    messages: int = 0
    """Messages whose key was unwrapped."""
    bodies: int = 0
    """Bodies of them that were opened, at least their first part."""
    whole: int = 0
    """Of these: compared with the digest of all of their bytes."""
    without_key: int = 0
    """Messages whose key-encryption key is not at hand."""
    in_bucket: int = 0
    """Bodies that lie in the bucket, where this does not look."""
    trouble: str = ""
    """Why no key was at hand, where the ring said so."""


class BodiesCheck:
    """Opens what is there, over one read transaction."""

    def __init__(self, connection: Connection, sealer: BodySealer, report: Report, *, every_part: bool) -> None:
        self._connection = connection
        self._sealer = sealer
        self._tell = report
        self._every_part = every_part
        self._broken = 0
        self.looked = BodiesLooked()

    def run(self) -> BodiesLooked:
        """Look at every message."""
        looked = self.looked
        looked.in_bucket = self._connection.scalar(select(func.count()).select_from(body_object)) or 0
        try:
            at_hand = set(self._sealer.keys.ids())
        except (ConfigurationError, KeyUnavailableError) as exc:
            at_hand, looked.trouble = set(), str(exc)
        after = ""
        while rows := self._page(after):
            after = rows[-1].message_id
            keys = {row.message_id: key for row in rows if (key := self._key(row, at_hand)) is not None}
            if keys:
                self._open(keys)
        if self._broken > _NAMED:
            self._tell("", 0, f"{self._broken} bodies or keys of bodies in all do not open")
        return looked

    def _page(self, after: str) -> Sequence[Any]:
        query = select(wrapped_key).where(wrapped_key.c.message_id > after).order_by(wrapped_key.c.message_id)
        return self._connection.execute(query.limit(_PAGE)).all()

    def _key(self, row: Any, at_hand: set[str]) -> bytes | None:
        if row.kek_id not in at_hand:
            self.looked.without_key += 1
            return None
        try:
            key = self._sealer.keys.unwrap(row.kek_id, bytes(row.wrapped))
        except SealBrokenError:
            self._found(row.message_id, f"its wrapped key does not open with the key {row.kek_id}")
            return None
        except KeyUnavailableError as exc:
            self.looked.without_key += 1
            self.looked.trouble = str(exc)
            return None
        self.looked.messages += 1
        return key

    def _open(self, keys: dict[str, bytes]) -> None:
        digests = self._digests(list(keys))
        for (message_id, kind), parts in groupby(self._parts(list(keys)), key=lambda row: (row.message_id, row.kind)):
            try:
                digest = self._opened(keys[message_id], message_id, kind, parts)
            except SealBrokenError:
                self._found(message_id, f"its {kind} does not open under its key: one of them was exchanged or altered")
                continue
            self.looked.bodies += 1
            if digest is None or (message_id, kind) not in digests:
                continue
            self.looked.whole += 1
            if digest != digests[message_id, kind]:
                self._found(message_id, f"its {kind} is not what its digest says")

    def _opened(self, key: bytes, message_id: str, kind: str, parts: Iterator[Any]) -> str | None:
        """Open what was asked for of one body; returns the SHA-256 of all of it, or None when not all was opened."""
        digest = hashlib.sha256()
        for position, row in enumerate(parts):
            last = row.position == row.last
            if row.position != position:
                # A gap. The first part alone is looked at by itself.
                raise SealBrokenError("a part is missing")
            try:
                digest.update(self._sealer.open(key, PartName(message_id, kind, row.position, last), bytes(row.sealed)))
            except ValueError:
                # What was put in the place of the key is no key.
                raise SealBrokenError("not a key") from None
            if last:
                return digest.hexdigest()
        return None

    def _parts(self, message_ids: list[str]) -> Iterator[Any]:
        """Parts with the position of the last one of their body."""
        lasts = (
            select(body_part.c.message_id, body_part.c.kind, func.max(body_part.c.position).label("last"))
            .where(body_part.c.message_id.in_(message_ids))
            .group_by(body_part.c.message_id, body_part.c.kind)
            .subquery()
        )
        query = (
            select(body_part, lasts.c.last)
            .join(lasts, (lasts.c.message_id == body_part.c.message_id) & (lasts.c.kind == body_part.c.kind))
            .order_by(body_part.c.message_id, body_part.c.kind, body_part.c.position)
        )
        if not self._every_part:
            query = query.where(body_part.c.position == 0)
        yield from self._connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE})

    def _digests(self, message_ids: list[str]) -> dict[tuple[str, str], str]:
        raw = select(raw_message.c.id, raw_message.c.sha256).where(raw_message.c.id.in_(message_ids))
        content = select(message_content.c.message_id, message_content.c.content_sha256).where(
            message_content.c.message_id.in_(message_ids)
        )
        found = {(row[0], Kind.RAW.value): row[1] for row in self._connection.execute(raw)}
        return found | {(row[0], Kind.CONTENT.value): row[1] for row in self._connection.execute(content)}

    def _found(self, message_id: str, what: str) -> None:
        self._broken += 1
        if self._broken <= _NAMED:
            self._tell("", 0, f"message {message_id} cannot be read: {what}")
