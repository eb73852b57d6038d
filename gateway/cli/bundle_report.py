"""How trust bundles are shown: a line each, the members of one, what an update would change. Text and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.cli.output import clean, counted, out, print_record, print_table, warn, when

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from gateway.bundles.changes import BundleDiff, Member
    from gateway.bundles.service import BundleOverview
    from gateway.bundles.update import RefreshResult
    from gateway.core.trust import BundleRecord, BundleSetting
    from gateway.sta.trust_anchors.bundle_file import RefusedAnchor

EVERYONE = "everyone here"
DAY = "%Y-%m-%d"
MAX_EARLIER_SHOWN = 20


def direction_of(setting: BundleSetting) -> str:
    """``inbound``, ``outbound`` or ``both``."""
    return "both" if len(setting.directions) > 1 else "".join(setting.directions)


def state_of(bundle: BundleOverview) -> str:
    """In words what a person should know first."""
    if not bundle.setting.enabled:
        return "disabled"
    parts = [f"ALARM: {bundle.status.alarm}"] if bundle.status.alarm else []
    if bundle.status.error and bundle.status.error not in bundle.status.alarm:
        parts.append(f"not refreshed: {bundle.status.error}")
    if bundle.newest is None:
        parts.append("never fetched")
    return "; ".join(parts) or "ok"


def needs_a_look(bundle: BundleOverview) -> bool:
    """Whether something is to be done about an enabled bundle."""
    return bundle.setting.enabled and state_of(bundle) != "ok"


def _next(bundle: BundleOverview) -> datetime | None:
    from gateway.bundles.refresher import due_at  # noqa: PLC0415 - see gateway.cli.session

    return due_at(bundle.setting, bundle.status)


def print_bundles(bundles: Sequence[BundleOverview]) -> None:
    """Print a line for each bundle."""
    headings = ("NAME", "VERSION", "ANCHORS", "DIRECTION", "FOR", "LAST SUCCESS", "NEXT", "STATE")
    print_table(headings, [_row(bundle) for bundle in bundles], whole_last=True)
    _say_how_to_acknowledge(bundles)


def _say_how_to_acknowledge(bundles: Sequence[BundleOverview]) -> None:
    alarmed = [bundle.setting.name for bundle in bundles if bundle.setting.enabled and bundle.status.alarm]
    if alarmed:
        out()
    for name in alarmed:
        out(f"having looked: direct-gateway bundle acknowledge {name}")


def _row(bundle: BundleOverview) -> tuple[str, ...]:
    due = _next(bundle)
    by_itself = bundle.setting.enabled and bundle.setting.refresh_hours
    return (
        bundle.setting.name,
        str(bundle.newest.version) if bundle.newest else "-",
        str(len(bundle.newest.anchors)) if bundle.newest else "-",
        direction_of(bundle.setting),
        ", ".join(bundle.setting.owners) or EVERYONE,
        when(bundle.status.last_success) if bundle.status.last_success else "never",
        (when(due) if due else "now") if by_itself else "by hand" if bundle.setting.enabled else "-",
        state_of(bundle),
    )


def bundle_json(bundle: BundleOverview) -> dict[str, Any]:
    """A bundle without its members."""
    setting, newest, status = bundle.setting, bundle.newest, bundle.status
    return {
        "name": setting.name,
        "location": setting.location,
        "signer_sha256": _signer_sha256(setting),
        "for": list(setting.owners),
        "directions": sorted(setting.directions),
        "refresh_hours": setting.refresh_hours,
        "enabled": setting.enabled,
        "version": newest.version if newest else None,
        "version_at": newest.at if newest else None,
        "sha256": newest.sha256 if newest else None,
        "anchors": len(newest.anchors) if newest else 0,
        "last_attempt": status.last_attempt,
        "last_success": status.last_success,
        "next": _next(bundle),
        "error": status.error,
        "alarm": status.alarm,
    }


def _signer_sha256(setting: BundleSetting) -> str | None:
    return None if setting.signer is None else _certificate(setting.signer).sha256


def _certificate(der: bytes) -> Any:
    from gateway.sta.certificates import Certificate  # noqa: PLC0415 - see gateway.cli.session

    return Certificate(der)


def members_of(bundle: BundleOverview) -> list[Member]:
    """The anchors of the newest version."""
    from gateway.bundles.changes import member  # noqa: PLC0415 - see gateway.cli.session

    return [member(_certificate(der)) for der in (bundle.newest.anchors if bundle.newest else ())]


def signer_of(setting: BundleSetting) -> str:
    """The signer that is configured."""
    if setting.signer is None:
        return "nobody (unsigned)"
    certificate = _certificate(setting.signer)
    return f"{certificate.as_signer('').subject}, valid until {certificate.not_after.strftime(DAY)}"


def _every(setting: BundleSetting) -> str:
    return f"every {counted(setting.refresh_hours, 'hour')}" if setting.refresh_hours else "by hand"


def changes_of(before: BundleSetting, after: BundleSetting) -> list[str]:
    """A line for each setting that is another now: ``refresh: 24 -> 12 hours``."""
    pairs = [
        ("from", before.location, after.location),
        ("must be signed by", _signer_apart(before, after), _signer_apart(after, before)),
        ("for", ", ".join(before.owners) or EVERYONE, ", ".join(after.owners) or EVERYONE),
        ("direction", direction_of(before), direction_of(after)),
    ]
    lines = [f"{label}: {old} -> {new}" for label, old, new in pairs if old != new]
    if before.refresh_hours != after.refresh_hours:
        old, new = (str(one.refresh_hours) if one.refresh_hours else "by hand" for one in (before, after))
        unit = "" if not after.refresh_hours else " hour" if after.refresh_hours == 1 else " hours"
        lines.append(f"refresh: {old} -> {new}{unit}")
    return lines


def _signer_apart(one: BundleSetting, other: BundleSetting) -> str:
    """The signer, with the digest where the other signer is of the same name: a publisher's renewed certificate."""
    shown = signer_of(one)
    if one.signer is None or one.signer == other.signer or shown != signer_of(other):
        return shown
    return f"{shown}, SHA-256 {_certificate(one.signer).sha256[:16]}"


