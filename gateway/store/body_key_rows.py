"""The wrapped keys as rotation sees them (:class:`gateway.ports.BodyKeyRows`).

Crash story: ``begin_use`` commits by itself, after the key itself is safe in its ring; ``replace`` changes a bounded
number of rows in one transaction, each only where the old wrapped form still stands, so that it may run again, or in
two processes; ``end_use`` commits before the key leaves its ring, and the foreign key refuses it while any message
rests on it, also one that another process is adding.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, func, select, update

from gateway.core.errors import ConfigurationError, ConflictError, KeyUnavailableError, NotFoundError
from gateway.ports import BodySealer, KEKUse, WrappedKey
from gateway.store.message_keys import begin_use, require_proof
from gateway.store.tables import key_encryption_key, wrapped_key


class BodyKeys:
    """See :class:`gateway.ports.BodyKeyRows`."""

    def __init__(self, connection: Connection, sealer: BodySealer) -> None:
        self._connection = connection
        self._sealer = sealer

    def keks(self) -> list[KEKUse]:
        """Every KEK in the order of their use, the newest first."""
        groups = select(wrapped_key.c.kek_id, func.count().label("messages")).group_by(wrapped_key.c.kek_id)
        counts: dict[str, int] = {row.kek_id: row.messages for row in self._connection.execute(groups)}
        rows = self._connection.execute(select(key_encryption_key).order_by(key_encryption_key.c.seq.desc()))
        return [KEKUse(row.kek_id, row.since, counts.get(row.kek_id, 0)) for row in rows]

    def newest(self) -> str | None:
        """Id of the KEK that new mail is sealed under; None while nothing was ever sealed."""
        return self._connection.scalar(
            select(key_encryption_key.c.kek_id).order_by(key_encryption_key.c.seq.desc()).limit(1)
        )

    def begin_use(self, kek_id: str, at: datetime) -> None:
        """Make a KEK of the ring the newest one. Raises KeyUnavailableError, ConflictError (it is known already)."""
        if self._proof(kek_id) is not None:
            raise ConflictError(f"the key {kek_id} is in use already")
        seq = (self._connection.scalar(select(func.max(key_encryption_key.c.seq))) or 0) + 1
        begin_use(self._connection, self._sealer, kek_id, at, seq=seq)

    def resting_on(self, kek_id: str, *, after: str, limit: int) -> list[WrappedKey]:
        """Keys of messages above that id that are wrapped under the KEK, in the order of the messages."""
        rows = self._connection.execute(
            select(wrapped_key)
            .where(wrapped_key.c.kek_id == kek_id, wrapped_key.c.message_id > after)
            .order_by(wrapped_key.c.message_id)
            .limit(limit)
        )
        return [WrappedKey(row.message_id, row.kek_id, bytes(row.wrapped)) for row in rows]

    def replace(self, changes: Sequence[tuple[WrappedKey, WrappedKey]]) -> int:
        """Put the second of each pair in place of the first, where that still stands; returns how many did."""
        done = 0
        for old, new in changes:
            done += self._connection.execute(
                update(wrapped_key)
                .where(
                    wrapped_key.c.message_id == old.message_id,
                    wrapped_key.c.kek_id == old.kek_id,
                    wrapped_key.c.wrapped == old.wrapped,
                )
                .values(kek_id=new.kek_id, wrapped=new.wrapped)
            ).rowcount
        return done

    def end_use(self, kek_id: str) -> None:
        """Forget a KEK. Raises NotFoundError; ConflictError while it is the newest or a message rests on it."""
        if self._proof(kek_id) is None:
            raise NotFoundError(f"the store knows no key {kek_id}")
        if self.newest() == kek_id:
            raise ConflictError(f"new mail is sealed under the key {kek_id}; run first: direct-gateway keys rotate")
        resting = select(func.count()).select_from(wrapped_key).where(wrapped_key.c.kek_id == kek_id)
        if count := self._connection.scalar(resting):
            raise ConflictError(
                f"{count} messages rest on the key {kek_id} and could never be read again; "
                f"run first: direct-gateway keys rotate"
            )
        self._connection.execute(delete(key_encryption_key).where(key_encryption_key.c.kek_id == kek_id))

    def _proof(self, kek_id: str) -> bytes | None:
        return self._connection.scalar(select(key_encryption_key.c.proof).where(key_encryption_key.c.kek_id == kek_id))

    def require(self) -> None:
        """See that every KEK that stored mail needs is at hand, and is the right one.

        Raises:
            ConfigurationError: one is missing, or another one bears its id; the text names it.
            KeyUnavailableError: the token that has them does not answer now.
        """
        ring = self._sealer.keys
        at_hand = ring.ids()
        known = self._connection.execute(select(key_encryption_key).order_by(key_encryption_key.c.seq.desc())).all()
        if not known and not at_hand:
            # It says how to make the first one.
            _ = ring.current_id
        usable = any(row.kek_id in at_hand for row in known)
        for number, row in enumerate(known):
            if row.kek_id not in at_hand and not self._rests(row.kek_id) and (usable or number):
                continue
            try:
                # Asked for a key that it does not have, the ring says where it was looked for.
                require_proof(self._sealer, row.kek_id, bytes(row.proof))
            except KeyUnavailableError as exc:
                if row.kek_id in at_hand:
                    # The ring has it; only its token is away.
                    raise
                raise ConfigurationError(f"store.key_file: {exc}") from exc

    def _rests(self, kek_id: str) -> bool:
        resting = select(wrapped_key.c.message_id).where(wrapped_key.c.kek_id == kek_id).limit(1)
        return self._connection.scalar(resting) is not None
