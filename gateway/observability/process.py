"""What the operating system and the C library are asked for when the daemon starts.

They are requests: where one is not understood (another C library, a hard limit), the process goes on as it is.

* Memory: glibc keeps freed blocks for the next one, and raises by itself the size up to which it does so to 32 MiB. Of
  messages of tens of megabytes that pass through several threads it kept hundreds of megabytes for nobody: ten of 25 MB
  at once peaked at 472 MiB, and at 270 MiB with a fixed threshold [measured]. So large blocks come from the system one
  by one and go back to it at once.
* Garbage: the interpreter looks for cycles after every 700 new objects. Loading our modules makes hundreds of thousands
  that stay, and no garbage: looking for it took a quarter of a start [measured]. So it looks rarely until the daemon is
  ready, and never again at what was there by then.
* Descriptors: the usual soft limit of 1,024 is less than the connections that the settings allow (F05, F19).
"""

from __future__ import annotations

import ctypes
import gc
import resource

LARGE_BLOCK_BYTES = 256 * 1024
WANTED_DESCRIPTORS = 16_384
OBJECTS_BETWEEN_LOOKS = 100_000
_M_MMAP_THRESHOLD = -3
_M_TRIM_THRESHOLD = -1


_USUAL_LOOKS = gc.get_threshold()


def collect_rarely() -> None:
    """Look for garbage after OBJECTS_BETWEEN_LOOKS new objects only; for a start, or for a command that soon ends."""
    gc.set_threshold(OBJECTS_BETWEEN_LOOKS)


def keep_what_is_loaded() -> None:
    """Take what is there as here to stay, and look for garbage as usual from now on."""
    gc.freeze()
    gc.set_threshold(*_USUAL_LOOKS)


def return_large_blocks() -> bool:
    """Let freed memory go back to the system. To be called before there are threads; says whether it was done."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # Setting one of the two turns off the automatic growth of both.
    return all(mallopt(option, LARGE_BLOCK_BYTES) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files, as far as the hard one allows; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(WANTED_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
