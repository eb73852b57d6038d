"""Large messages on their way in, on disk and not in memory.

What lies in the spool in the clear is the S/MIME message as it came over the wire: still encrypted by its sender, with
the routing headers that every relay saw. Nothing that was decrypted is ever written here; what the store keeps is
sealed by the store.

Guarantees

* A spool file has no name: nobody can open it, and it is gone with the process, however that ends. Where the file
  system has no nameless files, it has a name for the moment between making and unlinking; what a crash leaves in that
  moment is removed at the next start. Files are 0600, the folder is 0700.
* A spool file promises nothing: it is never synced. ``250`` is said for what the store has committed (EP-14).
* The digest is computed while the message arrives. It is compared whenever the message is read to its end, so that a
  disk that gives back other bytes than it took cannot make us acknowledge a damaged message.
* A file is closed when the last one who holds it lets go. A commit that was begun may read on although its session has
  ended (F15): were the descriptor closed under it, the next file would get the same number.

Failure modes: OSError, with ENOSPC when the disk is full. The message is refused for now (451 or 452) and nothing else
is touched.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from gateway.core.errors import ConfigurationError
from gateway.core.message import PART_BYTES
from gateway.observability.os_errors import os_reason

_PREFIX = "arriving-"
_NO_NAMELESS_FILES = {errno.EISDIR, errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class Spool:
    """A folder for messages that are arriving."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> int:
        """Make the folder and remove what a crash may have left; returns how many files that were.

        Raises:
            ConfigurationError: the folder cannot be used.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            left = list(self.folder.glob(f"{_PREFIX}*"))
            for path in left:
                # Another gateway with the same folder may be about to unlink its own: either way it is gone.
                path.unlink(missing_ok=True)
            os.close(_open_nameless(self.folder))
        except OSError as exc:
            raise ConfigurationError(
                f"smtp.spool_dir: cannot use the folder {self.folder}: {os_reason(exc)}; "
                f"it must be writable for the gateway"
            ) from exc
        return len(left)

    def create(self) -> SpoolFile:
        """Begin a file. Raises OSError."""
        return SpoolFile(_open_nameless(self.folder))


def _open_nameless(folder: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    nameless = getattr(os, "O_TMPFILE", None)
    if nameless is not None:
        try:
            return os.open(folder, flags | nameless | os.O_EXCL, 0o600)
        except OSError as exc:
            if exc.errno not in _NO_NAMELESS_FILES or not folder.is_dir():
                raise
    handle, name = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
    with suppress(FileNotFoundError):
        Path(name).unlink()
    return handle


class _Descriptor:
    """An open file that is closed with the last reference to it."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # Bound as a default, because at the end of the process the module may be gone before the last descriptor.
        close(self.number)


class SpoolFile:
    """A message being written. Used by one thread at a time."""

    def __init__(self, descriptor: int) -> None:
        """Take the descriptor over."""
        self._file = _Descriptor(descriptor)
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append. Raises OSError; the file is of no use then."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._file.number, view) :]
        self._digest.update(data)
        self._size += len(data)

    def finish(self) -> SpooledBody:
        """The message as a body; nothing must be written after this."""
        return SpooledBody(self._file, self._size, self._digest.hexdigest())


class SpooledBody:
    """A :class:`gateway.core.message.Body` that lies in the spool. Any number of threads may read it."""

    __slots__ = ("_file", "_sha256", "_size")

    def __init__(self, file: _Descriptor, size_bytes: int, sha256: str) -> None:
        self._file = file
        self._size = size_bytes
        self._sha256 = sha256

    @property
    def size_bytes(self) -> int:
        return self._size

    @property
    def sha256(self) -> str:
        return self._sha256

    def parts(self) -> Iterator[bytes]:
        """The bytes in parts of ``PART_BYTES``, the last one shorter; of an empty body one empty part.

        Raises:
            OSError: the disk cannot give back what was written. The last part is not given then.
        """
        digest = hashlib.sha256()
        for start in range(0, max(1, self._size), PART_BYTES):
            part = self._read(start, min(PART_BYTES, self._size - start))
            digest.update(part)
            if start + len(part) == self._size and digest.hexdigest() != self._sha256:
                raise OSError(errno.EIO, "a spooled message does not match its digest")
            yield part

    def _read(self, start: int, count: int) -> bytes:
        pieces: list[bytes] = []
        while count:
            piece = os.pread(self._file.number, count, start)
            if not piece:
                raise OSError(errno.EIO, "a spooled message is shorter than it was written")
            pieces.append(piece)
            start, count = start + len(piece), count - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
