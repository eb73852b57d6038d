"""All upstream accounts of a process: who works on which, and who asked for a look at once (the Send/Receive button).

A process works on an account while it holds the account's lease, a row of the store that it renews. Several nodes on
one database share the accounts by that, and a command of the operator fetches by itself only when nobody holds the
lease. A lease that two hold for a moment does no harm: what was taken is known to both (fetch_intake.py).

Whoever wants a look at once counts up a number in the account's row; the process that works on the account looks at
that small table twice a second, and writes the number back when the look has ended.

Failure modes: none that ends ``run`` but its cancellation. A process that is killed leaves its lease for
``LEASE_SECONDS``; one that comes back under the same name takes it up at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from gateway.core.fetch_settings import FetchSettings
from gateway.ingress.fetch_account import AccountFetcher
from gateway.ingress.fetch_intake import Surroundings
from gateway.observability.log import get_log

LEASE_SECONDS = 30.0
ASK_SECONDS = 0.5
"""How soon a request is noticed."""

log = get_log("fetch")


class FetchService:
    """Fetches from every enabled account."""

    def __init__(
        self,
        accounts: Sequence[FetchSettings],
        around: Surroundings,
        *,
        owner: str,
        jitter: Callable[[], float],
    ) -> None:
        """``owner`` names this process among those that share the store, the same after a restart."""
        self._around = around
        self._owner = owner[:64]
        self._fetchers = {
            account.name: AccountFetcher(account, around, jitter) for account in accounts if account.enabled
        }

    async def run(self) -> None:
        """Work until cancelled."""
        if not self._fetchers:
            await asyncio.Event().wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen_for_requests(), name="fetch-requests")
            for name, fetcher in self._fetchers.items():
                group.create_task(self._work(fetcher), name=f"fetch-{name}")

    async def once(self, names: Collection[str]) -> None:
        """Look once at each of these accounts that nobody works on; their status tells how it went."""
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(self._once(self._fetchers[name]))

    async def _once(self, fetcher: AccountFetcher) -> None:
        if not await self._claim(fetcher):
            return
        try:
            look = asyncio.ensure_future(fetcher.once(listen=False))
            try:
                while not look.done():
                    await asyncio.wait({look}, timeout=LEASE_SECONDS / 3)
                    await self._claim(fetcher)
            finally:
                look.cancel()
                await asyncio.gather(look, return_exceptions=True)
        finally:
            await self._release(fetcher)

    async def _work(self, fetcher: AccountFetcher) -> None:
        """Hold the lease and work, again and again."""
        while True:
            if not await self._claim(fetcher):
                await asyncio.sleep(LEASE_SECONDS / 6)
                continue
            task = asyncio.ensure_future(fetcher.run())
            try:
                while await self._claim(fetcher):
                    await asyncio.wait({task}, timeout=LEASE_SECONDS / 3)
                    if task.done():
                        task.result()
            except Exception as exc:  # noqa: BLE001 - an account that fails whatever it does is begun anew
                log.fault("fetch_fault", exc, account=fetcher.account.name)
                await asyncio.sleep(LEASE_SECONDS / 6)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await self._release(fetcher)

    async def _claim(self, fetcher: AccountFetcher) -> bool:
        """Take or keep the lease. A store that fails now may be well before the lease ends."""
        name = fetcher.account.name
        try:
            return await self._around.store.write(lambda rows: rows.fetching.claim(name, self._owner, LEASE_SECONDS))
        except Exception as exc:  # noqa: BLE001 - nothing that goes wrong with fetching may end the rest of the gateway
            log.warning("fetch_lease_failed", exc=exc, account=name)
            await asyncio.sleep(1.0)
            return True

    async def _release(self, fetcher: AccountFetcher) -> None:
        name = fetcher.account.name
        try:
            await self._around.store.write(lambda rows: rows.fetching.release(name, self._owner))
        except Exception as exc:  # noqa: BLE001 - as above; and the lease ends by itself
            log.warning("fetch_lease_failed", exc=exc, account=name)

    async def _listen_for_requests(self) -> None:
        while True:
            try:
                for name, number in (await self._around.store.read(lambda rows: rows.fetching.asked())).items():
                    fetcher = self._fetchers.get(name)
                    if fetcher is not None and number > fetcher.asked:
                        fetcher.wake.set()
            except Exception as exc:  # noqa: BLE001 - as above
                log.warning("fetch_requests_failed", exc=exc)
            await asyncio.sleep(ASK_SECONDS)
