"""How far a long piece of work is: told often, shown by whoever wants to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from gateway.store.table_rows import Row

_TOLD_EVERY = 64


@dataclass(frozen=True, slots=True)
class Step:
    """Where the work is."""

    what: str
    """What is done now, for people: ``copying``."""
    done: int
    total: int
    unit: str
    """``rows``, ``bytes``, ``events``, ``bodies``."""
    bytes: int = 0
    """Bytes that were handled, where the unit is another."""


Tell: TypeAlias = Callable[[Step], None]


def silent(_step: Step) -> None:
    """Show nothing."""


class RowCount:
    """Counts rows of several tables on their way, and tells."""

    def __init__(self, what: str, total: int, tell: Tell) -> None:
        self._what = what
        self._total = total
        self._tell = tell
        self.done = 0
        self.bytes = 0

    def passing(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows, counted."""
        for row in rows:
            yield row
            self.done += 1
            self.bytes += sum(len(value) for value in row if isinstance(value, bytes | str))
            if self.done % _TOLD_EVERY == 0:
                self.tell()

    def tell(self) -> None:
        """Tell how far it is."""
        self._tell(Step(self._what, self.done, self._total, "rows", self.bytes))
