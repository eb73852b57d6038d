"""``store status`` and ``store upgrade``: which schema the database has, and bringing it up to date.

Asks nothing: what will be done is shown by ``--dry-run``. Crash story: :mod:`gateway.store.upgrading`.
"""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING, Any

import gateway
from gateway.cli.output import counted, note, out, print_json, print_record
from gateway.cli.session import FINDINGS, OK, SubCommands, actor, settings_of
from gateway.core.errors import ConfigurationError
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.store.upgrading import Step, UpgradePlan

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def add_to(group: SubCommands) -> None:
    """Add the commands to ``store``."""
    status = group.add(
        "status",
        "which schema the database has, and whether it has to be upgraded",
        "Says which schema the database has, which release made it, what an upgrade would do, and which gateways run\n"
        "on it. Changes nothing. Status 1 when this release cannot work on it as it is.",
        "store status\nstore status --json",
        run=_status,
    )
    status.add_argument("--json", action="store_true", help="print the result as JSON")
    upgrade = group.add(
        "upgrade",
        "bring the database of an older release up to date",
        "Brings the tables up to date in one transaction: killed at any point, the database is as before, and the\n"
        "command may run again. Stop every gateway on the database first; while one runs, the upgrade is refused.\n"
        "Make a backup first, with the release that ran until now: there is no other way back.",
        "store upgrade --dry-run\nstore upgrade\nstore upgrade --owner-url postgresql://gateway_owner@db.example/gateway",
        run=_upgrade,
    )
    upgrade.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    upgrade.add_argument("--owner-url", metavar="URL", help="PostgreSQL: as the role that owns the tables")
    upgrade.add_argument("--json", action="store_true", help="print the result as JSON")


def _status(args: argparse.Namespace) -> int:
    from gateway.store.schema_versions import other_schema  # noqa: PLC0415 - the other commands do not wait for it
    from gateway.store.upgrading import plan_upgrade  # noqa: PLC0415 - see above

    settings = _with_tables(args)
    plan = plan_upgrade(settings.store)
    told = other_schema(plan.found) or _unfinished(settings)
    if args.json:
        print_json(_document(plan, args) | {"usable": not told, "trouble": told or None})
        return FINDINGS if told else OK
    print_record(
        (
            ("schema", f"{plan.found.version}, made by {_made_by(plan)}"),
            ("this release", f"direct-gateway {gateway.__version__}, which needs schema {plan.newest}"),
            ("size", _size(plan.size_bytes)),
            ("gateways", ", ".join(plan.gateways) or "none runs"),
        )
    )
    if told:
        note(f"warning: {told}")
    return FINDINGS if told else OK


def _unfinished(settings: Settings) -> str:
    """What a start would tell of a copy that was not finished, or the empty string."""
    from gateway.store.opening import schema_trouble  # noqa: PLC0415 - see above

    try:
        return schema_trouble(settings.store)
    except ConfigurationError as exc:
        return str(exc)


def _upgrade(args: argparse.Namespace) -> int:
    from gateway.store.upgrading import plan_upgrade, refuse_newer, upgrade_store  # noqa: PLC0415 - see above

    settings = _with_tables(args)
    plan = plan_upgrade(settings.store)
    refuse_newer(plan.found)
    if not args.json:
        _tell(plan, args)
    if args.dry_run or not plan.steps:
        if args.json:
            print_json(_document(plan, args) | {"done": False})
        elif args.dry_run:
            out("nothing was changed")
        return OK

    def progress(step: Step) -> None:
        note(f"schema {step.version} ...")

    done = upgrade_store(settings.store, actor(), owner_url=args.owner_url, progress=progress)
    if args.json:
        print_json(_document(plan, args) | {"done": bool(done.steps)})
    else:
        out(f"the database has schema {done.newest} now; start the gateway")
    return OK


def _with_tables(args: argparse.Namespace) -> Settings:
    settings = settings_of(args)
    from gateway.store.made_anew import missing_database  # noqa: PLC0415 - see above
    from gateway.store.opening import missing_tables  # noqa: PLC0415 - see above

    if missing := missing_tables(settings.store):
        raise ConfigurationError(f"store.url: {missing_database(settings) or missing}")
    return settings


def _tell(plan: UpgradePlan, args: argparse.Namespace) -> None:
    if not plan.steps:
        out(f"the database has schema {plan.found.version}: there is nothing to upgrade")
        return
    out(
        f"from schema {plan.found.version} (made by {_made_by(plan)}) to schema {plan.newest} "
        f"(direct-gateway {gateway.__version__}); {_size(plan.size_bytes)}, about {plan.seconds} s"
    )
    for step in plan.steps:
        rows = f"writes {counted(step.rows, 'row')} anew" if step.rows else "rewrites no rows"
        out(f"  {step.version}: {step.purpose} ({rows})")
    if plan.gateways:
        out(f"stop first: {', '.join(plan.gateways)}")
    # A backup holds the tables of one release, and only that release makes it and puts it back.
    out(f"make a backup first, with the release that ran until now; it is the only way back: {_backup(args)}")


def _document(plan: UpgradePlan, args: argparse.Namespace) -> dict[str, Any]:
    return {
        "from": plan.found.version,
        "made_by": plan.found.release or None,
        "to": plan.newest,
        "release": gateway.__version__,
        "steps": [
            {"version": step.version, "purpose": step.purpose, "rewrites_rows": step.rows} for step in plan.steps
        ],
        "size_bytes": plan.size_bytes,
        "estimated_seconds": plan.seconds if plan.steps else 0,
        "gateways": list(plan.gateways),
        "backup": _backup(args),
    }


def _backup(args: argparse.Namespace) -> str:
    return "direct-gateway backup create PATH" + (f" --config {shlex.quote(str(args.config))}" if args.config else "")


def _made_by(plan: UpgradePlan) -> str:
    return f"direct-gateway {plan.found.release}" if plan.found.release else "a release that did not say"


def _size(count: float) -> str:
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"
