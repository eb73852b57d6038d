"""``link add`` and ``link list``: a person puts a message on a patient's chart.

A message that is on another chart already is a warning and status 1: which patient, since when and by whom. It
goes onto a second chart only with ``--override`` and a reason, and both links stay on record.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from gateway.cli.message_lookup import find_message
from gateway.cli.output import note, out, print_json, print_table, warn, when
from gateway.cli.session import FINDINGS, MISUSE, OK, SubCommands, actor, audit, with_services
from gateway.core.errors import ConflictError

if TYPE_CHECKING:
    from gateway.services import Services


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("link", "put messages on patients' charts")
    add = group.add(
        "add",
        "link a message to a patient",
        "Put a filed message on a patient's chart; the running gateway then hands it to the import hook.\n"
        "The same patient again changes nothing. On another chart already: a warning, status 1, nothing changed.",
        "link add 01J9ABCD demo-patient-1\n"
        'link add 01J9ABCD demo-patient-2 --override --reason "filed to the sister by mistake"',
        run=_add,
    )
    add.add_argument("message", metavar="MESSAGE", help="message id, or its unique beginning")
    add.add_argument("patient", metavar="PATIENT", help="patient id, as in 'patient list'")
    add.add_argument("--override", action="store_true", help="link although the message is on another chart")
    add.add_argument("--reason", default="", metavar="TEXT", help="why; kept in the audit log, so no clinical detail")
    add.add_argument("--json", action="store_true", help="print as JSON")
    listing = group.add(
        "list",
        "list the messages on a patient's chart",
        examples="link list demo-patient-1\nlink list demo-patient-1 --json",
        run=_list,
    )
    listing.add_argument("patient", metavar="PATIENT", help="patient id, as in 'patient list'")
    listing.add_argument("--json", action="store_true", help="print as JSON")


def _add(args: argparse.Namespace) -> int:
    if args.override and not args.reason.strip():
        note("error: --override needs --reason TEXT: it is kept with the link for whoever asks later")
        return MISUSE

    async def work(services: Services) -> int:
        message_id = await services.store.read(lambda tx: find_message(tx, args.message))
        try:
            outcome = await services.charts.link(
                message_id, args.patient, actor=actor(), override=args.override, reason=args.reason
            )
        except ConflictError as exc:
            warn(f"{exc}; nothing was changed. To link it to both: --override --reason TEXT")
            if args.json:
                links = await services.charts.links_of_message(message_id)
                print_json({"created": False, "conflict": True, "links": [asdict(link) for link in links]})
            return FINDINGS
        if args.json:
            print_json(
                {"created": outcome.created, "conflict": False, "notice": outcome.notice, "link": asdict(outcome.link)}
            )
            return OK
        if outcome.created:
            out(f"linked {message_id} to patient {args.patient} (link {outcome.link.id})")
        if outcome.notice:
            note(f"note: {outcome.notice}")
        return OK

    return with_services(args, work)


def _list(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        links = await services.charts.links_of_patient(args.patient)
        await audit(services, "link.list", args.patient, {"shown": len(links)})
        if args.json:
            print_json([asdict(link) for link in links])
        elif not links:
            out("no messages on this chart")
        else:
            print_table(
                ("MESSAGE", "LINKED", "HOW", "BY", "RULE", "LINK"),
                [(k.message_id, when(k.linked_at), k.mode, k.actor, k.rule, k.id) for k in links],
            )
        return OK

    return with_services(args, work)
