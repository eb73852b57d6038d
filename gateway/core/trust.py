"""Values about trust that several rooms share: directions, and bundles of anchors in force."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Direction(StrEnum):
    """For which traffic an anchor counts (AS-72): what is received, or what is sent."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


BOTH_DIRECTIONS = frozenset(Direction)


class FetchedMail(StrEnum):
    """What takes the place of the SMTP envelope for mail that was fetched and has none (AS-46)."""

    OUTER = "outer"
    """The outer From and To, which nobody vouches for, must agree with the signed ones."""
    TRACE = "trace"
    """Return-Path and Delivered-To or X-Original-To, written by our own upstream, count as the envelope."""
    UNCHECKED = "unchecked"
    """Nothing is compared; the evidence says so."""


@dataclass(frozen=True, slots=True)
class AnchorBundle:
    """The anchors of one trust bundle as they are in force (TB-9, TB-11, TB-17)."""

    name: str
    version: int
    owners: tuple[str, ...]
    """Normalised local domains and addresses that trust it; empty means every one."""
    directions: frozenset[Direction]
    anchors: tuple[bytes, ...]
    """DER, in the order of the bundle."""

    @property
    def source(self) -> str:
        """How the evidence names it."""
        return f"bundle {self.name} version {self.version}"


@dataclass(frozen=True, slots=True)
class BundleSetting:
    """How one trust bundle is to be fetched and used; a change of it is a new value (TB-7, TB-11)."""

    name: str
    location: str
    """An http(s) URL, or the absolute path of a file."""
    signer: bytes | None
    """DER of the certificate that must have signed it (TB-3); None: an unsigned bundle."""
    owners: tuple[str, ...]
    directions: frozenset[Direction]
    refresh_hours: int
    """0: only by hand."""
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class BundleVersion:
    """One content of a bundle that was taken over; kept for ever (TB-14)."""

    name: str
    version: int
    """1 for the first."""
    at: datetime
    sha256: str
    """Of the file as it came."""
    anchors: tuple[bytes, ...]
    """DER of those that were accepted."""


@dataclass(frozen=True, slots=True)
class BundleRecord:
    """One version of a bundle without what it holds, for a list of many."""

    version: int
    at: datetime
    sha256: str
    """Of the file as it came."""
    anchors: int
    """How many were accepted."""


@dataclass(frozen=True, slots=True)
class BundleStatus:
    """What became of the attempts to refresh a bundle (TB-8)."""

    name: str
    last_attempt: datetime | None = None
    last_success: datetime | None = None
    error: str = ""
    """Empty when the last attempt succeeded."""
    alarm: str = ""
    """Set when anchors went missing; stays until a person has acknowledged it (TB-14)."""
