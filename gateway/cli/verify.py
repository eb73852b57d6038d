"""``message verify``: judge messages offline, with no database and by the same code as the daemon.

Exit status: 0 when all are accepted, 1 when one is rejected, 2 on misuse (an unreadable file or folder, a bad address,
time or address range). A file that cannot be read does not keep the others from being judged. Hostile input is a
rejection, never a traceback. With ``--json`` there is one object for each file, one on a line.

Nothing is ever decrypted to disk, and nothing is fetched outside ``--allow-fetch``. The modules of the agent are
imported when the command runs, so that ``--help`` stays quick.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.output import clean, note, out, warn
from gateway.core.address import normalise
from gateway.core.errors import InputError
from gateway.core.message import Envelope
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
        help="private keys: NAME.cert.pem with NAME.key.pem beside it, or NAME.p12; their domains are the local ones",
    )
    parser.add_argument(
        "--anchors",
        metavar="DIR",
        type=Path,
        help="trust anchors of every local domain; a sub-folder named after a domain or address holds its own",
    )
    parser.add_argument("--crls", metavar="DIR", type=Path, help="certificate revocation lists, PEM or DER")
    parser.add_argument(
        "--allow-fetch",
        metavar="CIDR",
        action="append",
        default=[],
        help="address range from which URLs in certificates may be fetched; none by default; may be repeated",
    )
    parser.add_argument(
        "--mail-from",
        metavar="ADDRESS",
        help="MAIL FROM of the envelope; an empty one is the null sender; without the option there is no envelope",
    )
    parser.add_argument(
        "--rcpt-to",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="RCPT TO of the envelope; may be repeated",
    )
    parser.add_argument(
        "--at", metavar="TIME", help="judge as of then: ISO 8601 (UTC unless it says so) or epoch seconds"
    )
    parser.add_argument(
        "--revocation",
        choices=("soft", "hard"),
        default="soft",
        help="what an unknown revocation status does: soft (default) records it, hard refuses",
    )
    parser.add_argument(
        "--key-password-file", metavar="FILE", type=Path, help="file whose first line opens encrypted private keys"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each file, one on a line")


def run(args: argparse.Namespace) -> int:
    """Judge each file and return the exit status.

    Raises:
        InputError, ConfigurationError: an option or a folder cannot be used (exit status 2).
    """
    envelope = Envelope(_mail_from(args.mail_from), tuple(_address("--rcpt-to", r) for r in args.rcpt_to))
    at = _moment(args.at)
    agent = _agent(args)
    status = ALL_ACCEPTED
    for name in args.files:
        try:
            raw = _read(name)
        except OSError as exc:
            note(f"error: cannot read {name}: {exc.strerror or exc}")
            status = MISUSE
            continue
        judgement = agent.judge(raw, envelope, at)
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


def _moment(value: str | None) -> datetime:
    if value is None:
        return SystemClock().now()
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    try:
        moment = datetime.fromisoformat(text) if math.isnan(seconds) or _is_date(text) else None
        if moment is None:
            return datetime.fromtimestamp(seconds, UTC)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise InputError(f"--at: {value!r} is neither an ISO 8601 time nor epoch seconds") from None


def _is_date(text: str) -> bool:
    """``20261123`` is a date of ISO 8601, not a number of seconds in 1970."""
    return len(text) == 8 and text.isdecimal()


def _agent(args: argparse.Namespace) -> SecurityTrustAgent:
    from gateway.sta.agent import SecurityTrustAgent  # noqa: PLC0415 - see the module's docstring
    from gateway.sta.anchors import AnchorStore, load_anchors  # noqa: PLC0415
    from gateway.sta.crls import load_crls  # noqa: PLC0415
    from gateway.sta.fetcher import Fetcher  # noqa: PLC0415
    from gateway.sta.revocation import RevocationSource  # noqa: PLC0415

    try:
        fetcher = Fetcher.within(args.allow_fetch)
    except ValueError as exc:
        raise InputError(f"--allow-fetch: {exc}") from None
    keys = _keys(args)
    anchors = load_anchors(args.anchors) if args.anchors is not None else AnchorStore()
    for warning in anchors.warnings:
        warn(warning)
    crls = load_crls(args.crls) if args.crls is not None else ()
    hard = args.revocation == "hard"
    return SecurityTrustAgent(keys, anchors, RevocationSource(crls), fetcher, hard_revocation=hard)


def _keys(args: argparse.Namespace) -> KeyRing:
    from gateway.keys.key_files import KeyRing as Files  # noqa: PLC0415 - see the module's docstring
    from gateway.keys.key_files import load_key_ring  # noqa: PLC0415

    if args.credentials is None:
        return Files(())
    password = None
    if args.key_password_file is not None:
        try:
            password = args.key_password_file.read_bytes().splitlines()[0] if args.key_password_file else None
        except OSError as exc:
            raise InputError(f"cannot read {args.key_password_file}: {exc.strerror}") from None
        except IndexError:
            raise InputError(f"{args.key_password_file} is empty") from None
    ring = load_key_ring(args.credentials, password)
    for warning in ring.warnings:
        warn(warning)
    return ring


def as_document(name: str, judgement: Judgement) -> dict[str, Any]:
    """What ``--json`` shows of one file."""
    return {
        "file": name,
        "verdict": judgement.verdict,
        "reason": str(judgement.reason),
        "detail": judgement.detail,
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
