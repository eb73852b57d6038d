"""What the command lines of the benchmarks share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def choice(known: Sequence[str]) -> Callable[[str], list[str]]:
    """An argument that is a list of known names, separated by commas; they come back in their usual order."""

    def read(text: str) -> list[str]:
        chosen = [name.strip().lower() for name in text.split(",")]
        if not set(chosen) <= set(known):
            raise argparse.ArgumentTypeError(f"{text!r}: give some of {','.join(known)}")
        return [name for name in known if name in chosen]

    return read


def number(text: str) -> int:
    """An argument that is a whole number above 0."""
    if not (text.isascii() and text.isdecimal()) or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
