"""``job list`` and ``job retry``: work that failed, and is tried again or was set aside.

A job is set aside after its last attempt so that the rest goes on, never to be forgotten: a recipient without a
mailbox, a chart folder that cannot be written. After the mend it need not wait for its turn.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from gateway.cli.output import out, print_json, print_table, when
from gateway.cli.session import OK, SubCommands, actor, audit, with_services
from gateway.core.errors import NotFoundError

if TYPE_CHECKING:
    from gateway.ports import TroubledJob, UnitOfWork
    from gateway.services import Services


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("job", "see and restart work that failed")
    listing = group.add(
        "list",
        "list the jobs that failed",
        "A step that fails is tried again by a schedule; after the last attempt it is set aside. Both are listed.",
        "job list\njob list --json",
        run=_list,
    )
    listing.add_argument("--json", action="store_true", help="print as JSON")
    retry = group.add(
        "retry",
        "try a job again now, after the mend",
        "The running gateway takes it up within a second.",
        "job retry 17",
        run=_retry,
    )
    retry.add_argument("id", type=int, metavar="ID", help="as in 'job list'")
    retry.add_argument("--json", action="store_true", help="print as JSON")


def _list(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        found = await services.store.read(lambda tx: tx.jobs.troubled())
        await audit(services, "job.list", "", {"shown": len(found)})
        if args.json:
            print_json([asdict(job) for job in found])
        elif found:
            headings = ("ID", "STEP", "MESSAGE OR LINK", "ATTEMPTS", "NEXT", "ERROR")
            print_table(headings, [_row(job) for job in found], whole_last=True)
        else:
            out("no job has failed")
        return OK

    return with_services(args, work)


def _row(job: TroubledJob) -> tuple[str, ...]:
    turn = f"set aside {when(job.due_at)}" if job.set_aside else when(job.due_at)
    return str(job.id), job.kind.value, job.subject, str(job.attempt), turn, job.error


def _retry(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        at, who = services.clock.now(), actor()

        def again(tx: UnitOfWork) -> TroubledJob:
            job = next((j for j in tx.jobs.troubled(limit=10_000) if j.id == args.id), None)
            if job is None:
                raise NotFoundError(f"no job {args.id} has failed; see: direct-gateway job list")
            if job.set_aside:
                tx.jobs.enqueue(job.kind, job.subject)
            elif not tx.jobs.hasten(job.id):
                raise NotFoundError(f"job {args.id} runs at this moment")
            tx.audit.add(at, who, "job.retried", job.subject, {"kind": job.kind.value})
            return job

        job = await services.store.write(again)
        if args.json:
            print_json({"id": job.id, "kind": job.kind, "subject": job.subject, "state": "ready"})
        else:
            out(f"the {job.kind.value} job of {job.subject} is tried again now")
        return OK

    return with_services(args, work)
