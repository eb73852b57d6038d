"""``serve``, ``config check`` and ``config show``.

``config check`` touches nothing: it makes no folder, opens no port and no database. An error is what would stop
``serve`` (status 2); a warning is what would surprise the operator later (status 0, or 1 with ``--strict``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.config_template import sections, toml_value
from gateway.cli.output import note, out, print_json, warn
from gateway.cli.session import FINDINGS, MISUSE, OK, SubCommands, settings_of
from gateway.core.errors import ConfigurationError, StoreError
from gateway.ports import UnitOfWork
from gateway.settings import PracticeSettings, Settings, find_config

if TYPE_CHECKING:
    from gateway.sta.anchors import AnchorStore

DEVELOPMENT_SUBJECT = "Development CA of "


def register(commands: SubCommands) -> None:
    """Add the commands."""
    commands.add(
        "serve",
        "run the gateway until it is told to stop",
        "Open the ports and work until SIGTERM or Ctrl-C. Prints one line with the ports when it is ready;\n"
        "the log goes to standard error. SIGHUP reads keys, anchors and revocation lists again.\n"
        "A wrong configuration ends with status 2 before any mail is taken; a failing disk ends with status 75.",
        "serve --config clinic/gateway.toml",
        run=_serve,
    )
    group = commands.group("config", "check or show the settings")
    check = group.add(
        "check",
        "look for mistakes in the settings, touching nothing",
        examples="config check --config clinic/gateway.toml\nconfig check --strict --json",
        run=_check,
    )
    check.add_argument("--strict", action="store_true", help="a warning counts as a finding (status 1)")
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
    for text in warnings:
        warn(text)
    errors = errors or asyncio.run(_homeless(settings))
    if errors:
        for text in errors:
            note(f"error: {text}")
        return MISUSE
    try:
        asyncio.run(serve(settings, ready=lambda text: print(text, flush=True)))
    except StoreError as exc:
        note(f"error: {exc}")
        return EXIT_STORE_DEAD
    return OK


async def _homeless(settings: Settings) -> list[str]:
    """Errors for addresses without a mailbox: their mail would be accepted and could not be filed."""
    from gateway.daemon import open_services  # noqa: PLC0415 - see _serve

    def read(tx: UnitOfWork) -> list[str]:
        return [address for address in settings.practice.addresses if not tx.mailboxes.for_recipient(address)]

    async with open_services(settings) as services:
        homeless = await services.store.read(read)
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
    errors += _port_conflicts(settings)
    warnings = _empty_folders(settings)
    if trust.crls_dir is not None and not trust.crls_dir.is_dir():
        warnings.append(f"trust.crls_dir: there is no folder {trust.crls_dir}: no revocation list is known")
    warnings += _exposed_keys(settings)
    return errors, warnings


def _empty(practice: PracticeSettings) -> list[str]:
    return [key for key in ("domains", "addresses") if not getattr(practice, key)]


def _empty_folders(settings: Settings) -> list[str]:
    """Folders that are there but hold nothing: every message would end in the quarantine."""
    identities, anchors = settings.trust.identities_dir, settings.trust.anchors_dir
    warnings = []
    if identities.is_dir() and not any([*identities.glob("*.cert.pem"), *identities.glob("*.p12")]):
        warnings.append(f"trust.identities_dir: {identities} holds no identity: no message can be decrypted")
    if anchors.is_dir() and not any(path.is_file() for path in anchors.rglob("*")):
        warnings.append(f"trust.anchors_dir: {anchors} holds no anchor: nobody is trusted")
    return warnings


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
    return [
        f"{path} can be read by other users; run: chmod 600 {path}"
        for path in keys
        if path.is_file() and path.stat().st_mode & 0o077
    ]


def _examine_contents(settings: Settings) -> tuple[list[str], list[str]]:
    """(errors, warnings) in keys, anchors, revocation lists and TLS files, read as ``serve`` reads them."""
    from gateway.agents import build_agent  # noqa: PLC0415 - see _serve
    from gateway.daemon import tls_context  # noqa: PLC0415 - see _serve

    errors: list[str] = []
    warnings: list[str] = []
    try:
        warnings = _development_anchors(settings, build_agent(settings.trust).anchors)
    except ConfigurationError as exc:
        errors.append(str(exc))
    try:
        tls_context(settings)
    except ConfigurationError as exc:
        errors.append(str(exc))
    return errors, warnings


def _development_anchors(settings: Settings, anchors: AnchorStore) -> list[str]:
    """A warning when an authority that ``init`` made is trusted: whoever has its key can be anybody here."""
    authority = b""
    with contextlib.suppress(OSError, ValueError):
        made = settings.trust.anchors_dir.parent / "ca" / "ca.cert.pem"
        authority = ssl.PEM_cert_to_DER_cert(made.read_text(encoding="ascii"))
    for anchor in anchors.all():
        if anchor.der == authority or DEVELOPMENT_SUBJECT in anchor.as_signer("").subject:
            folder = settings.trust.anchors_dir
            advice = f"for trying out only; before real mail take it out of {folder}, and remove certs/ca"
            return [f"trust.anchors_dir: a development authority made by init is trusted: {advice}"]
    return []


def _check(args: argparse.Namespace) -> int:
    from gateway.cli import try_out  # noqa: PLC0415 - see _serve

    settings = settings_of(args)
    plan = try_out.planned(settings)
    if plan is None:
        errors, warnings = examine(settings)
        if not errors:
            errors, more = _examine_contents(settings)
            warnings += more
    else:
        errors, warnings = [], [f"the try-out practice {plan.directory} is not made yet; the first serve makes it"]
    if args.json:
        print_json({"config": str(find_config(args.config)), "errors": errors, "warnings": warnings})
    else:
        for text in errors:
            note(f"error: {text}")
        for text in warnings:
            warn(text)
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
    return OK
