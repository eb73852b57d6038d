"""``user grant``, ``user revoke`` and ``user folders``: who may read which folder, and do what in it.

Each change is in the audit log with it, and holds for sessions that are open now at their next command.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gateway.cli.output import note, out, print_json, print_table
from gateway.cli.right_sets import DEFAULT_RIGHTS, NAMED_RIGHTS, QUARANTINE_FOLDER, parse_rights
from gateway.cli.session import OK, SubCommands, actor, audit, with_services
from gateway.core.errors import InputError
from gateway.inbox.sent_folders import SENT_FOLDER

if TYPE_CHECKING:
    from gateway.ports import Folder, UnitOfWork
    from gateway.services import Services

RIGHTS_HELP = (
    ", ".join(f"{name} = {letters}" for name, letters in NAMED_RIGHTS.items())
    + "; or letters of: l see it, r read, s keep read and unread, w set flags and keywords, i put copies into Sent, "
    "a see who else has rights"
)


def register(group: SubCommands) -> None:
    """Add the commands to the group ``user``."""
    grant = group.add(
        "grant",
        "let a login see a folder, or change what it may do there",
        "FOLDER is the name that the login sees; --of says which mailbox it shows: the practice's shared INBOX, or\n"
        "the mailbox of one of its addresses. FOLDER Sent shows what is sent from there. When it is granted again the\n"
        "new rights take the place of the old ones. It holds at once, for sessions that are open now, too. FOLDER\n"
        "Quarantine (without --of) shows a report about each refused message; it is for operators, and to read only.",
        "user grant dr.lee INBOX --of INBOX --rights reader\n"
        "user grant dr.lee Lab --of lab@direct.example.org --rights clinician\n"
        "user grant dr.lee Sent --of INBOX --rights lrswi\n"
        "user grant it.desk Quarantine",
        run=_grant,
    )
    grant.add_argument("login", metavar="LOGIN")
    grant.add_argument("folder", metavar="FOLDER")
    grant.add_argument("--of", metavar="ADDRESS|INBOX", help="the mailbox that the folder shows")
    grant.add_argument(
        "--sent", action="store_true", help="show what is sent from that mailbox; needed when FOLDER is not Sent"
    )
    add_rights_option(grant)
    grant.add_argument("--json", action="store_true", help="print as JSON")
    revoke = group.add(
        "revoke",
        "take a folder away from a login",
        "The login sees the folder no longer; a session that has it selected can read nothing more of it from its\n"
        "next command on. With the last folder that shows an INBOX goes the Sent that belongs to it. Messages stay.",
        "user revoke dr.lee Lab",
        run=_revoke,
    )
    revoke.add_argument("login", metavar="LOGIN")
    revoke.add_argument("folder", metavar="FOLDER")
    revoke.add_argument("--json", action="store_true", help="print as JSON")
    folders = group.add(
        "folders",
        "show the folders of a login and its rights there",
        "Which mailbox each folder shows, and what the login may do in it.",
        "user folders dr.lee",
        run=_folders,
    )
    folders.add_argument("login", metavar="LOGIN")
    folders.add_argument("--json", action="store_true", help="print as JSON")


def add_rights_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--rights``."""
    parser.add_argument("--rights", metavar="RIGHTS", help=f"{RIGHTS_HELP} (default {DEFAULT_RIGHTS})")


def _grant(args: argparse.Namespace) -> int:
    if args.folder.casefold() == QUARANTINE_FOLDER.casefold():
        return _grant_quarantine(args)
    if args.of is None:
        raise InputError("--of: say which mailbox the folder shows: INBOX, or an address of the practice")
    is_sent = args.sent or args.folder.casefold() == SENT_FOLDER.casefold()
    rights = parse_rights(args.rights, sent=is_sent) if args.rights else parse_rights(DEFAULT_RIGHTS)

    async def work(services: Services) -> int:
        from gateway.cli.folder_rights import GrantRequest, grant_folder  # noqa: PLC0415 - see gateway.cli.session

        wanted = GrantRequest(args.login, args.folder, args.of, rights, args.sent)
        addresses, at, who = services.settings.practice.addresses, services.clock.now(), actor()
        done = await services.store.write(lambda tx: grant_folder(tx, wanted, addresses, who, at))
        if args.json:
            print_json({"user": args.login, "granted": _document(done.changed), "folders": _document(done.folders)})
            return OK
        for folder in done.changed:
            out(f"{args.login} has the rights {folder.rights} on {folder.name} from now on")
        return OK

    return with_services(args, work)


def _grant_quarantine(args: argparse.Namespace) -> int:
    if args.of is not None or args.sent or (args.rights and parse_rights(args.rights) != NAMED_RIGHTS["reader"]):
        raise InputError(f"{QUARANTINE_FOLDER} takes neither --of nor --sent, and no rights but reader (lr)")

    async def work(services: Services) -> int:
        from gateway.cli.folder_rights import grant_quarantine  # noqa: PLC0415 - see gateway.cli.session

        at, who = services.clock.now(), actor()
        done = await services.store.write(lambda tx: grant_quarantine(tx, args.login, who, at))
        if args.json:
            print_json({"user": args.login, "granted": _document(done.changed), "folders": _document(done.folders)})
        else:
            out(f"{args.login} sees the reports about refused messages in {QUARANTINE_FOLDER} from now on")
        return OK

    return with_services(args, work)


def _revoke(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        from gateway.cli.folder_rights import revoke_folder  # noqa: PLC0415 - see gateway.cli.session

        at, who = services.clock.now(), actor()
        done = await services.store.write(lambda tx: revoke_folder(tx, args.login, args.folder, who, at))
        if args.json:
            print_json({"user": args.login, "revoked": _document(done.changed), "folders": _document(done.folders)})
            return OK
        for folder in done.changed:
            out(f"{args.login} does not see {folder.name} any more")
        if not done.folders:
            note(f"note: {args.login} sees no folder now; logging in still works")
        return OK

    return with_services(args, work)


def _folders(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        from gateway.cli.folder_rights import account_of  # noqa: PLC0415 - see gateway.cli.session

        def read(tx: UnitOfWork) -> list[tuple[Folder, str]]:
            account = account_of(tx, args.login)
            return [(one, tx.mailboxes.get(one.mailbox_id).name) for one in tx.accounts.folders(account.id)]

        found = await services.store.read(read)
        await audit(services, "user.folders", args.login, {"shown": len(found)})
        if args.json:
            print_json([{"folder": one.name, "rights": one.rights, "mailbox": name} for one, name in found])
        elif not found:
            out(f"{args.login} sees no folder")
        else:
            print_table(("FOLDER", "RIGHTS", "MAILBOX"), [(one.name, one.rights, name) for one, name in found])
        return OK

    return with_services(args, work)


def _document(folders: Sequence[Folder]) -> list[dict[str, Any]]:
    return [{"folder": one.name, "rights": one.rights} for one in folders]
