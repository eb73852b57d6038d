"""The sessions of mail clients on this node: counted, shown to operators, and ended when somebody asks for that.

A session's row is written with its login, by :class:`gateway.accounts.service.Accounts`, so that there is no login
without a row and no transaction more than before. Its end is written down within a few seconds, together with others.
An operator, here or on another node, writes into the row that the session is to end; this node looks for such rows
every ``poll_seconds`` while it has sessions, and tells whoever serves the session (:meth:`Session.on_end`). Nothing
else has to reach this node for that, neither a hint nor a signal.

Guarantees: a session that began after its account was disabled does not exist, because both are decided in transactions
of the one writer; one that began before has a row by then, so it is found. :meth:`ClientSessions.run` raises nothing.

Crash story: a daemon that is killed leaves its rows; its next start removes them. A row whose commit was not waited for
(the client went away in the middle of its login) belongs to no session, and is removed within a minute.

Failure modes: while the store does not answer, sessions go on and cannot be ended; everything is made up for later.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta

from gateway.core.errors import GatewayError, TooManySessionsError
from gateway.observability.log import get_log
from gateway.observability.waking import SmallEvent
from gateway.ports import Account, ClientSession, Clock, Store

_log = get_log("accounts")

SWEEP_SECONDS = 60.0
ORPHAN_SECONDS = 60
"""A row of ours that nobody here knows is left alone for so long: its login may be on its way."""
FORGET_SECONDS = 600.0
"""What was asked to end, and is there after so long, is on a node that is gone. Counted from where this node first saw
it: the clock of the machine that asked may be another, and a row must not go away before its node has looked."""
LAST_WORDS_SECONDS = 5.0


class Session:
    """Implements :class:`gateway.serving.session_registry.SessionHandle`."""

    __slots__ = ("_interrupt", "_owner", "account_id", "begun", "ended", "id", "let_in_at", "over", "protocol")

    def __init__(self, owner: ClientSessions, account_id: int, protocol: str) -> None:
        self._owner = owner
        self._interrupt: Callable[[], object] | None = None
        self.id = secrets.token_hex(6)
        self.account_id = account_id
        self.protocol = protocol
        self.begun = False
        self.over = False
        self.ended = SmallEvent()
        self.let_in_at: float | None = None

    def on_end(self, interrupt: Callable[[], object]) -> None:
        """Call the function once, when somebody ends the session; at once when that has happened already."""
        self._interrupt = interrupt
        if self.ended.is_set() and not self.over:
            interrupt()

    async def end(self) -> None:
        """The session is over. Its row is removed later."""
        self._interrupt = None
        self._owner.give_up(self)

    def let_in(self) -> None:
        """Its row is written, and the server is told."""
        self.let_in_at = asyncio.get_running_loop().time()

    def is_abandoned(self, now: float) -> bool:
        """Whether the server was told long ago and never began it."""
        return not self.begun and self.let_in_at is not None and now > self.let_in_at + ORPHAN_SECONDS

    def end_from_outside(self) -> None:
        """Somebody asked for it."""
        if self.ended.is_set() or self.over:
            return
        self.ended.set()
        _log.info("session_ended", session_id=self.id, account_id=self.account_id, protocol=self.protocol)
        if self._interrupt is not None:
            self._interrupt()


class ClientSessions:
    """The sessions of one node. Implements :class:`gateway.serving.session_registry.SessionRegistry`."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        node: str,
        poll_seconds: float,
        most: Mapping[str, int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``most``: sessions that an account may have at one time, by protocol; without a word as many as it likes."""
        self._store = store
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._most = dict(most or {})
        self._live: dict[str, Session] = {}
        self._counts: Counter[tuple[int, str]] = Counter()
        self._over: list[str] = []
        self._monotonic = monotonic
        self._ending: dict[str, float] = {}
        """When sessions of other nodes that are to end were first seen here."""
        self._started = clock.now()
        self.node = node

    # --- for the login ---

    def reserve(self, account_id: int, protocol: str) -> Session:
        """A place for a login that is about to be written down. Raises TooManySessionsError."""
        key = (account_id, protocol)
        if protocol in self._most and self._counts[key] >= self._most[protocol]:
            raise TooManySessionsError("the account has as many sessions as it may")
        session = Session(self, account_id, protocol)
        self._live[session.id] = session
        self._counts[key] += 1
        return session

    def give_up(self, session: Session) -> None:
        """The session is over, or never began. Its row, if there is one, is removed."""
        if session.over:
            return
        session.over = True
        del self._live[session.id]
        key = (session.account_id, session.protocol)
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]
        self._over.append(session.id)

    # --- for the servers ---

    def begin(self, account: Account, protocol: str, peer: str) -> Session:  # noqa: ARG002 - the row has it since the login
        """The session of a login that was just answered."""
        session = self._live.get(account.session_id) or self.reserve(account.id, protocol)
        session.begun = True
        return session

    @property
    def count(self) -> int:
        """Sessions at this moment."""
        return len(self._live)

    # --- in the background ---

    async def run(self) -> None:
        """Look for what is to end, and remove what is over, until cancelled."""
        loop = asyncio.get_running_loop()
        sweep_at = loop.time()
        try:
            while True:
                try:
                    await self._look()
                    if loop.time() >= sweep_at:
                        await self._sweep()
                        sweep_at = loop.time() + SWEEP_SECONDS
                except GatewayError as error:
                    _log.warning("sessions_not_looked_at", exc=error)
                await asyncio.sleep(self._poll_seconds)
        finally:
            with suppress(GatewayError, TimeoutError):
                async with asyncio.timeout(LAST_WORDS_SECONDS):
                    await self._remove_over()

    async def _look(self) -> None:
        await self._remove_over()
        if not self._live:
            return
        for session_id in await self._store.read(lambda unit: unit.sessions.asked(self.node)):
            if session_id in self._live:
                self._live[session_id].end_from_outside()

    async def _remove_over(self) -> None:
        if not self._over:
            return
        over, self._over = self._over, []
        try:
            await self._store.write(lambda unit: unit.sessions.remove(over))
        except GatewayError:
            self._over = over + self._over
            raise

    async def _sweep(self) -> None:
        """Remove rows that belong to no session: of a crash, of a login that was broken off, of a node that is gone."""
        loop_now = asyncio.get_running_loop().time()
        for session in [one for one in self._live.values() if one.is_abandoned(loop_now)]:
            self.give_up(session)
        rows = await self._store.read(lambda unit: unit.sessions.all())
        now, known = self._monotonic(), self._ending
        others = [row.id for row in rows if row.node != self.node and row.ended_at is not None]
        self._ending = {session_id: known.get(session_id, now) for session_id in others}
        gone = [row.id for row in rows if self._belongs_to_nobody(row, self._clock.now())]
        if gone:
            await self._store.write(lambda unit: unit.sessions.remove(gone))

    def _belongs_to_nobody(self, row: ClientSession, now: datetime) -> bool:
        if row.node == self.node and row.id not in self._live:
            # One of this run may be of a login that is on its way: it is known here a moment later.
            return row.since < self._started or not now - timedelta(seconds=ORPHAN_SECONDS) < row.since <= now
        return self._monotonic() - self._ending.get(row.id, self._monotonic()) > FORGET_SECONDS
