"""Disk space that is set aside for audit rows, so that a full disk locks nobody out of reading (F04, ON-12).

Whoever reads must be recorded first, and a row cannot be recorded on a full disk. Rows held in memory would be lost
with the process, and filling the disk would be a way to read unrecorded. So a file of a few megabytes stands beside
the database. When a commit of an *urgent* unit (a login, a reading, a start) finds no space, a piece of the file is
given back to the file system and the commit is tried again; mail is put off as before, and gets nothing of it. What
was written that way is as durable as any other row. When the reserve is used up as well, nobody reads until there is
space again: who cannot be recorded is shown nothing. A megabyte holds more than a thousand logins or readings.

The file holds zeros and may be removed by anybody at any time; it is made again when there is space, by the daemon.

Failure modes: none that reach a caller. A reserve that cannot be made is no reserve; a neighbour on the same disk
that fills every gap at once can take what was given back, and then the next piece is tried.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

STEP_BYTES = 32 * 1024
_SHARE = 8
"""At most this part of the free space is set aside: a small disk must not be full because of it."""


class Reserve:
    """The file beside one database. Any process may give back; the daemon sets aside."""

    def __init__(self, database: Path, size_bytes: int) -> None:
        self.path = database.with_name(database.name + ".reserve")
        self._database = database
        self._size = size_bytes
        self._gate = threading.Lock()

    def bytes_left(self) -> int:
        """What is set aside now."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def make_room(self, attempt: int) -> bool:
        """Make room for a commit that found none; False when there is none left to make.

        At the first attempt the write-ahead log is only written over from its beginning, which costs nothing of the
        reserve; after that a piece is given back to the file system.
        """
        with self._gate:
            if not attempt:
                self._checkpoint()
                return True
            left = self.bytes_left()
            if not left:
                return False
            try:
                os.truncate(self.path, max(0, left - STEP_BYTES))
            except OSError:
                return False
            self._checkpoint()
            return True

    def _checkpoint(self) -> None:
        """Move the write-ahead log into the database, so that its space is written over and it grows no further."""
        with suppress(sqlite3.Error), closing(sqlite3.connect(self._database, timeout=1.0)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def set_aside(self) -> int:
        """Bring the reserve to its size where there is space enough; return the bytes that were added."""
        with self._gate:
            left = self.bytes_left()
            free = shutil.disk_usage(self.path.parent).free
            target = min(self._size, (free + left) // _SHARE) // STEP_BYTES * STEP_BYTES
            missing = target - left
            if missing <= 0 or free < 2 * missing:
                return 0
            # What is only in the log so far gets its place in the database while there is space for it.
            self._checkpoint()
            with suppress(OSError):
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(handle, left, missing)
                    os.fsync(handle)
                except OSError:
                    os.ftruncate(handle, left)
                    raise
                finally:
                    os.close(handle)
                return missing
            return 0
