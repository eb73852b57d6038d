"""Which patients have a value: a table from values to small numbers of patients.

Most values belong to one patient (a telephone, a record number), so that a set for each would be most of the memory:
one patient is kept as the bare number, and a set only where there are two or more.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Postings(Generic[K]):
    """Patients by value. Adding and removing one is O(1)."""

    __slots__ = ("_table",)

    def __init__(self) -> None:
        self._table: dict[K, int | set[int]] = {}

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, key: object) -> bool:
        return key in self._table

    def __iter__(self) -> Iterator[K]:
        return iter(self._table)

    def add(self, key: K, patient: int) -> bool:
        """Add a patient under the value; returns whether the value is new."""
        held = self._table.get(key)
        if held is None:
            self._table[key] = patient
            return True
        if isinstance(held, set):
            held.add(patient)
        elif held != patient:
            self._table[key] = {held, patient}
        return False

    def remove(self, key: K, patient: int) -> bool:
        """Remove a patient from the value; returns whether nobody has it any more."""
        held = self._table.get(key)
        if isinstance(held, set):
            held.discard(patient)
            if len(held) == 1:
                self._table[key] = held.pop()
            return False
        if held == patient:
            del self._table[key]
            return True
        return False

    def get(self, key: K) -> Collection[int]:
        """The patients with the value; not to be changed."""
        held = self._table.get(key)
        if held is None:
            return ()
        return held if isinstance(held, set) else (held,)
