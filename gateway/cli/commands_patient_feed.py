"""``patient feed``: what the ADT feed sent, above all what was not applied.

It shows which messages these were (sender, number, event) and which field is wrong, and no value of any.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from gateway.cli.output import note, out, print_json, print_table
from gateway.cli.session import OK, SubCommands, audit, with_services

if TYPE_CHECKING:
    from gateway.ports import FeedEntry
    from gateway.services import Services

DEFAULT_LIMIT = 50
MAX_LIMIT = 10_000


def add_to(group: SubCommands) -> None:
    """Add the command."""
    feed = group.add(
        "feed",
        "list what the ADT feed sent and was not applied",
        "List the messages of the ADT feed that changed nothing: REFUSED says which field is wrong (the sender was\n"
        "told so with AR; mend it there or in [adt], and send the message again), OLDER that something newer is\n"
        "known of the patient. --all lists what was applied as well.",
        "patient feed\npatient feed --all --limit 200\npatient feed --json",
        run=_feed,
    )
    feed.add_argument("--all", action="store_true", help="also what was applied")
    feed.add_argument("--limit", type=_limit, default=DEFAULT_LIMIT, metavar="N", help="at most N (default 50)")
    feed.add_argument("--json", action="store_true", help="print as JSON")


def _limit(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MAX_LIMIT:
        raise argparse.ArgumentTypeError(f"must be between 1 and {MAX_LIMIT}")
    return value


def _feed(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        found = await services.store.read(lambda tx: tx.patient_feed.entries(unapplied=not args.all, limit=args.limit))
        await audit(services, "patient.feed", "", {"shown": len(found)})
        if args.json:
            print_json(
                [asdict(entry) | {"at": entry.at.isoformat(), "outcome": entry.outcome.value} for entry in found]
            )
        elif found:
            _print(found, args.limit)
        else:
            out("nothing has come from the ADT feed" if args.all else "every message of the ADT feed was applied")
        return OK

    return with_services(args, work)


def _print(found: list[FeedEntry], limit: int) -> None:
    print_table(
        ("AT", "SENDER", "NUMBER", "EVENT", "OUTCOME", "PATIENT", "REASON"),
        [
            (
                entry.at.isoformat(timespec="seconds"),
                entry.sender,
                entry.control_id,
                entry.event,
                entry.outcome.value,
                entry.patient_id,
                entry.reason,
            )
            for entry in found
        ],
        whole_last=True,
    )
    if len(found) == limit:
        note(f"{limit} shown; if there are more: --limit {2 * limit}")
