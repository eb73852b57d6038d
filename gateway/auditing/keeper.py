"""The background part of the daemon that keeps the audit log: heads on time, the reserve, the clock under watch.

Every few seconds it looks whether a head is due, whether the space for audit rows on a full disk must be set aside
again, and whether the clock of the machine has moved otherwise than time did. A fault of the store or of the folder
of heads is logged and tried again at the next look; it never ends the daemon, and it never ends silently: the log
says it, and ``heads_doubt`` says it for as long as the folder does not take what it should.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

from gateway.auditing.heads import TreeHeads
from gateway.auditing.lifecycle import CLOCK_TOLERANCE, record_jump
from gateway.core.errors import GatewayError
from gateway.core.tree_head import TreeHead
from gateway.observability.log import get_log
from gateway.observability.os_errors import os_reason
from gateway.ports import Clock, Store

LOOK_SECONDS = 10.0
_log = get_log("audit")


class AuditKeeper:
    """Run it with :meth:`run`, which never ends by itself."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        heads: TreeHeads,
        *,
        node: str,
        interval_minutes: int,
        keep_reserve: Callable[[], Awaitable[None]],
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``keep_reserve`` sets the space aside again, where it can."""
        self._store = store
        self._clock = clock
        self._heads = heads
        self._node = node
        self._interval_seconds = interval_minutes * 60
        self._keep_reserve = keep_reserve
        self._monotonic = monotonic
        self._sleep = sleep
        self._head_due = 0.0
        self._seen: tuple[datetime, float] | None = None
        self._unwritten: TreeHead | None = None
        self.heads_doubt = ""
        """What is wrong with the folder of heads, for people; empty when the newest head is in it."""

    async def run(self) -> None:
        """Look, and look again."""
        while True:
            await self.look()
            await self._sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """One look."""
        for part in (self._watch_clock, self._keep_reserve, self._make_head, self._write_head):
            try:
                await part()
            except (GatewayError, OSError) as exc:
                _log.warning("audit_upkeep_failed", exc=exc)

    async def _watch_clock(self) -> None:
        now, ticks = self._clock.now(), self._monotonic()
        seen, self._seen = self._seen, (now, ticks)
        if seen is None:
            return
        moved = (now - seen[0]).total_seconds() - (ticks - seen[1])
        if abs(moved) > CLOCK_TOLERANCE.total_seconds():
            _log.warning("clock_jumped", delay_seconds=moved)
            await record_jump(self._store, self._clock, self._node, moved)

    async def _make_head(self) -> None:
        if self._monotonic() < self._head_due:
            return
        head = await self._heads.make()
        # Only now: a head that could not be made is tried again at the next look, and not in an hour.
        self._head_due = self._monotonic() + self._interval_seconds
        _log.info("audit_head_made", count=head.size, sha256=head.root.hex())
        self._unwritten = head

    async def _write_head(self) -> None:
        """Write the newest head to its folder, at each look until it is there; see that the folder takes the next."""
        try:
            if self._unwritten is not None:
                await self._heads.export(self._unwritten)
                self._unwritten = None
            await asyncio.to_thread(self._heads.require_folder)
        except OSError as exc:
            if not self.heads_doubt:
                _log.error("audit_heads_dir_not_writable", setting="audit.heads_dir", reason=_reason(exc))
            self.heads_doubt = (
                f"signed heads of the audit log cannot be written to audit.heads_dir ({os_reason(exc)}): they are in "
                f"the database only, where nobody outside can hold them against it; mend the folder"
            )
            return
        if self.heads_doubt:
            _log.info("audit_heads_dir_is_back", setting="audit.heads_dir")
        self.heads_doubt = ""


def _reason(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "unknown").lower()
