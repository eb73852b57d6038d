"""``bundle``: the communities that this practice trusts, as files of anchors that somebody publishes.

Every change is audited. Status 1 where a person should look: an alarm, a refresh that failed, a difference.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.bundle_report import (
    bundle_json,
    changes_of,
    diff_json,
    member_json,
    members_of,
    needs_a_look,
    print_bundle,
    print_bundles,
    print_changes,
    print_diff,
    print_result,
    result_json,
    taken_up,
)
from gateway.cli.bundle_setting import add_setting_options, read_signer, setting_from
from gateway.cli.output import note, out, print_json, warn
from gateway.cli.session import FINDINGS, OK, SubCommands, actor, with_services
from gateway.core.errors import BundleError, InputError

if TYPE_CHECKING:
    from gateway.bundles.changes import BundleDiff
    from gateway.bundles.service import TrustBundles
    from gateway.bundles.update import RefreshResult
    from gateway.core.trust import BundleSetting
    from gateway.services import Services

Work = Callable[["TrustBundles", "Services"], Awaitable[int]]
_SILENCE = logging.NullHandler()
_ABOUT = """\
A trust bundle is a file of trust anchors that a community publishes. Mail of everybody whose certificate leads to one
of them is accepted, by those of this practice that the bundle is for. The running gateway fetches it again by itself,
and takes over what changed as a whole: an anchor that is gone is no longer trusted. What cannot be fetched, read or
believed changes nothing."""


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("bundle", "trust communities by the bundles of anchors that they publish")
    _register_add(group)
    listing = group.add(
        "list",
        "list the bundles and how fresh they are",
        "Lists every bundle; status 1 when one has an alarm, an error or no content yet.",
        "bundle list\nbundle list --json",
        run=_list,
    )
    _json(listing)
    show = group.add(
        "show", "show one bundle with its anchors and its earlier versions", "", "bundle show directtrust", run=_show
    )
    show.add_argument("name", metavar="NAME", help="as in 'bundle list'")
    _json(show)
    _register_refresh(group)
    diff = group.add(
        "diff",
        "show what an update would change, and change nothing",
        "Compares the version in force with what is published now, or with FILE. Status 1 when an anchor\n"
        "would come or go.",
        "bundle diff directtrust\nbundle diff directtrust /media/usb/bundle.p7b --json",
        run=_diff,
    )
    diff.add_argument("name", metavar="NAME", help="as in 'bundle list'")
    diff.add_argument("file", metavar="FILE", nargs="?", help="a bundle in a file, instead of what is published")
    _json(diff)
    acknowledge = group.add(
        "acknowledge",
        "take back the alarm of a bundle, having looked",
        "The alarm says that many anchors went missing, or that something else of the publisher was odd.\n"
        "To acknowledge it changes nothing of what is trusted.",
        "bundle acknowledge directtrust",
        run=_acknowledge,
    )
    acknowledge.add_argument("name", metavar="NAME", help="as in 'bundle list'")
    disable = group.add(
        "disable",
        "trust nobody because of this bundle any more",
        "Takes effect within seconds. A bundle is never removed, only disabled: what it once vouched for stays\n"
        "explained, and its name stays taken.",
        "bundle disable directtrust",
        run=_disable,
    )
    disable.add_argument("name", metavar="NAME", help="as in 'bundle list'")
    enable = group.add(
        "enable",
        "put a disabled bundle back into force",
        "Fetches it first: its last version may hold anchors that were withdrawn since.",
        "bundle enable directtrust",
        run=_enable,
    )
    enable.add_argument("name", metavar="NAME", help="as in 'bundle list'")
    enable.add_argument("--no-fetch", action="store_true", help="put the last version into force as it is")


def _register_add(group: SubCommands) -> None:
    add = group.add(
        "add",
        "trust the community behind a bundle",
        f"{_ABOUT}\n\nThe bundle is fetched and checked at once; when that fails, nothing is added. An unsigned bundle "
        f"is as\ntrustworthy as its URL, which must be https then.\n\n"
        "With --change, a bundle that is there gets what the options name, and all else stays as it was: the signer\n"
        "is dropped by --unsigned only, it is for everyone by '--for everyone' only, and one that is disabled stays\n"
        "disabled (bundle enable). Each setting that changes is printed, old -> new.",
        "bundle add directtrust https://bundles.example.org/accredited.p7b\n"
        "bundle add state http://hie.example.org/anchors.p7m --signer hie.pem --for direct.clinic.example\n"
        "bundle add offline /srv/bundles/anchors.p7b --direction inbound --refresh-hours 1\n"
        "bundle add directtrust https://bundles.example.org/accredited.p7b --change --refresh-hours 12",
        run=_add,
    )
    add_setting_options(add)
    add.add_argument("--no-fetch", action="store_true", help="store the setting only; the running gateway fetches it")
    add.add_argument(
        "--change", action="store_true", help="change a bundle that is there: only what URL and options name"
    )
    _json(add)


def _register_refresh(group: SubCommands) -> None:
    refresh = group.add(
        "refresh",
        "fetch bundles now and take over what changed",
        "The running gateway notices within seconds. Status 1 when a refresh failed (the last good version stays\n"
        "in force) or raised an alarm.",
        "bundle refresh directtrust\nbundle refresh --all\nbundle refresh directtrust --dry-run",
        run=_refresh,
    )
    refresh.add_argument("name", metavar="NAME", nargs="?", help="as in 'bundle list'")
    refresh.add_argument("--all", action="store_true", help="every enabled bundle")
    refresh.add_argument("--dry-run", action="store_true", help="only show what would change, as 'bundle diff' does")
    refresh.add_argument(
        "--accept-older",
        action="store_true",
        help="take a signed bundle although it is older than the one in force (the publisher confirmed it)",
    )
    _json(refresh)


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print as JSON")


def _with_bundles(args: argparse.Namespace, work: Work) -> int:
    # Everything that is logged about a bundle is told the person in sentences as well. Without any handler Python
    # prints warnings to standard error by itself; where the process does log, its handlers still get them.
    logging.getLogger("gateway").addHandler(_SILENCE)
    return with_services(args, lambda services: work(services.bundles, services))


# --- settings ---


def _add(args: argparse.Namespace) -> int:
    signer = read_signer(args)

    async def work(bundles: TrustBundles, services: Services) -> int:
        before = (await bundles.get(args.name)).setting if args.change else None
        setting = setting_from(args, signer, services.settings.practice, before)
        result = await bundles.add(setting, actor(), fetch=not args.no_fetch, instead_of=before)
        if before is None:
            return _report(result, args)
        return _report_change(before, setting, result, args)

    return _with_bundles(args, work)


def _report_change(before: BundleSetting, after: BundleSetting, result: RefreshResult, args: argparse.Namespace) -> int:
    if args.json:
        print_json({**result_json(result), "changed": changes_of(before, after)})
    else:
        print_changes(before, after)
        print_result(result, setting="changed" if after.enabled else "disabled")
    return _status(result)


def _enable(args: argparse.Namespace) -> int:
    async def work(bundles: TrustBundles, _: Services) -> int:
        result = await bundles.enable(args.name, actor(), fetch=not args.no_fetch)
        print_result(result, setting="enabled")
        return _status(result)

    return _with_bundles(args, work)


def _disable(args: argparse.Namespace) -> int:
    async def work(bundles: TrustBundles, _: Services) -> int:
        await bundles.disable(args.name, actor())
        out(f"{args.name} is disabled: nobody is trusted because of it any more; {taken_up()}")
        return OK

    return _with_bundles(args, work)


def _acknowledge(args: argparse.Namespace) -> int:
    async def work(bundles: TrustBundles, _: Services) -> int:
        alarm = await bundles.acknowledge(args.name, actor())
        out(f"{args.name}: acknowledged: {alarm}" if alarm else f"{args.name} has no alarm")
        return OK

    return _with_bundles(args, work)


# --- contents ---


def _list(args: argparse.Namespace) -> int:
    async def work(bundles: TrustBundles, _: Services) -> int:
        found = await bundles.overview()
        if args.json:
            print_json([bundle_json(bundle) for bundle in found])
        elif found:
            print_bundles(found)
        else:
            out("there is no trust bundle; add one with: direct-gateway bundle add NAME URL")
        return FINDINGS if any(map(needs_a_look, found)) else OK

    return _with_bundles(args, work)


def _show(args: argparse.Namespace) -> int:
    async def work(bundles: TrustBundles, _: Services) -> int:
        bundle = await bundles.get(args.name)
        members, signed = members_of(bundle), await bundles.signed(args.name)
        earlier = (await bundles.history(args.name))[:-1]
        if args.json:
            shown = [member_json(one) for one in members]
            past = [asdict(one) for one in earlier]
            print_json({**bundle_json(bundle), "signed": signed, "members": shown, "earlier_versions": past})
        else:
            print_bundle(bundle, members, earlier, signed=signed)
        return FINDINGS if needs_a_look(bundle) else OK

    return _with_bundles(args, work)


def _refresh(args: argparse.Namespace) -> int:
    if bool(args.name) == args.all:
        raise InputError("name one bundle, or say --all")

    async def work(bundles: TrustBundles, _: Services) -> int:
        found = await bundles.overview() if args.all else []
        names = [bundle.setting.name for bundle in found if bundle.setting.enabled] if args.all else [args.name]
        if args.dry_run:
            return await _dry_run(bundles, names, args)
        results = [await bundles.refresh(name, actor(), accept_older=args.accept_older) for name in names]
        if args.json:
            print_json([result_json(result) for result in results])
        else:
            for result in results:
                print_result(result)
            if not names:
                out("there is no enabled trust bundle")
        return FINDINGS if any(result.error or result.alarm for result in results) else OK

    return _with_bundles(args, work)


async def _dry_run(bundles: TrustBundles, names: list[str], args: argparse.Namespace) -> int:
    diffs: list[BundleDiff] = []
    failed = False
    for name in names:
        try:
            diffs.append(await bundles.diff(name))
        except BundleError as exc:
            failed = True
            warn(f"{name}: {exc}")
    if args.json:
        print_json([diff_json(diff) for diff in diffs])
    else:
        for diff in diffs:
            print_diff(diff)
        note("nothing was changed")
    return FINDINGS if failed or any(diff.changes for diff in diffs) else OK


def _diff(args: argparse.Namespace) -> int:
    async def work(bundles: TrustBundles, _: Services) -> int:
        diff = await bundles.diff(args.name, None if args.file is None else _file(Path(args.file)))
        if args.json:
            print_json(diff_json(diff))
        else:
            print_diff(diff)
        return FINDINGS if diff.changes else OK

    return _with_bundles(args, work)


def _file(path: Path) -> bytes:
    from gateway.bundles.sources import read_file  # noqa: PLC0415 - see gateway.cli.session

    return read_file(path)


def _report(result: RefreshResult, args: argparse.Namespace) -> int:
    if args.json:
        print_json(result_json(result))
    else:
        print_result(result)
    return _status(result)


def _status(result: RefreshResult) -> int:
    return FINDINGS if result.error or result.alarm else OK
