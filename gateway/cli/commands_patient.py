"""``patient import`` and ``patient list``; ``patient search`` has a file of its own.

A search leaves an audit row with the number of results, never with what was searched for: names do not go there.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli import commands_patient_feed, commands_patient_search
from gateway.cli.output import counted, note, out, print_json, print_table, warn
from gateway.cli.session import FINDINGS, OK, SubCommands, actor, audit, with_services

if TYPE_CHECKING:
    from gateway.charts.service import FoundPatient, ImportReport
    from gateway.services import Services

DEFAULT_LIMIT = 50
MAX_LIMIT = 10_000
MAX_LINES_SHOWN = 50


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("patient", "import and look up patients")
    load = group.add(
        "import",
        "add or replace patients from a FHIR or CSV file",
        "FILE is FHIR R4 (NDJSON, one Patient a line; or one JSON document) or CSV with a header line such as\n"
        "  id,mrn,family,given,dob,sex,phone,address,city,zip,direct\n"
        "What the file documents as a patient's Direct address counts as confirmed: verified mail from it is\n"
        "linked to that patient by itself, unless two patients share the address. A patient who was imported before\n"
        "is replaced: an address that the new file does not have is documented no more, and a warning says how many\n"
        "these are. A file that names no Direct address at all leaves those that are documented. Lines that cannot\n"
        "be used are named and left out; the rest is imported. The same file may be imported again and again.",
        "patient import patients.ndjson\npatient import patients.csv --json",
        run=_import,
    )
    load.add_argument("file", metavar="FILE", type=Path)
    load.add_argument("--json", action="store_true", help="print the report as JSON")
    listing = group.add(
        "list",
        "list patients, or search them",
        "List patients, or those whose name, birth date, MRN, id or address holds every word of TEXT.\n"
        'STATUS says "shared address" where another patient has the same Direct address: it never links by itself.',
        "patient list\npatient list quimby 1961",
        run=_list,
    )
    listing.add_argument("text", metavar="TEXT", nargs="*")
    listing.add_argument("--limit", type=_limit, default=DEFAULT_LIMIT, metavar="N", help="at most N (default 50)")
    listing.add_argument("--offset", type=_offset, default=0, metavar="N", help="skip the first N")
    listing.add_argument("--json", action="store_true", help="print as JSON")
    commands_patient_feed.add_to(group)
    commands_patient_search.register(group)


def _limit(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MAX_LIMIT:
        raise argparse.ArgumentTypeError(f"must be between 1 and {MAX_LIMIT}")
    return value


def _offset(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def _import(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        on_terminal = sys.stderr.isatty()

        def progress(count: int) -> None:
            if on_terminal:
                print(f"\r{count} patients written", end="", file=sys.stderr, flush=True)

        try:
            report = await services.charts.import_patients(args.file, actor=actor(), progress=progress)
        finally:
            if on_terminal:
                print(file=sys.stderr)
        if args.json:
            print_json(asdict(report))
        else:
            _print_report(report)
        return FINDINGS if report.rejected else OK

    return with_services(args, work)


def _print_report(report: ImportReport) -> None:
    out(f"{counted(report.read, 'patient')} read: {report.changed} added or changed, {report.unchanged} unchanged")
    shared = (
        f" ({report.shared_addresses} shared by several patients: these never link by themselves)"
        if report.shared_addresses
        else ""
    )
    out(f"{counted(report.addresses, 'Direct address', 'Direct addresses')} documented{shared}")
    if report.addresses_removed:
        removed = counted(report.addresses_removed, "Direct address is", "Direct addresses are")
        warn(f"{removed} no longer documented: the file does not have what was documented for its patients before")
    for problem in report.notices[:MAX_LINES_SHOWN]:
        note(f"note: {f'line {problem.line}: ' if problem.line else ''}{problem.reason}")
    if len(report.notices) > MAX_LINES_SHOWN:
        note(f"note: and {len(report.notices) - MAX_LINES_SHOWN} more; --json has them all")
    for problem in report.rejected[:MAX_LINES_SHOWN]:
        note(f"rejected: line {problem.line}: {problem.reason}")
    if len(report.rejected) > MAX_LINES_SHOWN:
        note(f"rejected: and {len(report.rejected) - MAX_LINES_SHOWN} more; --json has them all")
    if report.rejected:
        left_out = len(report.rejected)
        were = "was not imported; mend it" if left_out == 1 else "were not imported; mend them"
        note(f"{counted(left_out, 'line')} {were} and import the file again")


def _list(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        text = " ".join(args.text)
        found = await services.charts.find_patients(text, args.limit, args.offset)
        await audit(services, "patient.search", "", {"shown": len(found), "searched": bool(text)})
        if args.json:
            print_json([asdict(entry.patient) | {"shared_addresses": entry.shared_addresses} for entry in found])
        else:
            _print_list(found, args.limit, args.offset)
        return OK

    return with_services(args, work)


def _print_list(found: list[FoundPatient], limit: int, offset: int) -> None:
    if not found:
        out("no patients")
        return
    print_table(
        ("ID", "MRN", "NAME", "BORN", "SEX", "DIRECT ADDRESS", "STATUS"),
        [
            (
                patient.id,
                patient.mrn,
                ", ".join(name for name in (patient.family, patient.given) if name),
                patient.birth_date.isoformat() if patient.birth_date else "",
                patient.sex,
                ", ".join(patient.direct_addresses),
                _status(entry),
            )
            for entry in found
            for patient in [entry.patient]
        ],
    )
    if len(found) == limit:
        note(f"{limit} shown; if there are more: --offset {offset + limit}")


def _status(entry: FoundPatient) -> str:
    patient = entry.patient
    words = ["deceased"] if patient.deceased else [] if patient.active else ["inactive"]
    if entry.shared_addresses:
        words.append("shared address")
    return ", ".join(words)
