"""Settings: frozen, typed, and the only reader of the environment.

The file is TOML; ``DIRECTGW__SECTION__KEY=value`` in the environment overrides a key. What there is stands in
``sections``, which values are taken in ``values``, and the reading in ``reading``.
"""

from gateway.settings.reading import (
    CONFIG_VARIABLE,
    DEFAULT_CONFIG_PATHS,
    ENVIRONMENT_PREFIX,
    find_config,
    from_document,
    load,
)
from gateway.settings.sections import (
    ARRAYS,
    AccountSettings,
    AuditSettings,
    ChartSettings,
    HTTPSettings,
    IMAPSettings,
    JobSettings,
    LogSettings,
    OAuthSettings,
    POP3Settings,
    PracticeSettings,
    S3Settings,
    Settings,
    SMTPSettings,
    StoreSettings,
    SubmissionSettings,
    TLSSettings,
    TrustSettings,
)
from gateway.settings.values import CREDENTIAL_PREFIX, CREDENTIALS_VARIABLE, POSTGRESQL_PREFIXES, credential_path

__all__ = [
    "ARRAYS",
    "CONFIG_VARIABLE",
    "CREDENTIALS_VARIABLE",
    "CREDENTIAL_PREFIX",
    "DEFAULT_CONFIG_PATHS",
    "ENVIRONMENT_PREFIX",
    "POSTGRESQL_PREFIXES",
    "AccountSettings",
    "AuditSettings",
    "ChartSettings",
    "HTTPSettings",
    "IMAPSettings",
    "JobSettings",
    "LogSettings",
    "OAuthSettings",
    "POP3Settings",
    "PracticeSettings",
    "S3Settings",
    "SMTPSettings",
    "Settings",
    "StoreSettings",
    "SubmissionSettings",
    "TLSSettings",
    "TrustSettings",
    "credential_path",
    "find_config",
    "from_document",
    "load",
]
