"""``user add`` and ``user password``: who may log in to the inbox.

A password is generated and shown once, or read from a file or standard input; it is never taken from the command
line, where every user of the machine could read it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.output import counted, note, out, print_json
from gateway.cli.session import OK, SubCommands, actor, with_services
from gateway.core.errors import InputError

if TYPE_CHECKING:
    from gateway.daemon import Services

MIN_PASSWORD_CHARS = 12
MAX_PASSWORD_CHARS = 256


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("user", "add logins and change passwords")
    add = group.add(
        "add",
        "add a login that sees certain addresses",
        "The login's INBOX holds what is delivered to the addresses that you name, mail of before included.\n"
        "A password is generated and printed once, unless you give one.",
        "user add dr.lee --inbox dr.lee@direct.example.org\n"
        "user add lab --inbox lab front-desk --password-file lab.txt",
        run=_add,
    )
    add.add_argument("login", metavar="LOGIN")
    add.add_argument(
        "--inbox",
        metavar="ADDRESS",
        nargs="+",
        action="extend",
        required=True,
        help="addresses of this practice; without @ in its first domain",
    )
    _password_options(add)
    change = group.add(
        "password",
        "give a login another password",
        "The old password stops working at once for new logins.",
        "user password dr.lee\nuser password dr.lee --password-file new.txt",
        run=_password,
    )
    change.add_argument("login", metavar="LOGIN")
    _password_options(change)


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
    password, generated = read_password(args)

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


def _show_password(password: str, generated: bool) -> None:
    if generated:
        out(f"password: {password}")
        note("note: it is kept nowhere in clear text; write it down now")


def _password(args: argparse.Namespace) -> int:
    password, generated = read_password(args)

    async def work(services: Services) -> int:
        await services.accounts.set_password(args.login, password)
        if args.json:
            print_json({"user": args.login} | ({"password": password} if generated else {}))
            return OK
        out(f"the password of {args.login} was changed")
        _show_password(password, generated)
        return OK

    return with_services(args, work)
