"""Taking a fetched bundle over, or writing down why not: what happens within one transaction.

A content is taken over only against the version and the setting that it was compared with, before the transaction and
outside of it. When another process was faster, the result is ``superseded`` and the slower, maybe older, content is
dropped. A file that has not changed may still hold other anchors than before: by the clock or the rules of today.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from gateway.bundles.changes import Basis, BundleDiff, shrinkage
from gateway.core.errors import BundleError, NotFoundError
from gateway.core.trust import BundleSetting, BundleStatus, BundleVersion
from gateway.ports import UnitOfWork
from gateway.sta.trust_anchors.bundle_file import BundleContent

MAX_ALARM_CHARS = 2_000
STALE_AFTER = timedelta(hours=48)
"""How long publishers allow for a change to reach everybody (TB-7). Who has not heard for longer is told."""


class Outcome(StrEnum):
    """What became of a refresh."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    """The last good version stays in force; ``error`` says why."""
    SUPERSEDED = "superseded"
    """Another process changed the bundle meanwhile; what is there now is its work."""


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """The outcome for one bundle. ``version`` is the one in force afterwards, 0 when there is none."""

    name: str
    outcome: Outcome
    version: int = 0
    anchors: int = 0
    diff: BundleDiff | None = None
    """What was applied."""
    error: str = ""
    alarm: str = ""
    """What this refresh gave cause to be alarmed about."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A content that was read and checked, and what it was compared with."""

    basis: Basis
    data: bytes
    sha256: str
    content: BundleContent
    diff: BundleDiff
    """What the content changes of the basis."""
    age_alarm: str = ""


def setting_of(tx: UnitOfWork, name: str) -> BundleSetting:
    """The setting in force.

    Raises:
        NotFoundError: there is no bundle of that name; the text names those that there are.
    """
    settings = {setting.name: setting for setting in tx.bundles.settings()}
    if name in settings:
        return settings[name]
    known = f"there are: {', '.join(sorted(settings))}" if settings else "there is none yet"
    raise NotFoundError(f"there is no trust bundle {name!r}; {known}")


def result_of(name: str, outcome: Outcome, version: BundleVersion | None) -> RefreshResult:
    """The outcome with what is in force afterwards."""
    if version is None:
        return RefreshResult(name, outcome)
    return RefreshResult(name, outcome, version.version, len(version.anchors))


def take_over(tx: UnitOfWork, fetched: Fetched, at: datetime, actor: str, alarm_percent: int) -> RefreshResult:
    """Put the content into force as a whole (TB-9), with its status and its audit row."""
    basis, content, diff = fetched.basis, fetched.content, fetched.diff
    name = basis.setting.name
    newest = tx.bundles.newest_version(name)
    if newest != basis.newest or setting_of(tx, name) != basis.setting:
        return result_of(name, Outcome.SUPERSEDED, newest)
    status = tx.bundles.status(name)
    if newest is not None and newest.sha256 == fetched.sha256 and not diff.changes:
        tx.bundles.set_status(replace(status, last_attempt=at, last_success=at, error=""))
        return result_of(name, Outcome.UNCHANGED, newest)
    alarm = _joined(fetched.age_alarm, shrinkage(diff, at, alarm_percent))
    version = tx.bundles.add_version(name, at, fetched.data, [one.der for one in content.anchors])
    tx.bundles.set_status(BundleStatus(name, at, at, "", _kept(status.alarm, alarm, at)))
    detail = {
        "version": version.version,
        "sha256": version.sha256,
        "anchors": len(version.anchors),
        "added": len(diff.added),
        "removed": len(diff.removed),
        "refused": len(diff.refused),
        "alarm": bool(alarm),
    }
    tx.audit.add(at, actor, "bundle.refreshed", name, detail)
    return replace(result_of(name, Outcome.APPLIED, version), diff=diff, alarm=alarm)


def write_down(tx: UnitOfWork, basis: Basis, fault: BundleError, at: datetime, actor: str) -> RefreshResult:
    """Keep the last good version, and write why nothing was taken over (TB-8)."""
    name = basis.setting.name
    if setting_of(tx, name) != basis.setting:
        # What is wrong with the former setting is no fault of the present one.
        return result_of(name, Outcome.SUPERSEDED, tx.bundles.newest_version(name))
    status, error = tx.bundles.status(name), str(fault)
    limit = max(STALE_AFTER, timedelta(hours=2 * basis.setting.refresh_hours))
    stale = bool(basis.setting.refresh_hours and status.last_success and at - status.last_success > limit)
    if stale and status.last_success is not None:
        error += f"; the last successful refresh was on {status.last_success:%Y-%m-%d}"
    # What fails every hour in the same way is one event, not twenty-four a day: a person who has acknowledged the
    # alarm hears of it again when the cause changes.
    news = error != status.error
    alarm = error if news and (stale or fault.alarming) else ""
    tx.bundles.set_status(replace(status, last_attempt=at, error=error, alarm=_kept(status.alarm, alarm, at)))
    if news:
        detail = {"cause": fault.cause, "alarm": bool(alarm)}
        tx.audit.add(at, actor, "bundle.refresh_failed", name, detail)
    kept = result_of(name, Outcome.FAILED, tx.bundles.newest_version(name))
    return replace(kept, error=error, alarm=alarm)


def _kept(known: str, new: str, at: datetime) -> str:
    """The alarms that a person has not seen yet, each with the day on which it arose first."""
    if not new or new in known:
        return known
    # Cut before the date is added, so that the longest alarm still says when it arose.
    return _joined(known, f"{new[: MAX_ALARM_CHARS // 2]} ({at:%Y-%m-%d})")


def _joined(known: str, new: str) -> str:
    if not new or new in known:
        return known
    return f"{known}; {new}"[:MAX_ALARM_CHARS] if known else new[:MAX_ALARM_CHARS]
