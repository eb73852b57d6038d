"""``user add`` and ``user password``: who may log in to the inbox.

A password is generated and shown once, or read from a file or standard input; it is never taken from the command
line, where every user of the machine could read it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli import commands_app_password, commands_user_folders, commands_user_state
from gateway.cli.output import counted, note, out, print_json
from gateway.cli.right_sets import DEFAULT_RIGHTS, parse_rights
from gateway.cli.session import OK, SubCommands, actor, with_services
from gateway.core.errors import InputError

if TYPE_CHECKING:
    from gateway.services import Services

MIN_PASSWORD_CHARS = 12
MAX_PASSWORD_CHARS = 256


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("user", "logins of mail clients: add, change, disable")
    add = group.add(
        "add",
        "add a login that sees certain addresses, or the practice's INBOX",
        "The login's INBOX holds what is delivered to the addresses that you name, mail of before included; or it is\n"
        "the practice's own, shared with the others. With it comes the Sent of that INBOX: who works with one INBOX\n"
        "sees what was sent from there. A password is generated and printed once, unless you give one.",
        "user add dr.lee --inbox dr.lee@direct.example.org\n"
        "user add lab --inbox lab front-desk --password-file lab.txt\n"
        "user add temp --share-inbox --rights reader",
        run=_add,
    )
    add.add_argument("login", metavar="LOGIN")
    shown = add.add_mutually_exclusive_group(required=True)
    shown.add_argument(
        "--inbox",
        metavar="ADDRESS",
        nargs="+",
        action="extend",
        help="addresses of this practice; without @ in its first domain",
    )
    shown.add_argument("--share-inbox", action="store_true", help="the practice's own INBOX, which others see as well")
    commands_user_folders.add_rights_option(add)
    _password_options(add)
    change = group.add(
        "password",
        "give a login another password",
        "The old password stops working at once, and the sessions of the login end within seconds, on every node.\n"
        "App passwords stay: see 'user app-password revoke'.",
        "user password dr.lee\nuser password dr.lee --password-file new.txt",
        run=_password,
    )
    change.add_argument("login", metavar="LOGIN")
    change.add_argument("--keep-sessions", action="store_true", help="do not end the sessions that are open")
    _password_options(change)
    commands_user_folders.register(group)
    commands_user_state.register(group)
    commands_app_password.register(group)


def _password_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--password-file", metavar="FILE", help="read the password from the first line of FILE; '-' = standard input"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def read_password(args: argparse.Namespace) -> tuple[str, bool]:
    """Return (password, whether it was generated).

    Raises:
        InputError: the file cannot be read, or the password is too short, too long or holds control characters.
    """
    if args.password_file is None:
        from gateway.accounts.passwords import generate_password  # noqa: PLC0415 - only here

        return generate_password(), True
    try:
        if args.password_file == "-":  # noqa: S105 - the name of a file
            text = sys.stdin.readline()
        else:
            with Path(args.password_file).open(encoding="utf-8") as file:
                text = file.readline()
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"cannot read the password from {args.password_file}: {type(exc).__name__}") from exc
    password = text.rstrip("\r\n")
    if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS or not password.isprintable():
        raise InputError(f"the password must have {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} printable characters")
    return password, False


def _add(args: argparse.Namespace) -> int:
    if args.rights is not None and not args.share_inbox:
        raise InputError(
            "--rights goes with --share-inbox; a login has all rights on an INBOX of its own; other folders: user grant"
        )
    rights = parse_rights(args.rights or DEFAULT_RIGHTS)
    password, generated = read_password(args)
    if args.share_inbox:
        return _add_shared(args, rights, password, generated=generated)

    async def work(services: Services) -> int:
        from gateway.cli.logins import add_login  # noqa: PLC0415 - see gateway.cli.session

        domains = services.settings.practice.domains
        if any("@" not in address for address in args.inbox) and not domains:
            raise InputError("practice.domains is empty: write whole addresses")
        addresses = [address if "@" in address else f"{address}@{domains[0]}" for address in args.inbox]
        count = await add_login(services, args.login, password, addresses, actor())
        if args.json:
            document = {"user": args.login, "inbox": addresses, "messages": count}
            print_json(document | ({"password": password} if generated else {}))
            return OK
        out(f"added {args.login}; its INBOX receives {', '.join(addresses)} and holds {counted(count, 'message')} now")
        _show_password(password, generated)
        return OK

    return with_services(args, work)


def _add_shared(args: argparse.Namespace, rights: str, password: str, *, generated: bool) -> int:
    async def work(services: Services) -> int:
        from gateway.cli.logins import add_shared_login  # noqa: PLC0415 - see gateway.cli.session

        count = await add_shared_login(services, args.login, password, rights, actor())
        if args.json:
            document = {"user": args.login, "inbox": "INBOX", "rights": rights, "messages": count}
            print_json(document | ({"password": password} if generated else {}))
            return OK
        out(
            f"added {args.login}; its INBOX is the practice's, with the rights {rights}, "
            f"and holds {counted(count, 'message')} now"
        )
        _show_password(password, generated)
        return OK

    return with_services(args, work)


def _show_password(password: str, generated: bool) -> None:
    if generated:
        out(f"password: {password}")
        note("note: it is kept nowhere in clear text; write it down now")


def _password(args: argparse.Namespace) -> int:
    password, generated = read_password(args)

    async def work(services: Services) -> int:
        count = await services.accounts.set_password(
            args.login, password, actor=actor(), end_sessions=not args.keep_sessions
        )
        if args.json:
            document = {"user": args.login, "sessions_ended": count}
            print_json(document | ({"password": password} if generated else {}))
            return OK
        out(f"the password of {args.login} was changed{commands_user_state.ended(count)}")
        _show_password(password, generated)
        return OK

    return with_services(args, work)
