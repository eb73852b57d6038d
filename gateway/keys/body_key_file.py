"""Key-encryption keys in a file: implements :class:`gateway.ports.KeyKeeper`.

The file has one key a line, ``key ID BASE64`` (256 bits), the newest first; empty lines and lines that begin with ``#``
are passed over. Only this user may read it. Whoever has it and the database reads all mail, and without it nobody does.

Guarantees: no error text has a key in it. A change is written beside the file, reaches the disk, and takes its place in
one step: a process killed at any moment leaves the old ring or the new one, whole. A lock on the folder keeps two
changes apart, and each begins from what is on the disk. A key that this process has read stays known to it until a
reload has read a whole and sound ring.

Failure modes: ConfigurationError that names the file, the line and the mend; KeyUnavailableError that names a key
which the ring does not have; SealBrokenError.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

from gateway.core.errors import ConfigurationError, KeyUnavailableError, SealBrokenError
from gateway.observability.folders import sync_folder
from gateway.observability.log import get_log

KEY_BYTES = 32
_OPEN_BITS = stat.S_IRWXG | stat.S_IRWXO
_MAX_FILE_BYTES = 1_048_576
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_FORMAT = b"\x01"
"""Wrapped here, with AES-KWP (RFC 5649)."""
HEADER = """\
# The keys of the stored messages: whoever has this file and the database can read all mail.
#
# One key a line: key ID BASE64. The first one seals new mail; the others open older mail.
# Without this file nobody can read the stored messages again, and nothing can make it anew.
# Keep a copy of it in a safe place, apart from the database and from the backups of the database.
# Do not edit it by hand. To change the key:  direct-gateway keys rotate   then:  direct-gateway keys retire ID
"""


log = get_log("keys")


@dataclass(frozen=True, slots=True)
class Key:
    """A key-encryption key."""

    id: str
    secret: bytes = field(repr=False)


def new_id(at: datetime) -> str:
    """Return an id for a key that is made at that (aware) moment: it sorts by time."""
    return f"{at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def new_key(at: datetime) -> Key:
    """Return a fresh random key."""
    return Key(new_id(at), secrets.token_bytes(KEY_BYTES))


def ring_text(keys: Sequence[Key]) -> str:
    """Return the content of a key file."""
    return HEADER + "".join(f"key {key.id} {base64.b64encode(key.secret).decode()}\n" for key in keys)


class KeyFile:
    """The ring of one file. It is read when it is first needed. Safe to use from several threads."""

    def __init__(self, path: Path | Callable[[], Path], *, read_only: str = "") -> None:
        """``path`` may be found out when it is first needed. ``read_only``: why it cannot be changed, what to do."""
        self._where = path
        self._read_only = read_only
        self._lock = threading.Lock()
        self._keys: dict[str, Key] | None = None
        self._stamp: tuple[int, ...] = ()
        self._told = False
        """Whether the log has heard that others may read the file."""

    def __repr__(self) -> str:
        return "KeyFile()"

    @property
    def _path(self) -> Path:
        return self._where if isinstance(self._where, Path) else self._where()

    @property
    def place(self) -> str:
        return str(self._path)

    @property
    def current_id(self) -> str:
        return next(iter(self._ring()))

    def ids(self) -> tuple[str, ...]:
        return tuple(self._ring())

    def wrap(self, kek_id: str, key: bytes) -> bytes:
        """See :class:`gateway.ports.KeyWrapper`."""
        return _FORMAT + aes_key_wrap_with_padding(self._find(kek_id).secret, key)

    def unwrap(self, kek_id: str, wrapped: bytes) -> bytes:
        """See :class:`gateway.ports.KeyWrapper`."""
        secret = self._find(kek_id).secret
        if wrapped[:1] != _FORMAT:
            raise SealBrokenError("a wrapped key has a form that this ring does not know")
        try:
            return aes_key_unwrap_with_padding(secret, wrapped[1:])
        except (InvalidUnwrap, ValueError):
            raise SealBrokenError("a wrapped key does not open") from None

    def reload(self) -> None:
        """Read the file again. Raises ConfigurationError: what was known before stays in force."""
        with self._lock:
            self._read()

    def make_key(self, at: datetime) -> str:
        """Put a new key first; returns its id when it is on the disk. Raises ConfigurationError."""
        with self._changing() as keys:
            made = new_key(at)
            self._replace([made, *keys])
        return made.id

    def remove_key(self, kek_id: str) -> bool:
        """Take a key out; False when it is not there, or the file can only be read. Raises ConfigurationError."""
        if self._read_only:
            return False
        with self._changing() as keys:
            rest = [key for key in keys if key.id != kek_id]
            if len(rest) == len(keys):
                return False
            if not rest:
                raise ConfigurationError(
                    f"{self._path} would hold no key any more; if the keys are on a token now, remove the file itself"
                )
            self._replace(rest)
        return True

    def create(self, at: datetime) -> str:
        """Make the file, with its folder and one key; returns the id. Raises ConfigurationError when it is there."""
        if self._read_only:
            raise ConfigurationError(self._read_only)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                if self._path.exists():
                    raise ConfigurationError(f"{self._path} is there already; it is never written over")
                made = new_key(at)
                self._replace([made])
        except OSError as error:
            raise ConfigurationError(f"cannot make {self._path}: {error.strerror}") from None
        return made.id

    def _ring(self) -> dict[str, Key]:
        keys = self._keys
        if keys is None:
            with self._lock:
                if self._keys is None:
                    self._read()
                keys = self._keys
                assert keys is not None  # noqa: S101 - read or raised
        return keys

    def _find(self, kek_id: str) -> Key:
        """The key of that id; a file that has changed since is read again for one that is not known."""
        key = self._ring().get(kek_id)
        if key is None and self._changed():
            self.reload()
            key = self._ring().get(kek_id)
        if key is None:
            raise KeyUnavailableError(
                f"the key {kek_id}, which stored mail rests on, is not in {self._path}; "
                f"put it back from your copy of that file"
            )
        return key

    def _changed(self) -> bool:
        try:
            return _stamp(self._path.stat()) != self._stamp
        except OSError:
            return False

    def _read(self) -> None:
        self._stamp, keys = _read_ring(self._path)
        self._keys = {key.id: key for key in keys}
        # A credential of systemd is guarded by its folder.
        if not self._read_only and not self._told and self._path.stat().st_mode & _OPEN_BITS:
            self._told = True
            log.warning("body_key_file_open_to_others")

    @contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        """What is on the disk now, while nobody else changes it; the ring is read again at the end."""
        if self._read_only:
            raise ConfigurationError(self._read_only)
        try:
            with self._locked():
                yield _read_ring(self._path)[1]
        except OSError as error:
            raise ConfigurationError(f"cannot change {self._path}: {error.strerror}") from None
        self.reload()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _replace(self, keys: Sequence[Key]) -> None:
        beside = self._path.with_name(self._path.name + ".new")
        # What a killed process left there was never in force.
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            self._hand_over(file.fileno())
            file.write(ring_text(keys).encode())
            file.flush()
            os.fsync(file.fileno())
        beside.rename(self._path)
        sync_folder(self._path.parent)

    def _hand_over(self, handle: int) -> None:
        """Give the new file to the owner of the one that it replaces.

        A root's rotation must not take the ring away from a gateway that runs under a user of its own.
        """
        try:
            before = self._path.stat()
        except FileNotFoundError:
            return
        if (before.st_uid, before.st_gid) == (os.geteuid(), os.getegid()):
            return
        try:
            os.fchown(handle, before.st_uid, before.st_gid)
        except PermissionError:
            raise ConfigurationError(
                f"{self._path} belongs to another user: run this command as that user, or as root"
            ) from None


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def _read_ring(path: Path) -> tuple[tuple[int, ...], list[Key]]:
    try:
        with path.open("rb") as file:
            stamp = _stamp(os.fstat(file.fileno()))
            data = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigurationError(
            f"store.key_file: there is no file {path}, and no stored message can be read or kept without it; put it "
            f"back from your copy; only a new gateway gets a new one: direct-gateway keys make"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"store.key_file: cannot read {path}: {error.strerror}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"store.key_file: {path} is too large to be a key file")
    keys = parse_ring(data, str(path))
    return stamp, keys


def parse_ring(data: bytes, source: str) -> list[Key]:
    """Read the content of a key file.

    Raises:
        ConfigurationError: a line that is no key, two keys of one id, or no key; the text names the line and never
            repeats it.
    """
    keys: dict[str, Key] = {}
    for number, line in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"store.key_file: {source}, line {number}"
        if len(words) != 3 or words[0] != "key" or not _ID.match(words[1]):
            raise ConfigurationError(f"{where} is not of the form: key ID BASE64")
        try:
            secret = base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if len(secret) != KEY_BYTES:
            raise ConfigurationError(f"{where} does not hold 256 bits in base64; put the line back from your copy")
        if words[1] in keys:
            raise ConfigurationError(f"{where} has an id that stands above it already")
        keys[words[1]] = Key(words[1], secret)
    if not keys:
        raise ConfigurationError(f"store.key_file: {source} holds no key; put the file back from your copy")
    return list(keys.values())
