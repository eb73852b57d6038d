"""``quarantine list | summary | show | retry``: the workplace for mail that was refused.

A refused message is in no inbox, and nothing of it was ever decrypted and kept: what is shown is its envelope, the
reason with the repair that it needs, and the evidence. After the repair it is judged again by the running gateway.
Whoever looks or retries is written to the audit log first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli import quarantine_retry
from gateway.cli.certificate_report import seen_certificates, write_certificates
from gateway.cli.message_lookup import describe, find_message, list_size
from gateway.cli.message_report import print_message, repair_for, reverse_path
from gateway.cli.moments import parse_moment
from gateway.cli.output import cell, clean, counted, note, out, print_json, print_table, when
from gateway.cli.running_gateway import gateway_runs
from gateway.cli.session import OK, SubCommands, audit, settings_of, with_services
from gateway.core.errors import ConflictError, InputError
from gateway.core.lifecycle import State
from gateway.core.verdict import REPAIRED_HERE, Reason, is_repaired_here

if TYPE_CHECKING:
    from gateway.ports import RefusedCount, RefusedMessage, UnitOfWork
    from gateway.services import Services

REASONS = [reason.value for reason in Reason if reason is not Reason.OK]
MAX_RECIPIENTS_SHOWN = 3
MAX_WAITING_COUNTED = 1_000


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("quarantine", "work through the messages that were refused")
    listing = group.add(
        "list",
        "list refused messages, newest first",
        "CLAIMS TO BE FROM is what the envelope says, which anybody may write: nobody was verified.",
        "quarantine list\nquarantine list --reason untrusted --since 2026-11-01 --json",
        run=_list,
    )
    listing.add_argument("--reason", choices=REASONS, metavar="REASON", help=f"only these: {', '.join(REASONS)}")
    listing.add_argument("--since", metavar="DATE", help="only messages received then or later (ISO 8601, UTC)")
    listing.add_argument("--limit", type=list_size, default=50, metavar="N", help="at most N messages (default 50)")
    listing.add_argument("--before", metavar="ID", help="continue a list: only messages older than this one")
    listing.add_argument("--json", action="store_true", help="print as JSON")
    summary = group.add(
        "summary",
        "count refused messages by reason, with the repair that each needs",
        examples="quarantine summary\nquarantine summary --json",
        run=_summary,
    )
    summary.add_argument("--json", action="store_true", help="print as JSON")
    show = group.add(
        "show",
        "tell all about one refused message",
        "Reason, repair, every check, and the certificates that were seen. --certificates writes them as PEM files,\n"
        "so that they can be looked into and an authority that you trust be made an anchor.",
        "quarantine show 01J9\nquarantine show 01J9 --certificates /tmp/seen",
        run=_show,
    )
    show.add_argument("id", metavar="ID")
    show.add_argument("--certificates", metavar="DIR", type=Path, help="write the certificates that were seen to DIR")
    show.add_argument("--json", action="store_true", help="print as JSON")
    quarantine_retry.register(group, REASONS)


# --- list ---


def _list(args: argparse.Namespace) -> int:
    since = None if args.since is None else parse_moment("--since", args.since)

    async def work(services: Services) -> int:
        found = await services.store.read(lambda tx: _read_list(tx, args, since))
        await audit(services, "quarantine.list", "", {"shown": len(found), "reason": args.reason or ""})
        if args.json:
            print_json([_as_document(line) for line in found])
        else:
            _print_list(found, args.limit)
        return OK

    return with_services(args, work)


def _read_list(tx: UnitOfWork, args: argparse.Namespace, since: datetime | None) -> list[RefusedMessage]:
    before = find_message(tx, args.before, "quarantine list") if args.before else None
    found: list[RefusedMessage] = []
    # The store gives pages of its own size.
    while len(found) < args.limit:
        last = found[-1].id if found else before
        page = tx.quarantine.refused(reason=args.reason, since=since, limit=args.limit - len(found), before=last)
        if not page:
            break
        found += page
    return found


def _as_document(line: RefusedMessage) -> dict[str, object]:
    return asdict(line) | {"repair": repair_for(line.reason)}


def _print_list(found: Sequence[RefusedMessage], limit: int) -> None:
    if not found:
        out("no refused messages")
        return
    print_table(
        ("ID", "RECEIVED", "CLAIMS TO BE FROM", "FOR", "REASON", "WHY"),
        [
            (
                line.id,
                when(line.received_at),
                reverse_path(line.claimed_sender),
                _recipients(line.recipients),
                line.reason,
                line.detail,
            )
            for line in found
        ],
        whole_last=True,
    )
    out("\nwhat to do:")
    for reason in dict.fromkeys(line.reason for line in found):
        out(f"  {reason}: {repair_for(reason)}")
    if len(found) == limit:
        note(f"{limit} shown; if there are older ones: --before {found[-1].id}")


def _recipients(recipients: Sequence[str]) -> str:
    more = len(recipients) - MAX_RECIPIENTS_SHOWN
    shown = ", ".join(recipients[:MAX_RECIPIENTS_SHOWN])
    return f"{cell(shown, 48)} and {more} more" if more > 0 else shown


# --- summary ---


def _summary(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        counts, here, waiting = await services.store.read(_read_summary)
        await audit(services, "quarantine.summary", "", {"shown": sum(count.count for count in counts)})
        if args.json:
            print_json(
                [
                    asdict(count) | {"repair": repair_for(count.reason), "repaired_here": count.reason in here}
                    for count in counts
                ]
            )
        else:
            _print_summary(counts, here)
        if waiting and not gateway_runs(services):
            number = f"more than {MAX_WAITING_COUNTED}" if waiting > MAX_WAITING_COUNTED else str(waiting)
            noun = "message waits" if waiting == 1 else "messages wait"
            note(f"{number} {noun} to be judged; no gateway is running")
        return OK

    return with_services(args, work)


def _read_summary(tx: UnitOfWork) -> tuple[list[RefusedCount], frozenset[str], int]:
    """The counts, the reasons that can be repaired here, and how many messages wait to be judged (up to a bound)."""
    counts = tx.quarantine.counts()
    here = {count.reason for count in counts if count.reason in REPAIRED_HERE}
    if any(count.reason == Reason.WEAK_ALGORITHM for count in counts) and _is_a_weak_one_repaired_here(tx):
        here.add(Reason.WEAK_ALGORITHM)
    waiting = tx.messages.newest(states=(State.RECEIVED,), limit=MAX_WAITING_COUNTED + 1)
    return counts, frozenset(here), len(waiting)


def _is_a_weak_one_repaired_here(tx: UnitOfWork) -> bool:
    """Whether the settings alone refused any of them: only its detail tells it from one below the floor."""
    last: str | None = None
    while page := tx.quarantine.refused(reason=Reason.WEAK_ALGORITHM, before=last):
        if any(is_repaired_here(line.reason, line.detail) for line in page):
            return True
        last = page[-1].id
    return False


def _print_summary(counts: Sequence[RefusedCount], repaired_here: frozenset[str]) -> None:
    if not counts:
        out("no refused messages")
        return
    print_table(
        ("REASON", "MESSAGES", "FIRST REFUSED", "LAST REFUSED", "REPAIR", "WHAT TO DO"),
        [
            (
                count.reason,
                str(count.count),
                when(count.oldest),
                when(count.newest),
                "here" if count.reason in repaired_here else "sender",
                repair_for(count.reason),
            )
            for count in counts
        ],
        whole_last=True,
    )
    total = sum(count.count for count in counts)
    here = [count for count in counts if count.reason in repaired_here]
    out(f"\nretry --all would judge {counted(total, 'message')} again")
    for count in here:
        out(f"retry --reason {count.reason} would judge {counted(count.count, 'message')} again, after the repair here")


# --- show ---


def _show(args: argparse.Namespace) -> int:
    if args.certificates is not None:
        _check_folder(args.certificates, settings_of(args).trust.anchors_dir)

    async def work(services: Services) -> int:
        def read(tx: UnitOfWork) -> tuple[dict[str, Any], list[bytes]]:
            message_id = find_message(tx, args.id, "quarantine list")
            state = tx.messages.state(message_id)
            if state is not State.REFUSED:
                raise ConflictError(
                    f"the message is {state}, not in quarantine; see: direct-gateway message show {message_id}"
                )
            document = describe(tx, message_id)
            return document, [tx.messages.certificate(sha256) for sha256 in document["verdict"]["certificates"]]

        document, ders = await services.store.read(read)
        document["certificates"] = seen = seen_certificates(document["verdict"], ders)
        await audit(services, "quarantine.show", str(document["id"]), {"certificates": args.certificates is not None})
        written = [] if args.certificates is None else write_certificates(args.certificates, ders)
        if args.json:
            print_json(document | ({"written": [str(path) for path in written]} if written else {}))
            return OK
        print_message(document)
        _print_certificates(seen)
        for path in written:
            note(f"wrote {clean(str(path))}")
        return OK

    return with_services(args, work)


def _check_folder(folder: Path, anchors: Path) -> None:
    """Whatever lies in the folder of anchors is trusted; what a stranger sent must not get there by an option."""
    if folder.resolve().is_relative_to(anchors.resolve()):
        raise InputError(
            f"--certificates: {folder} is in the folder of trust anchors, where everything is trusted; "
            "write them elsewhere, look into them, and copy only the authority that you trust"
        )


def _print_certificates(seen: Sequence[dict[str, str]]) -> None:
    if not seen:
        out("\ncertificates: none were seen")
        return
    out("\ncertificates that were seen:")
    for one in seen:
        out(f"  {one['role']}: {clean(one['subject'])}")
        out(f"    issued by {clean(one['issuer'])}")
        out(f"    valid {one['not_before']} to {one['not_after']}")
        out(f"    sha256 {one['sha256']}")
