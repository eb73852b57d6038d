"""``message recheck``: judge a stored message again, as of then or as of now, and compare.

The verdict in force, the inbox and the quarantine stay as they are whatever comes out: what was delivered is never
withdrawn by a second look, and what was refused is delivered only by ``message retry``. The outcome is kept with the
message and written to the audit log before it is shown.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.cli.message_lookup import find_message
from gateway.cli.moments import parse_moment
from gateway.cli.output import print_json
from gateway.cli.recheck_report import Comparison, as_document, compare, print_comparison
from gateway.cli.session import FINDINGS, OK, SubCommands, actor, with_services

if TYPE_CHECKING:
    from datetime import datetime

    from gateway.ports import UnitOfWork
    from gateway.rejudging import Case, Rejudgement
    from gateway.services import Services

THEN = "then"
NOW = "now"


def register(group: SubCommands) -> None:
    """Add the command to ``message``."""
    recheck = group.add(
        "recheck",
        "judge a stored message again, as of then or as of now, and compare",
        "as of then (the default): by the evidence that was kept with the verdict, without fetching anything: the\n"
        "  anchors of each recipient, the certificates, the revocation lists and answers, the moment. Keys and rules\n"
        "  are today's; a change of the rules is told.\n"
        "as of now, or of a TIME (ISO 8601): with today's keys, anchors, bundles and lists, as if it came then.\n"
        "Nothing is delivered or withdrawn by it. Status 0: same reason and recipients as in the verdict; 1: others.",
        "message recheck 01J9\nmessage recheck 01J9 --as-of now\nmessage recheck 01J9 --as-of 2026-03-01T12:00 --json",
        run=_recheck,
    )
    recheck.add_argument("id", metavar="ID")
    recheck.add_argument(
        "--as-of", default=THEN, metavar="then|now|TIME", help="the moment, and whose anchors count (default: then)"
    )
    recheck.add_argument("--json", action="store_true", help="print as JSON")


def _recheck(args: argparse.Namespace) -> int:
    moment = None if args.as_of in {THEN, NOW} else parse_moment("--as-of", args.as_of)

    async def work(services: Services) -> int:
        from gateway.rejudging import load_case  # noqa: PLC0415 - see gateway.cli.session

        case = await services.store.read(lambda tx: load_case(tx, find_message(tx, args.id)))
        # The agent must not run in the thread of the event loop.
        found = await asyncio.to_thread(_judge, services, case, args.as_of, moment)
        comparison = await services.store.read(lambda tx: compare(case, found, tx.messages.state(case.message.id)))
        await services.store.write(_keeping(services, case, found, comparison))
        if args.json:
            print_json(as_document(args.as_of, case, found, comparison))
        else:
            print_comparison(args.as_of, case, found, comparison)
        return OK if comparison.same else FINDINGS

    return with_services(args, work)


def _judge(services: Services, case: Case, as_of: str, moment: datetime | None) -> Rejudgement:
    from gateway.rejudging import judge_as_of, judge_as_of_then  # noqa: PLC0415 - see gateway.cli.session

    if as_of == THEN:
        return judge_as_of_then(services.settings.trust, case)
    return judge_as_of(services.settings.trust, case, moment or services.clock.now())


def _keeping(
    services: Services, case: Case, found: Rejudgement, comparison: Comparison
) -> Callable[[UnitOfWork], None]:
    """The unit of work that keeps the outcome and audits it."""
    at, who, message_id = services.clock.now(), actor(), case.message.id
    detail = {
        "as_of": found.as_of.isoformat(),
        "reason": found.judgement.reason.value,
        "policy": found.judgement.policy_version,
        "same": comparison.same,
    }

    # A message that is refused may be accepted on other terms. Its subject was under the encryption; it stays unseen
    # until the verdict in force accepts the message.
    kept = replace(found.judgement, subject="")

    def keep(tx: UnitOfWork) -> None:
        tx.messages.add_recheck(message_id, at, found.as_of, kept)
        tx.audit.add(at, who, "message.recheck", message_id, detail)

    return keep
