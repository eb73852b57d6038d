"""What a message costs when much is stored: ``python -m tests.bench.growth``.

Stores are filled to several sizes, and the daemons of all of them run side by side. In each round every one of them
gets the same messages in turn; what disturbs a round disturbs all, so the ratio to the smallest store is taken within
each round and the median of those ratios counts. What also grows with a store is measured once: to open the inbox in a
mail client, and to verify the whole audit log.

Exit status 0 whatever the numbers are; 1 when the benchmark itself is broken; 2 on misuse.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.choosing import choice, number, say
from tests.bench.filling import fill
from tests.bench.gateways import STORES, Gateway, Site, missing_store, site
from tests.bench.intake import add_manner, manner_of
from tests.bench.load import Manner, Measured, send
from tests.bench.mail_pool import MailPool
from tests.bench.report import table
from tests.bench.watcher import Watcher
from tests.bench.world import BenchError
from tests.support.gateway_process import COMMAND

MAX_TIMES = 1.15
SIZE = "10k"
_TOLD_EVERY = 10_000
_EXAMPLES = """\
examples:
  make bench ARGS=growth                                    both stores, up to 200,000; an hour and 30 GB of disk
  make bench ARGS='growth --stores sqlite'                  one of them
  make bench ARGS='growth --stored 1000,20000 --rounds 5'   a quick look
  make bench ARGS='growth --no-verify --json growth.json'   without the walk through the audit log

The target compares the largest store with the smallest, by CPU of the daemon and its database."""


@dataclass
class Step:
    """One size of the store, and what was measured there."""

    stored: int
    fill_seconds: float
    """To fill it from the step before."""
    stored_bytes: int = 0
    rounds: list[Measured] = field(default_factory=list)
    select_seconds: float = 0.0
    """The first EXAMINE after the daemon has started."""
    select_again_seconds: float = 0.0
    select_bytes: int = 0
    """By which the daemon has grown with the first login and EXAMINE."""
    verify_cpu: float | None = None
    verify_seconds: float | None = None

    @property
    def cpu_ms(self) -> float:
        return statistics.median(one.cpu_ms for one in self.rounds)

    @property
    def wall_ms(self) -> float:
        return statistics.median(1e3 / one.rate for one in self.rounds)

    def times(self, first: Step, what: Callable[[Measured], float]) -> float:
        """The median of the ratios of each round."""
        return statistics.median(what(a) / what(b) for a, b in zip(self.rounds, first.rounds, strict=True))


def _stored(text: str) -> list[int]:
    found = sorted({number(part.strip()) for part in text.split(",")})
    if len(found) < 2:
        raise argparse.ArgumentTypeError("give at least two numbers of messages, as 1000,200000")
    return found


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS='growth ...'",
        description="What a message of 10 KB costs when much is stored.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stores", type=choice(STORES), default=list(STORES), help=",".join(STORES))
    parser.add_argument(
        "--stored",
        type=_stored,
        default=[1_000, 10_000, 50_000, 200_000],
        help="messages in the store (default 1000,10000,50000,200000)",
    )
    parser.add_argument("--rounds", type=number, default=9, help="default 9")
    parser.add_argument("--messages", type=number, default=200, help="sent in each round to each store (default 200)")
    parser.add_argument("--no-verify", action="store_true", help="leave out audit verify")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there as well")
    add_manner(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run and return the exit status."""
    args = _arguments(argv)
    found: dict[str, list[Step]] = {}
    skipped = {store: reason for store in args.stores if (reason := missing_store(store)) is not None}
    try:
        with site(say) as here:
            for store in args.stores:
                if store not in skipped:
                    found[store] = _one(args, here, store)
    except (BenchError, AssertionError) as fault:
        say(f"error: {fault}")
        return 1
    manner = manner_of(args)
    print(_render(f"growth: {args.rounds} rounds of {args.messages} messages of 10 KB, {manner}", found, skipped))
    if args.json is not None:
        args.json.write_text(json.dumps(_document(manner, found, skipped), indent=2) + "\n")
    return 0


def _one(args: argparse.Namespace, here: Site, store: str) -> list[Step]:
    pool = here.pool(SIZE)
    pool.ensure(args.messages * (args.rounds + 1), say)
    steps, gateways = _filled(here, store, pool, args.stored)
    with ExitStack() as stack:
        for step, gateway in zip(steps, gateways, strict=True):
            stack.enter_context(gateway.running())
            before = gateway.resident_bytes()
            with Watcher(gateway.practice) as first:
                step.select_bytes = gateway.resident_bytes() - before
            with Watcher(gateway.practice) as second:
                step.select_seconds, step.select_again_seconds = first.select_seconds, second.select_seconds
        _measure(args, list(zip(steps, gateways, strict=True)), pool)
    for step, gateway in zip(steps, gateways, strict=True):
        if not args.no_verify:
            say(f"verifying the audit log of {step.stored} messages in {store}")
            step.verify_cpu, step.verify_seconds = _verify(gateway)
        gateway.remove()
    pool.file.unlink()
    return steps


