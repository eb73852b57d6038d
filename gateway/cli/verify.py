"""``message verify``: judge messages offline, with no database and by the same code as the daemon.

Exit status: 0 when all are accepted, 1 when one is rejected, 2 on misuse (an unreadable file or folder, a bad address,
time or address range) and for a message whose key lies on a token that does not answer. A file that cannot be read
does not keep the others from being judged. Hostile input is a rejection, never a traceback. With ``--json`` there is
one object for each file, one on a line.

Nothing is ever decrypted to disk, and nothing is fetched outside ``--allow-fetch``. The modules of the agent are
imported when the command runs, so that ``--help`` stays quick.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.moments import parse_moment
from gateway.cli.output import clean, note, out, warn
from gateway.core.address import normalise
from gateway.core.errors import InputError, KeyUnavailableError
from gateway.core.message import Envelope
from gateway.core.trust import Direction, FetchedMail
from gateway.core.verdict import REPAIRS, Judgement
from gateway.observability.clock import SystemClock

if TYPE_CHECKING:
    from gateway.ports import KeyRing
    from gateway.sta.agent import SecurityTrustAgent

ALL_ACCEPTED = 0
ONE_REJECTED = 1
MISUSE = 2
STANDARD_INPUT = "-"
_MARKS = {"passed": "+", "failed": "x", "skipped": "-", "noted": "!"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``message verify``."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a message as it came over SMTP; - is standard input")
    parser.add_argument(
        "--credentials",
        metavar="DIR",
        type=Path,
        help="private keys: NAME.cert.pem with NAME.key.pem beside it, or NAME.p12; their domains are the local ones; "
        "default: no keys, so that nothing can be decrypted",
    )
    parser.add_argument(
        "--anchors",
        metavar="DIR",
        type=Path,
        help="trust anchors of every local domain; a sub-folder named after a domain or address holds its own; "
        "default: none, so that nobody is trusted",
    )
    parser.add_argument(
        "--crls", metavar="DIR", type=Path, help="certificate revocation lists, PEM or DER; default: none"
    )
    parser.add_argument(
        "--allow-fetch",
        metavar="CIDR",
        action="append",
        default=[],
        help="address range from which URLs in certificates may be fetched; may be repeated; "
        "default: none, nothing is fetched",
    )
    parser.add_argument(
        "--mail-from",
        metavar="ADDRESS",
        help="MAIL FROM of the envelope; an empty one is the null sender; default: there is no envelope",
    )
    parser.add_argument(
        "--rcpt-to",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="RCPT TO of the envelope; may be repeated; default: there is no envelope",
    )
    parser.add_argument(
        "--at",
        metavar="TIME",
        help="judge as of then: ISO 8601 (UTC unless it says so) or epoch seconds; default: now",
    )
    parser.add_argument(
        "--revocation",
        choices=("soft", "hard"),
        default="soft",
        help="what an unknown revocation status does: soft (default) records it, hard refuses",
    )
    parser.add_argument(
        "--fetched",
        choices=[rule.value for rule in FetchedMail],
        default=FetchedMail.UNCHECKED.value,
        help="without an envelope: compare the signed headers with the outer ones, or with what our own upstream "
        "wrote (trace: Return-Path, Delivered-To), or record that nothing was compared (unchecked, the default)",
    )
    parser.add_argument(
        "--key-password-file",
        metavar="FILE",
        type=Path,
        help="file whose first line opens encrypted private keys; default: none, the keys are not encrypted",
    )
    parser.add_argument(
        "--pkcs11-module",
        metavar="PATH",
        type=Path,
        help="library (.so) of a hardware token whose keys are used beside those of --credentials; default: no token",
    )
    parser.add_argument("--pkcs11-token", metavar="LABEL", help="label of the token; no default")
    parser.add_argument(
        "--pkcs11-pin-file",
        metavar="FILE",
        type=Path,
        help="file whose first line is the PIN of the token; default: the token asks for none",
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object for each file, one on a line; default: text"
    )


def run(args: argparse.Namespace) -> int:
    """Judge each file and return the exit status.

    Raises:
        InputError, ConfigurationError: an option or a folder cannot be used (exit status 2).
    """
    if args.config is not None:
        # Whoever names a configuration expects its keys and rules to count, and would believe a wrong verdict.
        raise InputError(
            "message verify reads no configuration: leave --config out, and name the keys and the anchors with "
            "--credentials DIR and --anchors DIR"
        )
    envelope = Envelope(_mail_from(args.mail_from), tuple(_address("--rcpt-to", r) for r in args.rcpt_to))
    at = SystemClock().now() if args.at is None else parse_moment("--at", args.at)
    agent = _agent(args)
    status = ALL_ACCEPTED
    for name in args.files:
        try:
            raw = _read(name)
        except OSError as exc:
            note(f"error: cannot read {name}: {exc.strerror or exc}")
            status = MISUSE
            continue
        try:
            judgement = agent.judge(raw, envelope, at)
        except KeyUnavailableError as exc:
            note(f"error: {name} cannot be judged now: {exc}")
            status = MISUSE
            continue
        print_judgement(name, judgement, as_json=args.json)
        if not judgement.accepted and status == ALL_ACCEPTED:
            status = ONE_REJECTED
    return status


def _read(name: str) -> bytes:
    """The whole file, but no more than shows that it is too large: the agent then refuses it by its size."""
    from gateway.sta.agent import MAX_MESSAGE_BYTES  # noqa: PLC0415 - see the module's docstring

    if name == STANDARD_INPUT:
        return sys.stdin.buffer.read(MAX_MESSAGE_BYTES + 1)
    with Path(name).open("rb") as file:
        return file.read(MAX_MESSAGE_BYTES + 1)


def _mail_from(value: str | None) -> str | None:
    """None without the option, "" for the null sender (also written ``<>``), else the normalised address."""
    if value is None:
        return None
    return "" if value.strip() in {"", "<>"} else _address("--mail-from", value)


def _address(option: str, value: str) -> str:
    try:
        return normalise(value.strip().removeprefix("<").removesuffix(">"))
    except InputError as exc:
        raise InputError(f"{option}: {exc}") from None


def _agent(args: argparse.Namespace) -> SecurityTrustAgent:
    from gateway.sta.agent import SecurityTrustAgent  # noqa: PLC0415 - see the module's docstring
    from gateway.sta.fetching.fetcher import Fetcher  # noqa: PLC0415
    from gateway.sta.revocation.crls import load_crls, unread_files  # noqa: PLC0415
    from gateway.sta.revocation.revocation import RevocationSource  # noqa: PLC0415
    from gateway.sta.trust_anchors.anchor_folder import load_anchors  # noqa: PLC0415
    from gateway.sta.trust_anchors.anchors import AnchorStore  # noqa: PLC0415
    from gateway.sta.trust_policy import TrustPolicy  # noqa: PLC0415

    try:
        fetcher = Fetcher.within(args.allow_fetch)
    except ValueError as exc:
        raise InputError(f"--allow-fetch: {exc}") from None
    keys = _keys(args)
    if args.credentials is None and args.pkcs11_module is None:
        warn("no keys were given: --credentials DIR (and --anchors DIR)")
    anchors = load_anchors(args.anchors) if args.anchors is not None else AnchorStore()
    for warning in anchors.warnings:
        warn(warning)
    crls = load_crls(args.crls) if args.crls is not None else ()
    for warning in unread_files(args.crls) if args.crls is not None else ():
        warn(warning)
    hard = frozenset({Direction.INBOUND}) if args.revocation == "hard" else frozenset[Direction]()
    policy = TrustPolicy(hard_revocation=hard, fetched_mail=FetchedMail(args.fetched))
    return SecurityTrustAgent(keys, anchors, RevocationSource(crls), fetcher, policy)


def _keys(args: argparse.Namespace) -> KeyRing:
    from gateway.keys.loading import TokenSettings, load_key_ring  # noqa: PLC0415 - see the module's docstring

    token = None
    if args.pkcs11_module is not None:
        if not args.pkcs11_token:
            raise InputError("--pkcs11-module needs --pkcs11-token, the label of the token")
        token = TokenSettings(args.pkcs11_module, args.pkcs11_token, args.pkcs11_pin_file)
    elif args.pkcs11_token or args.pkcs11_pin_file is not None:
        raise InputError("--pkcs11-token and --pkcs11-pin-file need --pkcs11-module, the library of the token")
    ring = load_key_ring(args.credentials, _password(args.key_password_file), token)
    for warning in ring.warnings:
        warn(warning)
    for text in ring.notes:
        note(f"note: {text}")
    return ring


def _password(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return file.read_bytes().splitlines()[0]
    except OSError as exc:
        raise InputError(f"cannot read {file}: {exc.strerror}") from None
    except IndexError:
        raise InputError(f"{file} is empty") from None


def as_document(name: str, judgement: Judgement) -> dict[str, Any]:
    """What ``--json`` shows of one file."""
    return {
        "file": name,
        "verdict": judgement.verdict,
        "reason": str(judgement.reason),
        "detail": judgement.detail,
        "hint": judgement.hint,
        "delivered_to": list(judgement.delivered_to),
        "signer": asdict(judgement.signer) if judgement.signer else None,
        "algorithms": dict(judgement.algorithms),
        "wrapped": judgement.wrapped,
        "message_id": judgement.message_id,
        "subject": judgement.subject,
        "inner_sha256": judgement.inner_sha256,
        "checks": [asdict(check) for check in judgement.checks],
    }


def print_judgement(name: str, judgement: Judgement, *, as_json: bool) -> None:
    """Print one judgement: a line of JSON, or a block for people."""
    if as_json:
        out(json.dumps(as_document(name, judgement)))
        return
    for line in _block(name, judgement):
        out(clean(line))
    out()


def _block(name: str, judgement: Judgement) -> Iterator[str]:
    yield f"{name}: {judgement.verdict.upper()} ({judgement.reason})"
    if not judgement.accepted:
        yield f"  why           {judgement.detail}"
        yield f"  what to do    {REPAIRS[judgement.reason]}"
        if judgement.hint:
            yield f"  in particular {judgement.hint}"
    if judgement.delivered_to:
        yield f"  delivered to  {', '.join(judgement.delivered_to)}"
    for refused in judgement.trust:
        if judgement.accepted and refused.recipient not in judgement.delivered_to:
            yield f"  not to        {refused.recipient}: {refused.detail} ({refused.reason})"
    if judgement.sender:
        yield f"  from          {judgement.sender}"
    if judgement.signer is not None:
        identity = judgement.signer.identity or "no usable name"
        yield f"  signer        {identity} ({judgement.signer.subject}; issued by {judgement.signer.issuer})"
    if judgement.subject:
        yield f"  subject       {judgement.subject}"
    if judgement.message_id:
        yield f"  message id    {judgement.message_id}"
    if judgement.wrapped is not None:
        yield f"  wrapped       {'yes' if judgement.wrapped else 'no'}"
    if judgement.algorithms:
        used = ", ".join(f"{role.replace('_', ' ')} {value}" for role, value in judgement.algorithms.items())
        yield f"  algorithms    {used}"
    if judgement.inner_sha256:
        yield f"  inner sha256  {judgement.inner_sha256}"
    for check in judgement.checks:
        yield f"    {_MARKS.get(check.outcome, '?')} {check.name}{': ' if check.detail else ''}{check.detail}"
