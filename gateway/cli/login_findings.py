"""What ``config check`` says of logins: whether the keys of the token authority can be read, and who may replace them.

Reads, never writes, and asks no server: ``oauth.jwks_url`` is first asked when somebody brings a token.
"""

from __future__ import annotations

import stat

from gateway.core.errors import ConfigurationError
from gateway.settings import Settings

Findings = tuple[list[str], list[str]]
"""(errors, warnings)."""


def login_findings(settings: Settings) -> Findings:
    """All of them."""
    oauth = settings.oauth
    if not oauth.issuer:
        return [], []
    from gateway.accounts.tokens import token_verifier  # noqa: PLC0415 - see gateway.cli.session

    try:
        token_verifier(oauth)
    except ConfigurationError as exc:
        return [str(exc)], []
    path = oauth.jwks_file
    if path is not None and stat.S_IMODE(path.stat().st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        return [], [f"oauth.jwks_file: others may write to {path}, and so log in as anybody: chmod go-w {path}"]
    return [], []
