"""``fetch status``, ``fetch now`` and ``fetch retry``: mail from upstream mailboxes.

``fetch now`` is the Send/Receive button (S19): it asks whoever works on the account, the running gateway, and waits for
the outcome. When nobody does, it fetches by itself; the messages are judged and filed when the gateway runs again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.cli.output import counted, note, out, print_json, print_table, when
from gateway.cli.session import FINDINGS, OK, SubCommands, actor, audit, with_services
from gateway.core.errors import ConflictError, InputError, NotFoundError
from gateway.core.fetch_settings import FetchSettings
from gateway.core.fetching import ASIDE_WORDS, FetchItem, FetchState, FetchStatus, ItemState

if TYPE_CHECKING:
    from gateway.ports import UnitOfWork
    from gateway.services import Services

POLL_SECONDS = 0.2
TIMEOUT_SECONDS = 600
DISABLED = "disabled"
STOPPED = "not running"
_WORKING = frozenset({FetchState.CONNECTING, FetchState.FETCHING})


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("fetch", "see and start fetching from upstream mailboxes")
    status = group.add(
        "status",
        "show how each upstream mailbox stands",
        "State, times, what went wrong in plain words, and messages that were set aside. Status 1 when something\n"
        "waits for a person. docs/fetch.md says what each state means.",
        "fetch status\nfetch status --json",
        run=_status,
    )
    status.add_argument("--json", action="store_true", help="print as JSON")
    now = group.add(
        "now",
        "fetch at once and wait for the outcome",
        "The running gateway does it; when none runs, this command does it by itself.\n"
        "Status 1 when a mailbox could not be fetched.",
        "fetch now\nfetch now upstream --json",
        run=_now,
    )
    now.add_argument("name", nargs="*", metavar="NAME", help="as in [[fetch]]; all when left out")
    now.add_argument(
        "--timeout", type=int, default=TIMEOUT_SECONDS, metavar="SECONDS", help="stop waiting after this (default 600)"
    )
    now.add_argument("--json", action="store_true", help="print the outcome as JSON")
    retry = group.add(
        "retry",
        "try a message again that was set aside",
        "It is tried at the next look; 'fetch now' makes that at once. Without UID: everything set aside.",
        "fetch retry upstream 4711\nfetch retry upstream",
        run=_retry,
    )
    retry.add_argument("account", metavar="ACCOUNT", help="as in [[fetch]]")
    retry.add_argument("uid", nargs="?", metavar="UID", help="as in 'fetch status'")
    retry.add_argument("--json", action="store_true", help="print as JSON")


# --- status ---


def _status(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        accounts = services.settings.fetch

        def read(rows: UnitOfWork) -> list[tuple[FetchStatus, list[FetchItem]]]:
            names = [account.name for account in accounts]
            return [(rows.fetching.status(name), rows.fetching.troubled(name)) for name in names]

        found = await services.store.read(read)
        rows = [
            (account, status, items, shown_state(account, status))
            for account, (status, items) in zip(accounts, found, strict=True)
        ]
        if args.json:
            print_json([_document(*row) for row in rows])
        elif not rows:
            out("no upstream mailbox is set up; docs/fetch.md tells how")
        else:
            _print_status(rows)
        return FINDINGS if any(_waits(account, status) for account, status, _, _ in rows) else OK

    return with_services(args, work)


def shown_state(account: FetchSettings, status: FetchStatus) -> str:
    """The state as people see it: what the settings and the lease say comes before what the row says."""
    if not account.enabled:
        return DISABLED
    return status.state.value if status.owned else STOPPED


def _waits(account: FetchSettings, status: FetchStatus) -> bool:
    return account.enabled and bool(status.error or status.aside)


def _document(account: FetchSettings, status: FetchStatus, items: Sequence[FetchItem], state: str) -> dict[str, Any]:
    return {
        "account": account.name,
        "protocol": account.protocol,
        "host": account.host,
        "mailbox": account.mailbox,
        "state": state,
        "last_state": status.state,
        "last_attempt": status.last_attempt,
        "last_success": status.last_success,
        "error": status.error,
        "next_attempt": status.next_attempt,
        "waiting": status.waiting,
        "taken": status.taken,
        "set_aside": [
            {"uid": i.uid, "reason": i.trouble, "attempts": i.attempts, "size_bytes": i.size_bytes, "at": i.at}
            for i in items
            if i.state is ItemState.ASIDE
        ],
    }


def _print_status(rows: Sequence[tuple[FetchSettings, FetchStatus, list[FetchItem], str]]) -> None:
    headings = ("ACCOUNT", "STATE", "LAST SUCCESS", "NEXT", "WAITING", "TAKEN", "ASIDE")
    print_table(headings, [_row(account, status, state) for account, status, _, state in rows])
    for account, status, items, _ in rows:
        if status.error:
            note(f"{account.name}: {status.error}")
        for item in items:
            if item.state is ItemState.ASIDE:
                note(f"{account.name}: message {item.uid} was set aside: {ASIDE_WORDS[item.trouble]}")


def _row(account: FetchSettings, status: FetchStatus, state: str) -> tuple[str, ...]:
    succeeded = "-" if status.last_success is None else when(status.last_success)
    later = "-" if status.next_attempt is None or state in {DISABLED, STOPPED} else when(status.next_attempt)
    counts = (status.waiting, status.taken, status.aside)
    return (account.name, state, succeeded, later, *map(str, counts))


# --- now ---


@dataclass(slots=True)
class _Request:
    """One account that somebody waits for."""

    account: str
    number: int
    outcome: FetchStatus | None = None
    told: str = ""

    def see(self, status: FetchStatus, *, quiet: bool) -> None:
        """Take note of how the account stands by now."""
        if status.answered >= self.number:
            self.outcome = status
        progress = status.state.value
        if status.state is FetchState.FETCHING:
            progress = f"fetching, {counted(status.waiting, 'message')} to go"
        if progress != self.told and self.outcome is None and not quiet and status.state in _WORKING:
            note(f"{self.account}: {progress}")
        self.told = progress


def _now(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        names = _chosen(services.settings.fetch, args.name)
        await audit(services, "fetch.asked", "", {"accounts": len(names)})
        requests = [
            _Request(name, number)
            for name, number in zip(
                names, await services.store.write(lambda rows: [rows.fetching.ask(name) for name in names]), strict=True
            )
        ]
        try:
            async with asyncio.timeout(args.timeout):
                await _wait(services, requests, quiet=args.json)
        except TimeoutError:
            note(f"no outcome within {args.timeout} s; it goes on if a gateway runs, see: direct-gateway fetch status")
        return _report(requests, as_json=args.json)

    return with_services(args, work)


def _chosen(accounts: Sequence[FetchSettings], names: Sequence[str]) -> list[str]:
    known = {account.name: account for account in accounts}
    for name in names:
        if name not in known:
            raise NotFoundError(f"there is no [[fetch]] {name}; there is: {', '.join(known) or 'none'}")
        if not known[name].enabled:
            raise InputError(f"{name} is not enabled; set enabled = true for it, and start the gateway again")
    chosen = list(dict.fromkeys(names)) or [account.name for account in accounts if account.enabled]
    if not chosen:
        raise NotFoundError("no upstream mailbox is set up and enabled; docs/fetch.md tells how")
    return chosen


async def _wait(services: Services, requests: Sequence[_Request], *, quiet: bool) -> None:
    """Until every request has its outcome; what nobody works on is done here."""
    from gateway.daemon import fetching  # noqa: PLC0415 - see gateway.cli.session
    from gateway.ingress.fetch_advice import statuses  # noqa: PLC0415

    owner = f"{services.settings.store.node[:40]}:command-{os.getpid()}"
    here = fetching(services, lambda: None, owner)
    tasks: dict[str, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as group:
        while open_requests := [request for request in requests if request.outcome is None]:
            wanted = {request.account for request in open_requests}
            found = await statuses(services.store, [a for a in services.settings.fetch if a.name in wanted])
            by_name = {status.account: status for status in found}
            for request in open_requests:
                status = by_name[request.account]
                request.see(status, quiet=quiet)
                if not status.owned and request.outcome is None and request.account not in tasks:
                    tasks[request.account] = group.create_task(here.once([request.account]))
            await asyncio.sleep(POLL_SECONDS)


def _report(requests: Sequence[_Request], *, as_json: bool) -> int:
    failed = False
    documents = []
    for request in requests:
        status = request.outcome
        failed = failed or status is None or bool(status.error)
        error = "no outcome yet" if status is None else status.error
        new = 0 if status is None else status.new
        documents.append({"account": request.account, "new": new, "error": error, "done": status is not None})
        if not as_json and status is not None and status.last_success is not None and not status.error:
            out(f"{request.account}: checked {when(status.last_success)}, {new} new")
        elif not as_json:
            out(f"{request.account}: {new} new; {error}")
    if as_json:
        print_json(documents)
    return FINDINGS if failed else OK


# --- retry ---


def _retry(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        name = args.account
        if name not in {account.name for account in services.settings.fetch}:
            raise NotFoundError(f"there is no [[fetch]] {name}; see: direct-gateway fetch status")
        at, who = services.clock.now(), actor()

        def again(rows: UnitOfWork) -> list[FetchItem]:
            aside = [item for item in rows.fetching.troubled(name, limit=100_000) if item.state is ItemState.ASIDE]
            chosen = [item for item in aside if args.uid in {None, item.uid}]
            if not chosen:
                what = "nothing" if args.uid is None else f"no message {args.uid}"
                raise NotFoundError(f"{what} of {name} is set aside; see: direct-gateway fetch status")
            place = rows.fetching.status(name).place
            here = [item for item in chosen if item.place == place]
            if not here:
                raise ConflictError(
                    "the mailbox was renewed since (its UIDVALIDITY changed): what is still in it was looked at again "
                    "under a new id"
                )
            for item in here:
                rows.fetching.retry(item, at)
                rows.audit.add(at, who, "fetch.retried", name, {"uid": item.uid})
            return here

        items = await services.store.write(again)
        if args.json:
            print_json({"account": name, "uids": [item.uid for item in items]})
        else:
            out(f"{name}: {counted(len(items), 'message')} will be tried again; at once with: fetch now {name}")
        return OK

    return with_services(args, work)
