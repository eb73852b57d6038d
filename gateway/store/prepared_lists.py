"""Prepared statements for as many values as there are: ``IN`` with a list of a fixed length, run as often as needed.

A list of any length cannot be compiled once (:mod:`gateway.store.prepared`). One of LENGTH can, and what is asked for
is asked in such pieces; the last one repeats a value, which changes nothing of what is found.

Failure modes: those of the statements. All rows of a piece are in memory at once: for narrow rows only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import BindParameter, Connection, Select, bindparam

from gateway.store.prepared import Prepared

LENGTH = 64
_NAMES = [f"listed_{number}" for number in range(LENGTH)]


class PreparedList:
    """A SELECT whose WHERE has ``column.in_(listed)``. Make it once, as a constant of a module."""

    __slots__ = ("_statement",)

    def __init__(self, make: Callable[[list[BindParameter[Any]]], Select[*tuple[Any, ...]]]) -> None:
        """``make`` is given what the column is to be in."""
        self._statement = Prepared(make([bindparam(name) for name in _NAMES]))

    def rows(self, connection: Connection, listed: Sequence[Any], /, **values: Any) -> Iterator[Any]:
        """The rows as named tuples; ``values`` are the other parameters."""
        for start in range(0, len(listed), LENGTH):
            piece = list(listed[start : start + LENGTH])
            piece += piece[-1:] * (LENGTH - len(piece))
            yield from self._statement.rows(connection, **values, **dict(zip(_NAMES, piece, strict=True)))