def _filled(here: Site, store: str, pool: MailPool, sizes: Sequence[int]) -> tuple[list[Step], list[Gateway]]:
    """A gateway for each size. One store is filled further and further, and copied on its way."""
    growing = here.gateway(store, f"growth_{store}")
    steps: list[Step] = []
    gateways: list[Gateway] = []
    before = 0
    for size in sizes:
        say(f"filling {store} to {size} messages")
        began = time.monotonic()
        fill(growing.practice.config, pool, here.address, range(before, size), _tell)
        steps.append(Step(size, time.monotonic() - began, growing.stored_bytes()))
        gateways.append(growing if size == sizes[-1] else growing.twin(f"growth_{store}_{size}"))
        before = size
    return steps, gateways


def _tell(count: int) -> None:
    if count % _TOLD_EVERY == 0:
        say(f"{count} messages are there")


def _measure(args: argparse.Namespace, stores: list[tuple[Step, Gateway]], pool: MailPool) -> None:
    """A round to warm up, then the rounds that count. The order turns by one from round to round."""
    manner: Manner = manner_of(args)
    for turn in range(args.rounds + 1):
        say("warming up" if not turn else f"round {turn} of {args.rounds}")
        first = turn * args.messages
        place = turn % len(stores)
        for step, gateway in (*stores[place:], *stores[:place]):
            measured = send(gateway, pool, manner, first=first, end=first + args.messages, seconds=600)
            if turn:
                step.rounds.append(measured)


def _verify(gateway: Gateway) -> tuple[float, float]:
    """CPU and wall seconds of ``audit verify``. Raises BenchError when the log does not hold."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*COMMAND, "audit", "verify", "--config", str(gateway.practice.config)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise BenchError(f"audit verify failed: {done.stdout}{done.stderr}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.monotonic() - began


def _render(title: str, found: dict[str, list[Step]], skipped: dict[str, str]) -> str:
    blocks = []
    for store, steps in found.items():
        head = (title, *(f"{store}, {step.stored:,} stored" for step in steps))
        rows: list[tuple[str, Callable[[Step], str]]] = [
            ("CPU ms/message", lambda step: f"{step.cpu_ms:.2f}"),
            ("times the smallest store", partial(_times, _cpu, steps[0])),
            ("wall ms/message", lambda step: f"{step.wall_ms:.1f}"),
            ("times the smallest store", partial(_times, _wall, steps[0])),
            ("EXAMINE INBOX, ms, the first / again", _select),
            ("memory of the daemon for the first one, MB", lambda step: f"{step.select_bytes / 1e6:.1f}"),
            ("audit verify, CPU s", lambda step: "-" if step.verify_cpu is None else f"{step.verify_cpu:.1f}"),
            ("size on the disk, MB", lambda step: f"{step.stored_bytes / 1e6:.0f}"),
            ("filled from the step before in, s", lambda step: f"{step.fill_seconds:.0f}"),
        ]
        blocks.append(table([head, *((name, *(cell(step) for step in steps)) for name, cell in rows)]))
        blocks.append(_target(store, steps))
    blocks += [f"not measured: {name}: {reason}" for name, reason in skipped.items()]
    return "\n\n".join(blocks)


def _cpu(measured: Measured) -> float:
    return measured.cpu_ms


def _wall(measured: Measured) -> float:
    return 1 / measured.rate


def _times(what: Callable[[Measured], float], first: Step, step: Step) -> str:
    return f"{step.times(first, what):.3f}"


def _select(step: Step) -> str:
    return f"{step.select_seconds * 1e3:.0f} / {step.select_again_seconds * 1e3:.0f}"


def _target(store: str, steps: Sequence[Step]) -> str:
    times = steps[-1].times(steps[0], _cpu)
    outcome = "met" if times <= MAX_TIMES else f"missed by {times - MAX_TIMES:.2f}"
    return (
        f"target: CPU of a message at {steps[-1].stored:,} stored at most {MAX_TIMES} times that at "
        f"{steps[0].stored:,}, {store}: {times:.3f} {outcome}"
    )


def _document(manner: Manner, found: dict[str, list[Step]], skipped: dict[str, str]) -> dict[str, Any]:
    return {
        "manner": asdict(manner),
        "stores": {
            store: [{**asdict(step), "cpu_ms": step.cpu_ms, "times": step.times(steps[0], _cpu)} for step in steps]
            for store, steps in found.items()
        },
        "skipped": skipped,
        "target_times": MAX_TIMES,
    }


if __name__ == "__main__":
    sys.exit(main())
