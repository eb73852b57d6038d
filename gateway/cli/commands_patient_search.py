"""``patient search``: find a patient by whatever is known, with typing errors and all.

The patients are read into memory for one search (some seconds for 50,000). A search leaves an audit row with the
number of results, never with what was searched for: names do not go there.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from gateway.cli.output import note, out, print_json, print_table
from gateway.cli.session import OK, SubCommands, audit, with_services
from gateway.core.errors import InputError

if TYPE_CHECKING:
    from gateway.matching.query import Query
    from gateway.matching.search import Found, Hit
    from gateway.ports import Patient, UnitOfWork
    from gateway.services import Services

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
_FIELDS = {
    "given": "given name",
    "family": "family name, the current or a previous one",
    "dob": "birth date, in any usual notation",
    "sex": "male or female",
    "phone": "telephone number",
    "mrn": "record number",
    "address": "house number and street",
    "city": "town",
    "zip": "postal code",
    "direct": "Direct or e-mail address",
}


def register(group: SubCommands) -> None:
    """Add the command to ``patient``."""
    search = group.add(
        "search",
        "find a patient by whatever is known, in spite of typing errors",
        "TEXT may hold names in any order, a birth date (1956-08-03, 8/3/56, Aug 3 1956), a telephone number, a\n"
        "record number, a Direct address, a street, a town or a ZIP. The options say what is what. The likeliest\n"
        "patient stands first, and WHY says what agrees. 9 points and more are strong evidence.",
        'patient search smith 1956-08-03 boston\npatient search "(555) 978-4581"\n'
        "patient search --family smith --dob 8/3/56 --json",
        run=_search,
    )
    search.add_argument("text", metavar="TEXT", nargs="*")
    for name, what in _FIELDS.items():
        search.add_argument(f"--{name}", default="", metavar="TEXT", help=what)
    search.add_argument(
        "--limit", type=_limit, default=DEFAULT_LIMIT, metavar="N", help=f"at most N (default {DEFAULT_LIMIT})"
    )
    search.add_argument("--json", action="store_true", help="print as JSON")


def _limit(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MAX_LIMIT:
        raise argparse.ArgumentTypeError(f"must be between 1 and {MAX_LIMIT}")
    return value


def _query(args: argparse.Namespace) -> Query:
    """The question of the command line.

    Raises:
        InputError: an option holds what it cannot, or nothing is asked.
    """
    from gateway.matching.query import Fields, in_fields, unreadable  # noqa: PLC0415 - not for the other commands

    fields = Fields(**{name: getattr(args, name) for name in _FIELDS})
    if wrong := unreadable(fields):
        raise InputError(f"--{wrong[0]} cannot be read as {_FIELDS[wrong[0]]}; mend it or leave it out")
    query = in_fields(fields, " ".join(args.text))
    if query.is_empty:
        raise InputError("say whom to look for: a name, a birth date, a telephone number ... (patient search --help)")
    return query


def _search(args: argparse.Namespace) -> int:
    query = _query(args)

    async def work(services: Services) -> int:
        from gateway.matching.index import PatientIndex  # noqa: PLC0415 - not for the other commands
        from gateway.matching.search import search  # noqa: PLC0415
        from gateway.weighing import every_record  # noqa: PLC0415

        def find(tx: UnitOfWork) -> tuple[Found, dict[str, Patient]]:
            index = PatientIndex(every_record(lambda read: read(tx), services.settings.charts.record_assigners))
            found = search(index, query, args.limit)
            return found, {
                patient.id: patient for patient in tx.patients.several([hit.patient_id for hit in found.hits])
            }

        found, patients = await services.store.read(find)
        await audit(services, "patient.search", "", {"shown": len(found.hits), "searched": True})
        if args.json:
            hits = [_as_json(hit, patients[hit.patient_id]) for hit in found.hits]
            print_json({"hits": hits, "more": found.more})
        else:
            _print(found, patients)
        return OK

    return with_services(args, work)


def _as_json(hit: Hit, patient: Patient) -> dict[str, object]:
    return {
        "points": hit.points,
        "reasons": [{**asdict(reason), "text": str(reason)} for reason in hit.reasons],
        "alike": [asdict(other) for other in hit.alike],
        "merged_into": hit.merged_into,
        "patient": asdict(patient),
    }


def _print(found: Found, patients: dict[str, Patient]) -> None:
    if not found.hits:
        out("no patient is like that")
        return
    print_table(
        ("ID", "MRN", "NAME", "BORN", "SEX", "POINTS", "STATUS", "WHY"),
        [_line(hit, patients[hit.patient_id]) for hit in found.hits],
        whole_last=True,
    )
    if found.more:
        note(f"the {len(found.hits)} likeliest are shown; say more of the patient to see fewer")


def _line(hit: Hit, patient: Patient) -> tuple[str, ...]:
    status = "deceased" if hit.deceased else "" if hit.active else "inactive"
    status = f"merged into {hit.merged_into}" if hit.merged_into else status
    why = [str(reason) for reason in hit.reasons]
    why += [f"mind: {other.why} ({other.patient_id})" for other in hit.alike]
    return (
        patient.id,
        patient.mrn,
        ", ".join(name for name in (patient.family, patient.given) if name),
        patient.birth_date.isoformat() if patient.birth_date else "",
        patient.sex,
        f"{hit.points:g}",
        status,
        "; ".join(why),
    )
