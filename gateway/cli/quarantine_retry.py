"""``quarantine retry``: judge refused messages again, one, those of a reason, or all of them, after a repair.

They are put back in transactions of a bounded number of messages, each message with an audit row of its own. The
running gateway judges them; this command waits for a while and says what became of them. Interrupted at any point, what
was put back is judged all the same, and the rest is as it was.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.cli.message_lookup import find_message
from gateway.cli.message_report import repair_for
from gateway.cli.output import counted, note, out, print_json, print_table
from gateway.cli.running_gateway import gateway_runs, how_to_reload
from gateway.cli.session import FINDINGS, OK, SubCommands, actor, with_services
from gateway.core.errors import ConflictError, InputError
from gateway.core.lifecycle import State

if TYPE_CHECKING:
    from gateway.ports import UnitOfWork
    from gateway.services import Services

BATCH = 100
"""Messages in one transaction: mail that comes in meanwhile waits no longer than for so many."""
POLL_SECONDS = 0.25
POLLED = 200
PROGRESS_SECONDS = 2.0
DEFAULT_WAIT_SECONDS = 30
MAX_WAIT_SECONDS = 86_400


@dataclass(slots=True)
class _Refused:
    id: str
    reason: str
    detail: str
    hint: str


@dataclass(slots=True)
class _Outcome:
    """What became of the messages that were put back."""

    waiting: list[str]
    accepted: list[str] = field(default_factory=list)
    refused: list[_Refused] = field(default_factory=list)


def register(group: SubCommands, reasons: Sequence[str]) -> None:
    """Add the command."""
    retry = group.add(
        "retry",
        "judge refused messages again, after a repair",
        "After a missing key, anchor or revocation list was added. The running gateway judges with what it has read:\n"
        "send it SIGHUP (kill -HUP) or restart it first. What was recorded before is kept. Status 1: some of them are\n"
        "still refused, or were not judged within the time to wait.",
        "quarantine retry 01J9ABCD 01J9ABCE\nquarantine retry --reason untrusted --dry-run\nquarantine retry --all",
        run=_retry,
    )
    retry.add_argument("ids", metavar="ID", nargs="*")
    chosen = retry.add_mutually_exclusive_group()
    chosen.add_argument("--reason", choices=reasons, metavar="REASON", help="all that were refused for this reason")
    chosen.add_argument("--all", action="store_true", help="every refused message")
    retry.add_argument("--dry-run", action="store_true", help="only say which messages would be judged again")
    retry.add_argument(
        "--wait",
        type=_seconds,
        default=DEFAULT_WAIT_SECONDS,
        metavar="SECONDS",
        help=f"how long to wait for the running gateway (default {DEFAULT_WAIT_SECONDS}; 0: not at all)",
    )
    retry.add_argument("--json", action="store_true", help="print as JSON")


def _seconds(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number of seconds, not {text!r}") from None
    if not 0 <= value <= MAX_WAIT_SECONDS:
        raise argparse.ArgumentTypeError(f"must be between 0 and {MAX_WAIT_SECONDS}")
    return value


def _retry(args: argparse.Namespace) -> int:
    if bool(args.ids) == bool(args.reason or args.all):
        raise InputError("name the messages: either ID..., or --reason REASON, or --all")

    async def work(services: Services) -> int:
        chosen = await services.store.read(lambda tx: _chosen(tx, args))
        if args.dry_run or not chosen:
            _print_plan(chosen, as_json=args.json)
            return OK
        outcome = _Outcome(await _put_back(services, chosen))
        retried = list(outcome.waiting)
        if args.wait and gateway_runs(services):
            await _wait(services, outcome, args.wait)
        if args.json:
            print_json({"retried": retried} | _as_document(outcome))
        else:
            _print_outcome(services, outcome, len(retried))
        return FINDINGS if outcome.refused or (outcome.waiting and args.wait) else OK

    return with_services(args, work)


def _chosen(tx: UnitOfWork, args: argparse.Namespace) -> list[str]:
    """The ids, the oldest first.

    Raises:
        NotFoundError, ConflictError: a message that was named is none, or is not refused; nothing has been done then.
    """
    if args.ids:
        named = list(dict.fromkeys(find_message(tx, one, "quarantine list") for one in args.ids))
        for message_id in named:
            state = tx.messages.state(message_id)
            if state is not State.REFUSED:
                raise ConflictError(
                    f"only a refused message can be judged again; {message_id} is {state}; nothing was done"
                )
        return named
    found: list[str] = []
    while page := tx.quarantine.ids(reason=args.reason, after=found[-1] if found else ""):
        found += page
    return found


def _print_plan(chosen: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"would_retry": list(chosen)} if chosen else {"would_retry": [], "retried": []})
    elif not chosen:
        out("no refused message was chosen; nothing to do")
    else:
        for message_id in chosen:
            out(message_id)
        note(f"{counted(len(chosen), 'message')} would be judged again; nothing was changed")


async def _put_back(services: Services, chosen: Sequence[str]) -> list[str]:
    from gateway.pipeline.unwrap import requeue_all_refused  # noqa: PLC0415 - see gateway.cli.session

    done: list[str] = []
    for start in range(0, len(chosen), BATCH):
        batch = chosen[start : start + BATCH]
        done += await requeue_all_refused(services.store, services.clock, batch, actor())
        if len(chosen) > BATCH:
            note(f"{start + len(batch)} of {len(chosen)} put back")
    return done


async def _wait(services: Services, outcome: _Outcome, seconds: float) -> None:
    """Follow the messages until all are judged, or the time is over."""
    total = len(outcome.waiting)
    deadline = time.monotonic() + seconds
    told = time.monotonic()
    while outcome.waiting:
        await services.store.read(lambda tx: _look(tx, outcome))
        now = time.monotonic()
        if not outcome.waiting or now >= deadline:
            return
        if now - told >= PROGRESS_SECONDS:
            told = now
            note(f"{total - len(outcome.waiting)} of {total} judged")
        await asyncio.sleep(min(POLL_SECONDS, deadline - now))


def _look(tx: UnitOfWork, outcome: _Outcome) -> None:
    """Move what has been judged; those that were put back first are judged first."""
    waiting = []
    for message_id in outcome.waiting[:POLLED]:
        state = tx.messages.state(message_id)
        if state is State.RECEIVED:
            waiting.append(message_id)
        elif state is State.REFUSED:
            verdict = tx.messages.verdict(message_id) or {}
            outcome.refused.append(
                _Refused(message_id, verdict.get("reason", ""), verdict.get("detail", ""), verdict.get("hint", ""))
            )
        else:
            outcome.accepted.append(message_id)
    outcome.waiting[:POLLED] = waiting


def _as_document(outcome: _Outcome) -> dict[str, Any]:
    return {
        "accepted": outcome.accepted,
        "refused": [asdict(one) | {"repair": repair_for(one.reason)} for one in outcome.refused],
        "waiting": outcome.waiting,
    }


def _print_outcome(services: Services, outcome: _Outcome, total: int) -> None:
    out(f"{counted(total, 'message')} put back, to be judged again by the running gateway")
    if outcome.accepted:
        out(f"{counted(len(outcome.accepted), 'message')} accepted now:")
        for message_id in outcome.accepted:
            out(f"  {message_id}")
    if outcome.refused:
        out(f"{counted(len(outcome.refused), 'message')} still refused:")
        print_table(
            ("ID", "REASON", "WHY"),
            [(one.id, one.reason, f"{one.detail}. {one.hint}" if one.hint else one.detail) for one in outcome.refused],
            whole_last=True,
        )
        for reason in dict.fromkeys(one.reason for one in outcome.refused):
            out(f"what to do for {reason}: {repair_for(reason)}")
    if outcome.waiting:
        out(f"{counted(len(outcome.waiting), 'message')} not judged yet; see: direct-gateway quarantine summary")
    if outcome.refused or outcome.waiting:
        note(how_to_reload(services))
