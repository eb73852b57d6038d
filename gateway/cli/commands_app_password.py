"""``user app-password add``, ``list`` and ``revoke``: a secret of its own for each mail client of a login."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from gateway.cli.commands_user_state import administration, ended
from gateway.cli.output import note, out, print_json, print_table, when
from gateway.cli.session import OK, SubCommands, with_services

if TYPE_CHECKING:
    from gateway.services import Services


def register(user: SubCommands) -> None:
    """Add the commands to ``user``."""
    group = user.group("app-password", "passwords of a login for single mail clients")
    add = group.add(
        "add",
        "make a password for one mail client",
        "It is printed once, and works beside the login's own password. Name it after where it is used, so that it\n"
        "can be taken back alone when that device is lost.",
        'user app-password add dr.lee --name "Outlook in room 2"',
        run=_add,
    )
    add.add_argument("login", metavar="LOGIN")
    add.add_argument("--name", required=True, metavar="TEXT", help="where it is used")
    add.add_argument("--json", action="store_true", help="print as JSON")
    listing = group.add(
        "list",
        "show the app passwords of a login",
        "With when each was last used, to the hour. The passwords themselves are kept nowhere.",
        "user app-password list dr.lee",
        run=_list,
    )
    listing.add_argument("login", metavar="LOGIN")
    listing.add_argument("--json", action="store_true", help="print as JSON")
    revoke = group.add(
        "revoke",
        "take an app password back",
        "It opens nothing any more, and the sessions that began with it end within seconds, on every node.",
        'user app-password revoke dr.lee 2\nuser app-password revoke dr.lee "Outlook in room 2"',
        run=_revoke,
    )
    revoke.add_argument("login", metavar="LOGIN")
    revoke.add_argument("which", metavar="ID", help="its number or its name, as in 'user app-password list'")
    revoke.add_argument("--json", action="store_true", help="print as JSON")


def _add(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        number, secret = await administration(services).add_app_password(args.login, args.name)
        if args.json:
            print_json({"user": args.login, "id": number, "name": args.name, "password": secret})
        else:
            out(f"app password {number} of {args.login}: {secret}")
            note("note: it is kept nowhere in clear text; type it into the mail client now")
        return OK

    return with_services(args, work)


def _list(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        login, found = await administration(services).app_passwords(args.login)
        if args.json:
            print_json(
                [{"id": one.number, "name": one.name, "made_at": one.made_at, "used_at": one.used_at} for one in found]
            )
        elif not found:
            out(f"{login} has no app password")
        else:
            rows = [
                (str(one.number), one.name, when(one.made_at), "-" if one.used_at is None else when(one.used_at))
                for one in found
            ]
            print_table(("ID", "NAME", "MADE", "LAST USED"), rows)
        return OK

    return with_services(args, work)


def _revoke(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        one, count = await administration(services).revoke_app_password(args.login, args.which)
        if args.json:
            print_json({"user": args.login, "id": one.number, "name": one.name, "sessions_ended": count})
        else:
            out(f"app password {one.number} ({one.name}) of {args.login} was taken back{ended(count)}")
        return OK

    return with_services(args, work)
