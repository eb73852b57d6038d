"""What ``config check`` says of the database, the audit log and the secrets: what would stop ``serve``, found before.

Reads, never writes; it connects to a PostgreSQL, and to nothing else. A database that was not made yet is no finding
here: the first ``serve`` or ``store init`` makes it.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from gateway.core.errors import ConfigurationError, GatewayError, StoreError
from gateway.core.fetching import UpstreamError
from gateway.settings import POSTGRESQL_PREFIXES, Settings

Findings = tuple[list[str], list[str]]
"""(errors, warnings)."""


def store_findings(settings: Settings) -> Findings:
    """All of them."""
    errors, warnings = _password(settings)
    if not errors:
        errors += _database(settings)
    for found in (_audit(settings, reachable=not errors), _secrets(settings)):
        errors += found[0]
        warnings += found[1]
    if settings.s3.bucket and settings.s3.allow_retention_shortening:
        warnings.append(
            "s3.allow_retention_shortening is true, which is for test servers only: somebody with rights in the bucket "
            "can shorten the retention of stored mail and then remove it"
        )
    return errors, warnings


def _database(settings: Settings) -> list[str]:
    """Whether a PostgreSQL answers, lets us in, and has our tables; whether tables are those of this release."""
    from gateway.store.opening import missing_tables, schema_trouble  # noqa: PLC0415 - see gateway.cli.session

    try:
        if missing := missing_tables(settings.store):
            return [f"store.url: {missing}"] if settings.store.url.startswith(POSTGRESQL_PREFIXES) else []
        trouble = schema_trouble(settings.store)
    except (ConfigurationError, StoreError) as exc:
        return [str(exc)]
    return [trouble] if trouble else []


def _password(settings: Settings) -> Findings:
    path = settings.store.password_file
    if path is None:
        return [], []
    try:
        held = path.read_text(encoding="utf-8").rstrip("\r\n")
    except FileNotFoundError:
        return [f"store.password_file: there is no file {path}"], []
    except (OSError, UnicodeDecodeError):
        return [f"store.password_file: {path} cannot be read"], []
    errors = [] if held else [f"store.password_file: {path} is empty"]
    exposed = path.stat().st_mode & 0o077
    return errors, [f"store.password_file: {path} can be read by others; run: chmod 600 {path}"] if exposed else []


def _audit(settings: Settings, *, reachable: bool) -> Findings:
    """The key that signs heads, and the folder they go to."""
    from gateway.keys.head_signing import load_signing_key  # noqa: PLC0415 - see gateway.cli.session

    errors: list[str] = []
    path = settings.audit.signing_key_file
    if path.exists() or (reachable and _has_heads(settings)):
        try:
            load_signing_key(path)
        except ConfigurationError as exc:
            errors.append(str(exc))
    return errors, _heads_dir(settings.audit.heads_dir)


def _has_heads(settings: Settings) -> bool:
    """Whether heads were ever signed: then the key of that time must be at hand."""
    from gateway.store.opening import missing_tables  # noqa: PLC0415 - see gateway.cli.session

    async def ask() -> bool:
        from gateway.services import open_services  # noqa: PLC0415 - see gateway.cli.session

        async with open_services(settings) as services:
            return await services.store.read(lambda rows: rows.audit_tree.newest_head()) is not None

    try:
        return not missing_tables(settings.store) and asyncio.run(ask())
    except (GatewayError, OSError):
        # What is wrong with the database is told by others.
        return False


def _heads_dir(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    told = "signed heads would stay in the database only"
    if folder.is_dir():
        writable = os.access(folder, os.W_OK | os.X_OK)
        return [] if writable else [f"audit.heads_dir: this user cannot write to {folder}: {told}"]
    if folder.exists():
        return [f"audit.heads_dir: {folder} is no folder: {told}"]
    if not folder.parent.is_dir():
        return [f"audit.heads_dir: there is no folder {folder.parent}: {told}; mount it or make it"]
    if not os.access(folder.parent, os.W_OK | os.X_OK):
        return [f"audit.heads_dir: {folder} is not there, and this user cannot make it: {told}"]
    return []


def _secrets(settings: Settings) -> Findings:
    """Secrets of the upstream mailboxes, as they are read at each login."""
    from gateway.ingress.upstream_login import read_secret  # noqa: PLC0415 - see gateway.cli.session

    errors: list[str] = []
    for account in settings.fetch:
        path = account.password_file
        # A token is kept fresh by somebody else, who may be a little later than we are.
        if account.enabled and path is not None and path.is_file() and account.oauth_token_file is None:
            try:
                read_secret(account)
            except UpstreamError as exc:
                errors.append(f"[[fetch]] {account.name}: {exc}")
    return errors, []
