"""The only place that knows everyone: builds the adapters, starts the servers, owns their tasks.

Order of the start: everything that can be wrong in the settings is found before a port opens (keys, anchors, TLS,
the store and its lock), then the workers, then the listeners. Order of the stop: the listeners first (running
commits finish), then the workers (running steps finish), then the store. A process killed at any point leaves what
``core/lifecycle.py`` says of it.

SIGTERM and SIGINT stop the daemon; SIGHUP reads keys, anchors and revocation lists again, and keeps the old ones
when the new ones cannot be read.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from typing import Any, Self

from gateway.accounts.service import Accounts
from gateway.agents import IsolatedAgent, ReloadableAgent
from gateway.charts.folder_importer import FolderImporter
from gateway.charts.service import Charts
from gateway.core.errors import ConfigurationError
from gateway.core.lifecycle import JobKind
from gateway.imap.listener import IMAPListener
from gateway.inbox.change_hub import ChangeHub
from gateway.inbox.indexer import Indexer
from gateway.inbox.service import Inbox
from gateway.ingress.recipients import LocalRecipients
from gateway.ingress.smtp_server import SMTPListener
from gateway.observability.clock import SystemClock
from gateway.observability.log import configure, get_log
from gateway.pipeline.accept import Accept
from gateway.pipeline.file import FileMessage
from gateway.pipeline.import_hook import ImportLinked
from gateway.pipeline.link import LinkMessage
from gateway.pipeline.message_view import view_message
from gateway.pipeline.unwrap import Unwrap
from gateway.ports import SecurityAgent
from gateway.settings import Settings
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from gateway.web.health import Check, HealthServer
from gateway.workers.pool import Step, WorkerPool

GRACE_SECONDS = 10.0
"""How long running commits, and then running steps, may each take to finish after SIGTERM (F39: 30 s in all)."""

EXIT_STORE_DEAD = 75
"""The store stopped for good after an input/output error: EX_TEMPFAIL, to be restarted by the supervisor."""

log = get_log("daemon")


@dataclass(frozen=True, slots=True)
class Services:
    """What the command line works with: the store and the rooms above it, without any port."""

    settings: Settings
    clock: SystemClock
    store: SQLStore
    accounts: Accounts
    charts: Charts


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Open the store for a command, beside a running daemon or without one.

    Raises:
        ConfigurationError: there is no usable store.
    """
    with SQLStore.open(settings.store) as store:
        services = _services(settings, store)
        with closing(services.accounts):
            yield services


def _ids(clock: SystemClock) -> Callable[[], str]:
    return lambda: new_id(clock.now())


def _services(settings: Settings, store: SQLStore) -> Services:
    clock = SystemClock()
    return Services(
        settings=settings,
        clock=clock,
        store=store,
        accounts=Accounts(store, clock),
        charts=Charts(store, clock, _ids(clock)),
    )


def tls_context(settings: Settings) -> ssl.SSLContext:
    """The context of the listeners: TLS 1.2 or newer (EP-27).

    Raises:
        ConfigurationError: certificate or key are missing or do not fit; the text names the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    files = settings.tls
    for path in (files.certificate_file, files.key_file):
        if not path.is_file():
            raise ConfigurationError(f"no file {path} for [tls]; make a practice with: direct-gateway init DIR")
    try:
        context.load_cert_chain(files.certificate_file, files.key_file)
    except (ssl.SSLError, OSError) as exc:
        raise ConfigurationError(f"{files.certificate_file} and {files.key_file} do not make a TLS identity") from exc
    return context


async def serve(settings: Settings, *, ready: Callable[[str], None] | None = None) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Args:
        settings: the whole configuration.
        ready: told one line for people once every port is open.

    Raises:
        ConfigurationError: something in the settings is wrong; no port was opened.
        StoreError: the store stopped for good after an input/output error; the process must end.
    """
    configure(settings.log)
    stopping = asyncio.Event()
    context = tls_context(settings)
    agent = ReloadableAgent(settings.trust)
    if not settings.practice.addresses:
        raise ConfigurationError("practice.addresses is empty: nobody could receive mail here")
    async with AsyncExitStack() as stack:
        store = stack.enter_context(SQLStore.open(settings.store, daemon=True))
        services = _services(settings, store)
        stack.enter_context(closing(services.accounts))
        running = _Running(services, agent, context)
        _on_signals(stopping, agent)
        await stack.enter_async_context(running)
        if ready is not None:
            ready(running.describe())
        await _until_stopped(stopping, store, running.background)
    log.info("stopped")


