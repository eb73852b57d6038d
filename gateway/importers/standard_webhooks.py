"""Signatures of Standard Webhooks 1.0.0, symmetric (``v1``), and the secrets behind them.

The signed content is ``{id}.{timestamp}.{body}``; the signature is HMAC-SHA256 under the secret, in base64. While a
secret is exchanged there are two, and the header carries a signature of each.

Failure modes: ConfigurationError for a secret that is none; its text never repeats it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from gateway.core.errors import ConfigurationError
from gateway.core.import_settings import CREDENTIAL
from gateway.settings import credential_path

PREFIX = "whsec_"
MIN_BYTES, MAX_BYTES = 24, 64
_MAX_FILE_BYTES = 1_000


def headers(message_id: str, timestamp: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """The three headers of a webhook. ``timestamp``: seconds since 1970; ``secrets``: the bytes, without prefix."""
    signed = f"{message_id}.{timestamp}.".encode("ascii") + body
    digests = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets)
    signatures = " ".join("v1," + base64.b64encode(digest).decode("ascii") for digest in digests)
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": signatures}


def secret_of(text: str) -> bytes:
    """The bytes of ``whsec_...``.

    Raises:
        ConfigurationError: it is none, or not of 24 to 64 bytes.
    """
    try:
        secret = base64.b64decode(text.strip().removeprefix(PREFIX).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        secret = b""
    if not text.strip().startswith(PREFIX) or not MIN_BYTES <= len(secret) <= MAX_BYTES:
        raise ConfigurationError(
            f"the secret must be {PREFIX} and the base64 of {MIN_BYTES} to {MAX_BYTES} random bytes; make one with: "
            f"python3 -c \"import base64,os; print('{PREFIX}' + base64.b64encode(os.urandom(32)).decode())\""
        )
    return secret


def secret_path(setting: str) -> Path:
    """Where a secret stands. Raises ConfigurationError: systemd gives this process no credentials."""
    return credential_path(setting) if setting.startswith(CREDENTIAL) else Path(setting)


def read_secrets(settings: Sequence[str]) -> list[bytes]:
    """Read the secrets, as they are at this moment: an exchange needs no restart.

    Raises:
        ConfigurationError: one is missing, cannot be read, or is none; the text names the file.
    """
    secrets = []
    for setting in settings:
        path = secret_path(setting)
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_FILE_BYTES).decode("ascii", "replace")
        except OSError as exc:
            raise ConfigurationError(f"{path}: {exc.strerror or 'it cannot be read'}") from None
        try:
            secrets.append(secret_of(text))
        except ConfigurationError as exc:
            raise ConfigurationError(f"{path}: {exc}") from None
    return secrets


def exposed(path: Path) -> bool:
    """Whether other users of the machine may read the file."""
    try:
        return bool(stat.S_IMODE(os.stat(path).st_mode) & 0o077)  # noqa: PTH116 - of what the name leads to
    except OSError:
        return False
