"""The targets of the settings: the adapters behind them, and what can be said of them before anything is sent.

Failure modes: none here; what is wrong with a target is found by :func:`findings`, and by its deliveries.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path

from gateway.core.errors import ConfigurationError
from gateway.core.import_settings import (
    COMMAND,
    FHIR,
    FOLDER,
    LEGACY_FOLDER_NAME,
    MDM,
    PLUGIN,
    WEBHOOK,
    ImporterSettings,
)
from gateway.importers.command import CommandImporter, unfit
from gateway.importers.folder import FolderImporter
from gateway.importers.plugin import PluginImporter
from gateway.importers.plugin_loading import PluginError, find
from gateway.importers.standard_webhooks import exposed, read_secrets, secret_path
from gateway.importers.webhook import WebhookImporter
from gateway.ports import Clock, PatientImporter


def targets_of(targets: Sequence[ImporterSettings], folder: Path | None) -> list[ImporterSettings]:
    """Every target: those of ``[[importer]]``, and the one that ``charts.folder_importer_dir`` makes, first."""
    made = [ImporterSettings(name=LEGACY_FOLDER_NAME, kind=FOLDER, directory=folder, timeout_seconds=120)]
    return [*(made if folder is not None else []), *targets]


def importer_for(target: ImporterSettings, clock: Clock) -> PatientImporter:
    """The adapter of a target. Touches nothing."""
    if target.kind == WEBHOOK:
        return WebhookImporter(target, clock)
    if target.kind == COMMAND:
        return CommandImporter(target)
    if target.kind == PLUGIN:
        return PluginImporter(target)
    assert target.directory is not None  # noqa: S101 - the settings were checked
    return FolderImporter(target.directory, target.name)


def findings(targets: Sequence[ImporterSettings]) -> tuple[list[str], list[str]]:
    """(errors, warnings) about what the targets name. Reads, never writes, runs and asks nothing."""
    errors: list[str] = []
    warnings: list[str] = []
    for target in targets:
        if target.enabled:
            wrong, doubtful = _findings(target)
            errors += [f"[[importer]] {target.name}: {text}" for text in wrong]
            warnings += [f"[[importer]] {target.name}: {text}" for text in doubtful]
    return errors, warnings


def _findings(target: ImporterSettings) -> tuple[list[str], list[str]]:
    if target.kind == WEBHOOK:
        return _webhook(target)
    if target.kind == COMMAND:
        told = unfit(Path(target.argv[0]))
        return ([f"argv: {told}"] if told else []), []
    if target.kind == PLUGIN:
        return _plugin(target)
    if target.kind == MDM:
        return _mdm(target)
    if target.kind == FHIR:
        return _fhir(target)
    return [], []


def _mdm(target: ImporterSettings) -> tuple[list[str], list[str]]:
    named = {"ca_file": target.ca_file, "certificate_file": target.certificate_file, "key_file": target.key_file}
    errors = [
        f"{key}: there is no readable file {path}"
        for key, path in named.items()
        if path is not None and not os.access(path, os.R_OK)
    ]
    warnings = _exposed("key_file", target.key_file) if target.key_file is not None and not errors else []
    if target.tls == "none":
        warnings.append('tls is "none": documents of patients go over the network in clear text')
    return errors, warnings


def _fhir(target: ImporterSettings) -> tuple[list[str], list[str]]:
    secret = {"key_file": target.key_file, "bearer_file": target.bearer_file}
    errors = [
        f"{key}: there is no readable file {path}"
        for key, path in {**secret, "ca_file": target.ca_file}.items()
        if path is not None and not os.access(path, os.R_OK)
    ]
    warnings = [text for key, path in secret.items() if path is not None for text in _exposed(key, path)]
    if not any(secret.values()):
        warnings.append("the server is asked without a token: name client_id and key_file, or bearer_file")
    return errors, warnings


def _webhook(target: ImporterSettings) -> tuple[list[str], list[str]]:
    errors: list[str] = []
    warnings: list[str] = []
    for setting in target.secret_files:
        try:
            read_secrets([setting])
            path = secret_path(setting)
        except ConfigurationError as exc:
            errors.append(f"secret_files: {exc}")
            continue
        warnings += _exposed("secret_files", path)
    if target.ca_file is not None and not os.access(target.ca_file, os.R_OK):
        errors.append(f"ca_file: there is no readable file {target.ca_file}")
    return errors, warnings


def _plugin(target: ImporterSettings) -> tuple[list[str], list[str]]:
    errors: list[str] = []
    try:
        find(target.plugin)
    except PluginError as exc:
        errors.append(f"plugin: {exc}")
    path = target.options_file
    if path is None:
        return errors, []
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return [*errors, f"options_file: there is no readable file {path}"], []
    except ValueError:
        errors.append(f"options_file: {path} is not valid TOML")
    return errors, _exposed("options_file", path)


def _exposed(key: str, path: Path) -> list[str]:
    return [f"{key}: {path} can be read by others; run: chmod 600 {path}"] if exposed(path) else []
