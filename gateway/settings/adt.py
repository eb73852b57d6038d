"""Whether the keys of [adt] make one feed: a feed that takes any number for a patient's would mix up patients.

Failure modes: ConfigurationError; the text names the key and the mend.
"""

from __future__ import annotations

import re
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.core.errors import ConfigurationError
from gateway.settings.sections import ADTSettings

_WORD = re.compile(r"[!-~]{1,32}\Z")


def check_adt(settings: ADTSettings) -> None:
    """Raises ConfigurationError."""
    zone_of(settings.time_zone)
    if not _WORD.match(settings.direct_code):
        raise ConfigurationError("adt.direct_code must be a word of up to 32 characters, as DIRECT")
    if not _WORD.match(settings.processing_id):
        raise ConfigurationError("adt.processing_id must be what MSH-11 has: P, T or D")
    if not settings.port:
        return
    if not settings.assigning_authority:
        raise ConfigurationError(
            "adt.assigning_authority must name whose numbers are the ids of patients here, as PID-3.4 has it: without "
            "it a number of another hospital could be taken for one of ours"
        )
    if not settings.allowed_peers:
        raise ConfigurationError("adt.allowed_peers is empty: nobody could connect; give networks as 10.1.2.3/32")
    if settings.tls == "none" and settings.client_ca_file is not None:
        raise ConfigurationError(
            'adt.client_ca_file asks for certificates, which only TLS has: set adt.tls = "required"'
        )


def zone_of(name: str) -> tzinfo:
    """The time zone of that name. Raises ConfigurationError."""
    if name == "UTC":
        # Known without the time zones of the machine, which a small container does not have.
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ConfigurationError(
            "adt.time_zone must be a time zone that this machine knows, as UTC or America/Chicago"
        ) from None
