"""One Python row in a process of its own: ``python -m tests.bench.worker ROW FOLDER SIZE``.

Loads the message, then answers ``run SIZE REPEATS`` and ``peak`` like the other programs.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.bench.rows import timed, work_of
from tests.bench.world import BenchError, World


def peak_kilobytes() -> int:
    """Peak resident set of this process (VmHWM)."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found.group(1)) if found else -1


def main() -> None:
    """Answer until the input ends. Exit status 1, with the reason on standard error, when the message is refused."""
    name, folder, size = sys.argv[1:]
    world = World(Path(folder))
    work = work_of(name, world, size)
    message = world.message(size).read_bytes()
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "run":
            try:
                print(timed(work, message, int(arguments[1])), flush=True)
            except BenchError as fault:
                sys.exit(f"error: {fault}")
        else:
            print(peak_kilobytes(), flush=True)


if __name__ == "__main__":
    main()
