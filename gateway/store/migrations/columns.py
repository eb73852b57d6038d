"""The types of columns as revisions write them. Frozen: a revision must make tomorrow what it made on its day.

They are what the types of :mod:`gateway.store.tables` become in each database, without what those do to values.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine


def text() -> TypeEngine[str]:
    """Text without a limit, in the order of its bytes."""
    return sa.Text().with_variant(sa.String(collation="C"), "postgresql")


def short(characters: int) -> TypeEngine[str]:
    """Text whose limit SQLite writes down and nobody enforces."""
    return sa.String(characters).with_variant(sa.String(collation="C"), "postgresql")


def moment() -> TypeEngine[str]:
    """A time in UTC, as 27 characters."""
    return short(27)


def row_id() -> TypeEngine[int]:
    """A number that the database counts up."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")
