"""Files by their names: a new one that is ours alone, and what makes a name last.

A file that is synced and whose folder is not may be gone after a power cut.
"""

from __future__ import annotations

import os
from pathlib import Path


def new_file(path: Path, mode: int) -> int:
    """Make a file, for writing, in the place of what a killed process may have left there; returns the descriptor.

    Never through a link that somebody put there, and never into a file that somebody else has open: the folder may be
    one that others write to. No bit of the mode is added by a lax umask. Raises OSError.
    """
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk: of files that were made there, renamed or removed. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
