"""``python -m tests.bench [unwrap|intake|growth|imap] [options]``; without a name all, each in its usual form."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from tests.bench import growth, imap, intake, unwrap

BENCHMARKS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "unwrap": unwrap.main,
    "intake": intake.main,
    "growth": growth.main,
    "imap": imap.main,
}
USUAL: Sequence[Sequence[str]] = (
    ("unwrap", "--rounds", "9"),
    ("intake",),
    ("growth", "--stores", "sqlite", "--stored", "1000,20000"),
    ("imap", "--rounds", "3", "--sessions", "500"),
)
"""What runs without arguments: about twenty minutes on 2 cores."""
HELP = """\
usage: make bench [ARGS='NAME [options]']

  unwrap   what it costs to open a message, beside its floor, OpenSSL's CMS in C and Bouncy Castle
  intake   SMTP in until visible in IMAP: messages per second, CPU, latency, beside the sum of its floors
  growth   what a message costs with 1,000 and with 200,000 stored
  imap     what mail clients do with 10,000 messages, and 2,000 of them that wait, beside Dovecot

Without a name all of them run in a short form, in about twenty minutes on 2 cores.
Each knows --help and --json FILE:  make bench ARGS='growth --help'

exit status: 0 whatever the numbers are; 1 the benchmark is broken; 2 misuse"""


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for and return the exit status."""
    # Whoever ends it wants the daemons, the database server and the files gone as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if not arguments:
        for name, *options in USUAL:
            status = BENCHMARKS[name](options)
            if status:
                return status
            print()
        return 0
    name, *options = arguments
    if name in {"-h", "--help"}:
        print(HELP)
        return 0
    if name not in BENCHMARKS:
        print(f"error: there is no benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    return BENCHMARKS[name](options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
