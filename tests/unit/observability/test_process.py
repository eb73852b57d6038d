"""What a process asks of the interpreter: garbage is looked for rarely while it starts, and as usual after that."""

from __future__ import annotations

import subprocess
import sys


def _told(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_garbage_is_looked_for_as_usual_once_everything_is_loaded() -> None:
    code = """
import gc
usual = gc.get_threshold()
from gateway.observability.process import collect_rarely, keep_what_is_loaded
collect_rarely()
print(gc.get_threshold()[0])
keep_what_is_loaded()
print(gc.get_threshold() == usual, gc.get_freeze_count() > 1_000)
"""
    assert _told(code) == ["100000", "True", "True"]


def test_the_command_ends_with_its_status_and_looks_for_no_garbage_then() -> None:
    code = """
import atexit, gc, sys
from gateway.__main__ import run
atexit.register(lambda: print(gc.get_freeze_count() > 1_000))
sys.argv = ["direct-gateway", "no-such-command"]
try:
    run()
except SystemExit as ended:
    print(ended.code)
"""
    assert _told(code) == ["2", "True"]
