r"""Goes through an upstream mailbox once: finds what is new, takes it in, message by message, and says so upstream.

Guarantees

* Exactly once inward: a message and the memory of having taken it are one transaction. What the account brought before,
  byte for byte and for the same addresses, is recognised, wherever it lies and whatever its id has become.
* The mark upstream (``\Seen``, a flag, a folder, a deletion) follows the commit, never the other way.
* One message at a time for each account; large ones one at a time for the whole process (:class:`ByteGate`).
* A message that cannot be had holds up nobody: it is tried again after all others, and then set aside by name.

Crash story: before the commit nothing has happened, neither here nor upstream. Between the commit and the mark the item
is ``taken``, and the next look sets the mark; where the mark is a deletion, it has the message once more before that,
and recognises it. Within the first look of a mailbox the mark of the place has not risen,
so that the look is made again; what was taken by then is known by its id.

AS-46: a fetched message has no envelope. Its reverse path is unknown (None), and it is for the addresses of the
account; where an account has several, for those of them that the message names in its outer headers.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.address import normalise
from gateway.core.errors import GatewayError, InputError
from gateway.core.fetch_settings import FetchSettings
from gateway.core.fetching import (
    TRIES,
    FetchPlace,
    FetchState,
    ItemError,
    ItemGoneError,
    ItemState,
    ItemTrouble,
    UpstreamError,
)
from gateway.core.message import Envelope, Inbound, MemoryBody
from gateway.core.mime.addresses import addr_specs
from gateway.core.mime.headers import read_headers
from gateway.ingress.upstream import OversizeError, Upstream
from gateway.observability.log import get_log
from gateway.pipeline.byte_gate import ByteGate
from gateway.ports import Clock, Store, UnitOfWork

ACTOR = "gateway"
SIZES_AT_ONCE = 50
MARKS_AT_ONCE = 20
LEFT_OVER_AT_ONCE = 1_000
ROUNDS = 3
PAUSE_SECONDS = 1.0
"""Before a message that was not handed out is asked for once more."""
_SIZE_SLACK_BYTES = 65_536
_NAMES = (b"to", b"cc", b"delivered-to", b"x-original-to", b"envelope-to")

log = get_log("fetch")


class AcceptFetched(Protocol):
    """Commits a message, and with it what ``also`` writes (:class:`gateway.pipeline.accept.Accept`)."""

    async def __call__(self, inbound: Inbound, also: Callable[[UnitOfWork, str], None] | None = None) -> str: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every account works with."""

    store: Store
    clock: Clock
    accept: AcceptFetched
    gate: ByteGate
    has_space_for: Callable[[int], bool]
    """Whether the disk may take that many bytes more."""


