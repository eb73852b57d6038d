"""Reads the file and the environment into :class:`gateway.settings.sections.Settings`.

An unknown key is an error with the nearest known one, because a misspelt key that is silently ignored costs more than a
refused start. Reading touches nothing: no folder is made, no port is opened.

Failure modes: ConfigurationError; the text names the key and the mend.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from gateway.core import import_settings
from gateway.core.errors import ConfigurationError, InputError
from gateway.core.fetch_settings import FetchSettings, check_together, completed
from gateway.core.import_settings import ImporterSettings
from gateway.settings.adt import check_adt
from gateway.settings.oauth import check_oauth
from gateway.settings.sections import ARRAYS, Settings
from gateway.settings.values import checked_value

ENVIRONMENT_PREFIX = "DIRECTGW__"
CONFIG_VARIABLE = "DIRECTGW_CONFIG"
DEFAULT_CONFIG_PATHS = (Path("gateway.toml"), Path("config/gateway.toml"))


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
    except (ValueError, RecursionError) as exc:
        # Besides TOMLDecodeError: a number of thousands of digits, or a list in a thousand lists.
        raise ConfigurationError(f"{path} is not valid TOML: {exc}") from exc
    _override(document, os.environ if environ is None else environ)
    return from_document(document, path.resolve().parent)


def _override(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    for variable, value in environ.items():
        if variable.startswith(ENVIRONMENT_PREFIX):
            section, _, key = variable[len(ENVIRONMENT_PREFIX) :].lower().partition("__")
            if section in ARRAYS:
                raise ConfigurationError(f"{variable}: [[{section}]] cannot be set from the environment")
            table = document.setdefault(section, {})
            if not isinstance(table, dict) or not key:
                raise ConfigurationError(f"{variable}: expected {ENVIRONMENT_PREFIX}SECTION__KEY")
            table[key] = value


def from_document(document: Mapping[str, Any], base_dir: Path) -> Settings:
    """Build settings from parsed TOML.

    Raises:
        ConfigurationError: as :func:`load`.
    """
    sections = {f.name: f for f in fields(Settings) if f.name != "base_dir" and f.name not in ARRAYS}
    built: dict[str, Any] = {"base_dir": base_dir}
    for name, table in document.items():
        if name in ARRAYS:
            built[name] = tuple(_tables(name, table, base_dir))
            continue
        if name not in sections:
            raise ConfigurationError(f"unknown section [{name}]{_hint(name, {**sections, **ARRAYS})}")
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
    if settings.store.bodies == "s3" and not settings.s3.bucket:
        raise ConfigurationError('store.bodies is "s3": s3.bucket must name the bucket; see docs/s3.md')
    check_oauth(settings.oauth)
    check_adt(settings.adt)
    return replace(settings, fetch=_completed(settings), importer=_importers(settings))


def _tables(name: str, tables: Any, base_dir: Path) -> Iterator[Any]:
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise ConfigurationError(f"{name} must be an array of tables: [[{name}]]")
    for number, table in enumerate(tables, 1):
        try:
            yield _section(name, ARRAYS[name], table, base_dir)
        except ConfigurationError as exc:
            raise ConfigurationError(f"[[{name}]] number {number}: {exc}") from None


def _completed(settings: Settings) -> tuple[FetchSettings, ...]:
    practice = settings.practice
    accounts = []
    for number, account in enumerate(settings.fetch, 1):
        try:
            accounts.append(completed(account, practice.addresses, practice.domains))
        except InputError as exc:
            raise ConfigurationError(f"[[fetch]] {account.name or f'number {number}'}: {exc}") from None
    try:
        check_together(accounts)
    except InputError as exc:
        raise ConfigurationError(str(exc)) from None
    return tuple(accounts)


def _importers(settings: Settings) -> tuple[ImporterSettings, ...]:
    targets = []
    for number, target in enumerate(settings.importer, 1):
        try:
            targets.append(import_settings.completed(target, settings.base_dir))
        except InputError as exc:
            raise ConfigurationError(f"[[importer]] {target.name or f'number {number}'}: {exc}") from None
    try:
        import_settings.check_together(targets, legacy_folder=settings.charts.folder_importer_dir is not None)
    except InputError as exc:
        raise ConfigurationError(str(exc)) from None
    return tuple(targets)


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
        key: checked_value(name, key, hints[key], table.get(key, _default(info)), base_dir)
        for key, info in known.items()
    }
    return kind(**values)


def _default(info: Field[Any]) -> Any:
    return info.default
