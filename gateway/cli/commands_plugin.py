"""``plugin list`` and ``plugin test``: what Python packages bring to the import hook, and if it keeps the contract."""

from __future__ import annotations

import argparse
import asyncio
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.cli.output import clean, out, print_json, print_table
from gateway.cli.session import FINDINGS, OK, SubCommands
from gateway.core.errors import InputError


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("plugin", "see and test what Python packages bring to the import hook")
    listing = group.add(
        "list",
        "list the plug-ins that are installed",
        "Entry points of the group direct_gateway.importer. Nothing of them is run.",
        "plugin list\nplugin list --json",
        run=_list,
    )
    listing.add_argument("--json", action="store_true", help="print as JSON")
    test = group.add(
        "test",
        "try whether a plug-in keeps the contract of an importer",
        "It is loaded as the gateway loads it, in a process of its own, and is given made-up messages and patients:\n"
        "point its options at a test system. Status 1 when it breaks the contract. docs/import-hook.md tells more.",
        "plugin test ehr --options test.toml\nplugin test ehr --json",
        run=_test,
    )
    test.add_argument("name", metavar="NAME", help="as in 'plugin list'")
    test.add_argument("--options", type=Path, metavar="FILE", help="TOML that is given to it, as options_file is")
    test.add_argument("--json", action="store_true", help="print as JSON")


def _list(args: argparse.Namespace) -> int:
    from gateway.importers.plugin_loading import installed  # noqa: PLC0415 - see gateway.cli.session

    found = installed()
    if args.json:
        print_json([asdict(one) for one in found])
    elif found:
        headings = ("NAME", "PACKAGE", "VERSION", "FROM")
        print_table(headings, [(one.name, one.distribution, one.version, one.value) for one in found])
    else:
        out("no plug-in is installed; docs/import-hook.md tells how one is made")
    return OK


def _test(args: argparse.Namespace) -> int:
    from gateway.importers.conformance import run_for_plugin  # noqa: PLC0415 - see gateway.cli.session
    from gateway.importers.plugin_loading import find  # noqa: PLC0415 - the same

    if args.options is not None:
        _check_options(args.options)
    find(args.name)
    results = asyncio.run(run_for_plugin(args.name, args.options))
    broken = [one for one in results if one.problem]
    if args.json:
        documents: list[dict[str, Any]] = [asdict(one) for one in results]
        print_json({"plugin": args.name, "conforms": not broken, "checks": documents})
    else:
        for one in results:
            out(clean(f"{'FAIL' if one.problem else 'ok  '}  {one.name}: {one.problem or one.summary}"))
        out(f"{args.name} {'breaks the contract' if broken else 'keeps the contract'}")
    return FINDINGS if broken else OK


def _check_options(path: Path) -> None:
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise InputError(f"{path}: {exc.strerror or 'it cannot be read'}") from None
    except ValueError as exc:
        raise InputError(f"{path} is not valid TOML: {exc}") from None
