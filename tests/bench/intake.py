"""What it costs to take mail in: ``python -m tests.bench.intake``.

The real daemon gets genuine messages by SMTP from a process of senders, keeps them, opens and verifies them, files
them, and a mail client that waits with IDLE is told of them. Every message is then looked for in the inbox, and some
are compared byte for byte. Beside it stand the floors (opening a message with the bare primitives, and a bare synced
transaction with the bytes of a group) and what an operator would script instead.

A table goes to standard output, progress to standard error. Exit status 0 whatever the numbers are; 1 when the
benchmark itself is broken, for instance because a message did not arrive; 2 on misuse.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.choosing import choice, number, say
from tests.bench.commit_floor import measure_commit
from tests.bench.gateways import STORES, Site, missing_store, site
from tests.bench.intake_report import Run, document, render
from tests.bench.load import Manner, Measured, send
from tests.bench.mail_pool import MailPool
from tests.bench.making import make_world
from tests.bench.measure import repeats_of
from tests.bench.rows import PythonRow
from tests.bench.script_peer import NAME as SCRIPT
from tests.bench.script_peer import PeerMeasured, measure_peer, missing_peer
from tests.bench.world import SIZES, BenchError

INTAKE_SIZES = tuple(size for size in SIZES if size != "25m")
PEERS = ("script",)
_WARM_UP = 200
_SPARE = 1.6
_FLOOR_ROUNDS = 9
_PEER_MESSAGES = 100
_EXAMPLES = """\
examples:
  make bench ARGS=intake                                              everything; about 10 minutes on 2 cores
  make bench ARGS='intake --stores sqlite --sizes 10k --seconds 20'   a quick look
  make bench ARGS='intake --connections 1'                            one sender: how long a single message takes
  make bench ARGS='intake --json intake.json'                         every number as well

how to read it: CPU is what counts on a machine that does other work as well; wall time needs a quiet one."""


def add_manner(parser: argparse.ArgumentParser) -> None:
    """Options that say how the senders send."""
    parser.add_argument("--connections", type=number, default=8, help="senders at the same time (default 8)")
    parser.add_argument("--per-session", type=number, default=20, help="messages in one SMTP session (default 20)")
    parser.add_argument("--no-tls", action="store_true", help="without STARTTLS")


def manner_of(args: argparse.Namespace) -> Manner:
    """What those options say."""
    return Manner(args.connections, args.per_session, not args.no_tls)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS='intake ...'",
        description="What it costs to take mail in: from SMTP until it is visible in IMAP.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stores", type=choice(STORES), default=list(STORES), help=",".join(STORES))
    parser.add_argument(
        "--sizes", type=choice(INTAKE_SIZES), default=["10k", "100k"], help=f"{','.join(INTAKE_SIZES)}: the attachment"
    )
    parser.add_argument("--seconds", type=number, default=60, help="how long the senders send (default 60)")
    parser.add_argument("--peers", type=choice((*PEERS, "none")), default=list(PEERS), help="script, or none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there as well")
    add_manner(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run and return the exit status."""
    args = _arguments(argv)
    try:
        with site(say) as here:
            text, numbers = _run(args, here)
    except (BenchError, AssertionError) as fault:
        say(f"error: {fault}")
        return 1
    print(text)
    if args.json is not None:
        args.json.write_text(json.dumps(numbers, indent=2) + "\n")
    return 0


def _run(args: argparse.Namespace, here: Site) -> tuple[str, dict[str, Any]]:
    skipped = {store: reason for store in args.stores if (reason := missing_store(store)) is not None}
    unwrap_floors = _unwrap_floors(here, args.sizes)
    runs: list[Run] = []
    scripts: dict[str, PeerMeasured] = {}
    for size in args.sizes:
        pool = here.pool(size)
        here_too = [store for store in args.stores if store not in skipped]
        runs += [_one(args, here, store, pool, unwrap_floors[size]) for store in here_too]
        if "script" in args.peers:
            reason = missing_peer()
            if reason is None:
                say(f"{SCRIPT}, {size}")
                pool.ensure(_PEER_MESSAGES, say)
                scripts[size] = measure_peer(here, pool, _PEER_MESSAGES)
            else:
                skipped[SCRIPT] = reason
        pool.file.unlink()
    how = {"manner": asdict(manner_of(args)), "seconds": args.seconds, "cores": os.cpu_count()}
    title = f"intake: {args.seconds} s, {manner_of(args)}, {os.cpu_count()} cores"
    return render(title, runs, scripts, skipped), {**how, **document(runs, scripts, skipped)}


def _one(args: argparse.Namespace, here: Site, store: str, pool: MailPool, unwrap_floor: float) -> Run:
    name = f"intake_{store}_{pool.size}"
    gateway = here.gateway(store, name)
    manner = manner_of(args)
    with gateway.running():
        pool.ensure(_WARM_UP, say)
        say(f"warming up {store}, {pool.size}")
        warm = send(gateway, pool, manner, first=0, end=_WARM_UP, seconds=args.seconds)
        pool.ensure(_WARM_UP + int(warm.rate * args.seconds * _SPARE) + manner.connections, say)
        say(f"sending {pool.size} to {store} for {args.seconds} s")
        measured = send(gateway, pool, manner, first=_WARM_UP, end=len(pool), seconds=args.seconds)
    if len(pool) == _WARM_UP + measured.messages:
        say(f"note: all messages that were made were sent before {args.seconds} s were over")
    stored = gateway.stored_bytes()
    group_bytes = _stored_bytes(pool, measured) // max(1, measured.commits)
    say(f"bare transactions of {group_bytes} bytes in {store}")
    commit = measure_commit(gateway, group_bytes)
    gateway.remove()
    return Run(store, pool.size, measured, unwrap_floor, commit, group_bytes, stored)


def _stored_bytes(pool: MailPool, measured: Measured) -> int:
    """What must be written of these messages whatever one does: the message as it came, and what was in it."""
    content = SIZES[pool.size] * 4 // 3
    return int((pool.mean_bytes + content) * measured.messages)


def _unwrap_floors(here: Site, sizes: Sequence[str]) -> dict[str, float]:
    """CPU seconds of the bare primitives for one message, by size: the row ``floor`` of the unwrap benchmark."""
    (here.folder / "world").mkdir()
    world = make_world(here.folder / "world", sizes, say)
    row = PythonRow("floor", world, {size: world.message(size).read_bytes() for size in sizes})
    floors = {}
    for size in sizes:
        row.warm(size)
        floors[size] = statistics.median(row.run(size, repeats_of(size)) for _ in range(_FLOOR_ROUNDS))
    return floors


if __name__ == "__main__":
    sys.exit(main())