class FetchIntake:
    """Takes in the mail of one account."""

    def __init__(self, account: FetchSettings, around: Surroundings) -> None:
        self._account = account
        self._around = around
        self._store = around.store
        self._larger: dict[str, int] = {}
        """Real sizes of messages whose size the server tells wrongly."""
        self.doubt = ""
        """Why taken messages cannot be marked upstream; empty when they can."""
        self.taken = 0
        """New messages that were taken in, also by visits that ended with an error."""

    async def begin(self, session: Upstream) -> FetchPlace:
        """Open the mailbox and return its place.

        Raises:
            UpstreamError: it cannot be opened. StoreError.
        """
        validity, uid_next = await session.open()
        account, at = self._account, self._around.clock.now()
        base = f"{_origin(account)}:{validity}"

        def find(rows: UnitOfWork) -> tuple[str, FetchPlace]:
            number = rows.fetching.newest_life(account.name, base)
            place = rows.fetching.place(account.name, f"{base}:{number}", at)
            # A mailbox whose ids went back was put back from a backup by a server that did not say so: its ids will
            # be used again, for other messages.
            while uid_next and place.mark >= uid_next:
                number += 1
                place = rows.fetching.place(account.name, f"{base}:{number}", at)
            before = rows.fetching.status(account.name).place
            if before != place.key:
                rows.fetching.set_status(account.name, place=place.key)
                if before:
                    rows.audit.add(at, ACTOR, "fetch.place_changed", account.name, {"place": place.key})
            return before, place

        before, place = await self._store.write(find)
        if before and before != place.key:
            log.warning("fetch_place_changed", account=account.name)
        return place

    async def refreshed(self, place: FetchPlace) -> FetchPlace:
        """The place as it stands by now."""
        at = self._around.clock.now()
        return await self._store.write(lambda rows: rows.fetching.place(self._account.name, place.key, at))

    async def visit(self, session: Upstream, place: FetchPlace, *, thorough: bool) -> int:
        """Take in what is there and return how many messages were new.

        Raises:
            UpstreamError: the session ended; what was taken by then is taken. StoreError: ours.
        """
        visit = _Visit(self, session, place)
        found = await session.look(place, thorough=thorough)
        if found.whole:
            await self._forget_absent(place, found.uids)
        known = await self._store.read(lambda rows: rows.fetching.known(place, found.uids, taken=not session.deletes))
        fresh = [uid for uid in found.uids if uid not in known]
        self.doubt = ""
        if not session.deletes:
            await visit.finish_left_over()
        visit.rising = found.rising
        await visit.take_all(fresh)
        visit.rising = False
        if found.mark > place.mark:
            await self._store.write(lambda rows: rows.fetching.set_mark(place, found.mark))
        await visit.try_again()
        if visit.new:
            log.info("fetched", account=self._account.name, count=visit.new)
        return visit.new

    async def _forget_absent(self, place: FetchPlace, uids: Sequence[str]) -> None:
        """Note what the mailbox does not hold any more: its ids may come back for other messages."""
        gone = await self._store.read(lambda rows: rows.fetching.absent(place, uids))
        if gone:
            await self._store.write(lambda rows: rows.fetching.vanished(place, gone))

    def allowed(self, uid: str, size: int | None) -> int:
        """How many bytes the message may have, by what is known of its size."""
        most = self._account.max_message_bytes
        size = max(size or 0, self._larger.get(uid, 0)) or most
        if size > most:
            raise ItemError(ItemTrouble.TOO_LARGE, "the message is larger than max_message_mib")
        if not self._around.has_space_for(size):
            raise UpstreamError("disk", "the gateway's disk is nearly full; make room, or mail stays upstream")
        return min(most, size + size // 4 + _SIZE_SLACK_BYTES)

    def oversized(self, uid: str, error: OversizeError) -> ItemTrouble:
        """What is wrong with a message that is larger than the server said."""
        if error.size_bytes > self._account.max_message_bytes:
            return ItemTrouble.TOO_LARGE
        self._larger[uid] = error.size_bytes
        return ItemTrouble.CONNECTION

    def recipients(self, data: bytes) -> tuple[str, ...]:
        """Whom a message is for (AS-46)."""
        ours = self._account.addresses
        if len(ours) == 1:
            return ours
        named = set(_named(data))
        return tuple(address for address in ours if address in named) or ours

    @property
    def name(self) -> str:
        """Of the account."""
        return self._account.name

    @property
    def around(self) -> Surroundings:
        """What all accounts share."""
        return self._around


class _Visit:
    """One visit's progress."""

    def __init__(self, intake: FetchIntake, session: Upstream, place: FetchPlace) -> None:
        self._intake = intake
        self._session = session
        self._store = intake.around.store
        self.place = place
        self.rising = False
        self.new = 0
        self._waiting = 0
        self._to_mark: list[str] = []

    async def take_all(self, uids: Sequence[str]) -> None:
        """Take them in, in that order."""
        self._waiting = len(uids)
        if not uids:
            return
        await self._tell(state=FetchState.FETCHING, waiting=self._waiting)
        try:
            for start in range(0, len(uids), SIZES_AT_ONCE):
                batch = uids[start : start + SIZES_AT_ONCE]
                sizes = await self._session.sizes(batch)
                for uid in batch:
                    await self._one(uid, sizes.get(uid))
                    if len(self._to_mark) >= MARKS_AT_ONCE:
                        await self._finish_marked()
        except UpstreamError:
            # The session is gone, or is not to be used: what was taken is marked at the next look.
            self._to_mark.clear()
            raise
        await self._finish_marked()

    async def try_again(self) -> None:
        """Try once more what could not be had, now that nothing else waits for it."""
        for number in range(ROUNDS):
            again = await self._store.read(
                lambda rows: rows.fetching.uids(self.place, ItemState.TRYING, LEFT_OVER_AT_ONCE)
            )
            if not again:
                return
            if number:
                await asyncio.sleep(PAUSE_SECONDS)
            await self.take_all(again)

    async def finish_left_over(self) -> None:
        """Mark what an earlier visit took and could not mark."""
        left = await self._store.read(lambda rows: rows.fetching.uids(self.place, ItemState.TAKEN, LEFT_OVER_AT_ONCE))
        self._to_mark = list(left)
        await self._finish_marked()

    async def _finish_marked(self) -> None:
        uids, self._to_mark = self._to_mark, []
        if not uids:
            return
        try:
            done = await self._session.mark(uids)
        except UpstreamError as exc:
            if exc.cause != "mark":
                raise
            if not self._intake.doubt:
                log.warning("fetch_mark_failed", account=self._intake.name, count=len(uids))
            self._intake.doubt = f"messages are fetched, but {exc}"
            return
        await self._store.write(lambda rows: rows.fetching.marked(self.place, done))

    async def _one(self, uid: str, size: int | None) -> None:
        """Deal with one message. Raises UpstreamError when the session is of no use any more, and StoreError."""
        self._waiting -= 1
        try:
            await self._take(uid, size)
        except ItemGoneError:
            at = self._intake.around.clock.now()
            await self._write(uid, lambda rows: rows.fetching.gone(self.place, uid, at))
        except ItemError as exc:
            await self._trouble(uid, exc.trouble, size)
        except OversizeError as exc:
            await self._trouble(uid, self._intake.oversized(uid, exc), exc.size_bytes)
            raise
        except InputError:
            await self._trouble(uid, ItemTrouble.REFUSED, size)
        except GatewayError:
            raise
        except Exception:
            # A mistake in the program, or a fault of the machine. Which of the two, the next messages will show.
            await self._trouble(uid, ItemTrouble.FAULT, size)
            raise

    async def _take(self, uid: str, size: int | None) -> None:
        intake = self._intake
        limit = intake.allowed(uid, size)
        async with intake.around.gate.hold(limit):
            try:
                data = await self._session.download(uid, limit)
            except OversizeError:
                raise
            except UpstreamError as exc:
                if exc.cause != "unavailable":
                    await self._trouble(uid, ItemTrouble.CONNECTION, size)
                raise
            recipients = intake.recipients(data)
            body = MemoryBody(data)
            del data
            digest = await asyncio.to_thread(_digest, body, recipients)
            at = intake.around.clock.now()

            def remember(rows: UnitOfWork, message_id: str) -> None:
                rows.fetching.take(self.place, uid, message_id, digest, at)
                self._settle(rows, uid)

            same = await self._store.read(lambda rows: rows.fetching.same(intake.name, digest))
            if same is not None:
                await self._store.write(lambda rows: remember(rows, same))
            else:
                inbound = Inbound(body, Envelope(None, recipients), self._session.source, self._session.peer)
                await intake.around.accept(inbound, remember)
                self.new += 1
                intake.taken += 1
        self._to_mark.append(uid)

    async def _trouble(self, uid: str, trouble: ItemTrouble, size: int | None) -> None:
        name, at = self._intake.name, self._intake.around.clock.now()

        def note(rows: UnitOfWork) -> int:
            attempts = rows.fetching.trouble(self.place, uid, trouble, size, at)
            if attempts >= TRIES[trouble]:
                rows.fetching.set_aside(self.place, uid)
                detail = {"uid": uid, "reason": trouble.value, "attempts": attempts, "size_bytes": size}
                rows.audit.add(at, ACTOR, "fetch.set_aside", name, detail)
            return attempts

        attempts = await self._write(uid, note)
        if attempts >= TRIES[trouble]:
            log.warning("fetch_set_aside", account=name, reason=trouble, attempt=attempts, size_bytes=size)

    async def _write(self, uid: str, work: Callable[[UnitOfWork], object]) -> int:
        def both(rows: UnitOfWork) -> object:
            found = work(rows)
            self._settle(rows, uid)
            return found

        found = await self._store.write(both)
        return found if isinstance(found, int) else 0

    def _settle(self, rows: UnitOfWork, uid: str) -> None:
        """What goes with every message that was dealt with, in its transaction."""
        if self.rising:
            rows.fetching.set_mark(self.place, int(uid))
        rows.fetching.set_status(self._intake.name, waiting=self._waiting)

    async def _tell(self, **values: object) -> None:
        await self._store.write(lambda rows: rows.fetching.set_status(self._intake.name, **values))


def _origin(account: FetchSettings) -> str:
    """Which mailbox this is, without its name. Another server may use the same ids for other messages."""
    words = (account.protocol, account.host.lower(), account.username, account.mailbox)
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _digest(body: MemoryBody, recipients: Iterable[str]) -> str:
    """Of the bytes and of whom they are for."""
    return hashlib.sha256("\0".join((body.sha256, *recipients)).encode()).hexdigest()


def _named(data: bytes) -> list[str]:
    """The addresses that the outer headers name; what cannot be read names nobody."""
    found = []
    for field in read_headers(data).fields:
        if field.name in _NAMES:
            for spec in addr_specs(field.text):
                try:
                    found.append(normalise(spec))
                except InputError:
                    continue
    return found
