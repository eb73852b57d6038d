"""Changes the key-encryption key (KEK) that the stored messages rest on, beside a gateway that runs.

``rotate`` makes a new KEK, lets new mail be sealed under it, and wraps the key of every stored message anew. No body is
touched, so it takes seconds for a hundred thousand messages. ``retire`` forgets a KEK on which nothing rests any more.

Crash story: killed at any point, every message can be read, and running it again goes on.

1. The new KEK reaches its ring (the key file on the disk, the token) before the store knows it. Killed here, the ring
   has a key more that nothing rests on; the next rotation takes that one into use instead of making another.
2. The store takes it into use in a transaction of its own, audited. From that commit on every process, on every node,
   wraps the keys of new messages under it; one that does not know it yet reads its ring again.
3. The keys are wrapped anew in bounded batches. What is computed (perhaps by a slow token) is computed outside of any
   write transaction, and written only where the old form still stands. Killed here, some messages rest on the old KEK
   and some on the new one; both are in the ring. The next rotation sees that, makes no new key, and finishes.
4. The end is audited. The old KEK stays in the ring until it is retired.

Retiring a key that the store does not know takes it out of the ring within the transaction that sees so, and a key is
taken into use only when it is in its ring at that moment: of two commands at once, one is refused.

Retiring ends the use in the store first, which the database refuses while a message rests on the KEK, also one that is
being added at this moment; then the key leaves the ring. Killed between the two, the ring has a key that the store does
not know: no message is ever sealed under it, and retiring it again takes it out.

Failure modes: a key that does not open is counted and left alone, and the rest goes on (its message is damaged; the KEK
that it rests on cannot be retired). KeyUnavailableError when the ring lost a KEK or its token went away: what is done
stays done, and running again goes on. StoreError when a commit failed; likewise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gateway.core.errors import ConflictError, KeyUnavailableError, NotFoundError, SealBrokenError
from gateway.observability.log import get_log
from gateway.ports import Clock, KeyKeeper, KeyWrapper, Store, UnitOfWork, WrappedKey

BATCH = 200
"""Messages in one transaction: it holds the writer for a few milliseconds."""
PAUSE_SECONDS = 0.02
"""Between two batches, so that the mail comes to its turn."""

log = get_log("keys")


@dataclass(slots=True)
class Rotation:
    """How far a rotation came."""

    kek_id: str
    """The KEK that new mail is sealed under."""
    made: bool
    """Whether this rotation brought it; False: it finished what an earlier one had begun."""
    total: int = 0
    """Messages that rested on another KEK when the rotation began."""
    rewrapped: int = 0
    damaged: list[str] = field(default_factory=list)
    """Ids of messages whose key does not open."""


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One line of ``keys list``."""

    kek_id: str
    since: str
    """ISO 8601; empty for a key that the store has never used, or uses no more."""
    messages: int
    at_hand: bool
    """False: it is not in the ring; messages that rest on it cannot be read."""
    current: bool
    """New mail is sealed under it."""


async def keys_in_order(store: Store, ring: KeyWrapper) -> list[KeyLine]:
    """Every key that the store or the ring knows, the newest first. Raises StoreError, ConfigurationError."""
    at_hand = await asyncio.to_thread(ring.ids)
    known = await store.read(lambda rows: rows.body_keys.keks())
    lines = [
        KeyLine(use.kek_id, use.since.isoformat(), use.messages, use.kek_id in at_hand, number == 0)
        for number, use in enumerate(known)
    ]
    used = {line.kek_id for line in lines}
    spare = [KeyLine(kek_id, "", 0, at_hand=True, current=False) for kek_id in at_hand if kek_id not in used]
    return [*spare, *lines]


