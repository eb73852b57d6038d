"""Trust bundles at work: configured, fetched, compared, taken over or refused (TB-5..11, TB-14).

Guarantees

* What is in force changes in one transaction, together with its audit row and its status: a process that is killed
  at any moment leaves the last good version in force, whole.
* A download, a file or a signature that fails changes nothing but the status (TB-8).
* A bundle is put into force, by adding, changing or enabling it, with a content that was fetched and checked under
  its new setting, or not at all, unless the operator asks for that.
* Nothing is ever deleted; disabling is a new setting.
* Every change is audited with its actor: names of bundles, counts and digests.

Failure modes: :class:`BundleError` for the bundle, NotFoundError and ConflictError for its name, InputError for its
setting, StoreError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from gateway.bundles.changes import Basis, BundleDiff, check_age, compare
from gateway.bundles.setting_rules import audited, check, check_presence, sha256_hex
from gateway.bundles.sources import BAD_LOCATION, BundleSources
from gateway.bundles.threads import in_thread
from gateway.bundles.update import Fetched, Outcome, RefreshResult, result_of, setting_of, take_over, write_down
from gateway.core.errors import BundleError, ConflictError, InputError
from gateway.core.trust import AnchorBundle, BundleRecord, BundleSetting, BundleStatus, BundleVersion
from gateway.observability.log import get_log
from gateway.ports import Clock, Store, UnitOfWork
from gateway.settings import TrustSettings
from gateway.sta.algorithm_policy import DEFAULT_POLICY, AlgorithmPolicy
from gateway.sta.certificates import Certificate
from gateway.sta.trust_anchors.bundle_file import BundleContent, read_bundle

log = get_log("bundles")


class Sources(Protocol):
    """Where bundles come from; both raise BundleError, and ``read`` blocks."""

    def check(self, setting: BundleSetting) -> None: ...

    def read(self, setting: BundleSetting) -> bytes: ...


@dataclass(frozen=True, slots=True)
class BundleOverview:
    """All there is to know of a bundle at a glance."""

    setting: BundleSetting
    newest: BundleVersion | None
    status: BundleStatus


class TrustBundles:
    """The bundles of one gateway. Several processes may work on the same store."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        sources: Sources,
        *,
        alarm_percent: int = 20,
        policy: AlgorithmPolicy = DEFAULT_POLICY,
    ) -> None:
        self._store = store
        self._clock = clock
        self._sources = sources
        self._alarm_percent = alarm_percent
        self._policy = policy

    @classmethod
    def configured(cls, store: Store, clock: Clock, settings: TrustSettings, policy: AlgorithmPolicy) -> TrustBundles:
        """The bundles of a gateway with these settings."""
        sources = BundleSources.configured(settings.allow_fetch_cidrs)
        return cls(store, clock, sources, alarm_percent=settings.bundle_alarm_percent, policy=policy)

    # --- what is there ---

    async def overview(self) -> list[BundleOverview]:
        """Every bundle, by name; disabled ones too."""
        return await self._store.read(lambda tx: [_overview(tx, one) for one in tx.bundles.settings()])

    async def get(self, name: str) -> BundleOverview:
        """One bundle. Raises NotFoundError."""
        return await self._store.read(lambda tx: _overview(tx, setting_of(tx, name)))

    async def history(self, name: str) -> list[BundleRecord]:
        """Every version of a bundle without what it holds, oldest first. Raises NotFoundError."""
        return await self._store.read(lambda tx: tx.bundles.history(setting_of(tx, name).name))

    async def signed(self, name: str) -> bool:
        """Whether the newest version is signed; by whom is checked only under a setting with a signer.

        Raises:
            NotFoundError: there is none of that name.
        """
        known = (await self._basis(name)).in_force
        return known is not None and known.signed

    async def statuses(self) -> list[tuple[BundleSetting, BundleStatus]]:
        """Setting and status of each bundle, without what it holds."""
        return await self._store.read(
            lambda tx: [(setting, tx.bundles.status(setting.name)) for setting in tx.bundles.settings()]
        )

    async def in_force(self, seen: int | None = None) -> tuple[int, Sequence[AnchorBundle] | None]:
        """The revision, and the bundles in force unless the revision is the one that was ``seen``."""

        def work(tx: UnitOfWork) -> tuple[int, Sequence[AnchorBundle] | None]:
            revision = tx.bundles.revision()
            return revision, None if revision == seen else tx.bundles.in_force()

        return await self._store.read(work)

    # --- settings ---

    async def add(
        self, setting: BundleSetting, actor: str, *, fetch: bool = True, instead_of: BundleSetting | None = None
    ) -> RefreshResult:
        """Take up a bundle with its first content in one go; ``instead_of``: change the one that has this setting.

        Without ``fetch`` only the setting is stored; the next refresh fetches. A change says in ``setting`` whether
        the bundle is enabled; what is fetched for a disabled one is kept and not in force.

        Raises:
            BundleError: the content cannot be had or must not be taken over; nothing was stored.
            ConflictError: there is one of that name, or its setting is another than ``instead_of`` by now.
            NotFoundError: there is none to change.
            InputError: the name, the signer or the interval is out of bounds, or the location can never work.
        """
        check(setting)
        await self._store.read(lambda tx: check_presence(tx, setting.name, instead_of))
        try:
            self._sources.check(setting)
            fetched = await self._fetched(await self._basis(setting.name, setting)) if fetch else None
        except BundleError as exc:
            if exc.cause == BAD_LOCATION:
                raise InputError(str(exc)) from exc
            raise
        action = "bundle.changed" if instead_of else "bundle.added"

        def work(tx: UnitOfWork) -> RefreshResult:
            check_presence(tx, setting.name, instead_of)
            return self._put(tx, setting, fetched, actor, action)

        return _told(await self._store.write(work))

    async def enable(self, name: str, actor: str, *, fetch: bool = True) -> RefreshResult:
        """Put a disabled bundle back into force, with what is published now; without ``fetch`` with its last version.

        Raises:
            BundleError, NotFoundError, ConflictError: as :meth:`add`.
        """
        before = (await self.get(name)).setting
        setting = replace(before, enabled=True)
        fetched = await self._fetched(await self._basis(name, setting)) if fetch else None

        def work(tx: UnitOfWork) -> RefreshResult:
            if setting_of(tx, name) != before:
                raise ConflictError(f"bundle {name} was changed meanwhile; try again")
            return self._put(tx, setting, fetched, actor, "bundle.enabled")

        return _told(await self._store.write(work))

    async def disable(self, name: str, actor: str) -> None:
        """Take a bundle out of force: none of its anchors is trusted because of it any more. A no-op when it is.

        Raises:
            NotFoundError: there is none of that name.
        """

        def work(tx: UnitOfWork) -> None:
            setting = setting_of(tx, name)
            if setting.enabled:
                at = self._clock.now()
                tx.bundles.set(replace(setting, enabled=False), at)
                tx.audit.add(at, actor, "bundle.disabled", name, None)

        await self._store.write(work)

    async def acknowledge(self, name: str, actor: str) -> str:
        """Take back the alarm, because a person has seen it; return its text, empty when there was none.

        Raises:
            NotFoundError: there is none of that name.
        """

        def work(tx: UnitOfWork) -> str:
            status = tx.bundles.status(setting_of(tx, name).name)
            if status.alarm:
                tx.bundles.set_status(replace(status, alarm=""))
                detail = {"alarm_sha256": sha256_hex(status.alarm.encode())}
                tx.audit.add(self._clock.now(), actor, "bundle.acknowledged", name, detail)
            return status.alarm

        return await self._store.write(work)

    # --- contents ---

    async def refresh(self, name: str, actor: str, *, accept_older: bool = False) -> RefreshResult:
        """Fetch the bundle and take over what changed. A failure is written down and returned, not raised.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it is disabled.
        """
        basis = await self._basis(name)
        if not basis.setting.enabled:
            raise ConflictError(f"bundle {name} is disabled; enable it with: direct-gateway bundle enable {name}")
        try:
            fetched = await self._fetched(basis, accept_older=accept_older)
        except BundleError as exc:
            fault = exc
            return _told(
                await self._store.write(lambda tx: write_down(tx, basis, fault, self._clock.now(), actor)), fault
            )
        return _told(
            await self._store.write(lambda tx: take_over(tx, fetched, self._clock.now(), actor, self._alarm_percent))
        )

    async def diff(self, name: str, data: bytes | None = None) -> BundleDiff:
        """Return what taking over the file (or what is published now) would change; nothing is changed.

        Raises:
            BundleError: it would not be taken over. NotFoundError: there is no bundle of that name.
        """
        return (await self._fetched(await self._basis(name), data)).diff

    async def claim(self, seen: BundleStatus) -> bool:
        """Mark the bundle as being refreshed from now on; False when somebody else was faster.

        ``seen`` is the status on which the caller found that it is due.
        """

        def work(tx: UnitOfWork) -> bool:
            status = tx.bundles.status(seen.name)
            if status.last_attempt != seen.last_attempt:
                return False
            tx.bundles.set_status(replace(status, last_attempt=self._clock.now()))
            return True

        return await self._store.write(work)

    # --- inside ---

    async def _basis(self, name: str, setting: BundleSetting | None = None) -> Basis:
        """What is known of the bundle now; with ``setting``, as if that were in force."""

        def load(tx: UnitOfWork) -> tuple[Basis, bytes]:
            newest = tx.bundles.newest_version(name)
            source = b"" if newest is None else tx.bundles.source(name, newest.version)
            return Basis(setting or setting_of(tx, name), newest, None, tuple(tx.bundles.digests(name))), source

        basis, source = await self._store.read(load)
        newest = basis.newest
        if newest is None:
            return basis
        try:
            known = await in_thread(lambda: self._read(source, basis.setting, newest.at))
        except BundleError:
            # It was taken over under another signer or policy: its dates prove nothing under this one.
            return basis
        return replace(basis, in_force=known)

    async def _fetched(self, basis: Basis, data: bytes | None = None, *, accept_older: bool = False) -> Fetched:
        """Fetch (without ``data``), read and check, in a thread. Raises BundleError."""

        def work() -> Fetched:
            found = self._sources.read(basis.setting) if data is None else data
            content = self._read(found, basis.setting, self._clock.now())
            sha256 = sha256_hex(found)
            alarm = check_age(basis, content, sha256, accept_older=accept_older)
            return Fetched(basis, found, sha256, content, compare(basis, content), alarm)

        return await in_thread(work)

    def _read(self, data: bytes, setting: BundleSetting, at: datetime) -> BundleContent:
        signer = None if setting.signer is None else Certificate(setting.signer)
        return read_bundle(data, signer, at, self._policy)

    def _put(
        self, tx: UnitOfWork, setting: BundleSetting, fetched: Fetched | None, actor: str, action: str
    ) -> RefreshResult:
        """A new setting with the content that comes with it, or neither."""
        at = self._clock.now()
        tx.bundles.set(setting, at)
        tx.audit.add(at, actor, action, setting.name, audited(setting))
        if fetched is None:
            return result_of(setting.name, Outcome.UNCHANGED, tx.bundles.newest_version(setting.name))
        result = take_over(tx, fetched, at, actor, self._alarm_percent)
        if result.outcome is Outcome.SUPERSEDED:
            raise ConflictError(f"bundle {setting.name} was refreshed meanwhile; try again")
        return result


def _overview(tx: UnitOfWork, setting: BundleSetting) -> BundleOverview:
    return BundleOverview(setting, tx.bundles.newest_version(setting.name), tx.bundles.status(setting.name))


def _told(result: RefreshResult, fault: BundleError | None = None) -> RefreshResult:
    """Log what became of a refresh, after it was committed."""
    if result.outcome is Outcome.FAILED:
        cause = "unknown" if fault is None else fault.cause
        log.warning("bundle_not_refreshed", bundle=result.name, reason=cause, version=result.version)
    elif result.outcome is Outcome.APPLIED and result.diff is not None:
        log.info("bundle_refreshed", bundle=result.name, version=result.version, anchors=result.anchors)
        if result.alarm:
            removed, before = len(result.diff.removed), len(result.diff.removed) + len(result.diff.kept)
            if removed:
                log.warning("bundle_anchors_missing", bundle=result.name, count=removed, total=before)
            else:
                log.warning("bundle_set_back", bundle=result.name, version=result.version)
    return result
