"""``init``: the command line around :mod:`gateway.cli.init_practice`."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.output import out, print_json
from gateway.cli.session import OK, SubCommands
from gateway.settings import HTTPSettings, IMAPSettings, SMTPSettings, SubmissionSettings

if TYPE_CHECKING:
    from gateway.cli.init_practice import Practice


def register(commands: SubCommands) -> None:
    """Add the command."""
    parser = commands.add(
        "init",
        "make a working practice in a folder",
        "Make settings, a database, a development certificate authority, an identity for each address (or for the\n"
        "domain), an anchor, a TLS certificate and a login for mail clients, all in DIR. A folder that is a practice\n"
        "already is not touched (status 1).",
        "init clinic --domain direct.example.org --address front-desk\n"
        "init clinic --domain direct.example.org --address front-desk lab --login reception --smtp-port 2600",
        run=_init,
    )
    parser.add_argument("directory", metavar="DIR", type=Path)
    parser.add_argument("--domain", required=True, metavar="D", help="the practice's health domain")
    parser.add_argument(
        "--address",
        required=True,
        nargs="+",
        action="extend",
        metavar="A",
        help="Direct addresses; without @ in the domain; may be repeated",
    )
    parser.add_argument("--login", metavar="NAME", help="login for mail clients (default: the first address)")
    parser.add_argument(
        "--bind",
        choices=("address", "domain"),
        default="address",
        help="an identity for each address, or one for the domain (default: address)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 = every interface")
    for option, default, what in (
        ("smtp", SMTPSettings().port, "mail from other HISPs"),
        ("imap", IMAPSettings().port, "inbox with STARTTLS"),
        ("imaps", None, "inbox with TLS from the first byte"),
        ("http", HTTPSettings().port, "health"),
        ("submission", SubmissionSettings().port, "kept for sending"),
    ):
        shown = default if default is not None else f"{IMAPSettings().tls_port}, or beside another --imap-port"
        parser.add_argument(
            f"--{option}-port", type=int, default=default, metavar="N", help=f"{what} (default: {shown})"
        )
    parser.add_argument("--json", action="store_true", help="print what was made as JSON, the password included")


def _init(args: argparse.Namespace) -> int:
    from gateway.cli.init_practice import Ports, make_practice, plan_practice, port_beside  # noqa: PLC0415 - heavy

    others = {args.smtp_port, args.imap_port, args.http_port, args.submission_port}
    imaps = port_beside(args.imap_port, others, args.host) if args.imaps_port is None else args.imaps_port
    plan = plan_practice(
        args.directory,
        args.domain,
        args.address,
        Ports(args.smtp_port, args.imap_port, imaps, args.http_port, args.submission_port),
        host=args.host,
        login=args.login,
        bind_to_domain=args.bind == "domain",
    )
    practice = asyncio.run(make_practice(plan))
    if args.json:
        print_json(_document(practice))
    else:
        _report(practice)
    return OK


def _document(practice: Practice) -> dict[str, Any]:
    plan, certs = practice.plan, practice.certs
    return {
        "directory": str(plan.directory),
        "config": str(practice.config),
        "domain": plan.domain,
        "addresses": list(plan.addresses),
        "ports": {
            "smtp": plan.ports.smtp,
            "imap": plan.ports.imap,
            "imaps": plan.ports.imaps,
            "http": plan.ports.http,
            "submission": plan.ports.submission,
        },
        "imap": {
            "server": practice.client_server,
            "user": plan.login,
            "password": practice.password,
            "password_file": str(practice.login_file),
            "ca_file": str(practice.tls_ca_file),
        },
        "identities": [str(certs / "identities" / f"{name}.cert.pem") for name in practice.identities],
        "anchor": str(certs / "anchors" / "development-ca.cert.pem"),
        "ca": str(certs / "ca" / "ca.cert.pem"),
        "anchors_dir": str(certs / "anchors"),
        "identities_dir": str(certs / "identities"),
        "crls_dir": str(certs / "crls"),
        "key_file": str(certs / "store" / "bodies.keys"),
    }


def running_program() -> str:
    """How to call this program again from a shell: its name when that is found, else its path, quoted."""
    name = "direct-gateway"
    if shutil.which(name):
        return name
    # Called by its path (the usual case after ``make install``), or as ``python -m gateway`` beside it.
    for path in (Path(sys.argv[0]), Path(sys.executable).parent / name):
        if path.name == name and path.is_file():
            return shlex.quote(str(path.absolute()))
    return f"{shlex.quote(sys.executable)} -m gateway"


def _report(practice: Practice) -> None:
    plan = practice.plan
    where = shlex.quote(str(plan.directory))
    program = running_program()
    command = f"{program} --config {where}/gateway.toml"
    out(f"Made a practice for {plan.domain} in {plan.directory}:\n")
    made = [
        ("gateway.toml", "settings, every key with a comment"),
        ("data/gateway.db", "database: messages, links, patients, audit log"),
        ("certs/ca/", "development certificate authority: for trying out, replace it before real mail"),
        *((f"certs/identities/{name}.*", "identity: certificate and private key") for name in practice.identities),
        ("certs/store/bodies.keys", "the key of all stored messages: keep a copy apart, nothing can make it anew"),
        ("certs/anchors/", "who is trusted: the development authority so far"),
        ("certs/crls/", "revocation lists: the development authority's, empty"),
        ("certs/audit/", "the key that signs the audit log's heads; give heads.pub.pem to whoever keeps them"),
        ("certs/tls/", "certificate for SMTP and IMAP; ca.pem is what a mail client must trust"),
        ("imap-login.txt", "the login below; delete it when you have written it down"),
    ]
    _print_pairs(made)
    out(f"\nAddresses: {', '.join(plan.addresses)}")
    if len(plan.addresses) > 1:
        out("The INBOX receives what comes for any of them; each has a folder of its own as well.")
    out("\nMail client:")
    for line in practice.client_lines():
        out(f"  {line}")
    out("\nWhat to do next:")
    steps = [
        ("start it", f"{program} serve --config {where}/gateway.toml"),
        ("import patients", f"{command} patient import FILE    (FHIR R4 NDJSON, or CSV)"),
        (
            "trust a community",
            f"{command} bundle add NAME URL    (its trust bundle; --signer CERT.pem when it is signed)",
        ),
        ("trust a partner", f"put the partner's anchor (PEM) into {where}/certs/anchors/, then restart (or kill -HUP)"),
        ("see what came", f"{command} message list"),
        ("see what was refused", f"{command} quarantine list    (and why, and what to do)"),
        ("add a login", f"{command} user add LOGIN --inbox {plan.addresses[-1]}"),
        ("back up", f"{command} backup create FOLDER/    (every night; FOLDER on another disk)"),
        ("keep the keys", f"copy {where}/certs/ to a safe, apart from the backups, which hold no key:"),
        ("", "without the keys nobody can read the mail, neither here nor in a backup"),
    ]
    _print_pairs(steps)


def _print_pairs(pairs: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in pairs)
    for name, text in pairs:
        out(f"  {name:<{width}}  {text}")
