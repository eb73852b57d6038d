"""The only place that knows everyone: builds the adapters, starts the servers, owns their tasks.

Order of the start: everything that can be wrong in the settings is found before a port opens (keys, anchors, TLS,
the store and its lock), then the workers, then the listeners. Order of the stop: the listeners first (running
commits finish), then the workers (running steps finish), then the store. A process killed at any point leaves what
``core/lifecycle.py`` says of it.

SIGTERM and SIGINT stop the daemon; SIGHUP reads keys (of addresses and of stored bodies), anchors and revocation lists
again, and keeps the old ones when the new ones cannot be read.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from typing import Any, Self

from gateway.accounts.tokens import token_verifier
from gateway.agents import IsolatedAgent, ReloadableAgent
from gateway.auditing.lifecycle import add_reload
from gateway.auditing.room import Auditing, signing_key
from gateway.bundles.refresher import BundleRefresher
from gateway.core.errors import ConfigurationError, StoreError
from gateway.core.lifecycle import JobKind
from gateway.hl7.adt import ADTRules, IdentifierRule
from gateway.hl7.feed import PatientFeed
from gateway.hl7.listener import MLLPLimits, MLLPListener
from gateway.imap.listener import IMAPListener
from gateway.importing import import_deliveries, import_names
from gateway.inbox.change_hub import ChangeHub
from gateway.inbox.indexer import Indexer
from gateway.inbox.mailbox_service import MailboxService
from gateway.inbox.maildrops import Maildrops
from gateway.inbox.mutable.permission import TOLD, check_permitted
from gateway.inbox.mutable.service import MutableInbox
from gateway.inbox.quarantine_inbox import QuarantineInbox
from gateway.inbox.sent import SentMail
from gateway.ingress.fetch_intake import Surroundings
from gateway.ingress.fetch_service import FetchService
from gateway.ingress.recipients import LocalRecipients
from gateway.ingress.smtp_server import SMTPListener
from gateway.ingress.spool import Spool
from gateway.keys.body_key_watch import BodyKeyWatch
from gateway.keys.body_keys import body_sealer
from gateway.observability.log import configure, get_log
from gateway.observability.process import keep_what_is_loaded, raise_descriptor_limit, return_large_blocks
from gateway.pipeline.accept import Accept
from gateway.pipeline.byte_gate import ByteGate
from gateway.pipeline.file import FileMessage
from gateway.pipeline.hand_over import HandOver
from gateway.pipeline.import_hook import OrderImports
from gateway.pipeline.link import LinkMessage
from gateway.pipeline.onward import Onward
from gateway.pipeline.unwrap import Unwrap
from gateway.pop3.listener import POP3Listener
from gateway.readiness import advisories, readiness_checks
from gateway.services import Services, ids
from gateway.settings import Settings
from gateway.settings.adt import zone_of
from gateway.store.made_anew import leave_note, missing_database
from gateway.store.sql_store import SQLStore
from gateway.web.health import HealthServer
from gateway.weighing import Weighing, link_policy
from gateway.workers.pool import Step, WorkerPool

GRACE_SECONDS = 10.0
"""How long running commits, and then running steps, may each take to finish after SIGTERM (F39: 30 s in all)."""

EXIT_STORE_DEAD = 75
"""The store stopped for good after an input/output error: EX_TEMPFAIL, to be restarted by the supervisor."""

log = get_log("daemon")


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


def adt_listener(services: Services) -> MLLPListener | None:
    """What listens to the feed of the EHR; None when that is off.

    Raises:
        ConfigurationError: certificate, key or the authorities of the peers cannot be used; the text names the file.
    """
    adt = services.settings.adt
    if not adt.port:
        return None
    context = tls_context(services.settings) if adt.tls == "required" else None
    if context is not None and adt.client_ca_file is not None:
        try:
            context.load_verify_locations(adt.client_ca_file)
        except (ssl.SSLError, OSError) as exc:
            raise ConfigurationError(f"{adt.client_ca_file} (adt.client_ca_file) holds no certificates in PEM") from exc
        context.verify_mode = ssl.CERT_REQUIRED
    if context is None:
        log.warning("adt_in_clear_text")
    rules = ADTRules(
        patient=IdentifierRule(adt.assigning_authority, adt.identifier_type),
        mrn=IdentifierRule(adt.mrn_authority or adt.assigning_authority, adt.mrn_type),
        processing_id=adt.processing_id,
        zone=zone_of(adt.time_zone),
        direct_code=adt.direct_code,
        replaces_addresses=adt.direct_addresses == "replace",
    )
    most = adt.max_message_kib << 10
    feed = PatientFeed(services.store, services.clock, rules, ids(services.clock), most)
    limits = MLLPLimits(most, adt.max_connections, adt.idle_timeout_minutes * 60, adt.message_timeout_seconds)
    return MLLPListener(
        adt.host, adt.port, answer=feed.take, limits=limits, allowed_peers=adt.allowed_peers, tls=context
    )


async def serve(
    settings: Settings, *, ready: Callable[[str], None] | None = None, imap_test_policy: bool = False
) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Args:
        settings: the whole configuration.
        ready: told one line for people once every port is open.
        imap_test_policy: serve mail clients test mailboxes in memory (:mod:`gateway.inbox.mutable`) and not the store.

    Raises:
        ConfigurationError: something in the settings is wrong; no port was opened.
        StoreError: the store stopped for good after an input/output error; the process must end.
    """
    configure(settings.log)
    return_large_blocks()
    raise_descriptor_limit()
    stopping = asyncio.Event()
    context = tls_context(settings)
    if not settings.practice.addresses:
        raise ConfigurationError("practice.addresses is empty: nobody could receive mail here")
    leave_note(settings)
    if missing_database(settings):
        log.warning("database_was_missing")
    async with AsyncExitStack() as stack:
        sealer = body_sealer(settings)
        store = stack.enter_context(SQLStore.open(settings.store, sealer, daemon=True, s3=settings.s3))
        services = stack.enter_context(closing(Services(settings, store)))
        if imap_test_policy:
            await check_permitted(settings.imap.host, store)
            log.warning("imap_test_policy")
        agent = ReloadableAgent(settings.trust, await store.read(lambda rows: rows.bundles.in_force()))
        auditing = Auditing(settings, store, services.clock, await signing_key(settings.audit, store))
        body_keys = BodyKeyWatch(settings, sealer.keys, store, pid=os.getpid())
        running = _Running(services, agent, context, auditing, body_keys, imap_test_policy=imap_test_policy)
        _on_signals(stopping, lambda: _reload(agent, body_keys, services))
        await stack.enter_async_context(auditing)
        await stack.enter_async_context(running)
        keep_what_is_loaded()
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


