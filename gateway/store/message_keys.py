"""The key of each message: made with it, kept wrapped under a key-encryption key (KEK), unwrapped to read it.

Which KEK new mail is sealed under is what the table ``key_encryption_key`` says in the very transaction that keeps the
message, not what a process remembers. So after a rotation every process, on every node, wraps under the new one from
its next message on; one that does not have the new key yet reads its ring again, and until that helps goes on with the
newest KEK that it has. A KEK that was retired is gone from the table, and the foreign key refuses a message that a
slower process would still put under it: no message can come to rest on a key that is about to be thrown away.

``proof`` in that table is a fixed value wrapped under the KEK. It tells another key under the same id before mail is
sealed with it.

Unwrapped keys are remembered under their wrapped form, so a key that was removed, altered or exchanged in the database
is never served from memory.

Failure modes: StoreError that names the message when its key is missing or does not open; KeyUnavailableError when the
KEK is not in the ring, or its token is away (it says nothing about the message, and is tried again).
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select

from gateway.core.errors import ConfigurationError, KeyUnavailableError, SealBrokenError, StoreError
from gateway.observability.log import get_log
from gateway.ports import BodySealer
from gateway.store.engines import insert_absent
from gateway.store.header_texts import HeaderMemory
from gateway.store.prepared import Prepared
from gateway.store.prepared_lists import PreparedList
from gateway.store.tables import key_encryption_key, wrapped_key

PROOF = hashlib.sha256(b"direct-gateway proof of a key-encryption key").digest()
REMEMBERED_KEYS = 20_000
"""About 6 MB. A message is opened again soon after it came (to judge, to file, to show it)."""

log = get_log("store")

_ADD = Prepared.into(wrapped_key)
_ADD_UNDER_NEWEST = Prepared(
    insert(wrapped_key).from_select(
        ["message_id", "kek_id", "wrapped"],
        select(
            bindparam("message", type_=wrapped_key.c.message_id.type),
            key_encryption_key.c.kek_id,
            bindparam("key", type_=wrapped_key.c.wrapped.type),
        ).where(
            key_encryption_key.c.kek_id == bindparam("kek"),
            key_encryption_key.c.seq == select(func.max(key_encryption_key.c.seq)).scalar_subquery(),
        ),
    )
)
_ONE = Prepared(select(wrapped_key).where(wrapped_key.c.message_id == bindparam("message")))
_MANY = PreparedList(lambda listed: select(wrapped_key).where(wrapped_key.c.message_id.in_(listed)))


class KeyMemory:
    """What the processes of one store share between units: the sealer, and the keys that were unwrapped lately."""

    def __init__(self, sealer: BodySealer, remembered: int = REMEMBERED_KEYS) -> None:
        self.sealer = sealer
        self.newest: str | None = None
        """The KEK under which the last message was sealed: a guess that the insertion proves."""
        self.headers = HeaderMemory()
        """Headers that were opened lately, likewise."""
        self._remembered = remembered
        self._keys: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, kek_id: str, wrapped: bytes) -> bytes | None:
        """The key that has this wrapped form, when it is remembered."""
        with self._lock:
            key = self._keys.get((kek_id, wrapped))
            if key is not None:
                self._keys.move_to_end((kek_id, wrapped))
            return key

    def put(self, kek_id: str, wrapped: bytes, key: bytes) -> None:
        """Remember a key, and forget the one that was not asked for the longest."""
        with self._lock:
            self._keys[kek_id, wrapped] = key
            if len(self._keys) > self._remembered:
                self._keys.popitem(last=False)


class MessageKeys:
    """The keys of messages, within one transaction."""

    def __init__(self, connection: Connection, memory: KeyMemory) -> None:
        self._connection = connection
        self._memory = memory
        self._sealer = memory.sealer
        self._open: dict[str, bytes] = {}
        """Keys that this unit has made, or has opened to seal under them."""

    def make(self, message_id: str, at: datetime, key: bytes | None = None) -> bytes:
        """Make and keep the key of a new message, or keep the one under which its body was sealed already.

        Raises:
            KeyUnavailableError: no KEK that the store knows is at hand. ConfigurationError: the ring cannot be read.
        """
        key = self._sealer.new_key() if key is None else key
        guess = self._memory.newest
        if guess is not None and guess in self._sealer.keys.ids():
            wrapped = self._sealer.keys.wrap(guess, key)
            if self._keep_under_newest(message_id, guess, wrapped):
                self._memory.put(guess, wrapped, key)
                self._open[message_id] = key
                return key
        kek_id = self._choose(at)
        wrapped = self._sealer.keys.wrap(kek_id, key)
        _ADD.run(self._connection, message_id=message_id, kek_id=kek_id, wrapped=wrapped)
        self._memory.newest = kek_id
        self._memory.put(kek_id, wrapped, key)
        self._open[message_id] = key
        return key

    def _keep_under_newest(self, message_id: str, kek_id: str, wrapped: bytes) -> bool:
        """Keep the key, unless that KEK is not the newest any more."""
        return _ADD_UNDER_NEWEST.run(self._connection, message=message_id, kek=kek_id, key=wrapped) == 1

    def _choose(self, at: datetime) -> str:
        """The newest KEK of the store that the ring has; in a store without any, the newest of the ring."""
        ring = self._sealer.keys
        known = self._known()
        if not known:
            # The file may have been exchanged since it was read, as long as nothing rested on it.
            ring.reload()
            begin_use(self._connection, self._sealer, ring.current_id, at, seq=1)
            known = self._known()
        if known[0][0] not in ring.ids():
            log.info("body_key_unknown", kek_id=known[0][0])
            with suppress(ConfigurationError, KeyUnavailableError):
                ring.reload()
        for kek_id, proof in known:
            if kek_id in ring.ids():
                require_proof(self._sealer, kek_id, proof)
                if kek_id != known[0][0]:
                    log.warning("body_key_not_here", kek_id=known[0][0])
                return kek_id
        # Asked for by its id, the ring says where it was looked for.
        ring.unwrap(*known[0])
        raise KeyUnavailableError(f"the key {known[0][0]}, which seals stored mail, is not at hand")

    def _known(self) -> list[tuple[str, bytes]]:
        rows = self._connection.execute(
            select(key_encryption_key.c.kek_id, key_encryption_key.c.proof).order_by(key_encryption_key.c.seq.desc())
        )
        return [(row.kek_id, bytes(row.proof)) for row in rows]

    def of(self, message_id: str) -> bytes:
        """The key of a message. Raises as :meth:`open`; StoreError when it has none."""
        key = self._open.get(message_id)
        if key is None:
            key = self._open[message_id] = self.open(message_id, self.rows([message_id]))
        return key

    def rows(self, message_ids: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        """KEK id and wrapped form by message, from one look; give a bounded number."""
        if len(message_ids) == 1:
            rows: Iterable[Any] = _ONE.rows(self._connection, message=message_ids[0])
        else:
            rows = _MANY.rows(self._connection, message_ids)
        return {row.message_id: (row.kek_id, bytes(row.wrapped)) for row in rows}

    def open(self, message_id: str, rows: dict[str, tuple[str, bytes]]) -> bytes:
        """The key of one of the messages that :meth:`rows` was asked for.

        Raises:
            StoreError: it is not there, or does not open.
            KeyUnavailableError: its KEK is not at hand.
        """
        found = rows.get(message_id)
        if found is None:
            raise broken(message_id, "its key is missing")
        key = self._memory.get(*found)
        if key is None:
            try:
                key = self._sealer.keys.unwrap(*found)
            except SealBrokenError:
                raise broken(message_id, f"its key does not open with the key {found[0]}") from None
            if key == PROOF:
                # Everybody knows it: whoever may write to the table could seal under it, and read what we seal.
                raise broken(message_id, "its key was replaced by one that is known")
            self._memory.put(*found, key)
        return key


def broken(message_id: str, what: str) -> StoreError:
    """Return the error for a message that must not be shown (F32), and tell the log of it."""
    log.error("stored_message_damaged", message_id=message_id)
    return StoreError(f"the stored message {message_id} is damaged: {what}")


def require_proof(sealer: BodySealer, kek_id: str, proof: bytes) -> None:
    """See that the ring's key of that id is the one that the store knows.

    Raises:
        ConfigurationError: it is another one.
        KeyUnavailableError: it is not at hand, or its token is away.
    """
    try:
        right = sealer.keys.unwrap(kek_id, proof) == PROOF
    except SealBrokenError:
        right = False
    if not right:
        raise ConfigurationError(
            f"store.key_file: the ring has a key {kek_id}, but it is not the one that stored mail is sealed under: "
            f"put the right one back from your copy"
        )


def begin_use(connection: Connection, sealer: BodySealer, kek_id: str, at: datetime, *, seq: int) -> None:
    """Make a KEK known to the store; two processes that bring the same one both succeed.

    The ring is read again within the transaction, and :func:`gateway.pipeline.body_keys.retire` throws a key that the
    store does not know away within one: so no key is taken into use that only a process remembers.

    Raises:
        KeyUnavailableError: it is not at hand. ConfigurationError: it does not unwrap what it wraps.
    """
    sealer.keys.reload()
    proof = sealer.keys.wrap(kek_id, PROOF)
    require_proof(sealer, kek_id, proof)
    row = {"kek_id": kek_id, "seq": seq, "since": at, "proof": proof}
    connection.execute(insert_absent(connection, key_encryption_key), row)
