"""Which values a key takes, and what becomes of them: a path starts at the file's folder, an address is normalised.

Failure modes: ConfigurationError; the text names the key and the mend, and never repeats what may be a password.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.core.address import normalise, parse_domain
from gateway.core.errors import ConfigurationError, InputError

POSTGRESQL_PREFIXES = ("postgresql://", "postgres://")
CREDENTIAL_PREFIX = "credential:"
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"

_CHOICES: dict[tuple[str, str], frozenset[str]] = {
    ("fetch", "protocol"): frozenset({"imap", "pop3"}),
    ("fetch", "tls"): frozenset({"implicit", "starttls", "none"}),
    ("imap", "deleted_flag"): frozenset({"ignore", "refuse"}),
    ("accounts", "imap_password"): frozenset({"any", "app_only"}),
    ("imap", "seen"): frozenset({"shared", "per_user"}),
    ("trust", "fetch"): frozenset({"public", "listed", "off"}),
    ("trust", "revocation_inbound"): frozenset({"soft", "hard"}),
    ("trust", "revocation_outbound"): frozenset({"soft", "hard"}),
    ("trust", "fetched_mail"): frozenset({"outer", "trace", "unchecked"}),
    ("store", "bodies"): frozenset({"database", "s3"}),
    ("charts", "automatic_by"): frozenset({"address_book", "number", "demographics"}),
    ("adt", "tls"): frozenset({"required", "none"}),
    ("adt", "direct_addresses"): frozenset({"add", "replace"}),
    ("log", "format"): frozenset({"text", "json"}),
    ("log", "level"): frozenset({"debug", "info", "warning", "error"}),
}
_MAY_BE_ZERO = frozenset(
    {
        ("imap", "port"),
        ("imap", "tls_port"),
        ("http", "port"),
        ("fetch", "port"),
        ("submission", "port"),
        ("smtp", "port"),
        ("smtp", "max_connections_per_minute_per_peer"),
        ("smtp", "max_messages_per_minute_per_peer"),
        ("smtp", "max_recipients_per_hour_per_peer"),
        ("store", "group_commit_wait_ms"),
        ("imap", "failed_login_delay_seconds"),
        ("oauth", "clock_skew_seconds"),
        ("pop3", "port"),
        ("adt", "port"),
        ("pop3", "tls_port"),
        ("pop3", "failed_login_delay_seconds"),
        ("store", "free_space_floor_mib"),
        ("store", "audit_reserve_mib"),
    }
)

_AT_LEAST = {
    # RFC 1939 section 3: a client may be silent for so long and counts on what it marked.
    ("pop3", "idle_timeout_minutes"): 10,
}
_AT_MOST = {
    ("adt", "max_message_kib"): 32_768,
    ("adt", "max_connections"): 10_000,
    ("s3", "retention_days"): 36_500,
    ("s3", "uploads"): 256,
    ("trust", "bundle_alarm_percent"): 100,
    ("accounts", "session_poll_seconds"): 60,
    ("oauth", "clock_skew_seconds"): 600,
    ("oauth", "jwks_refresh_minutes"): 1_440,
    ("fetch", "poll_seconds"): 86_400,
    ("fetch", "max_message_mib"): 1_024,
    ("importer", "at_once"): 64,
    ("importer", "timeout_seconds"): 3_600,
    ("importer", "max_memory_mib"): 1_048_576,
    ("imap", "max_append_mib"): 1_024,
}


def checked_value(section: str, key: str, kind: Any, value: Any, base_dir: Path) -> Any:
    """Return the value of a key as its section has it.

    Args:
        section: its name, as ``store``.
        key: its name.
        kind: the type of the attribute.
        value: as TOML has it, or a text from the environment.
        base_dir: folder of the file, where relative paths start.

    Raises:
        ConfigurationError: it is of another type, or not among those that the key takes.
    """
    where = f"{section}.{key}"
    if kind is bool:
        if isinstance(value, str) and value.lower() in {"true", "false"}:
            value = value.lower() == "true"
        if not isinstance(value, bool):
            raise ConfigurationError(f"{where} must be true or false")
        return value
    if kind is int:
        return _integer(section, key, value)
    if kind is str:
        if not isinstance(value, str):
            raise ConfigurationError(f"{where} must be a string")
        allowed = _CHOICES.get((section, key))
        if allowed and value not in allowed:
            raise ConfigurationError(f"{where} must be one of {', '.join(sorted(allowed))}; it is {value!r}")
        if (section, key) == ("store", "url"):
            return _store_url(value, base_dir)
        if (section, key) == ("store", "key_file"):
            return _key_file(value, base_dir)
        if (section, key) == ("store", "node"):
            return _node(value)
        if section == "s3" and value:
            return _s3_value(key, value)
        return value
    if kind == tuple[int, ...]:
        if not isinstance(value, list | tuple) or not all(type(item) is int for item in value):
            raise ConfigurationError(f"{where} must be a list of whole numbers")
        return tuple(value)
    if kind == tuple[str, ...]:
        if isinstance(value, str):
            value = [item.strip() for item in value.split(",") if item.strip()]
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ConfigurationError(f"{where} must be a list of strings")
        return tuple(_checked(where, key, item) for item in value)
    if value in (None, "") and kind == Path | None:
        return None
    if not isinstance(value, str | Path):
        raise ConfigurationError(f"{where} must be a path")
    return base_dir / value


def _integer(section: str, key: str, value: Any) -> int:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            raise ConfigurationError(f"{section}.{key} must be a whole number") from None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{section}.{key} must be a whole number")
    low = 0 if (section, key) in _MAY_BE_ZERO else _AT_LEAST.get((section, key), 1)
    high = 65_535 if key.endswith("port") else _AT_MOST.get((section, key), 2**31)
    if not low <= value <= high:
        raise ConfigurationError(f"{section}.{key} must be between {low} and {high}; it is {value}")
    return value


def credential_path(value: str, environ: Mapping[str, str] | None = None) -> Path:
    """Return where systemd has put the credential that a setting names as ``credential:NAME``.

    Raises:
        ConfigurationError: this process was given no credentials.
    """
    folder = (os.environ if environ is None else environ).get(CREDENTIALS_VARIABLE)
    name = value.removeprefix(CREDENTIAL_PREFIX)
    if not folder:
        raise ConfigurationError(
            f"{value}: systemd gives this process no credentials; put LoadCredentialEncrypted={name}:FILE into the "
            f"unit, and run a command of the operator with systemd-run -p LoadCredentialEncrypted={name}:FILE"
        )
    return Path(folder) / name


def _key_file(value: str, base_dir: Path) -> str:
    if not value.startswith(CREDENTIAL_PREFIX):
        if not value:
            raise ConfigurationError("store.key_file must be a path, or credential:NAME")
        return str(base_dir / value)
    name = value.removeprefix(CREDENTIAL_PREFIX)
    if not name or "/" in name or name in {".", ".."}:
        raise ConfigurationError("store.key_file: what follows credential: is the name of a credential, not a path")
    return value


_NODE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?", re.ASCII)


def _node(value: str) -> str:
    if not _NODE.fullmatch(value):
        raise ConfigurationError("store.node must be 1 to 64 letters, digits and dashes, with no dash at either end")
    return value


_S3_FORMS = {
    "bucket": (re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII), "3 to 63 of a-z, 0-9, dots and dashes"),
    "prefix": (
        re.compile(r"(?:[A-Za-z0-9._-]+/){1,20}", re.ASCII),
        "letters, digits, . _ - and /, with a / at the end",
    ),
    "region": (re.compile(r"[a-z0-9-]{1,64}", re.ASCII), "the name of a region, as us-east-1"),
    "endpoint_url": (
        re.compile(r"https://[^/@?#\s]+/?|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?/?"),
        "https://HOST or https://HOST:PORT; http:// is taken for a loopback address only",
    ),
}


def _s3_value(key: str, value: str) -> str:
    form, words = _S3_FORMS[key]
    if not form.fullmatch(value):
        raise ConfigurationError(f"s3.{key} must be {words}")
    return value


_PASSWORD_IN_URL = re.compile(r"^[^/]*//[^/@]*:[^/@]*@|[?&]password=", re.IGNORECASE)


def _store_url(value: str, base_dir: Path) -> str:
    prefix = "sqlite:///"
    if value.startswith(POSTGRESQL_PREFIXES):
        if _PASSWORD_IN_URL.search(value):
            # Not repeated here: what is wrong with it is that it would be shown.
            raise ConfigurationError(
                "store.url must not hold a password: write it to a file for this user only and set store.password_file"
            )
        return value
    if not value.startswith(prefix):
        raise ConfigurationError("store.url must begin with sqlite:/// or postgresql://")
    return prefix + str(base_dir / value[len(prefix) :])


def _checked(where: str, key: str, item: str) -> str:
    try:
        if key == "domains":
            return parse_domain(item)
        if key in {"addresses", "automatic_for"}:
            return normalise(item)
        if key in {"allow_fetch_cidrs", "allowed_peers"}:
            return str(ipaddress.ip_network(item, strict=False))
    except (InputError, ValueError) as exc:
        raise ConfigurationError(f"{where}: {exc}") from None
    if key == "record_assigners" and not item.strip():
        # It would make every number of an unknown assigner one of ours.
        raise ConfigurationError(f"{where} must not hold an empty text")
    return item
