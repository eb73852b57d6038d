"""Shows on standard error how far a backup is: often to a person at a terminal, now and then to a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.cli.output import note
from gateway.cli.progress_pace import ProgressPace

if TYPE_CHECKING:
    from gateway.store.backup.progress import Step

_TERMINAL_SECONDS = 0.5
_FILE_SECONDS = 30.0


class Progress:
    """Told of every step; shows one at the beginning and at the end of each part, and some in between."""

    def __init__(self, *, shown: bool) -> None:
        """``shown`` False: a program reads the result, and nobody the way to it."""
        self._shown = shown
        self._pace = ProgressPace(terminal_seconds=_TERMINAL_SECONDS, file_seconds=_FILE_SECONDS)

    def __call__(self, step: Step) -> None:
        """Take a step."""
        seconds = self._pace.seconds_if_due(step.what, step.done, step.total) if self._shown else None
        if seconds is not None:
            note(_words(step, seconds))


def _words(step: Step, seconds: float) -> str:
    if step.unit == "bytes":
        text = f"{step.what}: {step.done >> 20} of {step.total >> 20} MiB"
    else:
        text = f"{step.what}: {step.done} of {step.total} {step.unit}"
    if step.bytes:
        text += f", {step.bytes >> 20} MiB"
    rate = step.done / seconds if seconds > 1 else 0.0
    if not rate:
        return text
    told = f"{rate / (1 << 20):.0f} MiB" if step.unit == "bytes" else f"{rate:.0f}"
    return f"{text}, {told} a second, {max(0, step.total - step.done) / rate:.0f} s to go"
