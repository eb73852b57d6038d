"""Hints between nodes by LISTEN and NOTIFY, on one connection that does nothing else.

A NOTIFY takes a lock over the whole cluster until its transaction ends (finding 7), so none is sent where mail is
committed. What is to be told is gathered for ``GATHER_SECONDS`` and sent as one, in a transaction of its own, after the
commits. Hints are lossy by design: polling is the truth, and comes ``POLL_SECONDS`` later at the latest.

Failure modes: without the connection the gateway is slower and nothing else (F37). It is made again, with a pause that
grows, and everybody is then told to look at everything once, because hints were lost in between. What cannot be read
in a hint is passed over: anybody who may connect to the database may send one.
"""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import suppress
from typing import Any, Final

import psycopg

from gateway.core.errors import GatewayError
from gateway.observability.log import get_log
from gateway.ports import HintSink
from gateway.store.postgresql_address import PostgreSQLAddress

GATHER_SECONDS = 0.05
POLL_SECONDS = 20.0
PING_SECONDS = 30.0
"""A connection over which nothing comes may be dead without a sign; a pooler may have dropped what we listen to."""
ANSWER_SECONDS = 10.0
MAX_PAUSE_SECONDS = 10.0
_MOST_MAILBOXES = 500
"""In one hint: its payload has room for 8,000 bytes. When more changed, it says that everything did."""
_MAX_ID: Final = (1 << 63) - 1

log = get_log("store")


class PostgreSQLHints:
    """Implements :class:`gateway.ports.Hints`."""

    mailbox_poll_seconds = POLL_SECONDS

    def __init__(self, address: PostgreSQLAddress) -> None:
        self._address = address
        self._channel = f"gateway_{address.schema}"
        self._gate = threading.Lock()
        self._mailboxes: set[int] = set()
        self._jobs = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._something = asyncio.Event()
        """There is something to tell."""
        self._came = asyncio.Event()
        """There is something to read."""

    # --- telling ---

    def mailbox_changed(self, mailbox_id: int) -> None:
        """Tell the other nodes, soon."""
        with self._gate:
            self._mailboxes.add(mailbox_id)
        self._wake()

    def jobs_wait(self) -> None:
        """Tell the other nodes, soon."""
        with self._gate:
            self._jobs = True
        self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # The loop was closed: the gateway is ending.
                loop.call_soon_threadsafe(self._something.set)

    def _take(self) -> str:
        """What is to be told, as the text of one hint; the empty string when there is nothing."""
        with self._gate:
            mailboxes, jobs = sorted(self._mailboxes), self._jobs
            self._mailboxes.clear()
            self._jobs = False
        if not mailboxes and not jobs:
            return ""
        if len(mailboxes) > _MOST_MAILBOXES:
            return json.dumps({"all": True})
        return json.dumps({"mailboxes": mailboxes, "jobs": jobs}, separators=(",", ":"))

    # --- the connection ---

    async def run(self, sink: HintSink) -> None:
        """Send and hear hints until cancelled. Raises nothing: a lost connection is made again."""
        self._loop = asyncio.get_running_loop()
        pause = 0.0
        while True:
            try:
                connection = await self._connect()
                try:
                    pause = 0.0
                    sink.look_again()
                    log.info("hints_connected")
                    await self._converse(connection, sink)
                finally:
                    with suppress(psycopg.Error):
                        await connection.close()
            except (psycopg.Error, GatewayError, OSError, TimeoutError) as exc:
                pause = min(MAX_PAUSE_SECONDS, max(0.5, 2 * pause))
                log.warning("hints_lost", exc=exc, retry_seconds=pause)
                await asyncio.sleep(pause)

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        async with asyncio.timeout(ANSWER_SECONDS):
            connection = await psycopg.AsyncConnection.connect(**self._address.arguments("hints"), autocommit=True)
            await connection.execute(f"LISTEN {self._channel}")
        return connection

    async def _converse(self, connection: psycopg.AsyncConnection[Any], sink: HintSink) -> None:
        while True:
            await self._wait(connection)
            if self._something.is_set():
                # Gathered while we wait, so that there are at most twenty in a second.
                await asyncio.sleep(GATHER_SECONDS)
                self._something.clear()
            async with asyncio.timeout(ANSWER_SECONDS):
                if told := self._take():
                    await connection.execute("SELECT pg_notify(%s, %s)", (self._channel, told))
                else:
                    # Reads what has come, and proves that the server is there.
                    await connection.execute("SELECT 1")
                async for notice in connection.notifies(timeout=0):
                    if notice.pid != connection.info.backend_pid:
                        hear(notice.payload, sink)

    async def _wait(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Return when there is something to hear or to tell, or it is time for a sign of life."""
        loop = asyncio.get_running_loop()
        handle = connection.fileno()
        self._came.clear()
        loop.add_reader(handle, self._came.set)
        waits = [asyncio.ensure_future(self._came.wait()), asyncio.ensure_future(self._something.wait())]
        try:
            await asyncio.wait(waits, timeout=PING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(handle)
            for one in waits:
                one.cancel()


def hear(payload: str, sink: HintSink) -> None:
    """Tell the sink what a hint says; what is no hint of ours is passed over."""
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        return
    if not isinstance(said, dict):
        return
    if said.get("all") is True:
        sink.look_again()
        return
    mailboxes = said.get("mailboxes")
    for mailbox_id in mailboxes if isinstance(mailboxes, list) else ():
        if isinstance(mailbox_id, int) and not isinstance(mailbox_id, bool) and 0 < mailbox_id <= _MAX_ID:
            sink.mailbox_changed(mailbox_id)
    if said.get("jobs") is True:
        sink.jobs_wait()
