"""``link add``, ``undo``, ``list`` and ``bulk``: a person puts messages on patients' charts, and takes them off again.

A message that is on another chart already is a warning and status 1: which patient, since when and by whom. It
goes onto a second chart only with ``--override`` and a reason, and both links stay on record. Whoever may run this
command may override: it is for the operator, who is named in the audit log.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gateway.cli import commands_link_bulk
from gateway.cli.message_lookup import find_message, part_number, seen_elsewhere
from gateway.cli.output import note, out, print_json, print_table, warn, when
from gateway.cli.session import FINDINGS, MISUSE, OK, SubCommands, actor, audit, with_services
from gateway.core.errors import ConflictError, NotFoundError
from gateway.core.lifecycle import State
from gateway.core.standing import ReviewState

if TYPE_CHECKING:
    from gateway.ports import LinkRecord, Review, UnitOfWork
    from gateway.services import Services

_REASON = "why; kept with the link and in the audit log, so no clinical detail"


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("link", "put messages on patients' charts, and take them off again")
    _register_add(group)
    _register_undo(group)
    _register_list(group)
    commands_link_bulk.register(group)


def _register_add(group: SubCommands) -> None:
    add = group.add(
        "add",
        "link a message, or one part of it, to a patient",
        "Put a filed message on a patient's chart; the running gateway then hands it to the import hook.\n"
        "The same patient again changes nothing. On another chart already: a warning, status 1, nothing changed.\n"
        "\n"
        "With --part only that part goes there, and an importer is given nothing else of the message: for one that\n"
        "brings documents of several patients. 'message evidence' shows what each part says of its patient.",
        "link add 01J9ABCD demo-patient-1\n"
        "link add 01J9ABCD demo-patient-2 --part 3\n"
        'link add 01J9ABCD demo-patient-2 --override --reason "concerns both sisters"',
        run=_add,
    )
    add.add_argument("message", metavar="MESSAGE", help="message id, or its unique beginning")
    add.add_argument("patient", metavar="PATIENT", help="patient id, as in 'patient list'")
    add.add_argument("--part", type=part_number, metavar="N", help="only this part, numbered as in IMAP (2.1)")
    add.add_argument("--override", action="store_true", help="link although the message is on another chart")
    add.add_argument("--reason", default="", metavar="TEXT", help=_REASON)
    add.add_argument("--json", action="store_true", help="print as JSON")


def _register_undo(group: SubCommands) -> None:
    undo = group.add(
        "undo",
        "take a message off a patient's chart",
        "For a message that went to the wrong patient. The link stays on record with who undid it, when and why. Each\n"
        "target of the import hook that has it, or may have it, is told to take it back; 'import list' shows whether\n"
        "it has. Mail clients see the message in Unlinked again, and the gateway never links it by itself again.\n"
        "\n"
        "Name the link, or the message and the patient: then everything of that message that is on the chart.",
        'link undo 01J9LINK --reason "other Ann Lee"\n'
        'link undo 01J9ABCD --patient demo-patient-1 --reason "other Ann Lee"\n'
        'link undo 01J9ABCD --patient demo-patient-1 --part 3 --reason "not hers"',
        run=_undo,
    )
    undo.add_argument("what", metavar="LINK|MESSAGE", help="link id; or, with --patient, message id or its beginning")
    undo.add_argument("--patient", metavar="PATIENT", help="off this patient's chart")
    undo.add_argument("--part", type=part_number, metavar="N", help="only the link of this part")
    undo.add_argument("--reason", default="", metavar="TEXT", help=_REASON)
    undo.add_argument("--json", action="store_true", help="print as JSON")


def _register_list(group: SubCommands) -> None:
    listing = group.add(
        "list",
        "list the messages on a patient's chart, or the charts of a message",
        "Of a patient: the messages on the chart now; with --all also those that were taken off it.\n"
        "Of a message: every link that it, or a copy of it for another recipient, ever had; who made it and who undid\n"
        "it, when and why; who has reviewed the message; and where the same message or document is on a chart already.",
        "link list demo-patient-1\nlink list demo-patient-1 --all --json\nlink list 01J9ABCD",
        run=_list,
    )
    listing.add_argument("what", metavar="PATIENT|MESSAGE", help="patient id; or message id or its unique beginning")
    listing.add_argument("--all", action="store_true", help="of a patient: also what was undone")
    listing.add_argument("--json", action="store_true", help="print as JSON")


# --- add ---


def _add(args: argparse.Namespace) -> int:
    if args.override and not args.reason.strip():
        note("error: --override needs --reason TEXT: it is kept with the link for whoever asks later")
        return MISUSE

    async def work(services: Services) -> int:
        message_id = await services.store.read(lambda tx: find_message(tx, args.message))
        try:
            outcome = await services.charts.link(
                message_id,
                args.patient,
                actor=actor(),
                part=args.part or "",
                override=args.override,
                reason=args.reason,
            )
        except ConflictError as exc:
            warn(f"{exc}; nothing was changed. To link it to both: --override --reason TEXT")
            if args.json:
                history = await services.charts.history_of_message(message_id)
                links = [asdict(one.link) for one in history if one.undone is None]
                print_json({"created": False, "conflict": True, "links": links})
            return FINDINGS
        if args.json:
            print_json(
                {"created": outcome.created, "conflict": False, "notice": outcome.notice, "link": asdict(outcome.link)}
            )
            return OK
        if outcome.created:
            what = f"part {args.part} of {message_id}" if args.part else message_id
            out(f"linked {what} to patient {args.patient} (link {outcome.link.id})")
        if outcome.notice:
            note(f"note: {outcome.notice}")
        return OK

    return with_services(args, work)


# --- undo ---


def _undo(args: argparse.Namespace) -> int:
    if not args.reason.strip():
        note("error: give --reason TEXT: it is kept with the link for whoever asks later")
        return MISUSE
    if args.part and not args.patient:
        note("error: --part goes with --patient; a link id says already which part it is of")
        return MISUSE

    async def work(services: Services) -> int:
        if args.patient is None:
            outcomes = [await services.charts.unlink(args.what, actor=actor(), reason=args.reason)]
        else:
            message_id = await services.store.read(lambda tx: find_message(tx, args.what))
            outcomes = await services.charts.unlink_message(
                message_id, args.patient, actor=actor(), reason=args.reason, part=args.part
            )
        if args.json:
            print_json([asdict(outcome) for outcome in outcomes])
            return OK
        for outcome in outcomes:
            link = outcome.link
            what = f"part {link.part} of {link.message_id}" if link.part else link.message_id
            if outcome.changed:
                told = f"; asked to take it back: {', '.join(outcome.importers)}" if outcome.importers else ""
                out(f"took {what} off the chart of patient {link.patient_id} (link {link.id}){told}")
            if outcome.notice:
                note(f"note: {outcome.notice}")
        return OK

    return with_services(args, work)


# --- list ---


def _list(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        message_id = await services.store.read(lambda tx: _message_of(tx, args.what))
        if message_id:
            return await _list_message(services, message_id, as_json=args.json)
        records = await services.charts.history_of_patient(args.what)
        shown = [one for one in records if args.all or one.undone is None]
        await audit(services, "link.list", args.what, {"shown": len(shown)})
        if args.json:
            print_json([_document(one) for one in shown])
        elif not shown:
            out("no messages on this chart")
        else:
            _print(shown, "MESSAGE", [one.link.message_id for one in shown])
        return OK

    return with_services(args, work)


def _message_of(tx: UnitOfWork, text: str) -> str:
    """The message that is meant; empty when it is a patient. Raises NotFoundError, InputError, ConflictError."""
    try:
        tx.patients.get(text)
    except NotFoundError:
        return find_message(tx, text)
    return ""


async def _list_message(services: Services, message_id: str, *, as_json: bool) -> int:
    def read(tx: UnitOfWork) -> list[Review]:
        filed = tx.messages.state(message_id) in {State.FILED, State.LINKED}
        return tx.reviews.for_message(message_id) if filed else []

    from gateway.charts.linking import seen_again  # noqa: PLC0415 - see gateway.cli.session

    records = await services.charts.history_of_message(message_id)
    same = await seen_elsewhere(services, message_id)
    reviews = await services.store.read(read)
    newest = reviews[-1] if reviews and reviews[-1].state is ReviewState.REVIEWED else None
    await audit(services, "link.list", message_id, {"shown": len(records)})
    if as_json:
        reviewed = None if newest is None else {"by": newest.actor, "at": newest.at}
        links, seen = [_document(one) for one in records], [asdict(one) for one in same]
        print_json({"message_id": message_id, "reviewed": reviewed, "links": links, "same_elsewhere": seen})
        return OK
    if records:
        _print(records, "PATIENT", [one.link.patient_id for one in records])
    else:
        out("this message was never on a chart")
    if newest is not None:
        out(f"reviewed {when(newest.at)} by {newest.actor}")
    for line in seen_again(same):
        note(f"note: {line}")
    return OK


def _document(record: LinkRecord) -> dict[str, Any]:
    return {**asdict(record.link), "undone": None if record.undone is None else asdict(record.undone)}


def _print(records: list[LinkRecord], heading: str, names: list[str]) -> None:
    """The table; its last column says by whom, when and why a link was undone."""
    rows = []
    for name, one in zip(names, records, strict=True):
        link = one.link
        undone = f"{when(one.undone.at)} by {one.undone.actor}: {one.undone.reason}" if one.undone else ""
        rows.append((name, link.part or "all", when(link.linked_at), link.mode, link.actor, link.rule, link.id, undone))
    print_table((heading, "PART", "LINKED", "HOW", "BY", "RULE", "LINK", "UNDONE"), rows, whole_last=True)
