"""What the health of a running gateway says: the checks that make it ready, and what a person should look at.

A check that fails means that senders are put off (451) now; an advisory leaves mail going on. Both answer in words for
the operator, without paths, addresses or the text of an error. A database or a bucket that is away is said in those
words by the check that asks it; who cannot be asked because of it says no more than that.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from gateway.agents import ReloadableAgent
from gateway.auditing.keeper import AuditKeeper
from gateway.bundles.doubts import doubts_about
from gateway.bundles.service import TrustBundles
from gateway.core.errors import StoreFullError, StoreUnavailableError
from gateway.ingress.fetch_advice import doubts, statuses
from gateway.keys.body_key_watch import BodyKeyWatch
from gateway.observability.clock import SystemClock
from gateway.ports import TargetStanding
from gateway.settings import Settings
from gateway.store.made_anew import missing_database
from gateway.store.sql_store import SQLStore
from gateway.web.health import Check

PATIENCE_SECONDS = 3.0
"""A database or a bucket that takes longer does not answer, as far as a sender is concerned."""
ASKED_AGAIN_SECONDS = 10.0
"""A bucket that was asked so lately is not asked again for the sake of a check."""
NO_DATABASE = "the database does not answer: senders are put off (451) and nobody can read mail until it is back"
NO_BUCKET = "the bucket of [s3] does not answer: senders are put off (451) and messages cannot be read until it is back"
BUCKET_REFUSES = (
    "the bucket of [s3] refuses us: senders are put off (451) and messages cannot be read; see s3.credentials_file: "
    "direct-gateway config check --lock says what is missing"
)
_PARTS = {"keys": "keys", "anchors": "trust anchors", "lists": "revocation lists"}


def readiness_checks(store: SQLStore, settings: Settings) -> dict[str, Check]:
    """What readiness means: a commit works, there is room for mail, and bodies can be put where they belong."""
    floor = settings.store.free_space_floor_mib << 20

    async def store_commits() -> str | None:
        if store.dead:
            return "the store stopped after an input/output error; restart the gateway and check the disk"
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await store.write(lambda _rows: None)
        except (StoreUnavailableError, TimeoutError):
            return NO_DATABASE
        except StoreFullError:
            return "no space is left for the database: senders are put off (451) until there is room"
        return None

    async def disk_space() -> str | None:
        free = store.free_bytes()
        if free is None or free > floor:
            return None
        return f"only {free >> 20} MiB are free; mail is refused below {floor >> 20} MiB"

    checks: dict[str, Check] = {"store": store_commits, "disk_space": disk_space}
    return checks | ({"bodies": BucketCheck(store.bucket_trouble)} if store.places_bodies else {})


class BucketCheck:
    """Asks the bucket itself: one that comes back is noticed although no mail is sent our way."""

    def __init__(self, trouble: Callable[[], str]) -> None:
        """``trouble`` asks and waits: ``""``, ``"away"`` or ``"refused"``."""
        self._trouble = trouble
        self._asking: asyncio.Future[str] | None = None
        self._good_until = 0.0

    async def __call__(self) -> str | None:
        """See :data:`gateway.web.health.Check`."""
        if self._asking is None and time.monotonic() < self._good_until:
            return None
        if self._asking is None:
            self._asking = asyncio.wrap_future(_in_a_thread(self._trouble))
        asking = self._asking
        await asyncio.wait({asking}, timeout=PATIENCE_SECONDS)
        if not asking.done():
            return NO_BUCKET
        if self._asking is asking:
            self._asking = None
        found = asking.result()
        if not found:
            self._good_until = time.monotonic() + ASKED_AGAIN_SECONDS
        return {"": None, "refused": BUCKET_REFUSES}.get(found, NO_BUCKET)


def _in_a_thread(ask: Callable[[], str]) -> Future[str]:
    """Not in an executor, whose threads are waited for at the end: a bucket that hangs must not hold up the stop."""
    answer: Future[str] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as exc:  # noqa: BLE001 - it is raised where the answer is waited for
            answer.set_exception(exc)

    threading.Thread(target=run, name="bucket-check", daemon=True).start()
    return answer


def advisories(
    settings: Settings,
    store: SQLStore,
    clock: SystemClock,
    bundles: TrustBundles,
    agent: ReloadableAgent,
    *,
    keeper: AuditKeeper,
    body_keys: BodyKeyWatch,
) -> dict[str, Check]:
    """What a person should look at although mail goes on; it makes nothing unready."""

    async def trust_files() -> str | None:
        failed = [_PARTS[part] for part in agent.not_reloaded]
        if not failed:
            return None
        return (
            f"the last reload could not read the {' and the '.join(failed)}: what was read before stays in force; "
            f"direct-gateway config check names the file, and once it is mended: kill -HUP {os.getpid()}"
        )

    async def lost_database() -> str | None:
        if not await asyncio.to_thread(missing_database, settings):
            return None
        return (
            "the database was made anew, because the one in use before was gone: older mail and charts are not in it; "
            "direct-gateway config check says what to do"
        )

    async def fetching_mail() -> str | None:
        return doubts(settings.fetch, await statuses(store, settings.fetch), clock.now())

    async def imports() -> str | None:
        return import_doubts(await store.read(lambda rows: rows.deliveries.standings()))

    async def older_bodies() -> str | None:
        away = "the bucket of [s3] did not answer: older messages cannot be read until it is back"
        return away if store.bucket_away() else None

    async def audit_heads() -> str | None:
        return keeper.heads_doubt or None

    async def trust_bundles() -> str | None:
        return await doubts_about(bundles)

    found: dict[str, Check] = {"fetch": fetching_mail} if settings.fetch else {}
    if settings.s3.bucket and not store.places_bodies:
        found["older_bodies"] = older_bodies
    found |= {
        "imports": imports,
        "trust_bundles": trust_bundles,
        "trust_files": trust_files,
        "body_keys": body_keys.doubt,
        "audit_heads": audit_heads,
        "lost_database": lost_database,
    }
    return {name: partial(_while_the_database_answers, check) for name, check in found.items()}


def import_doubts(standings: Sequence[TargetStanding]) -> str | None:
    """What a person should look at in the queues of the import hook; None when there is nothing."""
    told = [
        f"{one.name} wants no more and is stopped: direct-gateway import retry --target {one.name} starts it again"
        for one in standings
        if one.stopped_since is not None
    ]
    told += [
        f"{one.dead} linked messages for {one.name} were set aside, and {one.waiting} wait: "
        f"direct-gateway import list --target {one.name}"
        for one in standings
        if one.dead
    ]
    return "; ".join(told) or None


async def _while_the_database_answers(check: Check) -> str | None:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await check()
    except (StoreUnavailableError, TimeoutError):
        return "nothing is known of this while the database does not answer"