def print_changes(before: BundleSetting, after: BundleSetting) -> None:
    """Print which settings a change changed."""
    lines = changes_of(before, after)
    for line in lines:
        out(clean(line))
    if not lines:
        out("no setting is another than before")


def print_bundle(
    bundle: BundleOverview, members: Sequence[Member], earlier: Sequence[BundleRecord], *, signed: bool
) -> None:
    """Print everything of one bundle; ``signed``: whether its newest version is, by whomever."""
    setting, newest, status = bundle.setting, bundle.newest, bundle.status
    signer = signer_of(setting)
    if signed and setting.signer is None:
        signer = "nobody in particular: it is signed, but its signature is not checked"
    due = _next(bundle)
    print_record(
        [
            ("Name", setting.name),
            ("State", state_of(bundle)),
            ("From", setting.location),
            ("Must be signed by", signer),
            ("For", ", ".join(setting.owners) or EVERYONE),
            ("Direction", direction_of(setting)),
            ("Refreshed", _every(setting)),
            ("Version", f"{newest.version} of {when(newest.at)}" if newest else "none yet"),
            ("SHA-256 of the file", newest.sha256 if newest else ""),
            ("Last attempt", when(status.last_attempt) if status.last_attempt else "never"),
            ("Last success", when(status.last_success) if status.last_success else "never"),
            ("Next, at the latest", when(due) if due else ""),
        ]
    )
    if members:
        out()
        print_table(("ANCHOR", "VALID UNTIL", "SHA-256"), [_member_row(one) for one in members], whole_last=True)
    _print_earlier(earlier)
    _say_how_to_acknowledge([bundle])


def _print_earlier(earlier: Sequence[BundleRecord]) -> None:
    """Print what was in force before, the newest first."""
    if not earlier:
        return
    out()
    rows = [(str(one.version), when(one.at), str(one.anchors), one.sha256) for one in reversed(earlier)]
    headings = ("EARLIER VERSION", "TAKEN OVER", "ANCHORS", "SHA-256 OF THE FILE")
    print_table(headings, rows[:MAX_EARLIER_SHOWN], whole_last=True)
    if len(rows) > MAX_EARLIER_SHOWN:
        out(f"and {counted(len(rows) - MAX_EARLIER_SHOWN, 'older version')}; --json has them all")


def _member_row(one: Member) -> tuple[str, str, str]:
    return one.subject, one.not_after.strftime(DAY), one.sha256


