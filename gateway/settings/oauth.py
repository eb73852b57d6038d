"""Whether the keys of [oauth] make one authority: half of one would refuse everybody, or trust whom nobody meant.

Failure modes: ConfigurationError; the text names the key and the mend.
"""

from __future__ import annotations

import re

from gateway.core.errors import ConfigurationError
from gateway.settings.sections import OAuthSettings

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
"""Those that a token may be signed with: by a private key of the authority, never by a secret that is shared."""
_HTTPS = re.compile(r"https://[^/@?#\s]+(?:[/?][^#\s]*)?")
_CLAIM = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")


def check_oauth(settings: OAuthSettings) -> None:
    """Raises ConfigurationError."""
    unknown = [name for name in settings.algorithms if name not in ALGORITHMS]
    if unknown or not settings.algorithms:
        raise ConfigurationError(f"oauth.algorithms must be among {', '.join(ALGORITHMS)}, and not empty")
    if not _CLAIM.fullmatch(settings.login_claim):
        raise ConfigurationError("oauth.login_claim must be the name of a claim, as email or preferred_username")
    if settings.jwks_url and not _HTTPS.fullmatch(settings.jwks_url):
        raise ConfigurationError("oauth.jwks_url must be https://HOST/PATH: who can change the keys can be anybody")
    if not settings.issuer:
        if settings.audience or settings.jwks_url or settings.jwks_file is not None:
            raise ConfigurationError(
                "oauth.issuer is empty, so no token is taken; set it, or empty the rest of [oauth]"
            )
        return
    if not settings.audience:
        raise ConfigurationError(
            "oauth.audience must name this gateway as the authority does: without it a token for any other "
            "service of the authority would open mailboxes"
        )
    if bool(settings.jwks_url) == (settings.jwks_file is not None):
        raise ConfigurationError("oauth needs the keys of the authority: set one of oauth.jwks_url and oauth.jwks_file")
