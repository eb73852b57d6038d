"""Judges that take their process with them, or never answer, for tests of the isolated agent."""

from __future__ import annotations

import os
import signal


def die(*_arguments: object) -> None:
    """End this process as a crash in native code would."""
    os.kill(os.getpid(), signal.SIGKILL)


class UnsendableError(Exception):
    """It cannot be carried from one process to another."""

    def __reduce__(self) -> str:
        raise TypeError(str(self))


def break_down(*_arguments: object) -> None:
    """Raise what cannot be sent, with a text that must not be shown."""
    raise UnsendableError("Subject: Jane Roe")


def hang(*_arguments: object) -> None:
    """Never answer, as an endless loop in native code would not: signals of Python's are not handled either."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    while True:
        signal.pause()
