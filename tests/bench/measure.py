"""Interleaved rounds, what becomes of their numbers, and the peak of fresh processes.

Other work on the machine slows everything for a while; so in each round every row runs once in turn, and rows are
compared within a round. The result is the median of those ratios, not the ratio of medians.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.rows import ProgramRow, Row
from tests.bench.world import SIZES

Say = Callable[[str], None]


def repeats_of(size: str) -> int:
    """How often a message is opened in one round: a round of a small one must last longer than a clock's tick."""
    limits = ((10_000_000, 1), (1_000_000, 4), (100_000, 12))
    return next((repeats for smallest, repeats in limits if SIZES[size] >= smallest), 25)


@dataclass
class Times:
    """CPU seconds by size and row, one number a round."""

    rounds: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, size: str, row: str, seconds: float) -> None:
        self.rounds.setdefault(size, {}).setdefault(row, []).append(seconds)

    def median(self, size: str, row: str) -> float | None:
        """Seconds; None when that row was not measured."""
        found = self.rounds.get(size, {}).get(row)
        return statistics.median(found) if found else None

    def least(self, size: str, row: str) -> float | None:
        """Seconds; None when that row was not measured."""
        found = self.rounds.get(size, {}).get(row)
        return min(found) if found else None

    def ratio(self, size: str, row: str, base: str) -> float | None:
        """The median of the ratios of each round; None when either was not measured."""
        ours, theirs = self.rounds.get(size, {}).get(row), self.rounds.get(size, {}).get(base)
        if not ours or not theirs:
            return None
        return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


@dataclass(frozen=True)
class Peak:
    """Peak resident set in MB (10^6 bytes): with the message loaded, and after it was opened once."""

    before: float
    after: float


def measure_times(rows: Sequence[Row], sizes: Sequence[str], rounds: int, say: Say) -> Times:
    """Warm everything up, then measure. The order of the rows turns by one from round to round."""
    for row in rows:
        for size in sizes:
            say(f"warming up {row.name}, {size}")
            row.warm(size)
    times = Times()
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        turn = number % len(rows)
        for size in sizes:
            for row in (*rows[turn:], *rows[:turn]):
                times.add(size, row.name, row.run(size, repeats_of(size)))
    return times


def measure_peaks(programs: Mapping[str, Callable[[], ProgramRow]], size: str, say: Say) -> dict[str, Peak]:
    """Start each program, look at its peak, let it open the message once, look again."""
    peaks = {}
    for name, begin in programs.items():
        say(f"memory of {name}, {size}")
        program = begin()
        try:
            before = program.peak()
            program.run(size, 1)
            peaks[name] = Peak(before, program.peak())
        finally:
            program.close()
    return peaks
