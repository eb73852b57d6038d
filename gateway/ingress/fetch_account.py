"""One upstream account over time: connects, looks, listens, and comes back after whatever went wrong.

Guarantees: no error ends ``run``, only its cancellation does; a server that is away is asked again after seconds, then
ever more rarely, a quarter of an hour apart at most; one that refuses the login is asked after five minutes, half an
hour, then hourly, because accounts get locked by wrong passwords, and at once when the file with the secret changes or
somebody asks. What is going on stands in the account's status, in plain words and free of what the server said.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from gateway.core.errors import GatewayError, StoreError, StoreFullError
from gateway.core.fetch_settings import FetchSettings
from gateway.core.fetching import FetchState, LoginRefusedError, UpstreamError, refused_delay, retry_delay
from gateway.ingress.fetch_intake import FetchIntake, Surroundings
from gateway.ingress.imap_upstream import open_imap
from gateway.ingress.pop3_fetch import open_pop3
from gateway.ingress.upstream import Upstream
from gateway.ingress.upstream_login import secret_stamp
from gateway.observability.log import get_log

THOROUGH_SECONDS = 3_600.0
"""How often ids below the mark are looked at as well; the first look of a process does so."""
LONGEST_IDLE_SECONDS = 28 * 60.0
"""RFC 2177 asks for less than 29 minutes; a server may end a silent session after 30."""
SECRET_LOOK_SECONDS = 5.0

log = get_log("fetch")


async def open_upstream(account: FetchSettings) -> Upstream:
    """A session, logged in. Raises UpstreamError."""
    return await (open_imap(account) if account.protocol == "imap" else open_pop3(account))


class AccountFetcher:
    """Fetches the mail of one account, in one process at a time."""

    def __init__(
        self,
        account: FetchSettings,
        around: Surroundings,
        jitter: Callable[[], float],
        opener: Callable[[FetchSettings], Awaitable[Upstream]] = open_upstream,
    ) -> None:
        """``jitter`` returns 0.8 to 1.2, say: gateways must not all come back at the same moment."""
        self.account = account
        self.wake = asyncio.Event()
        """Set by whoever wants a look at once."""
        self.asked = 0
        """The newest request that a look has begun to answer."""
        self._knows_asked = False
        self._store = around.store
        self._clock = around.clock
        self._intake = FetchIntake(account, around)
        self._jitter = jitter
        self._open = opener
        self._failures = 0
        self._taken = 0
        """What had been taken in at the last failure."""
        self._refusals = 0
        self._thorough_at = -math.inf

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            stamp = await asyncio.to_thread(secret_stamp, self.account)
            delay = await self.once(listen=True)
            await self._pause(delay, stamp if self._refusals else None)

    async def once(self, *, listen: bool) -> float:
        """Connect and look, and with ``listen`` stay as long as the server tells of new mail.

        Returns:
            After how many seconds to come again. Raises nothing but the cancellation.
        """
        try:
            await self._begin()
            session = await self._open(self.account)
            try:
                await self._serve(session, listen=listen)
            finally:
                await session.close()
        except LoginRefusedError as exc:
            return await self._refused(exc)
        except Exception as exc:  # noqa: BLE001 - the owner of every failure of fetching
            return await self._failed(exc)
        return self.account.poll_seconds * self._jitter()

    async def _serve(self, session: Upstream, *, listen: bool) -> None:
        loop = asyncio.get_running_loop()
        place = await self._intake.begin(session)
        while True:
            thorough = loop.time() >= self._thorough_at
            new = await self._intake.visit(session, place, thorough=thorough)
            if thorough:
                self._thorough_at = loop.time() + THOROUGH_SECONDS
            self._failures = self._refusals = 0
            listening = listen and session.listens
            await self._succeeded(new, listening=listening)
            if not listening:
                return
            await session.wait(min(self.account.poll_seconds, LONGEST_IDLE_SECONDS), self.wake)
            if not session.listens:
                # The server refused to IDLE: it is polled from now on.
                return
            place = await self._intake.refreshed(place)
            await self._note_asked()

    # --- the status ---

    async def _begin(self) -> None:
        await self._note_asked()
        await self._tell(state=FetchState.CONNECTING, last_attempt=self._clock.now(), next_attempt=None)

    async def _note_asked(self) -> None:
        """What was asked before the look begins, the look answers."""
        name = self.account.name
        asked = (await self._store.read(lambda rows: rows.fetching.asked())).get(name)
        if asked is None and not self._knows_asked:
            # Nothing waits, and this process has answered nothing: what others have answered must stay answered.
            asked = (await self._store.read(lambda rows: rows.fetching.status(name))).answered
        self._knows_asked = True
        self.asked = max(self.asked, asked or 0)
        # Only now: whoever waits for requests may have seen, a moment ago, the one that is being answered. One that
        # came since has a higher number, and is seen again.
        self.wake.clear()

    async def _succeeded(self, new: int, *, listening: bool) -> None:
        now = self._clock.now()
        later = timedelta(seconds=self.account.poll_seconds)
        await self._tell(
            state=FetchState.LISTENING if listening else FetchState.WAITING,
            last_attempt=now,
            last_success=now,
            error=self._intake.doubt,
            waiting=0,
            next_attempt=now + later,
            new=new,
            answered=self.asked,
        )

    async def _refused(self, error: LoginRefusedError) -> float:
        self._refusals += 1
        delay = refused_delay(self._refusals) * self._jitter()
        log.warning("fetch_login_refused", account=self.account.name, retry_seconds=round(delay))
        await self._set_back(FetchState.LOGIN_REFUSED, str(error), delay)
        return delay

    async def _failed(self, error: Exception) -> float:
        if self._intake.taken > self._taken:
            # A server that breaks off after every few messages is at work: its backlog must not wait ever longer.
            self._failures, self._taken = 0, self._intake.taken
        self._failures += 1
        delay = retry_delay(self._failures) * self._jitter()
        cause = error.cause if isinstance(error, UpstreamError) else "gateway"
        if isinstance(error, GatewayError):
            log.warning("fetch_failed", account=self.account.name, reason=cause, retry_seconds=round(delay))
        else:
            log.fault("fetch_fault", error, account=self.account.name, retry_seconds=round(delay))
        await self._set_back(FetchState.RETRYING, _plain_words(error), delay)
        return delay

    async def _set_back(self, state: FetchState, error: str, delay: float) -> None:
        later = self._clock.now() + timedelta(seconds=delay)
        with suppress(StoreError):
            await self._tell(state=state, error=error, next_attempt=later, new=0, answered=self.asked)

    async def _tell(self, **values: Any) -> None:
        await self._store.write(lambda rows: rows.fetching.set_status(self.account.name, **values))

    # --- waiting ---

    async def _pause(self, delay: float, stamp: tuple[int, int, int] | None) -> None:
        """Wait, until woken; after a refused login until the secret was replaced as well."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + delay
        while (left := ends - loop.time()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), left if stamp is None else min(left, SECRET_LOOK_SECONDS))
                return
            if stamp is not None and await asyncio.to_thread(secret_stamp, self.account) not in {stamp, None}:
                return


def _plain_words(error: Exception) -> str:
    if isinstance(error, UpstreamError):
        return str(error)
    if isinstance(error, StoreFullError):
        return "the gateway's disk is full; make room, mail stays upstream meanwhile"
    if isinstance(error, StoreError):
        return "the gateway's own store takes no mail now; mail stays upstream meanwhile"
    return f"the gateway failed ({type(error).__name__}); its log says where, and mail stays upstream meanwhile"
