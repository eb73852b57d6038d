"""``match evaluate``: try the matching policy on labelled data before it may link anything.

``match explain`` has a module of its own (:mod:`gateway.cli.commands_explain`). Evaluating works on two files alone: no
gateway, no store and no configuration is needed, and nothing is kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from gateway.cli import commands_explain
from gateway.cli.output import clean, counted, note, out, print_json, print_table
from gateway.cli.session import FINDINGS, OK, SubCommands
from gateway.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.matching.evaluate import Evaluation

T = TypeVar("T")
MAX_WRONG_SHOWN = 20
MAX_BYTES = 1024 * 1024 * 1024


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("match", "how messages are matched to patients: why, and how well")
    commands_explain.register(group)
    evaluate = group.add(
        "evaluate",
        "try the matching policy on labelled data",
        "Ask each query of a CSV file against the patients of another one, as if a message said what the query says,\n"
        "and count for each class: is the right patient first, or among the first five; how often a link is made\n"
        "without a person, and whether one of them is wrong. Status 1 when one is.\n"
        "The registry has the columns  id,mrn,given,family,maiden,dob,sex,phone,line,zip,city,direct\n"
        "and the queries  query_id,mutation,true_patient_id,given,family,dob,sex,phone,line,zip,city\n"
        "with an empty true_patient_id where the patient is not in the registry: then every link is wrong.",
        "match evaluate --registry registry.csv --queries queries.csv\n"
        "match evaluate --registry registry.csv --queries queries.csv --json",
        run=_evaluate,
    )
    evaluate.add_argument("--registry", metavar="CSV", type=Path, required=True, help="the patients")
    evaluate.add_argument("--queries", metavar="CSV", type=Path, required=True, help="the queries with their answers")
    evaluate.add_argument(
        "--policy",
        choices=("auto", "suggest"),
        default="auto",
        help="what the mailbox allows: auto (default) links on exact evidence, suggest never links",
    )
    evaluate.add_argument("--json", action="store_true", help="print as JSON")


def _evaluate(args: argparse.Namespace) -> int:
    from gateway.matching.evaluate import Policy, evaluate  # noqa: PLC0415 - not for the other commands
    from gateway.matching.index import PatientIndex  # noqa: PLC0415
    from gateway.matching.labelled import read_queries, read_registry  # noqa: PLC0415

    index = PatientIndex(_read(args.registry, read_registry))
    result = evaluate(index, _read(args.queries, read_queries), Policy(args.policy), perf_counter)
    if result.unknown_ids:
        named = counted(result.unknown_ids, "query names a patient", "queries name patients")
        note(f"note: {named} whom the registry does not have: no link is right there")
    if args.json:
        print_json(asdict(result))
    else:
        _print(result)
    return FINDINGS if result.wrong else OK


def _read(path: Path, reader: Callable[[Iterable[str], str], list[T]]) -> list[T]:
    """Read a labelled file.

    Raises:
        InputError: it cannot be opened, is no text, or is refused by the reader.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} is larger than {MAX_BYTES // 1024**2} MiB")
        with path.open(encoding="utf-8-sig", newline="") as file:
            return reader(file, str(path))
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; save it as CSV UTF-8 and try again") from None
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror or exc}") from None


def _print(result: Evaluation) -> None:
    patients, queries = counted(result.registry, "patient"), counted(result.queries, "query", "queries")
    out(f"{patients}, {queries}, policy {result.policy}")
    rows = [
        (
            one.mutation,
            str(one.count),
            _share(one.right_first, one.registered),
            _share(one.right_in_top5, one.registered),
            str(one.automatic_right),
            str(one.automatic_wrong),
        )
        for one in result.classes
    ]
    print_table(("CLASS", "QUERIES", "RIGHT FIRST", "RIGHT IN TOP 5", "AUTOMATIC RIGHT", "AUTOMATIC WRONG"), rows)
    times = "  ".join(f"{name} {value:.1f} ms" for name, value in result.milliseconds.items())
    out(f"time per query: {times}")
    right = sum(one.automatic_right for one in result.classes)
    out(f"automatic links: {right} right, {len(result.wrong)} wrong")
    for wrong in result.wrong[:MAX_WRONG_SHOWN]:
        true = wrong.true_patient_id or "nobody"
        note(clean(f"wrong: query {wrong.query_id} ({wrong.mutation}) linked to {wrong.linked_to}, right: {true}"))
    if len(result.wrong) > MAX_WRONG_SHOWN:
        note(f"wrong: and {len(result.wrong) - MAX_WRONG_SHOWN} more; --json has them all")


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})" if whole else "-"
