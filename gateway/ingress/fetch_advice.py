"""How fetching stands, for people: one line an account, and what waits for somebody."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from gateway.core.fetch_settings import FetchSettings
from gateway.core.fetching import FetchState, FetchStatus
from gateway.ports import Store

PATIENCE = timedelta(minutes=15)
"""A server that is away for less is no news."""


async def statuses(store: Store, accounts: Sequence[FetchSettings]) -> list[FetchStatus]:
    """The status of each account, in the order of the settings."""
    return await store.read(lambda rows: [rows.fetching.status(account.name) for account in accounts])


def doubts(accounts: Sequence[FetchSettings], found: Sequence[FetchStatus], now: datetime) -> str | None:
    """What somebody should look at, in one line; None when there is nothing."""
    told = []
    for account, status in zip(accounts, found, strict=True):
        if account.enabled and (doubt := _doubt(status, now)):
            told.append(f"{account.name}: {doubt}")
    return "; ".join(told) + "; see: direct-gateway fetch status" if told else None


def _doubt(status: FetchStatus, now: datetime) -> str:
    if status.state is FetchState.LOGIN_REFUSED:
        return status.error
    if status.state is FetchState.RETRYING and (status.last_success is None or now - status.last_success > PATIENCE):
        return f"nothing could be fetched for a while: {status.error}"
    if status.aside:
        return f"{status.aside} set aside"
    # What is wrong with marking upstream stands in the error of a look that went well.
    return status.error if status.state in {FetchState.LISTENING, FetchState.WAITING} else ""
