"""What every command shares: the configuration, the open services, the name of the person who asks.

A command is an argparse sub-parser with ``run`` set to a function ``(args) -> exit status``. The heavy rooms are
imported inside functions, so that ``--help`` and ``message verify`` never wait for the database.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from gateway.core.errors import ConfigurationError
from gateway.settings import Settings, find_config, load

if TYPE_CHECKING:
    from gateway.services import Services

OK = 0
FINDINGS = 1
MISUSE = 2
FAULT = 3

EXIT_STATUS_HELP = """\
exit status: 0 done; 1 done, with something to look at (refused, not found, a contradiction);
2 wrong use or wrong configuration; 3 a fault while running."""

EXIT_TEMPORARY_HELP = "75 (serve): the disk failed, or the database or the bucket does not answer: start it again."


class SubCommands:
    """Adds commands to a parser in one shape: summary, description, examples, the options that all share."""

    def __init__(self, parser: argparse.ArgumentParser, shared: argparse.ArgumentParser, metavar: str) -> None:
        self._shared = shared
        self._actions = parser.add_subparsers(title="commands", metavar=metavar, dest=argparse.SUPPRESS, required=True)

    def add(
        self,
        name: str,
        summary: str,
        description: str = "",
        examples: str = "",
        run: Callable[[argparse.Namespace], int] | None = None,
        *,
        temporary: bool = False,
    ) -> argparse.ArgumentParser:
        """Add a command and return its parser. ``examples`` are command lines without the program's name.

        ``temporary``: it may end with status 75, for a supervisor that starts it again.
        """
        shown = "\n".join(f"  direct-gateway {line}" for line in examples.strip().splitlines())
        epilog = (f"examples:\n{shown}\n\n" if shown else "") + EXIT_STATUS_HELP
        epilog += f"\n{EXIT_TEMPORARY_HELP}" if temporary else ""
        parser: argparse.ArgumentParser = self._actions.add_parser(
            name,
            help=summary,
            description=description or summary[:1].upper() + summary[1:] + ".",
            epilog=epilog,
            parents=[self._shared],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if run is not None:
            parser.set_defaults(run=run)
        return parser

    def group(self, name: str, summary: str) -> SubCommands:
        """Add a command that has commands of its own (``message list``)."""
        parser = self.add(name, summary)
        return SubCommands(parser, self._shared, "ACTION")


def settings_of(args: argparse.Namespace) -> Settings:
    """Read the configuration that the command line, the environment or the current folder names.

    Raises:
        ConfigurationError: there is none, or it is wrong.
    """
    return load(find_config(args.config))


def with_services(args: argparse.Namespace, work: Callable[[Services], Awaitable[int]]) -> int:
    """Open the store of the configured gateway without any port, and run the command in it.

    Raises:
        ConfigurationError: there is no database yet. A command must not make an empty one where a path is wrong.
    """
    settings = settings_of(args)
    from gateway.store.opening import missing_tables  # noqa: PLC0415 - see the module's docstring

    if missing := missing_tables(settings.store):
        from gateway.store.made_anew import missing_database  # noqa: PLC0415 - see the module's docstring

        raise ConfigurationError(f"store.url: {missing_database(settings) or missing}")

    async def go() -> int:
        from gateway.services import open_services  # noqa: PLC0415 - see the module's docstring

        async with open_services(settings) as services:
            return await work(services)

    return asyncio.run(go())


def actor() -> str:
    """Name of the operating system's user, for the audit log.

    The system is asked who runs the process: what the environment says of it, anybody can set.
    """
    number = os.getuid()
    try:
        return f"cli:{pwd.getpwuid(number).pw_name}"
    except KeyError:
        # A container may run as a user that has no name in it.
        return f"cli:uid {number}"


async def audit(services: Services, action: str, subject: str, detail: dict[str, Any] | None = None) -> None:
    """Append an audit row. ``detail`` holds ids and counts only.

    Commands call it before they print: who cannot be recorded is not shown anything.
    """
    at, who = services.clock.now(), actor()
    await services.store.write(lambda tx: tx.audit.add(at, who, action, subject, detail), urgent=True)
