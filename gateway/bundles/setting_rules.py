"""What a setting of a trust bundle may say, and how the audit log keeps it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from gateway.bundles.update import setting_of
from gateway.core.errors import ConflictError, InputError
from gateway.core.trust import BundleSetting
from gateway.ports import UnitOfWork
from gateway.sta.certificates import Certificate, CertificateError

MAX_REFRESH_HOURS = 24 * 366
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")


def check(setting: BundleSetting) -> None:
    """Refuse a setting that is out of bounds.

    Raises:
        InputError: the text says what may stand there.
    """
    if not _NAME.match(setting.name):
        raise InputError(
            "the name of a bundle has up to 64 small letters, digits, '.', '_' and '-', and begins with one of the "
            "first two"
        )
    if not 0 <= setting.refresh_hours <= MAX_REFRESH_HOURS:
        raise InputError(f"a bundle is refreshed every 1 to {MAX_REFRESH_HOURS} hours, or by hand only (0)")
    if not setting.directions:
        raise InputError("a bundle counts for mail that is received, for mail that is sent, or for both")
    try:
        _ = setting.signer and Certificate(setting.signer)
    except CertificateError as exc:
        raise InputError(f"the signer's certificate cannot be used: {exc}") from None


def check_presence(tx: UnitOfWork, name: str, instead_of: BundleSetting | None) -> None:
    """Refuse to add a name that is there, or to change one that is not, or no longer as the change took it to be.

    Raises:
        ConflictError, NotFoundError.
    """
    if instead_of is not None:
        if setting_of(tx, name) != instead_of:
            raise ConflictError(f"bundle {name} was changed meanwhile; try again")
    elif any(setting.name == name for setting in tx.bundles.settings()):
        raise ConflictError(f"there is a trust bundle {name} already; --change changes what the options name")


def audited(setting: BundleSetting) -> dict[str, Any]:
    """A setting as the audit log keeps it: digests and counts, no address."""
    return {
        "location_sha256": sha256_hex(setting.location.encode()),
        "signer_sha256": None if setting.signer is None else sha256_hex(setting.signer),
        "owners": len(setting.owners),
        "directions": sorted(setting.directions),
        "refresh_hours": setting.refresh_hours,
    }


def sha256_hex(data: bytes) -> str:
    """SHA-256 of the bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