async def rotate(
    store: Store,
    clock: Clock,
    ring: KeyKeeper,
    actor: str,
    *,
    progress: Callable[[Rotation], None] = lambda _: None,
    others: Sequence[str] = (),
) -> Rotation:
    """Bring a new KEK into use and wrap every key under it; or finish a rotation that was cut short.

    ``progress`` is told after each batch. ``others``: nodes that work on the store with rings of their own. They cannot
    have a KEK that is made here and now, and could read nothing that is wrapped under it, so none is made.

    Raises:
        ConflictError: a KEK would have to be made, and there are others; the text says what to do.
        ConfigurationError: the ring cannot be read, or cannot be changed from here.
        KeyUnavailableError: a KEK that stored mail rests on is not at hand.
        StoreError: a commit failed.
    """
    await asyncio.to_thread(ring.reload)
    rotation = await _unfinished(store, ring)
    if rotation is not None:
        await _rewrap(store, ring, rotation, progress)
    if rotation is None or not rotation.rewrapped:
        # Nothing was left to finish, or only what is damaged.
        rotation = await _begun(store, clock, ring, actor, others)
        await _rewrap(store, ring, rotation, progress)
    detail = {"kek": rotation.kek_id, "rewrapped": rotation.rewrapped, "damaged": len(rotation.damaged)}
    await store.write(lambda rows: rows.audit.add(clock.now(), actor, "keys.rotated", rotation.kek_id, detail))
    log.info("body_keys_rotated", kek_id=rotation.kek_id, messages=rotation.rewrapped)
    return rotation


async def retire(store: Store, clock: Clock, ring: KeyKeeper, actor: str, kek_id: str) -> bool:
    """Forget a KEK on which no message rests; returns whether it left the ring as well (a token keeps its keys).

    Raises:
        NotFoundError: neither the store nor the ring has it.
        ConflictError: new mail is sealed under it, or a message rests on it.
        ConfigurationError: the ring cannot be changed from here.
    """
    in_ring = kek_id in await asyncio.to_thread(ring.ids)

    def end(rows: UnitOfWork) -> bool | None:
        known = {use.kek_id for use in rows.body_keys.keks()}
        if kek_id in known:
            rows.body_keys.end_use(kek_id)
        elif not in_ring:
            raise NotFoundError(f"there is no key {kek_id}; see: direct-gateway keys list")
        elif not known:
            # Nothing was sealed yet: the ring's only key is the one that the first message will rest on.
            raise ConflictError(f"the first message will be sealed under the key {kek_id}")
        rows.audit.add(clock.now(), actor, "keys.retired", kek_id, {"kek": kek_id})
        # Nobody takes a key into use while this transaction lasts. After it, a rotation could, and would then wrap
        # everything under a key that is about to go.
        return None if kek_id in known else ring.remove_key(kek_id)

    removed = await store.write(end)
    return await asyncio.to_thread(ring.remove_key, kek_id) if removed is None else removed


async def _unfinished(store: Store, ring: KeyWrapper) -> Rotation | None:
    """The rotation that was cut short; None when every message rests on the newest KEK, or a newer one is waiting.

    Raises KeyUnavailableError when a KEK that messages rest on is not at hand: nothing must be changed then.
    """
    newest, olds = await store.read(_in_use)
    at_hand = await asyncio.to_thread(ring.ids)
    lost = [kek_id for kek_id, messages in olds if messages and kek_id not in at_hand]
    if newest is not None and (lost or newest not in at_hand):
        raise KeyUnavailableError(
            f"the key {(*lost, newest)[0]}, which stored mail rests on, is not at hand; put it back from your copy"
        )
    resting = sum(messages for _, messages in olds)
    if newest is None or not resting or at_hand[0] not in {newest, *(kek_id for kek_id, _ in olds)}:
        return None
    return Rotation(newest, made=False, total=resting)


