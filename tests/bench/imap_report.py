"""The targets of the IMAP benchmark, and its tables for people and programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.bench.imap_idle import Crowd, Noticed
from tests.bench.imap_operations import OPERATIONS, STORE, Costs, Operation, Size
from tests.bench.imap_servers import Ours, Theirs
from tests.bench.report import table

FIRST_SELECT_MS = 300.0
NOTICED_MS = 10.0
BYTES_EACH = 20 * 1024
_OURS, _THEIRS = Ours.name, Theirs.name


@dataclass
class Found:
    """What was measured with a mailbox of one size."""

    size: Size
    rounds: int
    costs: Costs = field(default_factory=Costs)
    synced: dict[str, Costs] = field(default_factory=dict)
    """STORE, by what Dovecot's mail_fsync was."""
    fill_seconds: dict[str, float] = field(default_factory=dict)
    first_select_ms: dict[str, float] = field(default_factory=dict)
    noticed: dict[str, Noticed] = field(default_factory=dict)
    crowds: dict[str, Crowd] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """One target."""

    title: str
    value: float
    limit: float
    strict: bool
    unit: str

    @property
    def met(self) -> bool:
        return self.value < self.limit if self.strict else self.value <= self.limit

    @property
    def text(self) -> str:
        bound = "under" if self.strict else "at most"
        verdict = "met" if self.met else f"missed by {self.value - self.limit:.2f}"
        return f"{self.title}: {bound} {self.limit:g}{self.unit}: {self.value:.2f} {verdict}"


def verdicts(found: Found) -> Iterator[Verdict]:
    """Every target that something was measured for."""
    times = f" times {_THEIRS}"
    for operation in OPERATIONS:
        ratio = found.costs.ratio(operation.key, _OURS, _THEIRS)
        if operation.limit is not None and ratio is not None:
            yield Verdict(operation.title, ratio.wall_ms, operation.limit, operation.strict, times)
    if _OURS in found.first_select_ms:
        first = found.first_select_ms[_OURS]
        yield Verdict("the first SELECT after a restart", first, FIRST_SELECT_MS, True, " ms")
    if _OURS in found.noticed:
        noticed = found.noticed[_OURS].from_filing_ms
        if noticed is not None:
            yield Verdict("from filing to EXISTS in IDLE", noticed, NOTICED_MS, True, " ms")
    if _OURS in found.crowds:
        many = found.crowds[_OURS]
        title = f"memory of each of {many.sessions:,} sessions in IDLE"
        yield Verdict(title, many.bytes_each / 1024, BYTES_EACH / 1024, True, " KiB")


def render(found: Sequence[Found], skipped: Mapping[str, str]) -> str:
    """The report as text."""
    blocks: list[str] = []
    for one in found:
        blocks += [_costs_table(one), _waiting_table(one), "\n".join(verdict.text for verdict in verdicts(one))]
    blocks += [f"not measured: {name}: {reason}" for name, reason in skipped.items()]
    return "\n\n".join(block for block in blocks if block)


def _costs_table(found: Found) -> str:
    size = found.size
    title = f"imap: {size.small:,} messages of 3.5 kB, {size.large:,} of 65 kB, {found.rounds} rounds, TLS"
    lines: list[tuple[str, ...]] = [
        (title, f"{_OURS}, wall", "CPU", f"{_THEIRS}, wall", "CPU", "times, wall", "CPU", "target")
    ]
    measured = [operation for operation in OPERATIONS if operation.key in found.costs.rounds]
    lines += [_line(operation.title, found.costs, operation) for operation in measured]
    lines += [_line(f"{STORE.title}, mail_fsync = {mode}", costs, STORE) for mode, costs in found.synced.items()]
    first = [found.first_select_ms.get(name) for name in (_OURS, _THEIRS)]
    ours, theirs = (_ms(one) for one in first)
    lines.append(("SELECT, the first after a restart", ours, "", theirs, "", "", "", f"{FIRST_SELECT_MS:g} ms"))
    return table(lines) + "\n(ms of one command: medians of the rounds; times: the median of the ratios of each round)"


def _line(title: str, costs: Costs, operation: Operation) -> tuple[str, ...]:
    cells = [title]
    for server in (_OURS, _THEIRS):
        known = server in costs.rounds[operation.key]
        cost = costs.median(operation.key, server) if known else None
        cells += [_ms(cost.wall_ms), _ms(cost.cpu_ms)] if cost else ["-", "-"]
    ratio = costs.ratio(operation.key, _OURS, _THEIRS)
    cells += [f"{ratio.wall_ms:.2f}", f"{ratio.cpu_ms:.2f}"] if ratio else ["-", "-"]
    bound = "" if operation.limit is None else f"{'<' if operation.strict else '<='} {operation.limit:g}"
    return (*cells, bound)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _waiting_table(found: Found) -> str:
    if not found.noticed:
        return ""
    lines: list[tuple[str, ...]] = [("sessions in IDLE", *found.noticed)]
    told: Sequence[tuple[str, Callable[[Noticed], float | None]]] = (
        ("told of a message, ms after the reply to whoever brought it", lambda one: one.from_reply_ms),
        ("told of a message, ms after it was filed", lambda one: one.from_filing_ms),
        ("told of a flag, ms after the reply to whoever set it", lambda one: one.from_flag_ms),
    )
    lines += [(title, *(_ms(of(one)) for one in found.noticed.values())) for title, of in told]
    many: Sequence[tuple[str, Callable[[Crowd], str]]] = (
        ("many sessions in IDLE", lambda one: f"{one.sessions:,}"),
        ("set up in, s", lambda one: f"{one.set_up_seconds:.1f}"),
        ("memory of each, KiB", lambda one: f"{one.bytes_each / 1024:.1f}"),
        ("all told of a message, ms after the reply", lambda one: _ms(one.told_last_ms)),
    )
    crowds = [found.crowds.get(name) for name in found.noticed]
    lines += [(title, *("-" if one is None else show(one) for one in crowds)) for title, show in many]
    return table(lines)


def document(found: Sequence[Found], skipped: Mapping[str, str]) -> dict[str, Any]:
    """Every number."""
    return {
        "sizes": [
            asdict(one) | {"targets": [asdict(verdict) | {"met": verdict.met} for verdict in verdicts(one)]}
            for one in found
        ],
        "dovecot_mail_fsync": "never",
        "skipped": dict(skipped),
    }
