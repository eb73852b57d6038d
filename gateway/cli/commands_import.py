"""``import list``, ``retry``, ``replay``, ``dry-run`` and ``check``: linked messages on their way to the EHR.

Every target has a queue of its own. What a target refuses for good, or what has used up its attempts, is set aside (the
dead letter) until somebody asks for it again. docs/import-hook.md says what a target is told and what it may answer.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.cli.import_check import check
from gateway.cli.import_dry_run import dry_run
from gateway.cli.message_lookup import list_size, part_number
from gateway.cli.moments import parse_moment
from gateway.cli.output import counted, note, out, print_json, print_table, when
from gateway.cli.session import FINDINGS, OK, SubCommands, actor, audit, with_services
from gateway.core.errors import InputError, NotFoundError
from gateway.ports import DeliveryState

if TYPE_CHECKING:
    from datetime import datetime

    from gateway.ports import ListedDelivery, TargetStanding, UnitOfWork
    from gateway.services import Services
    from gateway.settings import Settings

LIMIT = 100
_REPLAY_BATCH = 500
_MAX_ID = 2**63 - 1
"""What the databases can hold."""


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("import", "see and repair what goes to the EHR")
    listing = group.add(
        "list",
        "list linked messages by target: what waits, what is done, what was set aside",
        "Status 1 when something was set aside or a target is stopped. docs/import-hook.md tells what the codes mean.",
        "import list\nimport list --state dead\nimport list --target ehr --json",
        run=_list,
    )
    listing.add_argument("--state", choices=[state.value for state in DeliveryState], help="only these")
    listing.add_argument("--target", metavar="NAME", help="only of this target")
    listing.add_argument(
        "--limit", type=list_size, default=LIMIT, metavar="N", help=f"at most so many (default {LIMIT})"
    )
    listing.add_argument("--json", action="store_true", help="print as JSON")
    retry = group.add(
        "retry",
        "try again now what waits or was set aside, after the mend",
        "With --target: everything of it that was set aside; and a target that was stopped is started again.\n"
        "The running gateway takes it up within a second.",
        "import retry 17\nimport retry --target ehr",
        run=_retry,
    )
    retry.add_argument("id", nargs="?", type=_delivery_id, metavar="ID", help="as in 'import list'")
    retry.add_argument("--target", metavar="NAME", help="everything of this target instead")
    retry.add_argument("--json", action="store_true", help="print as JSON")
    replay = group.add(
        "replay",
        "send older links to a target that does not have them",
        "A new target gets the links that are made from then on. This asks it for those of before as well; what it\n"
        "has acknowledged already is left out.",
        "import replay --target ehr --since 2026-01-01",
        run=_replay,
    )
    replay.add_argument("--target", metavar="NAME", required=True, help="as in [[importer]]")
    replay.add_argument("--since", metavar="TIME", help="links made since then (ISO 8601; all when left out)")
    replay.add_argument("--json", action="store_true", help="print as JSON")
    _register_dry_run(group)
    _register_check(group)


def _register_dry_run(group: SubCommands) -> None:
    parser = group.add(
        "dry-run",
        "show what would be sent for a message, sending nothing",
        "Each target shows what it would send if the message were linked to that patient now. It shows content: that\n"
        "somebody looked is on record.",
        "import dry-run 01J8ZQ4Y P-1001\nimport dry-run 01J8ZQ4Y P-1001 --part 2.1 --target ehr --json",
        run=dry_run,
    )
    parser.add_argument("message", metavar="MESSAGE", help="id of the message, or enough of its beginning")
    parser.add_argument("patient", metavar="PATIENT", help="id of the patient")
    parser.add_argument("--part", type=part_number, metavar="N", help="as for a link of this part only")
    parser.add_argument("--target", metavar="NAME", help="only this one")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def _register_check(group: SubCommands) -> None:
    parser = group.add(
        "check",
        "ask each target whether it is there and fit, sending nothing",
        "Each target that is enabled is reached, authenticated to and asked what it can do, as far as its kind has\n"
        "such a thing: 'fit', 'degraded' with what will be left out, or 'unfit' with what is wrong (then status 1).",
        "import check\nimport check ehr --json",
        run=check,
    )
    parser.add_argument("target", nargs="?", metavar="TARGET", help="only this one")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def _delivery_id(text: str) -> int:
    value = int(text)
    if not 1 <= value <= _MAX_ID:
        raise argparse.ArgumentTypeError("must be an ID as in 'import list'")
    return value


# --- list ---


def _list(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        state = DeliveryState(args.state) if args.state else None

        def read(rows: UnitOfWork) -> tuple[list[ListedDelivery], list[TargetStanding]]:
            found = rows.deliveries.listed(state=state, target=args.target, limit=args.limit)
            return found, rows.deliveries.standings()

        found, standings = await services.store.read(read)
        await audit(services, "import.list", "", {"shown": len(found)})
        named = [standing for standing in standings if args.target in {None, standing.name}]
        if args.json:
            print_json({"targets": _targets(services.settings, named), "deliveries": [asdict(one) for one in found]})
        else:
            _print(services.settings, found, named)
        return FINDINGS if any(one.dead or one.stopped_since for one in named) else OK

    return with_services(args, work)


def _targets(settings: Settings, standings: list[TargetStanding]) -> list[dict[str, Any]]:
    names = _names(settings)
    return [{**asdict(one), "configured": one.name in names} for one in standings]


def _print(settings: Settings, found: list[ListedDelivery], standings: list[TargetStanding]) -> None:
    names = _names(settings)
    for one in standings:
        if one.stopped_since is not None:
            since = f"since {when(one.stopped_since)} ({one.stop_reason})"
            note(f"{one.name} is stopped {since}: start it with: direct-gateway import retry --target {one.name}")
        elif one.name not in names:
            note(f"{one.name} is no [[importer]] any more: what waits for it stays until it is one again")
    if not found:
        out("nothing waits, and nothing was set aside")
        return
    headings = ("ID", "STATE", "TARGET", "ACTION", "LINK", "MESSAGE", "FAILED", "AT", "WHY OR RECEIPT")
    print_table(headings, [_row(one) for one in found], whole_last=True)


def _row(one: ListedDelivery) -> tuple[str, ...]:
    state = "running" if one.running else one.state.value
    number = "" if one.id is None else str(one.id)
    told = one.error or one.receipt
    where = (one.target, one.action.value, one.link_id, one.message_id)
    return (number, state, *where, str(one.failures), when(one.at), told)


def _names(settings: Settings) -> set[str]:
    from gateway.importing import import_names  # noqa: PLC0415 - see gateway.cli.session

    return set(import_names(settings))


# --- retry ---


def _retry(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        if (args.id is None) == (args.target is None):
            raise InputError("name the ID of one delivery, or --target NAME")
        at, who = services.clock.now(), actor()

        def again(rows: UnitOfWork) -> dict[str, Any]:
            if args.id is not None:
                one = rows.deliveries.retry(args.id)
                rows.audit.add(at, who, "import.retried", one.link_id, {"importer": one.target})
                return {"id": one.id, "link": one.link_id, "target": one.target, "tried_again": 1, "started": False}
            name = str(args.target)
            known = {standing.name for standing in rows.deliveries.standings()} | _names(services.settings)
            if name not in known:
                raise NotFoundError(f"there is no target {name}; there is: {', '.join(sorted(known)) or 'none'}")
            count, started = rows.deliveries.retry_dead(name), rows.deliveries.start(name)
            rows.audit.add(at, who, "import.retried", name, {"deliveries": count, "started": started})
            return {"target": name, "tried_again": count, "started": started}

        done = await services.store.write(again)
        if args.json:
            print_json(done)
        else:
            started = f"{done['target']} is started again; " if done["started"] else ""
            number = counted(done["tried_again"], "delivery", "deliveries")
            out(f"{started}{number} to {done['target']}: tried again now")
        return OK

    return with_services(args, work)


# --- replay ---


def _replay(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        since = parse_moment("--since", args.since) if args.since else None
        name = str(args.target)
        if name not in (names := _names(services.settings)):
            raise NotFoundError(f"there is no target {name}; there is: {', '.join(sorted(names)) or 'none'}")
        await audit(services, "import.replayed", name)
        ordered = await _order_missing(services, name, since)
        if args.json:
            print_json({"target": name, "ordered": ordered})
        else:
            out(f"{counted(ordered, 'older link')} will be sent to {name}")
        return OK

    return with_services(args, work)


async def _order_missing(services: Services, target: str, since: datetime | None) -> int:
    """In batches, so that mail does not wait for a long transaction. To be stopped and begun again does no harm."""
    ordered, place = 0, None
    while True:
        batch = partial(_order_batch, target=target, since=since, place=place)
        count, place = await services.store.write(batch)
        ordered += count
        if place is None:
            return ordered


def _order_batch(
    rows: UnitOfWork, target: str, since: datetime | None, place: tuple[datetime, str] | None
) -> tuple[int, tuple[datetime, str] | None]:
    return rows.deliveries.order_missing(target, since, place, _REPLAY_BATCH)
