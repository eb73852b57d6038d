"""``pop3 restore``: what a login's POP3 clients deleted is in their listing again."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from gateway.cli.output import counted, note, out, print_json
from gateway.cli.session import OK, SubCommands, actor, with_services

if TYPE_CHECKING:
    from gateway.services import Services


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("pop3", "what logins see over POP3")
    restore = group.add(
        "restore",
        "show a login everything over POP3 again",
        "A message that a POP3 client deletes leaves the listing of that login, and nothing else. This puts\n"
        "everything into it again. Running sessions go on with what they saw when they logged in.",
        "pop3 restore lab",
        run=_restore,
    )
    restore.add_argument("login", metavar="LOGIN")
    restore.add_argument("--json", action="store_true", help="print as JSON")


def _restore(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        from gateway.inbox.maildrops import restore_listing  # noqa: PLC0415 - see gateway.cli.session

        count = await restore_listing(services.store, services.clock, args.login, actor())
        if args.json:
            print_json({"user": args.login, "messages": count})
            return OK
        if not count:
            out(f"nothing was hidden from {args.login}")
            return OK
        out(f"{counted(count, 'message')} will be listed to {args.login} over POP3 again")
        note("note: a client that leaves mail on the server knows it already; one that deletes fetches it again")
        return OK

    return with_services(args, work)
