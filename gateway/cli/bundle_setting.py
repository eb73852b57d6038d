"""The setting of a trust bundle as options of the command line: for whom, signed by whom, how often refreshed.

Guarantee: a change keeps what no option names. To trust more than before, by no signer or for everyone, takes a word.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.core.address import normalise, parse_domain
from gateway.core.errors import BundleError, InputError
from gateway.core.trust import BOTH_DIRECTIONS, BundleSetting, Direction

if TYPE_CHECKING:
    from gateway.settings import PracticeSettings

MAX_SIGNER_BYTES = 1024 * 1024
EVERYONE = "everyone"
REFRESH_HOURS = 24


def add_setting_options(add: argparse.ArgumentParser) -> None:
    """Add name, location and options."""
    add.add_argument("name", metavar="NAME", help="a short name of your choice, kept with every message it vouched for")
    add.add_argument("location", metavar="URL_OR_FILE", help="where it is published: http(s), or a file")
    signer = add.add_mutually_exclusive_group()
    signer.add_argument("--signer", metavar="CERT.pem", type=Path, help="the certificate that must have signed it")
    signer.add_argument(
        "--unsigned", action="store_true", help="no signature is checked (default; with --change, to drop the signer)"
    )
    add.add_argument(
        "--for",
        dest="owners",
        metavar="DOMAIN_OR_ADDRESS",
        action="append",
        default=[],
        help=f"who of this practice trusts it, or '{EVERYONE}' (default); may be repeated",
    )
    add.add_argument(
        "--direction",
        choices=["inbound", "outbound", "both"],
        help="whether it counts for mail that is received, that is sent, or both (default)",
    )
    add.add_argument("--refresh-hours", type=int, metavar="N", help=f"0: only by hand (default: {REFRESH_HOURS})")


def setting_from(
    args: argparse.Namespace, signer: bytes | None, practice: PracticeSettings, before: BundleSetting | None = None
) -> BundleSetting:
    """The setting that the options say; what they do not say is as ``before``, or as it is by default.

    Raises:
        InputError: it is for somebody who is not of this practice.
        BundleError: the location is no URL, and there is no such file.
    """
    location = _location(args.location)
    setting = before or BundleSetting(args.name, location, None, (), BOTH_DIRECTIONS, REFRESH_HOURS)
    setting = replace(setting, location=location)
    if signer is not None or args.unsigned:
        setting = replace(setting, signer=signer)
    if args.owners:
        setting = replace(setting, owners=_owners(args.owners, practice))
    if args.direction is not None:
        directions = BOTH_DIRECTIONS if args.direction == "both" else frozenset({Direction(args.direction)})
        setting = replace(setting, directions=directions)
    if args.refresh_hours is not None:
        setting = replace(setting, refresh_hours=args.refresh_hours)
    return setting


def _location(text: str) -> str:
    """A URL as it is, or the absolute path of a file, because the gateway runs in another folder."""
    if "://" in text:
        return text
    path = Path(text)
    if not path.is_absolute() and not path.exists():
        raise BundleError(
            "not_fetched", f"cannot read {path.absolute()}: there is no such file; a URL begins with https://"
        )
    full = path.absolute()
    # A link stays a link, because the operator may point it elsewhere; only a way up must be followed to be taken out.
    return str(full.parent.resolve() / full.name if ".." in full.parts and full.name != ".." else full)


def read_signer(args: argparse.Namespace) -> bytes | None:
    """The certificate of ``--signer``, DER.

    Raises:
        InputError: the file cannot be read, or does not hold exactly one.
    """
    from gateway.sta.trust_anchors.certificate_files import certificate_ders  # noqa: PLC0415 - see gateway.cli.session

    path: Path | None = args.signer
    if path is None:
        return None
    try:
        if path.stat().st_size > MAX_SIGNER_BYTES:
            raise InputError(f"--signer {path} is too large for a certificate")
        found = certificate_ders(path.read_bytes())
    except OSError as exc:
        raise InputError(f"--signer: cannot read {path}: {exc.strerror}") from None
    except ValueError as exc:
        raise InputError(f"--signer {path} holds no certificate: {exc}") from None
    if len(found) != 1:
        raise InputError(f"--signer {path} must hold the one certificate of the publisher; it holds {len(found)}")
    return found[0]


def _owners(texts: list[str], practice: PracticeSettings) -> tuple[str, ...]:
    """Those for whom it is; none for everyone."""
    if EVERYONE in texts:
        if len(set(texts)) > 1:
            raise InputError(f"--for {EVERYONE} already includes the others; say either")
        return ()
    return tuple(dict.fromkeys(_owner(text, practice) for text in texts))


def _owner(text: str, practice: PracticeSettings) -> str:
    """A domain or address of this practice, normalised."""
    local = (*practice.domains, *practice.addresses)
    try:
        owner = normalise(text) if "@" in text else parse_domain(text)
    except InputError as exc:
        raise InputError(f"--for: {exc}") from None
    if owner not in local:
        raise InputError(f"--for {text} is neither a domain nor an address of this practice: {', '.join(local)}")
    return owner
