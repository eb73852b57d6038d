"""``job list`` and ``job retry``: work that was set aside after its last attempt.

A job is set aside so that the rest goes on, never to be forgotten: a recipient without a mailbox, a chart folder
that cannot be written. After the mend it is started afresh.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from gateway.cli.output import out, print_json, print_table, when
from gateway.cli.session import OK, SubCommands, actor, with_services
from gateway.core.errors import NotFoundError

if TYPE_CHECKING:
    from gateway.daemon import Services
    from gateway.ports import PoisonedJob, UnitOfWork


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("job", "see and restart work that was set aside")
    listing = group.add(
        "list",
        "list the jobs that were set aside",
        "A step that fails is tried again by a schedule; after the last attempt it is set aside and listed here.",
        "job list\njob list --json",
        run=_list,
    )
    listing.add_argument("--json", action="store_true", help="print as JSON")
    retry = group.add(
        "retry",
        "start a job afresh, after the mend",
        "The running gateway takes it up within a second.",
        "job retry 17",
        run=_retry,
    )
    retry.add_argument("id", type=int, metavar="ID", help="as in 'job list'")
    retry.add_argument("--json", action="store_true", help="print as JSON")


def _list(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        found = await services.store.read(lambda tx: tx.jobs.poisoned())
        if args.json:
            print_json([asdict(job) for job in found])
        elif found:
            rows = [(str(j.id), j.kind.value, j.subject, str(j.attempt), when(j.since), j.error) for j in found]
            print_table(("ID", "STEP", "MESSAGE OR LINK", "ATTEMPTS", "SINCE", "ERROR"), rows, whole_last=True)
        else:
            out("no job was set aside")
        return OK

    return with_services(args, work)


def _retry(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        at, who = services.clock.now(), actor()

        def again(tx: UnitOfWork) -> PoisonedJob:
            job = next((j for j in tx.jobs.poisoned(limit=10_000) if j.id == args.id), None)
            if job is None:
                raise NotFoundError(f"no job {args.id} was set aside; see: direct-gateway job list")
            tx.jobs.enqueue(job.kind, job.subject, at)
            tx.audit.add(at, who, "job.retried", job.subject, {"kind": job.kind.value})
            return job

        job = await services.store.write(again)
        if args.json:
            print_json({"id": job.id, "kind": job.kind, "subject": job.subject, "state": "ready"})
        else:
            out(f"the {job.kind.value} job of {job.subject} starts afresh")
        return OK

    return with_services(args, work)