async def _until_stopped(stopping: asyncio.Event, store: SQLStore, background: Sequence[asyncio.Future[None]]) -> None:
    """Wait for a signal. The end of the store, or of a background part, is raised: half a daemon must not go on."""
    signalled, dead = asyncio.ensure_future(stopping.wait()), asyncio.ensure_future(store.wait_dead())
    waits: set[asyncio.Future[Any]] = {signalled, dead, *background}
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    dead.cancel()
    store.raise_if_dead()
    for part in background:
        if part.done():
            part.result()


def _on_signals(stopping: asyncio.Event, agent: ReloadableAgent) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, agent.reload)


class _Running:
    """The parts of a running daemon, in the order of their start."""

    def __init__(self, services: Services, agent: SecurityAgent, context: ssl.SSLContext) -> None:
        settings, store, clock = services.settings, services.store, services.clock
        self._settings = settings
        self._executor = ThreadPoolExecutor(settings.trust.workers, thread_name_prefix="agent")
        self._hub = ChangeHub(store)
        self._pool = WorkerPool(
            store,
            clock,
            self._steps(services, agent),
            settings.jobs,
            stop_seconds=GRACE_SECONDS,
            jitter=lambda: random.uniform(1.0, 1.2),  # noqa: S311 - spreads retries, hides nothing
        )
        self._smtp = SMTPListener(
            settings.smtp,
            accept=Accept(store, clock, _ids(clock), self._pool.wake),
            is_local_recipient=LocalRecipients(settings.practice.domains, settings.practice.addresses),
            tls=context,
            log=get_log("smtp"),
            free_space=lambda: shutil.disk_usage(store.path.parent).free,
            free_space_floor_bytes=settings.store.free_space_floor_mib << 20,
        )
        self._imap = IMAPListener(
            settings.imap, services.accounts, Inbox(store, clock, self._hub, settings.imap), context
        )
        self._web = HealthServer(settings.http, _checks(store, settings), imap=settings.imap, log=get_log("web"))
        self._stack = AsyncExitStack()
        self.background: list[asyncio.Future[None]] = []
        """The parts that never end by themselves."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.callback(self._executor.shutdown, wait=True, cancel_futures=True)
            for background in (self._pool.run, self._hub.run):
                self.background.append(await stack.enter_async_context(_owned(background)))
            await self._web.start()
            stack.push_async_callback(self._web.close)
            await self._imap.start()
            stack.push_async_callback(self._imap.close)
            await self._smtp.start()
            stack.push_async_callback(self._smtp.close, GRACE_SECONDS)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        log.info("stopping", grace_seconds=GRACE_SECONDS)
        await self._stack.aclose()

    def describe(self) -> str:
        """One line for people: where it listens."""
        imap = self._imap.ports
        parts = [f"SMTP {self._smtp.port}"]
        parts += [f"IMAP STARTTLS {imap.starttls}"] if imap.starttls else []
        parts += [f"IMAPS {imap.tls}"] if imap.tls else []
        parts += [f"HTTP {self._web.port}"] if self._web.port else []
        return f"direct-gateway is ready: {', '.join(parts)}"

    def _steps(self, services: Services, agent: SecurityAgent) -> Mapping[JobKind, Step]:
        store, clock, charts = services.store, services.clock, services.settings.charts
        importers = [FolderImporter(charts.folder_importer_dir)] if charts.folder_importer_dir else []
        return {
            JobKind.UNWRAP: Unwrap(store, agent, clock, self._executor, IsolatedAgent(services.settings.trust)),
            JobKind.FILE: FileMessage(store, Indexer(), clock, self._hub),
            JobKind.LINK: LinkMessage(store, clock, _ids(clock), automatic=charts.automatic_links),
            JobKind.IMPORT: ImportLinked(store, clock, importers, view_message),
        }


@asynccontextmanager
async def _owned(run: Callable[[], Awaitable[None]]) -> AsyncIterator[asyncio.Future[None]]:
    """Run a background part; at the end cancel it and wait until it has let go."""
    task = asyncio.ensure_future(run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _checks(store: SQLStore, settings: Settings) -> dict[str, Check]:
    """What readiness means: a commit works, and there is room for mail."""
    floor = settings.store.free_space_floor_mib << 20

    async def store_commits() -> str | None:
        if store.dead:
            return "the store stopped after an input/output error; restart the gateway and check the disk"
        await store.write(lambda _rows: None)
        return None

    async def disk_space() -> str | None:
        free = shutil.disk_usage(store.path.parent).free
        return None if free > floor else f"only {free >> 20} MiB are free; mail is refused below {floor >> 20} MiB"

    return {"store": store_commits, "disk_space": disk_space}
