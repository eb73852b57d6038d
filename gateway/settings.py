"""Settings: frozen, typed, and the only reader of the environment.

The file is TOML. An unknown key is an error with the nearest known one, because a misspelt key that is silently
ignored costs more than a refused start. ``DIRECTGW__SECTION__KEY=value`` in the environment overrides a key.
Relative paths are relative to the file's folder. Reading settings touches nothing: no folder is made, no port
is opened.

Every duration and size carries its unit in its name.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from gateway.core.address import normalise, parse_domain
from gateway.core.errors import ConfigurationError, InputError

ENVIRONMENT_PREFIX = "DIRECTGW__"
CONFIG_VARIABLE = "DIRECTGW_CONFIG"
DEFAULT_CONFIG_PATHS = (Path("gateway.toml"), Path("config/gateway.toml"))


@dataclass(frozen=True, slots=True)
class PracticeSettings:
    """Who we are."""

    name: str = "practice"
    domains: tuple[str, ...] = ()
    """Health domains that are local: mail is accepted for these only."""
    addresses: tuple[str, ...] = ()
    """Direct addresses that have an inbox here."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where everything is kept."""

    url: str = "sqlite:///data/gateway.db"
    group_commit_units: int = 32
    group_commit_wait_ms: int = 5
    free_space_floor_mib: int = 100


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """The certificate that the listeners show."""

    certificate_file: Path = Path("certs/tls/server.cert.pem")
    key_file: Path = Path("certs/tls/server.key.pem")


@dataclass(frozen=True, slots=True)
class SMTPSettings:
    """The STA listener: mail from other HISPs."""

    host: str = "127.0.0.1"
    port: int = 2525
    hostname: str = "localhost"
    max_message_mib: int = 50
    max_recipients: int = 100
    max_connections: int = 200
    max_connections_per_peer: int = 20
    max_messages_per_connection: int = 100
    max_buffered_mib: int = 256
    """All messages being received at this moment, together."""
    max_commands_without_mail: int = 100
    command_timeout_seconds: int = 300
    data_timeout_seconds: int = 600
    min_data_rate_bytes_per_second: int = 500


@dataclass(frozen=True, slots=True)
class IMAPSettings:
    """The local inbox for mail clients."""

    host: str = "127.0.0.1"
    port: int = 1143
    """STARTTLS; no login before it. 0 = off."""
    tls_port: int = 1993
    """Implicit TLS. 0 = off."""
    max_connections: int = 500
    max_connections_per_peer: int = 100
    login_timeout_seconds: int = 60
    idle_timeout_minutes: int = 30
    max_line_kib: int = 64
    max_literal_before_login_kib: int = 4
    failed_login_delay_seconds: int = 2
    deleted_flag: str = "ignore"
    """``ignore`` or ``refuse`` (the no-delete rules)."""


@dataclass(frozen=True, slots=True)
class HTTPSettings:
    """Health and readiness for the operator; loopback by default. 0 = off."""

    host: str = "127.0.0.1"
    port: int = 8080


@dataclass(frozen=True, slots=True)
class SubmissionSettings:
    """The port kept for mail clients and EHRs that send. Sending is not part of this release."""

    host: str = "127.0.0.1"
    port: int = 1587


@dataclass(frozen=True, slots=True)
class TrustSettings:
    """Keys, anchors and the rules of the Security/Trust Agent."""

    identities_dir: Path = Path("certs/identities")
    """``NAME.cert.pem`` with ``NAME.key.pem`` beside it, or ``NAME.p12``."""
    key_password_file: Path | None = None
    anchors_dir: Path = Path("certs/anchors")
    """Anchors of every local domain; a sub-folder named after a domain or an address holds its own."""
    crls_dir: Path | None = Path("certs/crls")
    allow_fetch_cidrs: tuple[str, ...] = ()
    """Address ranges from which a URL in a certificate may be fetched. Empty = nothing is fetched."""
    revocation: str = "soft"
    """``soft``: unknown revocation is recorded and passes; ``hard``: it refuses."""
    workers: int = 2


