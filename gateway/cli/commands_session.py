"""``session list`` and ``session end``: the mail clients that are logged in now, on every node.

A session of a node that does not run is shown as such: its daemon was killed, or cannot be heard of. The rows of a
daemon that was killed go away when it starts again, or some time after somebody asked to end them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gateway.cli.commands_user_state import ENDING, administration
from gateway.cli.output import counted, note, out, print_json, print_table, when
from gateway.cli.session import OK, SubCommands, with_services
from gateway.core.errors import InputError

if TYPE_CHECKING:
    from gateway.ports import ClientSession
    from gateway.services import Services

GONE = "node not heard of"


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("session", "see and end the sessions of mail clients")
    listing = group.add(
        "list",
        "show who is logged in",
        "Every mail client that is logged in at this moment, on every node.",
        "session list\nsession list --json",
        run=_list,
    )
    listing.add_argument("--user", metavar="LOGIN", help="of this login only")
    listing.add_argument("--json", action="store_true", help="print as JSON")
    end = group.add(
        "end",
        "end sessions",
        "The mail client is disconnected within seconds, whatever it is doing. It may log in again: to keep it out,\n"
        "see 'user disable' and 'user app-password revoke'.",
        'session end 9f3a6c1e0b52\nsession end --user dr.lee --reason "lost telephone"',
        run=_end,
    )
    end.add_argument("id", nargs="*", metavar="ID", help="as in 'session list'")
    end.add_argument("--user", metavar="LOGIN", help="every session of this login")
    end.add_argument("--reason", default="", metavar="TEXT", help="why; kept in the audit log, so no clinical detail")
    end.add_argument("--json", action="store_true", help="print as JSON")


def _list(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        wanted = None if args.user is None else args.user.casefold()
        found = [one for one in await administration(services).sessions() if wanted in {None, one.login.casefold()}]
        states = _states(services, found)
        if args.json:
            print_json([_document(one, states[one.id]) for one in found])
        elif not found:
            out("nobody is logged in")
        else:
            headings = ("ID", "LOGIN", "PROTOCOL", "PEER", "BY", "SINCE", "NODE", "STATE")
            print_table(headings, [_row(one, states[one.id]) for one in found])
        return OK

    return with_services(args, work)


def _states(services: Services, sessions: Sequence[ClientSession]) -> dict[str, str]:
    """By id: ``open``, ``ending``, or that its node does not run."""
    running = services.store.gateways() if sessions else []

    def state(one: ClientSession) -> str:
        # A database that is a file has one daemon, whatever its name is.
        if one.node not in running and (services.store.shared or not running):
            return GONE
        return "open" if one.ended_at is None else "ending"

    return {one.id: state(one) for one in sessions}


def _row(one: ClientSession, state: str) -> tuple[str, ...]:
    by = f"{one.method} {one.app_password}" if one.app_password else one.method
    return (one.id, one.login, one.protocol, one.peer, by, when(one.since), one.node, state)


def _document(one: ClientSession, state: str) -> dict[str, Any]:
    return {
        "id": one.id,
        "user": one.login,
        "protocol": one.protocol,
        "peer": one.peer,
        "method": one.method,
        "app_password": one.app_password or None,
        "since": one.since,
        "node": one.node,
        "state": state,
        "end_asked_at": one.ended_at,
        "end_asked_by": one.ended_by,
    }


def _end(args: argparse.Namespace) -> int:
    if bool(args.id) == (args.user is not None):
        raise InputError("name the sessions, or a login with --user; see: direct-gateway session list")

    async def work(services: Services) -> int:
        chosen = await administration(services).end_sessions(ids=args.id, login=args.user, reason=args.reason)
        states = _states(services, chosen)
        if args.json:
            print_json([{"id": one.id, "user": one.login, "node": one.node} for one in chosen])
            return OK
        out(f"{counted(len(chosen), 'session')}: {ENDING}")
        for one in chosen:
            if states[one.id] == GONE:
                note(f"{one.id}: node {one.node} does not run; if it does and cannot be heard of, it ends it later")
        return OK

    return with_services(args, work)
