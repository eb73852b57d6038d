"""``serve``, ``config check`` and ``config show``.

``config check`` makes no folder and no database and opens no port; a database that is there is asked what ``serve``
would ask it. An error is what would stop ``serve``, or a target of the import hook (status 2); a warning is
what would surprise the operator later (status 0, or 1 with ``--strict``); a note is what cannot be mended here.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
from pathlib import Path
from typing import Any

from gateway.cli.body_key_findings import body_key_findings
from gateway.cli.config_template import sections, toml_value
from gateway.cli.login_findings import login_findings
from gateway.cli.output import note, out, print_json, warn
from gateway.cli.session import FINDINGS, MISUSE, OK, SubCommands, settings_of
from gateway.cli.store_findings import store_findings
from gateway.cli.trust_findings import trust_warnings
from gateway.core.errors import ConfigurationError, GatewayError, StoreError
from gateway.core.fetch_settings import FetchSettings
from gateway.observability.clock import SystemClock
from gateway.ports import UnitOfWork
from gateway.settings import ARRAYS, PracticeSettings, Settings, find_config
from gateway.store.made_anew import leave_note, missing_database


def register(commands: SubCommands) -> None:
    """Add the commands."""
    serving = commands.add(
        "serve",
        "run the gateway until it is told to stop",
        "Open the ports and work until SIGTERM or Ctrl-C. Prints one line with the ports when it is ready;\n"
        "the log goes to standard error. SIGHUP reads keys, anchors and revocation lists again.\n"
        "A wrong configuration ends with status 2 before any mail is taken; a failing disk, or a database or bucket\n"
        "that does not answer at the start, ends with status 75.",
        "serve --config clinic/gateway.toml",
        run=_serve,
        temporary=True,
    )
    serving.add_argument(
        "--imap-test-policy",
        action="store_true",
        help="for tests of the IMAP server alone: mail clients see mailboxes in memory that they can change",
    )
    group = commands.group("config", "check or show the settings")
    check = group.add(
        "check",
        "look for mistakes in the settings, changing nothing",
        examples="config check --config clinic/gateway.toml\nconfig check --strict --json",
        run=_check,
    )
    check.add_argument("--strict", action="store_true", help="a warning counts as a finding (status 1)")
    check.add_argument("--lock", action="store_true", help="prove that the [s3] bucket locks (writes two canaries)")
    check.add_argument("--json", action="store_true", help="print the result as JSON")
    show = group.add(
        "show", "print every setting as it is in force", examples="config show\nconfig show --json", run=_show
    )
    show.add_argument("--json", action="store_true", help="print the settings as JSON")


def _serve(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    from gateway.cli import try_out  # noqa: PLC0415 - the other commands do not wait for the agent and the servers
    from gateway.daemon import EXIT_STORE_DEAD, serve  # noqa: PLC0415

    plan = try_out.planned(settings)
    if plan is not None:
        made = try_out.make(plan)
        note(f"note: made the try-out practice in {plan.directory}; the login is in {made.login_file}")
    errors, warnings = examine(settings)
    # A target that is not fit keeps its links waiting, and no mail: the start goes on.
    for text in [*warnings, *(text for found in _importer_findings(settings) for text in found)]:
        warn(text)
    try:
        if not errors:
            leave_note(settings)
            errors = asyncio.run(_homeless(settings))
        if errors:
            for text in errors:
                note(f"error: {text}")
            return MISUSE
        asyncio.run(serve(settings, ready=lambda text: print(text, flush=True), imap_test_policy=args.imap_test_policy))
    except StoreError as exc:
        note(f"error: {exc}")
        return EXIT_STORE_DEAD
    return OK


async def _homeless(settings: Settings) -> list[str]:
    """Errors for addresses without a mailbox: their mail would be accepted and could not be filed."""
    from gateway.services import open_services  # noqa: PLC0415 - see _serve

    def read(tx: UnitOfWork) -> list[str]:
        return [address for address in settings.practice.addresses if not tx.mailboxes.for_recipient(address)]

    async with open_services(settings) as services:
        homeless = await services.store.read(read)
    if homeless and (told := missing_database(settings)):
        # To tell how to make mailboxes would lead into the wrong database, and away from the right one.
        return [f"store.url: {told}", f"there is no mailbox for {', '.join(homeless)} in it: no mail was taken"]
    return [
        f"practice.addresses: {address} has no mailbox; make one: direct-gateway user add LOGIN --inbox {address}"
        for address in homeless
    ]


def examine(settings: Settings) -> tuple[list[str], list[str]]:
    """Return (errors, warnings) about what the settings point to. Reads, never writes."""
    practice, trust, tls = settings.practice, settings.trust, settings.tls
    errors = [f"practice.{key} is empty: nobody could receive mail here" for key in _empty(practice)]
    errors += [
        f"practice.addresses: {address} is not in practice.domains"
        for address in practice.addresses
        if address.rpartition("@")[2] not in practice.domains
    ]
    errors += _unreadable("tls.certificate_file", tls.certificate_file)
    errors += _unreadable("tls.key_file", tls.key_file)
    errors += _unreadable("trust.identities_dir", trust.identities_dir, folder=True)
    errors += _unreadable("trust.anchors_dir", trust.anchors_dir, folder=True)
    if trust.key_password_file is not None:
        errors += _unreadable("trust.key_password_file", trust.key_password_file)
    for name in ("credentials_file", "ca_file"):
        path = getattr(settings.s3, name)
        errors += _unreadable(f"s3.{name}", path) if path is not None else []
    errors += _port_conflicts(settings)
    warnings = _empty_folders(settings)
    for account in settings.fetch:
        wrong, doubtful = _fetch_files(account)
        errors += wrong
        warnings += doubtful
    if trust.crls_dir is not None and not trust.crls_dir.is_dir():
        warnings.append(f"trust.crls_dir: there is no folder {trust.crls_dir}: no revocation list is known")
    warnings += _exposed_keys(settings)
    if told := missing_database(settings):
        warnings.insert(0, f"store.url: {told}")
    return errors, warnings


def _fetch_files(account: FetchSettings) -> tuple[list[str], list[str]]:
    """(errors, warnings) about the files of an upstream mailbox."""
    where = f"[[fetch]] {account.name}"
    errors: list[str] = []
    warnings: list[str] = []
    if not account.enabled:
        return errors, warnings
    for key in ("ca_file", "password_file"):
        path = getattr(account, key)
        errors += _unreadable(f"{where}: {key}", path) if path is not None else []
    if account.oauth_token_file is not None:
        # Somebody else keeps it fresh, and may be a little later than we are.
        warnings += _unreadable(f"{where}: oauth_token_file", account.oauth_token_file)
    secret = account.secret_file
    if secret.is_file() and secret.stat().st_mode & 0o077:
        warnings.append(f"{where}: {secret} can be read by others; run: chmod 600 {secret}")
    return errors, warnings


def _importer_findings(settings: Settings) -> tuple[list[str], list[str]]:
    """(errors, warnings) about the targets of the import hook."""
    if not settings.importer:
        return [], []
    from gateway.importers.configured import findings  # noqa: PLC0415 - see _serve

    return findings(settings.importer)


def _empty(practice: PracticeSettings) -> list[str]:
    return [key for key in ("domains", "addresses") if not getattr(practice, key)]


def _empty_folders(settings: Settings) -> list[str]:
    """Folders that are there but hold nothing: every message would end in the quarantine."""
    identities, anchors = settings.trust.identities_dir, settings.trust.anchors_dir
    warnings = []
    if identities.is_dir() and not any([*identities.glob("*.cert.pem"), *identities.glob("*.p12")]):
        warnings.append(f"trust.identities_dir: {identities} holds no identity: no message can be decrypted")
    if anchors.is_dir() and not any(path.is_file() for path in anchors.rglob("*")):
        held = _anchors_in_bundles(settings)
        empty = f"trust.anchors_dir: {anchors} holds no anchor"
        if held is None:
            warnings.append(f"{empty}: nobody is trusted but by trust bundles, and the database cannot tell of them")
        elif not held:
            warnings.append(f"{empty}, and no trust bundle is in force: nobody is trusted")
    return warnings


def _anchors_in_bundles(settings: Settings) -> int | None:
    """How many anchors the trust bundles in force hold; None when the database cannot be read."""
    from gateway.store.opening import missing_tables  # noqa: PLC0415 - see _serve

    async def ask() -> int:
        from gateway.services import open_services  # noqa: PLC0415 - see _serve

        async with open_services(settings) as services:
            bundles = await services.store.read(lambda tx: tx.bundles.in_force())
        return sum(len(bundle.anchors) for bundle in bundles)

    try:
        return 0 if missing_tables(settings.store) else asyncio.run(ask())
    except (GatewayError, OSError):
        return None


def _unreadable(key: str, path: Path, *, folder: bool = False) -> list[str]:
    kind = "folder" if folder else "file"
    if not (path.is_dir() if folder else path.is_file()):
        return [f"{key}: there is no {kind} {path}"]
    if not os.access(path, os.R_OK):
        return [f"{key}: {path} cannot be read by this user"]
    return []


def _port_conflicts(settings: Settings) -> list[str]:
    named = {
        "smtp.port": settings.smtp.port,
        "imap.port": settings.imap.port,
        "imap.tls_port": settings.imap.tls_port,
        "pop3.port": settings.pop3.port,
        "pop3.tls_port": settings.pop3.tls_port,
        "http.port": settings.http.port,
        "submission.port": settings.submission.port,
    }
    taken: dict[int, str] = {}
    errors = []
    for key, port in named.items():
        if port and port in taken:
            errors.append(f"{key} and {taken[port]} are both {port}")
        taken.setdefault(port, key)
    return errors


def _exposed_keys(settings: Settings) -> list[str]:
    """Private keys that other users of the machine may read."""
    keys = [settings.tls.key_file, *sorted(settings.trust.identities_dir.glob("*.key.pem"))]
    keys += sorted(settings.trust.identities_dir.glob("*.p12"))
    keys += [settings.s3.credentials_file] if settings.s3.credentials_file is not None else []
    return [
        f"{path} can be read by others; run: chmod 600 {path}"
        for path in keys
        if path.is_file() and path.stat().st_mode & 0o077
    ]


def _examine_contents(settings: Settings) -> tuple[list[str], list[str], list[str]]:
    """(errors, warnings, notes) in keys, anchors, revocation lists and TLS files, read as ``serve`` reads them."""
    from gateway.agents import build_agent, read_crls  # noqa: PLC0415 - see _serve
    from gateway.daemon import tls_context  # noqa: PLC0415 - see _serve

    errors: list[str] = []
    warnings: list[str] = []
    notes: list[str] = []
    try:
        agent = build_agent(settings.trust)
        warnings = trust_warnings(settings, agent, read_crls(settings.trust), SystemClock().now())
        notes = list(agent.keys.notes)
    except ConfigurationError as exc:
        errors.append(str(exc))
    try:
        tls_context(settings)
    except ConfigurationError as exc:
        errors.append(str(exc))
    found, stored, logins = body_key_findings(settings), store_findings(settings), login_findings(settings)
    # A database that does not answer is told once.
    told = [*dict.fromkeys(errors + found[0] + stored[0] + logins[0])]
    return told, warnings + found[1] + stored[1] + logins[1], notes + found[2]


def _lock_errors(settings: Settings) -> list[str]:
    """What keeps mail from being trusted to the bucket; what the start proves as well."""
    from gateway.store.s3_bodies import prove_bucket  # noqa: PLC0415 - see _serve

    if not settings.s3.bucket:
        return ["s3.bucket names no bucket, so there is no lock to prove"]
    try:
        prove_bucket(settings.s3)
    except (ConfigurationError, StoreError) as exc:
        return [str(exc)]
    return []


def _check(args: argparse.Namespace) -> int:
    from gateway.cli import try_out  # noqa: PLC0415 - see _serve

    settings = settings_of(args)
    plan = try_out.planned(settings)
    notes: list[str] = []
    proven = False
    if plan is None:
        errors, warnings = examine(settings)
        unfit, doubtful = _importer_findings(settings)
        if not errors:
            errors, more, notes = _examine_contents(settings)
            # Both find a key that others may read.
            warnings = list(dict.fromkeys([*warnings, *more]))
        if not errors and args.lock:
            errors = _lock_errors(settings)
            proven = not errors
        errors, warnings = errors + unfit, warnings + doubtful
    else:
        errors, warnings = [], [f"the try-out practice {plan.directory} is not made yet; the first serve makes it"]
    for text in notes:
        note(f"note: {text}")
    if args.json:
        lock = {"lock_proven": proven} if args.lock else {}
        print_json({"config": str(find_config(args.config)), "errors": errors, "warnings": warnings, **lock})
    else:
        for text in errors:
            note(f"error: {text}")
        for text in warnings:
            warn(text)
        if proven:
            shortened = settings.s3.allow_retention_shortening
            but = " (a retention may be shortened: s3.allow_retention_shortening)" if shortened else ""
            out(f"s3.bucket: the lock is proven: the bucket kept two canaries from being removed{but}")
        if not errors:
            out(f"{find_config(args.config)}: good" + (", with warnings" if warnings else ""))
    if errors:
        return MISUSE
    return FINDINGS if warnings and args.strict else OK


def _show(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    if args.json:
        document = dataclasses.asdict(settings)
        del document["base_dir"]
        print_json(document)
        return OK
    for number, (section, keys) in enumerate(sections().items()):
        out(("\n" if number else "") + f"[{section}]")
        for key in keys:
            value: Any = getattr(getattr(settings, section), key.name)
            out(f"{key.name} = {toml_value(value)}")
    for name in ARRAYS:
        for table in getattr(settings, name):
            out(f"\n[[{name}]]")
            for key in dataclasses.fields(table):
                out(f"{key.name} = {toml_value(getattr(table, key.name))}")
    return OK
