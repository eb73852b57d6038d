"""The database file and what stands around it: its folder, its rights, its lock, its file system.

* A new file is 0600 and a new folder 0700, before the first byte is written: SQLite gives the WAL beside it the
  same rights. Both are synced into their parent, so that a power cut cannot lose the name of a committed file.
* ``FileLock`` is held by the daemon for as long as it runs: a second ``serve`` on the same database is refused
  (F43). Command-line tools do not take it; SQLite's own locks keep them and the daemon apart.
* A network file system is refused: SQLite's WAL needs shared memory and honest locks, which none of them gives.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from gateway.core.errors import ConfigurationError
from gateway.observability.folders import sync_folder

_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs"}
)
_MOUNTS = Path("/proc/self/mountinfo")
_PREFIX = "sqlite:///"


def database_path(url: str) -> Path:
    """Return the file that a ``sqlite:///`` URL names.

    Raises:
        ConfigurationError: not such a URL, or one of a database in memory, which nothing would survive.
    """
    path = url.removeprefix(_PREFIX)
    if path == url or path in {"", ":memory:"}:
        raise ConfigurationError("store.url must name a file: sqlite:///data/gateway.db")
    return Path(path)


def prepare(path: Path) -> None:
    """Make the folder and the empty database file when they are missing.

    Raises:
        ConfigurationError: they cannot be made, or stand on a network file system.
    """
    try:
        _make_folder(path.parent)
        refuse_network_file_system(path.parent)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            if not path.is_file():
                raise ConfigurationError(f"store.url: {path} is not a file") from None
        else:
            sync_folder(path.parent)
    except OSError as exc:
        raise ConfigurationError(f"store.url: cannot make {path}: {exc.strerror}") from exc


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def refuse_network_file_system(folder: Path, mounts: Path = _MOUNTS) -> None:
    """Refuse a folder on a network file system. Where the system does not list its mounts, nothing is refused.

    Raises:
        ConfigurationError: the folder is on one.
    """
    kind = file_system_of(folder, mounts)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise ConfigurationError(
            f"store.url: {folder} is on a network file system ({kind}), where SQLite loses mail; use a local disk"
        )


def file_system_of(folder: Path, mounts: Path = _MOUNTS) -> str:
    """Return the type of the file system that holds the folder, or the empty string when that is not known."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    target = folder.resolve()
    best, kind = -1, ""
    for line in lines:
        before, dash, after = line.partition(" - ")
        columns = before.split(" ")
        if not dash or len(columns) < 5:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), columns[4]))
        # A later line covers an earlier one that is mounted at the same place.
        if target.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split(" ")[0]
    return kind


class FileLock:
    """An exclusive lock beside the database, freed by the system when the process ends, however it ends."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + ".lock")
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            ConfigurationError: another process has it; the text names it.
        """
        # The file stays when the lock is freed: removing it would let two processes lock two files of one name.
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise ConfigurationError(f"store.url: cannot lock {self.path}: {exc.strerror}") from exc
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise ConfigurationError(
                f"another direct-gateway serve (process {holder}) runs on this database; stop it first, "
                f"or give this one its own store.url"
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode("ascii"))
        self._handle = handle

    def release(self) -> None:
        """Free the lock; a no-op when it is not held."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None


def running_daemon(database: Path) -> int | None:
    """Return the process id of the daemon on this database, or None when none is seen from here.

    A hint for people, not a lock: nothing is taken, so that no daemon that starts just now is refused. After a crash
    another process may bear the number that the file still holds.
    """
    try:
        pid = int(database.with_name(database.name + ".lock").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    try:
        os.kill(pid, 0)
    except PermissionError:
        # It runs under another user.
        return pid
    except (OSError, OverflowError):
        return None
    return pid
