"""Paths from one leaf to one set of anchors, for tests that look at a single search."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from gateway.sta.certificates import Certificate
from gateway.sta.paths.path_building import IssuerFetch, Path, PathSearch, by_subject


def build_paths(
    leaf: Certificate,
    anchors: Sequence[Certificate],
    untrusted: Sequence[Certificate],
    at: datetime,
    fetch_issuers: IssuerFetch | None = None,
) -> list[Path]:
    """The candidate paths, the most promising first."""
    return PathSearch(leaf, untrusted, at, fetch_issuers).paths(by_subject(anchors))
