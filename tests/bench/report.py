"""The targets, and the tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.measure import Peak, Times
from tests.bench.world import SIZES

MAX_TIMES_FLOOR = 1.5
MAX_TIMES_OPENSSL = 1.0
MAX_TIMES_OPENSSL_LARGE = 0.5
LARGE_BYTES = 100_000
MAX_PEAK_MB = 160
PEAK_SIZE = "25m"
_OURS = ("judge", "unwrap")
LABELS = {"10k": "10 KB", "100k": "100 KB", "1m": "1 MB", "25m": "25 MB"}


@dataclass(frozen=True)
class Verdict:
    """One target at one size. ``value`` is None when it was not measured."""

    target: str
    row: str
    size: str
    limit: float
    value: float | None

    @property
    def met(self) -> bool | None:
        return None if self.value is None else self.value <= self.limit

    @property
    def text(self) -> str:
        if self.value is None:
            return "not measured"
        verdict = "met" if self.met else f"missed by {self.value - self.limit:.2g}"
        return f"{self.value:.{0 if self.limit >= 10 else 2}f} {verdict}"


def verdicts(times: Times, peaks: Mapping[str, Peak], sizes: Sequence[str]) -> Iterator[Verdict]:
    """Every target for every size that was asked for."""
    for row in _OURS:
        for size in sizes:
            yield Verdict("times the floor", row, size, MAX_TIMES_FLOOR, times.ratio(size, row, "floor"))
    for row in _OURS:
        for size in sizes:
            limit = MAX_TIMES_OPENSSL_LARGE if SIZES[size] >= LARGE_BYTES else MAX_TIMES_OPENSSL
            yield Verdict("times openssl-cms", row, size, limit, times.ratio(size, row, "openssl-cms"))
    if PEAK_SIZE in sizes:
        peak = peaks.get("judge")
        yield Verdict("MB at the peak", "judge", PEAK_SIZE, MAX_PEAK_MB, peak.after if peak else None)


def render(
    times: Times, peaks: Mapping[str, Peak], sizes: Sequence[str], rows: Sequence[str], skipped: Mapping[str, str]
) -> str:
    """The report as text."""
    blocks = [_times_table(times, sizes, rows)]
    if peaks:
        blocks.append(_peaks_table(peaks))
    blocks.append(_verdict_table(list(verdicts(times, peaks, sizes)), sizes))
    if skipped:
        blocks.append("\n".join(f"not measured: {name}: {reason}" for name, reason in skipped.items()))
    return "\n\n".join(blocks)


def _times_table(times: Times, sizes: Sequence[str], rows: Sequence[str]) -> str:
    lines = [("CPU ms of one message", *(LABELS[size] for size in sizes))]
    lines += [(row, *(_times_cell(times, size, row) for size in sizes)) for row in rows]
    return table(lines) + "\n(median; in brackets: times the floor, times openssl-cms)"


def _times_cell(times: Times, size: str, row: str) -> str:
    median = times.median(size, row)
    if median is None:
        return "-"
    ratios = (times.ratio(size, row, base) for base in ("floor", "openssl-cms"))
    shown = ", ".join("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
    return f"{median * 1e3:.{3 if median < 0.001 else 2 if median < 0.01 else 0}f} ({shown})"


def _peaks_table(peaks: Mapping[str, Peak]) -> str:
    head = (f"peak MB, {LABELS[PEAK_SIZE]}, fresh process", "message loaded", "opened once")
    return table([head, *((name, f"{peak.before:.0f}", f"{peak.after:.0f}") for name, peak in peaks.items())])


def _verdict_table(found: Sequence[Verdict], sizes: Sequence[str]) -> str:
    lines = [("target", *(LABELS[size] for size in sizes))]
    for target, row in dict.fromkeys((v.target, v.row) for v in found):
        mine = {v.size: v for v in found if (v.target, v.row) == (target, row)}
        limits = " / ".join(f"{limit:g}" for limit in dict.fromkeys(v.limit for v in mine.values()))
        cells = (mine[size].text if size in mine else "" for size in sizes)
        lines.append((f"{row}: at most {limits} {target}", *cells))
    return table(lines)


def table(lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
