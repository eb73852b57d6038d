"""What it costs to open a message: ``python -m tests.bench.unwrap``.

Compares the product (``judge``: the whole verdict; ``unwrap``: only up to the verified signed bytes) with a floor of
the same primitives, with OpenSSL's CMS functions and with Bouncy Castle, in CPU time, and with the project's targets.
A table goes to standard output, progress to standard error. Exit status 0 whatever the numbers are; 1 when the
benchmark itself is broken, for instance because a row refuses the message; 2 on misuse.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.choosing import choice, number, say
from tests.bench.making import make_world
from tests.bench.measure import Peak, Times, measure_peaks, measure_times
from tests.bench.peers import PEERS, compile_peer, missing, start_peer
from tests.bench.report import PEAK_SIZE, render, verdicts
from tests.bench.rows import PYTHON_ROWS, ProgramRow, PythonRow, Row, start_python
from tests.bench.world import SIZES, BenchError, World

DEFAULT_ROUNDS = 25
ALL_ROWS = (*PYTHON_ROWS, *PEERS)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS='unwrap ...'", description="What it costs to open a message."
    )
    parser.add_argument("--sizes", type=choice(tuple(SIZES)), default=list(SIZES), help=",".join(SIZES))
    parser.add_argument("--rows", type=choice(ALL_ROWS), default=list(ALL_ROWS), help=",".join(ALL_ROWS))
    parser.add_argument("--rounds", type=number, default=DEFAULT_ROUNDS, help=f"default {DEFAULT_ROUNDS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there as well")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run and return the exit status."""
    args = _arguments(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            text, document = _run(args, Path(name))
    except BenchError as fault:
        say(f"error: {fault}")
        return 1
    print(text)
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _run(args: argparse.Namespace, folder: Path) -> tuple[str, dict[str, Any]]:
    (folder / "world").mkdir()
    (folder / "peers").mkdir()
    skipped: dict[str, str] = {}
    commands: dict[str, list[str]] = {}
    for peer in (name for name in PEERS if name in args.rows):
        reason = missing(peer)
        if reason is not None:
            skipped[peer] = reason
            say(f"{peer} is left out: {reason}")
            continue
        say(f"compiling {peer}")
        commands[peer] = compile_peer(peer, folder / "peers")
    rows = [name for name in args.rows if name not in skipped]
    world = make_world(folder / "world", args.sizes, say)
    # Memory first: a fresh process must not share the machine with the peers of the other measurement.
    peaks = _peaks(rows, commands, world) if PEAK_SIZE in args.sizes else {}
    times, about = _times(rows, commands, world, args)
    text = render(times, peaks, args.sizes, rows, skipped)
    return text, _document(times, peaks, args, skipped, about)


def _peaks(rows: Sequence[str], commands: Mapping[str, Sequence[str]], world: World) -> dict[str, Peak]:
    programs: dict[str, Callable[[], ProgramRow]] = {}
    for name in rows:
        if name in commands:
            programs[name] = partial(start_peer, name, commands[name], world, [PEAK_SIZE])
        elif name != "unwrap":
            programs[name] = partial(start_python, name, world, PEAK_SIZE)
    return measure_peaks(programs, PEAK_SIZE, say)


def _times(
    rows: Sequence[str], commands: Mapping[str, Sequence[str]], world: World, args: argparse.Namespace
) -> tuple[Times, dict[str, str]]:
    messages = {size: world.message(size).read_bytes() for size in args.sizes}
    about = {}
    running: list[Row] = []
    with ExitStack() as stack:
        for name in rows:
            if name in commands:
                program = start_peer(name, commands[name], world, args.sizes)
                stack.callback(program.close)
                about[name] = program.ask("about")
                running.append(program)
            else:
                running.append(PythonRow(name, world, messages))
        return measure_times(running, args.sizes, args.rounds, say), about


def _document(
    times: Times, peaks: dict[str, Peak], args: argparse.Namespace, skipped: dict[str, str], about: dict[str, str]
) -> dict[str, Any]:
    return {
        "sizes": {size: SIZES[size] for size in args.sizes},
        "rounds": args.rounds,
        "about": about,
        "skipped": skipped,
        "cpu_ms": {
            size: {
                row: {
                    "median": (times.median(size, row) or 0) * 1e3,
                    "least": (times.least(size, row) or 0) * 1e3,
                    "times_floor": times.ratio(size, row, "floor"),
                    "times_openssl_cms": times.ratio(size, row, "openssl-cms"),
                    "rounds": [seconds * 1e3 for seconds in found],
                }
                for row, found in measured.items()
            }
            for size, measured in times.rounds.items()
        },
        "peak_mb": {name: asdict(peak) for name, peak in peaks.items()},
        "targets": [{**asdict(v), "met": v.met} for v in verdicts(times, peaks, args.sizes)],
    }


if __name__ == "__main__":
    sys.exit(main())