@dataclass(frozen=True, slots=True)
class ChartSettings:
    """Linking and the import hook."""

    automatic_links: bool = True
    """False: even an exact match waits for a person."""
    folder_importer_dir: Path | None = Path("charts")
    """A folder per patient gets the message, its parts and a JSON record. Empty = off."""


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The workers."""

    poll_interval_ms: int = 500
    lease_seconds: int = 300
    batch: int = 20


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Structured logs on standard error, free of PHI."""

    level: str = "info"
    format: str = "text"
    """``text`` or ``json``."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, one attribute a section of the file."""

    practice: PracticeSettings = field(default_factory=PracticeSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    tls: TLSSettings = field(default_factory=TLSSettings)
    smtp: SMTPSettings = field(default_factory=SMTPSettings)
    imap: IMAPSettings = field(default_factory=IMAPSettings)
    http: HTTPSettings = field(default_factory=HTTPSettings)
    submission: SubmissionSettings = field(default_factory=SubmissionSettings)
    trust: TrustSettings = field(default_factory=TrustSettings)
    charts: ChartSettings = field(default_factory=ChartSettings)
    jobs: JobSettings = field(default_factory=JobSettings)
    log: LogSettings = field(default_factory=LogSettings)
    base_dir: Path = Path()
    """Folder of the file; every relative path starts here."""


_CHOICES: dict[tuple[str, str], frozenset[str]] = {
    ("imap", "deleted_flag"): frozenset({"ignore", "refuse"}),
    ("trust", "revocation"): frozenset({"soft", "hard"}),
    ("log", "format"): frozenset({"text", "json"}),
    ("log", "level"): frozenset({"debug", "info", "warning", "error"}),
}
_MAY_BE_ZERO = frozenset(
    {
        ("imap", "port"),
        ("imap", "tls_port"),
        ("http", "port"),
        ("submission", "port"),
        ("smtp", "port"),
        ("store", "group_commit_wait_ms"),
        ("imap", "failed_login_delay_seconds"),
        ("store", "free_space_floor_mib"),
    }
)


def find_config(explicit: str | None) -> Path:
    """Return the configuration file: the one named, else $DIRECTGW_CONFIG, else one in the usual places.

    Raises:
        ConfigurationError: there is none; the text says where it was looked for.
    """
    named = explicit or os.environ.get(CONFIG_VARIABLE)
    if named:
        path = Path(named)
        if path.is_dir():
            path = path / "gateway.toml"
        if not path.is_file():
            raise ConfigurationError(f"no configuration file at {path}; make one with: direct-gateway init DIR")
        return path
    for path in DEFAULT_CONFIG_PATHS:
        if path.is_file():
            return path
    looked = " or ".join(str(p) for p in DEFAULT_CONFIG_PATHS)
    raise ConfigurationError(f"no --config given and no {looked} here; make a practice with: direct-gateway init DIR")


def load(path: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check a configuration file.

    Raises:
        ConfigurationError: unreadable, unknown key or wrong value; the text names the key and the mend.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path} is not valid TOML: {exc}") from exc
    _override(document, os.environ if environ is None else environ)
    return from_document(document, path.resolve().parent)


def _override(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    for variable, value in environ.items():
        if variable.startswith(ENVIRONMENT_PREFIX):
            section, _, key = variable[len(ENVIRONMENT_PREFIX) :].lower().partition("__")
            table = document.setdefault(section, {})
            if not isinstance(table, dict) or not key:
                raise ConfigurationError(f"{variable}: expected {ENVIRONMENT_PREFIX}SECTION__KEY")
            table[key] = value


def from_document(document: Mapping[str, Any], base_dir: Path) -> Settings:
    """Build settings from parsed TOML.

    Raises:
        ConfigurationError: as :func:`load`.
    """
    sections = {f.name: f for f in fields(Settings) if f.name != "base_dir"}
    built: dict[str, Any] = {"base_dir": base_dir}
    for name, table in document.items():
        if name not in sections:
            raise ConfigurationError(f"unknown section [{name}]{_hint(name, sections)}")
        if not isinstance(table, Mapping):
            raise ConfigurationError(f"{name} must be a section: [{name}]")
        factory = sections[name].default_factory
        assert factory is not MISSING  # noqa: S101 - every section has one
        built[name] = _section(name, type(factory()), table, base_dir)
    for name, info in sections.items():
        if name not in built and info.default_factory is not MISSING:
            built[name] = _section(name, type(info.default_factory()), {}, base_dir)
    settings = Settings(**built)
    if settings.smtp.max_buffered_mib < settings.smtp.max_message_mib:
        # Otherwise the largest messages would be told "try again later" for ever.
        raise ConfigurationError("smtp.max_buffered_mib must not be below smtp.max_message_mib")
    return settings


def _hint(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(sorted(known))}"


def _section(name: str, kind: type[Any], table: Mapping[str, Any], base_dir: Path) -> Any:
    known = {f.name: f for f in fields(kind)}
    hints = get_type_hints(kind)
    for key in table:
        if key not in known:
            raise ConfigurationError(f"unknown key {name}.{key}{_hint(key, known)}")
    values = {
        key: _value(name, key, hints[key], table.get(key, _default(info)), base_dir) for key, info in known.items()
    }
    return kind(**values)


def _default(info: Field[Any]) -> Any:
    return info.default


def _value(section: str, key: str, kind: Any, value: Any, base_dir: Path) -> Any:
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
        return value
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
    low = 0 if (section, key) in _MAY_BE_ZERO else 1
    high = 65_535 if key.endswith("port") else 2**31
    if not low <= value <= high:
        raise ConfigurationError(f"{section}.{key} must be between {low} and {high}; it is {value}")
    return value


def _store_url(value: str, base_dir: Path) -> str:
    prefix = "sqlite:///"
    if not value.startswith(prefix):
        raise ConfigurationError("store.url must begin with sqlite:///")
    return prefix + str(base_dir / value[len(prefix) :])


def _checked(where: str, key: str, item: str) -> str:
    try:
        if key == "domains":
            return parse_domain(item)
        if key == "addresses":
            return normalise(item)
        if key == "allow_fetch_cidrs":
            return str(ipaddress.ip_network(item, strict=False))
    except (InputError, ValueError) as exc:
        raise ConfigurationError(f"{where}: {exc}") from None
    return item
