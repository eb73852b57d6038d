"""``link bulk``: all messages of one sender onto one patient's chart.

Every message is a link of its own, in a transaction of its own: stopped at any point and begun again, it goes on where
it was. What is in doubt is left alone and named, with status 1.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from gateway.cli.output import counted, note, out, print_json, print_table, warn
from gateway.cli.progress_pace import ProgressPace
from gateway.cli.session import FINDINGS, OK, SubCommands, actor, audit, with_services
from gateway.core.address import parse_address

if TYPE_CHECKING:
    from gateway.charts.bulk import BulkReport
    from gateway.services import Services

_TERMINAL_SECONDS = 0.5
_FILE_SECONDS = 30.0


def register(group: SubCommands) -> None:
    """Add the command to the group ``link``."""
    bulk = group.add(
        "bulk",
        "link every message of one sender to a patient",
        "For the messages that came before the address was documented: every filed message whose verified sender is\n"
        "the address goes onto the chart, each as a link of its own. Left alone, and named (status 1): what is on\n"
        "another chart, what somebody took off this one, and what says of its patient that it is somebody else.\n"
        "Try it with --dry-run first. It may be stopped and run again at any time. To let later messages of the\n"
        "sender be linked by themselves, document the address: 'patient import'.",
        "link bulk --sender ann@phr.example --patient demo-patient-1 --dry-run\n"
        "link bulk --sender ann@phr.example --patient demo-patient-1",
        run=_bulk,
    )
    bulk.add_argument("--sender", required=True, metavar="ADDRESS", help="the verified sender")
    bulk.add_argument("--patient", required=True, metavar="PATIENT", help="patient id, as in 'patient list'")
    bulk.add_argument("--dry-run", action="store_true", help="tell what would be done, and link nothing")
    bulk.add_argument("--json", action="store_true", help="print as JSON")


def _bulk(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        from gateway.charts.bulk import BulkWish  # noqa: PLC0415 - see gateway.cli.session
        from gateway.charts.linking import about_chart  # noqa: PLC0415 - the same

        sender = str(parse_address(args.sender))
        entries, patient = await services.store.read(
            lambda tx: (tx.patients.address_book(sender), tx.patients.get(args.patient))
        )
        for line in about_chart(patient):
            warn(line)
        if others := sorted({entry.patient_id for entry in entries} - {args.patient}):
            warn(f"the address is documented for another patient: {', '.join(others)}")
        pace = ProgressPace(terminal_seconds=_TERMINAL_SECONDS, file_seconds=_FILE_SECONDS)

        def progress(report: BulkReport) -> None:
            done = len(report.linked) + report.already + len(report.left)
            # The end is told by the report itself.
            if pace.seconds_if_due("messages", done, done + 1) is not None:
                note(f"{counted(done, 'message')} looked at, {len(report.linked)} linked")

        wish = BulkWish(sender, args.patient, actor(), args.dry_run)
        report = await services.charts.link_sender(wish, progress)
        counts = {"linked": len(report.linked), "left": len(report.left), "dry_run": bool(args.dry_run)}
        await audit(services, "link.bulk", args.patient, counts)
        if args.json:
            print_json({"dry_run": bool(args.dry_run), **asdict(report)})
        else:
            _print(report, args.patient, dry_run=args.dry_run)
        return FINDINGS if report.left else OK

    return with_services(args, work)


def _print(report: BulkReport, patient_id: str, *, dry_run: bool) -> None:
    would = "would be linked" if dry_run else "linked"
    out(f"{counted(len(report.linked), 'message')} {would} to patient {patient_id}; {report.already} linked before")
    if dry_run:
        for message_id in report.linked:
            out(f"  {message_id}")
    if report.left:
        out(f"{counted(len(report.left), 'message')} left to you:")
        print_table(("MESSAGE", "WHY"), [(one.message_id, one.why) for one in report.left], whole_last=True)
