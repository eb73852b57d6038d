"""``store init``: make the tables of a PostgreSQL store as their owner, and give the gateway's role its rights.

Crash story: everything of one step is one transaction; killed at any point, the command may run again.
"""

from __future__ import annotations

import argparse

from gateway.cli import commands_orphans, commands_upgrade
from gateway.cli.output import out, print_json
from gateway.cli.session import OK, SubCommands, settings_of


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("store", "set up a PostgreSQL database; upgrade; look after the bucket of bodies")
    init = group.add(
        "init",
        "make the tables in a PostgreSQL database",
        "Makes the schema, the tables and the guards of the append-only ones, or what is missing of them.\n"
        "With --owner-url the tables belong to that role, and the role of store.url gets the rights that the\n"
        "gateway needs and no more: use it for real mail. May run again at any time. A password comes from\n"
        "PGPASSFILE or PGPASSWORD, never from the URL.",
        "store init --owner-url postgresql://gateway_owner@db.example/gateway\nstore init",
        run=_init,
    )
    init.add_argument("--owner-url", metavar="URL", help="the same database, as the role that shall own the tables")
    init.add_argument("--json", action="store_true", help="print the result as JSON")
    commands_upgrade.add_to(group)
    commands_orphans.add_to(group)


def _init(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    from gateway.store.opening import init_store  # noqa: PLC0415 - the other commands do not wait for the database

    done = init_store(settings.store, args.owner_url)
    if args.json:
        print_json({"schema": settings.store.schema, "done": done})
        return OK
    for text in done:
        out(text)
    return OK
