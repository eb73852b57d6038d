"""``copy-store``: every row of one store into another, for the way from SQLite to PostgreSQL, and back.

What is copied, and what a copy that was killed leaves behind, is in :mod:`gateway.store.copying`. Status 1 when the
copy differs or an audit log does not hold, 2 when one of the two stores is not what it should be, 3 when a database
failed: run it again, and it goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.audit_verify import known_keys, signature_check
from gateway.cli.output import counted, note, out, print_json, print_table
from gateway.cli.progress_pace import ProgressPace
from gateway.cli.session import OK, SubCommands, actor
from gateway.core.errors import ConfigurationError
from gateway.settings import POSTGRESQL_PREFIXES, Settings, StoreSettings, find_config, from_document, load

if TYPE_CHECKING:
    from gateway.store.copying_report import CopyReport

_TERMINAL_SECONDS = 1.0
_FILE_SECONDS = 10.0


def register(commands: SubCommands) -> None:
    """Add the command."""
    parser = commands.add(
        "copy-store",
        "copy everything into another database, verified",
        "Copies every row of one store into another, empty one: from SQLite to PostgreSQL, back, or to another place.\n"
        "Stop every gateway on both first. The source is not changed. Killed at any point, run it again: it goes on.\n"
        "Until everything was read back, compared and proved, no gateway opens the target.\n"
        "No key is needed: nothing is opened. Bodies in a bucket stay where they are.\n"
        "A URL left out is the [store] of the settings. A password never stands in a URL.",
        "copy-store --to postgresql://gateway_writer@db.example/gateway --dry-run\n"
        "copy-store --from sqlite:///data/gateway.db --to postgresql://gateway_writer@db.example/gateway\n"
        "copy-store --from postgresql://gateway_writer@db.example/gateway --to sqlite:////srv/gateway/data/gateway.db",
        run=_run,
    )
    for option, words in (("from", "to copy from"), ("to", "to copy into")):
        parser.add_argument(
            f"--{option}", metavar="URL", dest=f"{option}_url", help=f"the store {words}; a path starts where you are"
        )
        parser.add_argument(f"--{option}-schema", metavar="NAME", help="its schema (PostgreSQL; default: store.schema)")
        parser.add_argument(f"--{option}-password-file", metavar="FILE", type=Path, help="holds its password")
    parser.add_argument(
        "--owner-url", metavar="URL", help="make the tables of --to as this role, as 'store init' does (PostgreSQL)"
    )
    parser.add_argument(
        "--public-key", metavar="FILE", type=Path, action="append", default=[], help="who signed the heads of the log"
    )
    parser.add_argument("--dry-run", action="store_true", help="look at both, say what would be copied, write nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _run(args: argparse.Namespace) -> int:
    settings = _settings(args)
    if args.from_url is None and args.to_url is None:
        raise ConfigurationError("name the store to copy into (--to URL), or the one to copy from (--from URL)")
    from gateway.store.audit_verify import Witnesses  # noqa: PLC0415 - see gateway.cli.session
    from gateway.store.copying import copy_store  # noqa: PLC0415 - the same
    from gateway.store.copying_report import Copying  # noqa: PLC0415 - the same

    wanted = Copying(
        _store(args, settings.store, "from"),
        _store(args, settings.store, "to"),
        Witnesses(signature_check(known_keys(settings, args.public_key))),
        actor(),
        owner_url=args.owner_url,
        progress=_progress(),
    )
    report = copy_store(wanted, dry_run=args.dry_run)
    owned = args.owner_url is not None
    if args.json:
        print_json(_document(report, wanted.target, owned=owned))
    else:
        _print(report, wanted.target, owned=owned)
    return OK


def _settings(args: argparse.Namespace) -> Settings:
    """The settings; when both URLs are given, they may do without any."""
    try:
        return load(find_config(args.config))
    except ConfigurationError:
        if args.config is not None or args.from_url is None or args.to_url is None:
            raise
        return from_document({}, Path.cwd())


def _store(args: argparse.Namespace, configured: StoreSettings, option: str) -> StoreSettings:
    """What ``--from`` or ``--to`` means, with all that the settings say of it."""
    url, schema = getattr(args, f"{option}_url"), getattr(args, f"{option}_schema") or configured.schema
    password: Path | None = getattr(args, f"{option}_password_file")
    if url is None:
        return replace(configured, schema=schema, password_file=password or configured.password_file)
    try:
        given = from_document({"store": {"url": url, "schema": schema}}, Path.cwd()).store
    except ConfigurationError as exc:
        told = str(exc).replace("set store.password_file", f"name it with --{option}-password-file")
        raise ConfigurationError(told.replace("store.url", f"--{option}").replace("store.", "")) from exc
    if password is None and given.url == configured.url:
        password = configured.password_file
    return replace(configured, url=given.url, schema=schema, password_file=password)


# --- telling ---


def _progress() -> Callable[[str, str, int, int], None]:
    """Tells how far it is, now and then; for a program that reads standard error, a line for each part as well."""
    pace = ProgressPace(terminal_seconds=_TERMINAL_SECONDS, file_seconds=_FILE_SECONDS)

    def tell(what: str, table: str, done: int, total: int) -> None:
        seconds = pace.seconds_if_due(what, done, total)
        if seconds is None:
            return
        rate = done / max(seconds, 0.001)
        left = f", {rate:.0f} a second, {(total - done) / rate:.0f} s to go" if seconds > 1 and rate else ""
        note(f"{what}: {done} of {total} ({table}){left}")

    return tell


def _print(report: CopyReport, target: StoreSettings, *, owned: bool) -> None:
    out(f"from: {report.source}")
    out(f"to:   {report.target}")
    if report.state == "already complete":
        out("this copy is complete already: nothing was done")
    else:
        would = report.state == "dry run"
        shown = [table for table in report.tables if table.rows]
        if would:
            if report.lacks_tables:
                out("the target has no tables yet: they would be made")
            print_table(("TABLE", "ROWS"), [(t.name, str(t.rows)) for t in shown])
            out(f"{counted(report.rows, 'row')} would be copied; nothing was written")
        else:
            headings = ("TABLE", "ROWS", "ADDED NOW", "SHA-256 OF BOTH")
            print_table(
                headings, [(t.name, str(t.rows), str(t.added), t.sha256) for t in shown], whole_last=True, max_chars=70
            )
            out(
                f"{counted(report.rows, 'row')} copied and compared; the audit log of the copy holds "
                f"({counted(report.log.events, 'event')}, {counted(report.log.heads, 'signed head')})"
            )
        if report.bodies_in_bucket:
            out(f"{counted(report.bodies_in_bucket, 'body', 'bodies')} stay in the bucket: keep [s3] as it is")
    for number, text in enumerate(_next(report, target, owned=owned), 1):
        out(f"{number}. {text}")


def _next(report: CopyReport, target: StoreSettings, *, owned: bool) -> list[str]:
    """What to do after it. ``owned``: another role makes the tables."""
    if report.state == "dry run":
        run = "stop every gateway on both, and run it without --dry-run"
        if report.lacks_tables and not owned and target.url.startswith(POSTGRESQL_PREFIXES):
            run += "; with --owner-url URL, unless the role of --to may make the tables and shall own them"
        return [run]
    steps = []
    if target.url.startswith(POSTGRESQL_PREFIXES):
        # A URL of libpq may hold more than one wants to see on a screen.
        steps.append(
            f'set in [store] of the settings: url (that of --to), schema = "{target.schema}", and password_file when '
            f"the role has a password"
        )
    else:
        steps.append(f'set in [store] of the settings: url = "{target.url}"')
    steps += [
        "leave key_file, [s3] and [trust] as they are: the copy rests on the same keys",
        "start the gateway, and look: direct-gateway audit verify; direct-gateway health",
        "never start a gateway on the old store again: mail would be in the one or the other; put it away as a backup",
    ]
    return steps


def _document(report: CopyReport, target: StoreSettings, *, owned: bool) -> dict[str, Any]:
    return {
        "state": report.state,
        "from": report.source,
        "to": report.target,
        "resumed": report.resumed,
        "rows": report.rows,
        "tables": [{"table": t.name, "rows": t.rows, "added": t.added, "sha256": t.sha256} for t in report.tables],
        "bodies_in_bucket": report.bodies_in_bucket,
        "audit": {"holds": True, "events": report.log.events, "rows": report.log.rows, "heads": report.log.heads}
        if report.log.events or report.state != "already complete"
        else None,
        "next": _next(report, target, owned=owned),
    }
