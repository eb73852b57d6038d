"""The store: one writer thread with group commit, and a few readers (:class:`gateway.ports.Store`).

The same for every database; what they do differently is behind :class:`gateway.store.engines.Database`.

Guarantees

* ``write`` returns only after the commit is durable. When its caller is cancelled, the commit still ends
  (finding 3): a sender that is gone comes again and is recognised as a duplicate.
* One unit of work writes at a time, over all nodes, and sees everything that was committed before it. So UIDs, MODSEQ
  and chains of audit events rise in the order of the commits, and no unit needs to be tried again.
* ``read`` sees one snapshot for the whole unit and cannot write.
* Errors of the database leave as StoreError, StoreFullError, StoreUnavailableError or ConflictError with fixed texts,
  never with values.

Failure modes: ``wait_dead`` returns when the store stopped for good after an input/output error of SQLite; the process
must end then and be started again. A PostgreSQL that is away is temporary: StoreUnavailableError until it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, cast

from sqlalchemy.exc import StatementError

from gateway.core.errors import ConfigurationError, StoreError, StoreUnavailableError
from gateway.core.message import Body, MemoryBody
from gateway.observability.clock import SystemClock
from gateway.observability.log import get_log
from gateway.ports import BodySealer, Clock, Hints, PlacedBody, UnitOfWork
from gateway.settings import S3Settings, StoreSettings
from gateway.store.body_key_rows import BodyKeys
from gateway.store.body_parts import Kind
from gateway.store.database_errors import as_gateway_error, is_lost
from gateway.store.engines import Database
from gateway.store.group_commit import GroupCommitter
from gateway.store.message_keys import KeyMemory
from gateway.store.opening import READERS, open_database
from gateway.store.reserve import Reserve
from gateway.store.s3_bodies import S3Bodies, open_bodies
from gateway.store.s3_bucket import BucketRefusedError, NoCredentialsFoundError
from gateway.store.s3_orphans import Page, compare
from gateway.store.schema import create_schema
from gateway.store.sqlite_engine import SQLiteDatabase
from gateway.store.unit import SQLUnitOfWork, UnitContext
from gateway.store.unit_time import UnitTime

T = TypeVar("T")
_log = get_log("store")


class SQLStore:
    """Durable storage in one database. Bound to no event loop: any thread and any loop may use it."""

    def __init__(
        self,
        database: Database,
        settings: StoreSettings,
        sealer: BodySealer,
        objects: S3Bodies | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Use :meth:`open`. ``database`` has a complete schema; the store closes it, and ``objects``."""
        self._database = database
        self._objects = objects
        self._sealer = sealer
        self._context = UnitContext(
            KeyMemory(sealer),
            node=settings.node,
            shared=database.shared,
            objects=objects,
            places_bodies=self.places_bodies,
            clock=clock,
        )
        self._writer_engine = database.writer
        self._reader_engine = database.reader
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._reserve_used = False
        self._reserve: Reserve | None = None
        if isinstance(database, SQLiteDatabase) and settings.audit_reserve_mib:
            self._reserve = Reserve(database.path, settings.audit_reserve_mib << 20)
        self._committer = GroupCommitter(
            database,
            replace(self._context, may_fetch=False),
            max_units=settings.group_commit_units,
            wait_seconds=settings.group_commit_wait_ms / 1000,
            release_space=self._release_space,
        )
        self._closed = False

    @classmethod
    def open(
        cls,
        settings: StoreSettings,
        sealer: BodySealer,
        *,
        daemon: bool = False,
        s3: S3Settings | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Open the database, and make its tables when they are not there.

        ``sealer`` seals the bodies and opens them. ``daemon`` keeps another daemon out (of the file, or from the name
        of this node), hands out again the jobs that a process which is gone held, and sees first that every key that
        stored mail needs is at hand; a tool finds that out when it needs one.

        ``s3`` names the bucket where bodies lie; a daemon that puts new ones there proves first that it locks.
        ``clock`` stands in for the one in which leases and schedules are kept, for tests that move it.

        Raises:
            ConfigurationError: a bad URL, a second daemon, a newer schema, a database that is not safe, a missing key,
                a bucket that does not lock.
            KeyUnavailableError: the token with the keys does not answer now.
            StoreUnavailableError: the database, or the bucket of a daemon, does not answer now.
        """
        database = open_database(settings, daemon=daemon)
        objects: S3Bodies | None = None
        try:
            create_schema(database, settings.node)
            if daemon:
                with database.reader.connect() as connection:
                    BodyKeys(connection, sealer).require()
            places = settings.bodies == "s3"
            objects = open_bodies(s3 or S3Settings(), sealer, database.reader, places=places, prove=daemon)
            store = cls(database, settings, sealer, objects, clock=clock)
        except BaseException as exc:
            if objects is not None:
                objects.close()
            database.close()
            error = as_gateway_error(exc)
            if error is exc:
                raise
            raise error from exc
        if daemon:
            try:
                store.write_blocking(_release, urgent=True)
            except BaseException:
                store.close()
                raise
            if store.weaknesses():
                _log.warning("database_role_too_strong")
        return store

    def close(self) -> None:
        """Commit what is queued and close every connection. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._committer.close()
        self._readers.shutdown(wait=True)
        if self._objects is not None:
            self._objects.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def write(self, work: Callable[[UnitOfWork], T], *, urgent: bool = False) -> T:
        """Run the unit in a write transaction; return after the commit is durable. See :class:`gateway.ports.Store`.

        Raises:
            StoreError: the commit failed. ConflictError: a constraint refused it. And whatever the unit raises.
        """
        return cast("T", await self._committer.write(work, urgent=urgent))

    @property
    def places_bodies(self) -> bool:
        """See :class:`gateway.ports.BodyStore`."""
        return self._objects is not None and self._objects.places

    async def place_raw(self, message_id: str, raw: Body) -> PlacedBody | None:
        """See :class:`gateway.ports.BodyStore`."""
        if self._objects is None or not self._objects.places:
            return None
        return await self._objects.place(message_id, Kind.RAW, self._sealer.new_key(), raw)

    async def place_content(self, message_id: str, content: bytes) -> PlacedBody | None:
        """See :class:`gateway.ports.BodyStore`."""
        if self._objects is None or not self._objects.places:
            return None
        key = await self.read(lambda unit: cast("SQLUnitOfWork", unit).bodies.key_of(message_id))
        return await self._objects.place(message_id, Kind.CONTENT, key, MemoryBody(content))

    def bucket_away(self) -> bool:
        """Whether bodies lie in a bucket that did not answer when it was asked last."""
        return self._objects is not None and self._objects.bucket.away

    def bucket_trouble(self) -> str:
        """Ask the bucket now, and wait: ``""`` (it does what it is asked, or there is none), ``away``, ``refused``."""
        try:
            if self._objects is not None:
                self._objects.bucket.versioned()
        except BucketRefusedError:
            return "refused"
        except StoreUnavailableError:
            return "away"
        return ""

    def bucket_pages(self, now: datetime) -> Iterator[Page]:
        """Compare the bucket with the rows, for callers without an event loop.

        Raises:
            ConfigurationError: the settings name no bucket, or no credentials. StoreUnavailableError: it does not
                answer now.
        """
        if self._objects is None:
            raise ConfigurationError("s3.bucket: the settings name no bucket, so there is nothing to compare")
        try:
            yield from compare(self._objects.bucket, self._reader_engine, now)
        except NoCredentialsFoundError as exc:
            raise ConfigurationError(str(exc)) from exc

    async def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run the unit on a read snapshot in a worker thread.

        Raises:
            StoreError: the store cannot be read. And whatever the unit raises.
        """
        if self._closed:
            raise StoreError("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_blocking, work)

    def version(self) -> int | None:
        """See :class:`gateway.ports.Store`."""
        # A server is asked over a connection: that would be the read itself.
        return self._database.version() if isinstance(self._database, SQLiteDatabase) and not self._closed else None

    def write_blocking(self, work: Callable[[UnitOfWork], T], *, urgent: bool = False) -> T:
        """As :meth:`write`, for callers without an event loop."""
        return self._submit(work, urgent=urgent).result()

    def read_blocking(self, work: Callable[[UnitOfWork], T]) -> T:
        """As :meth:`read`, for callers without an event loop."""
        try:
            try:
                return self._read_once(work)
            except StatementError as exc:
                if not is_lost(exc):
                    raise
                # The server was started again since the last read. A unit that only reads may run twice.
                try:
                    return self._read_once(work)
                except StoreUnavailableError:
                    raise exc from None
        except StatementError as exc:
            raise as_gateway_error(exc) from exc

    def _read_once(self, work: Callable[[UnitOfWork], T]) -> T:
        with self._reader_engine.begin() as connection:
            unit_time = UnitTime(lambda: self._database.now(connection), self._context.clock)
            return work(SQLUnitOfWork(connection, self._context, unit_time))

    @property
    def hints(self) -> Hints:
        """Hints to and from the other nodes of the database."""
        return self._database.hints

    @property
    def path(self) -> Path:
        """The file of the database.

        Raises:
            ConfigurationError: it is not a file.
        """
        if not isinstance(self._database, SQLiteDatabase):
            raise ConfigurationError("store.url: this database is not a file on this machine")
        return self._database.path

    def free_bytes(self) -> int | None:
        """Bytes free for the database on this machine; None when it is not on this machine."""
        return self._database.free_bytes()

    def gateways(self) -> list[str]:
        """The daemons that run on the database now: a process id of this machine, or the names of nodes."""
        return self._database.gateways()

    def weaknesses(self) -> list[str]:
        """What an operator should mend although mail is safe without it, in words for people."""
        return self._database.weaknesses()

    @property
    def shared(self) -> bool:
        """Whether several nodes may work on the database."""
        return self._database.shared

    @property
    def dead(self) -> bool:
        """Whether the store stopped for good after an input/output error."""
        return self._committer.dead

    def raise_if_dead(self) -> None:
        """Raises StoreError when the store stopped for good."""
        if self.dead:
            raise StoreError("the store stopped after an input/output error")

    async def wait_dead(self) -> None:
        """Return when the store stopped for good; the process must end then (exit status 75)."""
        await asyncio.shield(asyncio.wrap_future(self._committer.death))

    async def keep_reserve(self) -> None:
        """Set the space for audit rows aside (again), where there is enough; say so in the log when it was used.

        Raises:
            StoreError: that could not be written down.
        """
        if self._reserve is None:
            return
        used = self._reserve.bytes_left() > 0
        added = await asyncio.to_thread(self._reserve.set_aside)
        if added and (used or self._reserve_used):
            self._reserve_used = False
            at = SystemClock().now()
            await self.write(lambda rows: rows.audit.add(at, "gateway", "audit.reserve_restored", "", {"bytes": added}))

    def _release_space(self, attempt: int) -> bool:
        """Make room for urgent units on a full disk. Called by the writer thread."""
        if self._reserve is None or not self._reserve.make_room(attempt):
            return False
        self._reserve_used = True
        _log.error("disk_full_audit_reserve_used", bytes=self._reserve.bytes_left())
        return True

    def _submit(self, work: Callable[[UnitOfWork], T], *, urgent: bool = False) -> Future[T]:
        return cast("Future[T]", self._committer.submit(work, urgent=urgent))


def _release(unit: UnitOfWork) -> None:
    """Make due again what this node held when its process ended."""
    cast("SQLUnitOfWork", unit).jobs.release_leases()
    unit.deliveries.release()
