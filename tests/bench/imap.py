"""Reading beside Dovecot: ``python -m tests.bench.imap``.

The same mail, the same commands of the same client, both servers at once, in turns. What becomes of the numbers stands
in :mod:`tests.bench.imap_operations`, of sessions that wait in :mod:`tests.bench.imap_idle`, and the targets and tables
in :mod:`tests.bench.imap_report`.

Exit status 0 whatever the numbers are; 1 when the benchmark itself is broken, for instance because the two servers do
not answer the same; 2 on misuse.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.bench.choosing import number, say
from tests.bench.gateways import Site, site
from tests.bench.imap_corpus import LARGE_MESSAGES, corpus, message
from tests.bench.imap_idle import Bring, Crowd, Noticed, appends, crowd, deliveries, notice
from tests.bench.imap_operations import OPERATIONS, STORE, Size, first_select, measure, prepare
from tests.bench.imap_report import Found, document, render
from tests.bench.imap_servers import CONNECTIONS, Ours, Server, Theirs, allow_connections, missing_dovecot
from tests.bench.world import BenchError

_NOTICED = 9
_TOLD_EVERY = 10_000
_EXAMPLES = """\
examples:
  make bench ARGS=imap                                  10,000 messages and 2,000 sessions in IDLE; five minutes
  make bench ARGS='imap --messages 10000,100000'        twenty minutes and 4 GB of disk
  make bench ARGS='imap --only envelope,bulk,large'     some of the operations, and nobody in IDLE
  make bench ARGS='imap --rounds 9 --json imap.json'    every number as well

Both servers speak TLS. A change in ours is synced before it is answered; Dovecot has mail_fsync = never, and STORE is
measured with optimized, which is its default, and always as well."""


def _sizes(text: str) -> list[int]:
    return sorted({number(part.strip()) for part in text.split(",")})


def _keys(text: str) -> list[str]:
    chosen = {part.strip() for part in text.split(",")}
    known = [operation.key for operation in OPERATIONS]
    if not chosen <= set(known):
        raise argparse.ArgumentTypeError(f"{text!r}: give some of {','.join(known)}")
    return [key for key in known if key in chosen]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS='imap ...'",
        description="What mail clients do, beside Dovecot.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--messages", type=_sizes, default=[10_000], help="of 3.5 kB in the INBOX (default 10000)")
    parser.add_argument("--large", type=number, default=LARGE_MESSAGES, help="of 65 kB beside them (default 200)")
    parser.add_argument("--rounds", type=number, default=5, help="default 5")
    parser.add_argument("--only", type=_keys, default=None, metavar="OPERATIONS", help="some operations only")
    parser.add_argument("--sessions", type=number, default=2_000, help="of ours in IDLE (default 2000)")
    parser.add_argument("--dovecot-sessions", type=number, default=200, help="of Dovecot in IDLE (default 200)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there as well")
    args = parser.parse_args(argv)
    if max(args.sessions, args.dovecot_sessions) > CONNECTIONS:
        parser.error(f"at most {CONNECTIONS} sessions")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run and return the exit status."""
    args = _arguments(argv)
    skipped: dict[str, str] = {}
    if (reason := missing_dovecot()) is not None:
        skipped["dovecot"] = reason
    if not allow_connections(max(args.sessions, args.dovecot_sessions)):
        skipped["sessions"] = "this user may not open so many files (ulimit -n); give fewer --sessions"
    try:
        with site(say) as here:
            found = [_one(args, here, Size(small, args.large), skipped) for small in args.messages]
    except (BenchError, AssertionError) as fault:
        say(f"error: {fault}")
        return 1
    print(render(found, skipped))
    if args.json is not None:
        args.json.write_text(json.dumps(document(found, skipped), indent=2) + "\n")
    return 0


def _one(args: argparse.Namespace, here: Site, size: Size, skipped: dict[str, str]) -> Found:
    pool = here.pool("10k")
    pool.ensure(_NOTICED + 2, say)
    gateway = here.gateway("sqlite", f"imap_{size.small}")
    ours = Ours(gateway, here, pool)
    servers: list[Server] = [ours]
    found = Found(size, args.rounds)
    with ExitStack() as stack:
        stack.callback(gateway.remove)
        if "dovecot" not in skipped:
            theirs = Theirs.make(here)
            stack.callback(theirs.dovecot.remove)
            servers.append(theirs)
        for server in servers:
            _fill(server, size, found)
        chosen = [one for one in OPERATIONS if args.only is None or one.key in args.only]
        with running(servers):
            found.costs = measure(servers, chosen, size, args.rounds, say)
            for server in servers:
                say(f"the first SELECT of {server.name}")
                found.first_select_ms[server.name] = statistics.median(first_select(server) for _ in range(3))
        if args.only is None or STORE.key in args.only:
            _synced(found, servers, args.rounds)
        if args.only is None:
            messages = pool.messages(_NOTICED + 2)
            _wait(found, ours, partial(deliveries, ours, messages), 0 if "sessions" in skipped else args.sessions)
            for server in servers:
                if isinstance(server, Theirs):
                    bring = partial(appends, server, message(size.all))
                    _wait(found, server, bring, 0 if "sessions" in skipped else args.dovecot_sessions)
    return found


@contextmanager
def running(servers: Sequence[Server]) -> Iterator[None]:
    """All of them, for as long as the context lasts."""
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        yield


def _fill(server: Server, size: Size, found: Found) -> None:
    say(f"filling {server.name} with {size.small} messages, and {size.large} large ones")
    began = time.monotonic()
    server.fill(corpus(size.small, size.large), _tell)
    found.fill_seconds[server.name] = time.monotonic() - began
    with running([server]):
        prepare(server, size)


def _tell(count: int) -> None:
    if count % _TOLD_EVERY == 0:
        say(f"{count} messages are there")


def _synced(found: Found, servers: Sequence[Server], rounds: int) -> None:
    """STORE once more, with Dovecot as it is delivered, and as it waits for every write."""
    for mode in ("optimized", "always"):
        theirs = [server for server in servers if isinstance(server, Theirs)]
        for server in theirs:
            server.sync(mode)
        if theirs:
            say(f"STORE with mail_fsync = {mode}")
            with running(servers):
                found.synced[mode] = measure(servers, [STORE], found.size, rounds, say)
        for server in theirs:
            server.sync("never")


def _wait(found: Found, server: Server, begin: Callable[[ExitStack], Bring], sessions: int) -> None:
    with running([server]), ExitStack() as stack:
        bring = begin(stack)
        say(f"a session of {server.name} in IDLE")
        noticed: Noticed = notice(server, bring, _NOTICED)
        found.noticed[server.name] = noticed
        if sessions:
            say(f"{sessions} sessions of {server.name} in IDLE")
            many: Crowd = crowd(server, sessions, bring)
            found.crowds[server.name] = many


if __name__ == "__main__":
    sys.exit(main())
