"""The table of the intake benchmark, its targets, and every number as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench.commit_floor import CommitFloor
from tests.bench.load import Measured, Quantiles
from tests.bench.report import LABELS, table
from tests.bench.script_peer import NAME as SCRIPT
from tests.bench.script_peer import PeerMeasured

TARGET_SIZE = "10k"
TARGET_RATE = 100.0


@dataclass(frozen=True)
class Run:
    """One size on one store, with its floors."""

    store: str
    size: str
    measured: Measured
    unwrap_floor: float
    """CPU seconds of one message."""
    commit_floor: CommitFloor
    """Of one transaction."""
    group_bytes: int
    stored_bytes: int
    """Size of the database afterwards."""

    @property
    def commits_per_message(self) -> float:
        return self.measured.commits / self.measured.messages

    @property
    def floor_ms(self) -> float:
        """CPU of one message: the primitives, and its part of the commits."""
        return (self.unwrap_floor + self.commit_floor.cpu * self.commits_per_message) * 1e3

    @property
    def times_floor(self) -> float:
        """How many times the CPU of its floors a message costs."""
        return self.measured.cpu_ms / self.floor_ms


def _ms(found: Quantiles) -> str:
    return " / ".join(f"{value * 1e3:.0f}" for value in (found.p50, found.p95, found.p99))


def _share(run: Run, name: str) -> str:
    used = run.measured.cpu.get(name)
    return "-" if used is None else f"{used / run.measured.messages * 1e3:.2f}"


_ROWS: Sequence[tuple[str, Callable[[Run], str]]] = (
    ("messages, each visible once", lambda run: str(run.measured.messages)),
    ("messages/s, from MAIL to visible", lambda run: f"{run.measured.rate:.1f}"),
    ("not yet visible at the last 250", lambda run: str(run.measured.backlog)),
    ("MAIL to 250, ms, p50 / p95 / p99", lambda run: _ms(run.measured.reply)),
    ("MAIL to visible, ms, p50 / p95 / p99", lambda run: _ms(run.measured.visible)),
    ("CPU ms/message: daemon", lambda run: _share(run, "daemon")),
    ("CPU ms/message: PostgreSQL", lambda run: _share(run, "postgresql")),
    ("messages per second of CPU (per core)", lambda run: f"{run.measured.per_core:.1f}"),
    ("commits per message", lambda run: f"{run.commits_per_message:.2f}"),
    ("floor, CPU ms: unwrap", lambda run: f"{run.unwrap_floor * 1e3:.2f}"),
    (
        "floor, CPU ms: bare commits",
        lambda run: f"{run.commit_floor.cpu * run.commits_per_message * 1e3:.2f}",
    ),
    ("one bare commit, wall ms", lambda run: f"{run.commit_floor.wall * 1e3:.2f}"),
    ("CPU, times the sum of its floors", lambda run: f"{run.times_floor:.2f}"),
    ("CPU of the senders, ms/message", lambda run: f"{run.measured.sender_cpu / run.measured.messages * 1e3:.2f}"),
)


def render(title: str, runs: Sequence[Run], scripts: Mapping[str, PeerMeasured], skipped: Mapping[str, str]) -> str:
    """The report as text."""
    blocks = []
    if runs:
        lines = [(title, *(f"{run.store} {LABELS[run.size]}" for run in runs))]
        lines += [(name, *(cell(run) for run in runs)) for name, cell in _ROWS]
        blocks.append(table(lines))
    if scripts:
        blocks.append(_script_table(runs, scripts))
    targets = [_target(run) for run in runs if run.size == TARGET_SIZE]
    if targets:
        blocks.append("\n".join(targets))
    if skipped:
        blocks.append("\n".join(f"not measured: {name}: {reason}" for name, reason in skipped.items()))
    return "\n\n".join(blocks)


def _script_table(runs: Sequence[Run], scripts: Mapping[str, PeerMeasured]) -> str:
    lines: list[Sequence[str]] = [
        (SCRIPT, "CPU ms/message", "messages/s", "messages per second of CPU", "ours, times as many")
    ]
    for size, found in scripts.items():
        times = ", ".join(f"{run.store} {run.measured.per_core * found.cpu:.1f}" for run in runs if run.size == size)
        cells = (f"{found.cpu * 1e3:.1f}", f"{1 / found.wall:.1f}", f"{1 / found.cpu:.1f}", times or "-")
        lines.append((LABELS[size], *cells))
    return table(lines) + "\n(from a file, without SMTP, identity, revocation, evidence, the raw message, duplicates)"


def _target(run: Run) -> str:
    rate = run.measured.rate
    outcome = "met" if rate >= TARGET_RATE else f"missed by {TARGET_RATE - rate:.0f}"
    return f"target: {TARGET_RATE:.0f} messages/s at {LABELS[run.size]} on 2 cores, {run.store}: {rate:.1f} {outcome}"


def document(runs: Sequence[Run], scripts: Mapping[str, PeerMeasured], skipped: Mapping[str, str]) -> dict[str, Any]:
    """Every number."""
    return {
        "runs": [
            {
                **asdict(run),
                "rate": run.measured.rate,
                "cpu_ms": run.measured.cpu_ms,
                "per_core": run.measured.per_core,
                "commits_per_message": run.commits_per_message,
                "floor_ms": run.floor_ms,
                "times_floor": run.times_floor,
            }
            for run in runs
        ],
        "script": {size: asdict(found) for size, found in scripts.items()},
        "skipped": dict(skipped),
        "target_rate": {"size": TARGET_SIZE, "messages_per_second": TARGET_RATE},
    }