def member_json(one: Member) -> dict[str, Any]:
    """One anchor."""
    return {"subject": one.subject, "sha256": one.sha256, "not_after": one.not_after}


def diff_json(diff: BundleDiff) -> dict[str, Any]:
    """What an update changes or would change."""
    return {
        "name": diff.name,
        "version": diff.version,
        "changes": diff.changes,
        "added": [member_json(one) for one in diff.added],
        "removed": [member_json(one) for one in diff.removed],
        "kept": [member_json(one) for one in diff.kept],
        "refused": [{"subject": one.subject, "sha256": one.sha256, "cause": one.cause} for one in diff.refused],
        "signed": diff.signed,
        "signature_checked": diff.signature_checked,
    }


def print_diff(diff: BundleDiff) -> None:
    """Print what comes, what goes and what is left out."""
    against = f"version {diff.version}" if diff.version else "nothing"
    out(f"{diff.name}, compared with {against}: {_counts(diff)}")
    rows = [("+", *_member_row(one)) for one in diff.added]
    rows += [("-", *_member_row(one)) for one in diff.removed]
    if rows:
        print_table(("", "ANCHOR", "VALID UNTIL", "SHA-256"), rows, whole_last=True)
    note_left_out(diff.refused)
    warn_unchecked(diff)


def _counts(diff: BundleDiff) -> str:
    return f"{len(diff.added)} added, {len(diff.removed)} removed, {len(diff.kept)} kept"


def note_left_out(refused: Sequence[RefusedAnchor]) -> None:
    """Warn of members that may not be anchors."""
    for one in refused:
        warn(f"left out: {one.subject or 'a certificate'} ({one.sha256[:16]}): {one.cause}")


def warn_unchecked(diff: BundleDiff) -> None:
    """Warn of a signature that nobody was told to check."""
    if diff.signed and not diff.signature_checked:
        warn(
            f"{diff.name} is signed, but its signature was not checked, because no --signer says by whom it must be; "
            f"to have it checked: direct-gateway bundle add {diff.name} URL --signer CERT.pem --change"
        )


def result_json(result: RefreshResult) -> dict[str, Any]:
    """What became of a refresh. ``version`` is the newest that is kept; a disabled bundle has none in force."""
    return {
        "name": result.name,
        "outcome": result.outcome.value,
        "version": result.version,
        "anchors": result.anchors,
        "error": result.error,
        "alarm": result.alarm,
        "diff": diff_json(result.diff) if result.diff else None,
    }


def taken_up() -> str:
    """When a change counts."""
    from gateway.bundles.refresher import POLL_SECONDS  # noqa: PLC0415 - see gateway.cli.session

    return f"the running gateway takes it up within {POLL_SECONDS:g} seconds"


def print_result(result: RefreshResult, *, setting: str = "") -> None:
    """Print what became of a refresh.

    ``setting`` is what became of the setting at the same time: ``enabled``, ``changed``, ``disabled`` where it was
    changed and stays disabled, or nothing.
    """
    held = f"version {result.version} with {counted(result.anchors, 'anchor')}"
    effect = "it stays disabled, so nobody is trusted because of it" if setting == "disabled" else taken_up()
    if result.outcome.value == "applied":
        out(f"{result.name}: {held}{f' ({_counts(result.diff)})' if result.diff else ''}; {effect}")
    elif result.outcome.value == "unchanged" and not result.version:
        out(f"{result.name}: not fetched yet; {effect}")
    elif result.outcome.value == "unchanged" and setting:
        out(f"{result.name}: {'enabled' if setting == 'enabled' else 'changed'}, with {held} as before; {effect}")
    elif result.outcome.value == "unchanged":
        out(f"{result.name}: unchanged, {held} stays in force")
    elif result.outcome.value == "superseded":
        out(f"{result.name}: another process changed it meanwhile; see: direct-gateway bundle show {result.name}")
    else:
        warn(f"{result.name}: {result.error}")
        out(f"{result.name}: {f'{held} stays in force' if result.version else 'nothing is in force'}")
    if result.diff is not None:
        note_left_out(result.diff.refused)
        warn_unchecked(result.diff)
    if result.alarm and result.alarm != result.error:
        warn(f"{result.name}: {result.alarm}")
    if result.alarm:
        out(f"the alarm stays until: direct-gateway bundle acknowledge {result.name}")