async def _begun(store: Store, clock: Clock, ring: KeyKeeper, actor: str, others: Sequence[str]) -> Rotation:
    """Take a KEK into use: the one that stands first in the ring and was never used, or else a fresh one."""
    newest, olds = await store.read(_in_use)
    at_hand = await asyncio.to_thread(ring.ids)
    used = {newest, *(kek_id for kek_id, _ in olds)}
    spare = bool(at_hand) and at_hand[0] not in used and newest is not None
    if others and not spare:
        raise _unknown_to_others(others, sealed=newest is not None)
    kek_id = at_hand[0] if spare else await asyncio.to_thread(ring.make_key, clock.now())
    at = clock.now()

    def take_into_use(rows: UnitOfWork) -> int:
        rows.body_keys.begin_use(kek_id, at)
        resting = sum(use.messages for use in rows.body_keys.keks())
        rows.audit.add(at, actor, "keys.rotation_begun", kek_id, {"kek": kek_id, "messages": resting})
        return resting

    return Rotation(kek_id, made=True, total=await store.write(take_into_use))


def _unknown_to_others(others: Sequence[str], *, sealed: bool) -> ConflictError:
    running = f"other nodes run on this database ({', '.join(others)}) and would not have a key that is made here"
    give = (
        "print one (direct-gateway keys make --print), put its line above the others in the key file of every node, "
        "this one too"
    )
    if not sealed:
        return ConflictError(f"{running}. No message is sealed yet, so there is nothing to rotate: {give}")
    return ConflictError(
        f"{running}: they could not read what is wrapped anew. Give them the key first: {give}, and run this again; "
        f"or, when all nodes read this very key file or token: direct-gateway keys rotate --shared-ring"
    )


async def _rewrap(store: Store, ring: KeyWrapper, rotation: Rotation, progress: Callable[[Rotation], None]) -> None:
    """Wrap everything under the newest KEK, until a look at all of it finds nothing more to do."""
    progress(rotation)
    while True:
        newest, olds = await store.read(_in_use)
        # Another rotation may have overtaken this one: what is wrapped from now on goes under its key.
        rotation.kek_id = newest or rotation.kek_id
        before = rotation.rewrapped
        for kek_id in [kek_id for kek_id, messages in olds if messages]:
            await _rewrap_all(store, ring, kek_id, rotation, progress)
        if rotation.rewrapped == before:
            return


def _in_use(rows: UnitOfWork) -> tuple[str | None, list[tuple[str, int]]]:
    """The newest KEK, and the others with what rests on them."""
    newest = rows.body_keys.newest()
    return newest, [(use.kek_id, use.messages) for use in rows.body_keys.keks() if use.kek_id != newest]


async def _rewrap_all(
    store: Store, ring: KeyWrapper, kek_id: str, rotation: Rotation, progress: Callable[[Rotation], None]
) -> None:
    """Wrap what rests on one KEK under the newest one, batch by batch in the order of the messages."""
    after = ""
    while True:
        batch = await store.read(lambda rows, above=after: rows.body_keys.resting_on(kek_id, after=above, limit=BATCH))  # type: ignore[misc]
        if not batch:
            return
        after = batch[-1].message_id
        changes, damaged = await asyncio.to_thread(_rewrapped, ring, batch, rotation.kek_id)
        for message_id in set(damaged).difference(rotation.damaged):
            log.error("stored_message_damaged", message_id=message_id)
            rotation.damaged.append(message_id)
        if changes:
            rotation.rewrapped += await store.write(lambda rows, pairs=changes: rows.body_keys.replace(pairs))  # type: ignore[misc]
        progress(rotation)
        await asyncio.sleep(PAUSE_SECONDS)


def _rewrapped(
    ring: KeyWrapper, batch: list[WrappedKey], target: str
) -> tuple[list[tuple[WrappedKey, WrappedKey]], list[str]]:
    """The batch under the target, each beside its old form; and the messages whose key does not open."""
    changes: list[tuple[WrappedKey, WrappedKey]] = []
    damaged: list[str] = []
    for old in batch:
        try:
            key = ring.unwrap(old.kek_id, old.wrapped)
        except SealBrokenError:
            damaged.append(old.message_id)
            continue
        wrapped = ring.wrap(target, key)
        if ring.unwrap(target, wrapped) != key:
            raise KeyUnavailableError(f"what was wrapped under the key {target} does not come back as it was")
        changes.append((old, replace(old, kek_id=target, wrapped=wrapped)))
    return changes, damaged
