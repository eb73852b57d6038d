"""``user list``, ``user disable``, ``user enable``: who may log in, and who may not for now."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gateway.cli.output import counted, note, out, print_json, print_table, when
from gateway.cli.session import OK, SubCommands, actor, with_services

if TYPE_CHECKING:
    from gateway.accounts.administration import Administration
    from gateway.ports import AccountOverview
    from gateway.services import Services

ENDING = "they end within seconds"


def register(group: SubCommands) -> None:
    """Add the commands to ``user``."""
    listing = group.add(
        "list",
        "show the logins",
        "Logins with their folders, app passwords, sessions and the last login, to the hour.",
        "user list\nuser list --json",
        run=_list,
    )
    listing.add_argument("--json", action="store_true", help="print as JSON")
    disable = group.add(
        "disable",
        "let a login in by no means any more",
        "No password, app password or token of it opens anything, and its sessions end within seconds, on every\n"
        "node. What it has (folders, passwords) is kept for 'user enable'.",
        'user disable dr.lee --reason "left the practice"',
        run=_disable,
    )
    disable.add_argument("login", metavar="LOGIN")
    disable.add_argument(
        "--reason", required=True, metavar="TEXT", help="why; kept in the audit log, so no clinical detail"
    )
    disable.add_argument("--json", action="store_true", help="print as JSON")
    enable = group.add(
        "enable",
        "let a login in again",
        "Its password and app passwords are those of before.",
        "user enable dr.lee",
        run=_enable,
    )
    enable.add_argument("login", metavar="LOGIN")
    enable.add_argument("--json", action="store_true", help="print as JSON")


def administration(services: Services) -> Administration:
    """What an operator does to accounts, in the name of whoever runs the command."""
    from gateway.accounts.administration import Administration  # noqa: PLC0415 - see gateway.cli.session

    return Administration(services.store, services.clock, actor())


def ended(count: int) -> str:
    """A sentence of how many sessions end."""
    return f"; {counted(count, 'session')} of it: {ENDING}" if count else ""


def _list(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        found = await administration(services).overview()
        if args.json:
            print_json([_document(one) for one in found])
        elif not found:
            out("there is no login; add one with: direct-gateway user add LOGIN --inbox ADDRESS")
        else:
            headings = ("LOGIN", "STATE", "LAST LOGIN", "SESSIONS", "APP PASSWORDS", "FOLDERS")
            print_table(headings, [_row(one) for one in found], fit=True)
            for one in found:
                if not one.credentials.enabled and one.disabled_at is not None:
                    since = when(one.disabled_at)
                    note(f"{one.credentials.account.login}: disabled since {since}: {one.disabled_reason}")
        return OK

    return with_services(args, work)


def _row(one: AccountOverview) -> tuple[str, ...]:
    known = one.credentials
    last = "-" if known.last_login is None else when(known.last_login)
    state = "enabled" if known.enabled else "disabled"
    folders = ", ".join(folder.name for folder in one.folders) or "-"
    return (known.account.login, state, last, str(one.sessions), str(len(known.app_passwords)), folders)


def _document(one: AccountOverview) -> dict[str, Any]:
    known = one.credentials
    return {
        "user": known.account.login,
        "enabled": known.enabled,
        "disabled_at": one.disabled_at,
        "disabled_reason": one.disabled_reason,
        "folders": [{"name": folder.name, "rights": folder.rights} for folder in one.folders],
        "app_passwords": [
            {"id": app.number, "name": app.name, "made_at": app.made_at, "used_at": app.used_at}
            for app in known.app_passwords
        ],
        "last_login": known.last_login,
        "sessions": one.sessions,
    }


def _disable(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        count = await administration(services).disable(args.login, args.reason)
        if args.json:
            print_json({"user": args.login, "enabled": False, "sessions_ended": count})
        else:
            out(f"{args.login} is disabled{ended(count)}")
        return OK

    return with_services(args, work)


def _enable(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        await administration(services).enable(args.login)
        if args.json:
            print_json({"user": args.login, "enabled": True})
        else:
            out(f"{args.login} may log in again")
        return OK

    return with_services(args, work)