def _on_signals(stopping: asyncio.Event, reload: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    # Not in an executor, whose threads are waited for at the end: a token that hangs must not hold up the stop.
    loop.add_signal_handler(signal.SIGHUP, lambda: threading.Thread(target=reload, daemon=True).start())


def _reload(agent: ReloadableAgent, body_keys: BodyKeyWatch, services: Services) -> None:
    body_keys.reload()
    agent.reload()
    failed = (*agent.not_reloaded, *(["body_keys"] if body_keys.reload_failed else []))
    clock, node = services.clock, services.settings.store.node
    try:
        services.store.write_blocking(lambda rows: add_reload(rows, clock, node, failed), urgent=True)
    except StoreError as exc:
        # What was read is in force all the same: to withdraw an anchor must not wait for the database.
        log.warning("reload_not_recorded", exc=exc)


class _Heard:
    """Passes on what the other nodes of the database hint at."""

    def __init__(self, hub: ChangeHub, pool: WorkerPool) -> None:
        self._hub = hub
        self._pool = pool

    def mailbox_changed(self, mailbox_id: int) -> None:
        self._hub.heard(mailbox_id)

    def jobs_wait(self) -> None:
        self._pool.wake()

    def look_again(self) -> None:
        self._hub.look_again()
        self._pool.wake()


class _Running:
    """The parts of a running daemon, in the order of their start."""

    def __init__(
        self,
        services: Services,
        agent: ReloadableAgent,
        context: ssl.SSLContext,
        auditing: Auditing,
        body_keys: BodyKeyWatch,
        *,
        imap_test_policy: bool,
    ) -> None:
        settings, store, clock = services.settings, services.store, services.clock
        self._settings = settings
        self._watches = (auditing.keeper.run, body_keys.run, services.sessions.run)
        self._executor = ThreadPoolExecutor(settings.trust.workers, thread_name_prefix="agent")
        self._hub = ChangeHub(
            store,
            poll_interval_seconds=store.hints.mailbox_poll_seconds,
            tell_others=store.hints.mailbox_changed,
        )
        self._gate = ByteGate()
        self._hand_over = HandOver()
        self._weighing = Weighing(store.read_blocking, settings.charts.record_assigners)
        self._hints = store.hints
        self._imports = import_deliveries(settings, store, clock)
        self._pool = WorkerPool(
            store,
            clock,
            self._steps(services, agent),
            settings.jobs,
            stop_seconds=GRACE_SECONDS,
            parked=lambda: self._gate.waiting,
            jitter=lambda: random.uniform(1.0, 1.2),  # noqa: S311 - spreads retries, hides nothing
        )
        self._gate.on_wait(self._pool.wake)
        spool = Spool(settings.smtp.spool_dir)
        if left := spool.prepare():
            log.info("spool_swept", count=left)
        self._smtp = SMTPListener(
            settings.smtp,
            accept=Accept(store, clock, ids(clock), self._work_came, hand_over=self._hand_over),
            is_local_recipient=LocalRecipients(settings.practice.domains, settings.practice.addresses),
            tls=context,
            log=get_log("smtp"),
            spool=spool,
            free_space=store.free_bytes,
            free_space_floor_bytes=settings.store.free_space_floor_mib << 20,
        )
        sent = SentMail(store, clock, self._hub, Indexer(), ids(clock))
        inbox = self._inbox = QuarantineInbox(Indexer(), store, clock, self._hub, settings.imap, sent)
        self._imap_test_policy = imap_test_policy
        mailboxes: MailboxService = MutableInbox(clock) if imap_test_policy else inbox
        sessions = services.sessions
        if settings.oauth.issuer:
            services.accounts.accept_tokens(token_verifier(settings.oauth))
        self._imap = IMAPListener(settings.imap, services.accounts, mailboxes, context, sessions=sessions)
        maildrops = Maildrops(store, clock, inbox, settings.pop3.folder)
        self._pop3 = POP3Listener(settings.pop3, services.accounts, maildrops, context, sessions=sessions)
        self._web = HealthServer(
            settings.http,
            readiness_checks(store, settings),
            advisories=advisories(
                settings, store, clock, services.bundles, agent, keeper=auditing.keeper, body_keys=body_keys
            ),
            imap=settings.imap,
            pop3=settings.pop3,
            log=get_log("web"),
        )
        self._refresher = BundleRefresher(
            services.bundles,
            clock,
            agent.use_bundles,
            jitter=lambda: random.uniform(0.9, 1.0),  # noqa: S311 - spreads downloads, hides nothing
        )
        self._adt = adt_listener(services)
        self._fetching = fetching(services, self._work_came, settings.store.node)
        self._stack = AsyncExitStack()
        self.background: list[asyncio.Future[None]] = []
        """The parts that never end by themselves."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.callback(self._executor.shutdown, wait=True, cancel_futures=True)
            running = (self._imports.run, self._pool.run, self._hub.run, self._refresher.run, self._hear_hints)
            for background in (*self._watches, *running):
                self.background.append(await stack.enter_async_context(_owned(background)))
            await stack.enter_async_context(_owned(self._weighing.prepare))
            await self._web.start()
            stack.push_async_callback(self._web.close)
            await self._inbox.prepare()
            await self._imap.start()
            stack.push_async_callback(self._imap.close)
            await self._pop3.start()
            stack.push_async_callback(self._pop3.close)
            await self._smtp.start()
            stack.push_async_callback(self._smtp.close, GRACE_SECONDS)
            if self._adt is not None:
                await self._adt.start()
                stack.push_async_callback(self._adt.close)
            # Last, so that it is the first to stop: it brings work for all the others.
            self.background.append(await stack.enter_async_context(_owned(self._fetching.run)))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        log.info("stopping", grace_seconds=GRACE_SECONDS)
        await self._stack.aclose()

    def describe(self) -> str:
        """One line for people: where it listens."""
        imap, pop3 = self._imap.ports, self._pop3.ports
        parts = [f"SMTP {self._smtp.port}"]
        parts += [f"IMAP STARTTLS {imap.starttls}"] if imap.starttls else []
        parts += [f"IMAPS {imap.tls}"] if imap.tls else []
        parts += [f"POP3 STLS {pop3.starttls}"] if pop3.starttls else []
        parts += [f"POP3S {pop3.tls}"] if pop3.tls else []
        parts += [f"ADT {self._adt.port}"] if self._adt is not None else []
        parts += [f"HTTP {self._web.port}"] if self._web.port else []
        line = f"direct-gateway is ready: {', '.join(parts)}"
        told = missing_database(self._settings) or (TOLD if self._imap_test_policy else None)
        return f"{line}; WARNING: {told}" if told else line

    def _work_came(self) -> None:
        """There is a job to do: here, or where there is room."""
        self._pool.wake()
        if self._pool.full:
            self._hints.jobs_wait()

    async def _hear_hints(self) -> None:
        await self._hints.run(_Heard(self._hub, self._pool))

    def _steps(self, services: Services, agent: ReloadableAgent) -> Mapping[JobKind, Step]:
        store, clock, charts = services.store, services.clock, services.settings.charts
        isolated = IsolatedAgent(services.settings.trust, lambda: agent.bundles)
        indexer = Indexer()
        link = LinkMessage(
            store,
            clock,
            ids(clock),
            self._hub,
            self._weighing,
            policy=link_policy(charts),
            gate=self._gate,
        )
        told = services.settings.imap.verdict_headers
        onward = Onward(indexer, link, self._hub, verdict_headers=told)
        return {
            JobKind.UNWRAP: Unwrap(
                store,
                agent,
                clock,
                self._executor,
                isolated,
                gate=self._gate,
                hand_over=self._hand_over,
                onward=onward,
            ),
            JobKind.FILE: FileMessage(store, indexer, clock, self._hub, self._gate, verdict_headers=told),
            JobKind.LINK: link,
            JobKind.IMPORT: OrderImports(store, import_names(services.settings), self._imports.wake),
        }


def fetching(services: Services, work_came: Callable[[], None], owner: str) -> FetchService:
    """What fetches from the upstream mailboxes of the settings. ``owner`` names the process that does it."""
    settings, store, clock = services.settings, services.store, services.clock
    floor = settings.store.free_space_floor_mib << 20

    def has_space_for(size_bytes: int) -> bool:
        # Twice, as for mail that comes by SMTP: the database writes a message to its log and then to its place.
        free = store.free_bytes()
        return free is None or free >= floor + 2 * size_bytes

    # A gate of its own: a server that takes its time over a large message must not keep the workers from theirs.
    around = Surroundings(store, clock, Accept(store, clock, ids(clock), work_came), ByteGate(), has_space_for)
    jitter = lambda: random.uniform(0.85, 1.15)  # noqa: S311, E731 - spreads looks and retries, hides nothing
    return FetchService(settings.fetch, around, owner=owner, jitter=jitter)


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
