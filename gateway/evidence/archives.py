"""Zip packages of strangers, unpacked in memory and no further than asked for (CX-24).

Nothing is written anywhere, so path traversal and links have nothing to act on: a name is only compared. An entry in
a package is named by its number, because its name may hold the name of a patient.

Guarantees: never raises; what is unpacked is bounded for each entry and for the message, and so are the number of
entries and the ratio. Entries that overlap (a known form of zip bomb) and forms of compression that need much memory
are refused. A package in a package is not opened.

Failure modes: what cannot be unpacked is a problem by its own name that hides claims; the other entries are read.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass

from gateway.core.claims import Source
from gateway.evidence.collecting import Collector, Piece

MAX_ENTRIES = 500
MAX_ENTRY_BYTES = 32 * 1024 * 1024
MAX_RATIO = 250
"""Unpacked by packed size of an entry of more than a megabyte: the most repetitive C-CDA seen has some 30."""
HEAD_BYTES = 4_096
_SMALL = 1024 * 1024
_CENTRAL = b"PK\x01\x02"
_LOCAL_HEADER_BYTES = 30
_ENCRYPTED = 0x1
_BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError, OverflowError, KeyError,
    AttributeError, IndexError, NotImplementedError,
)  # fmt: skip
"""What the library raises for damaged packages."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a package."""

    number: int
    """In the order of the package's directory, from 1."""
    name: str
    """With ``/`` between folders; for comparing only."""
    size: int
    """Unpacked, as the package says."""
    info: zipfile.ZipInfo


class Archive:
    """An open package."""

    def __init__(self, found: Collector, path: str, archive: zipfile.ZipFile, entries: tuple[Entry, ...]) -> None:
        self._found = found
        self._path = path
        self._archive = archive
        self.entries = entries

    def path_of(self, entry: Entry) -> str:
        """Where the entry is in the message: ``2/zip:3``."""
        return f"{self._path}/zip:{entry.number}"

    def head(self, entry: Entry) -> bytes | None:
        """The first bytes of an entry; None when it cannot be unpacked, which is then told as a problem."""
        code, detail = _refusal(entry)
        if code:
            self._problem(entry, code, detail)
            return None
        try:
            with self._archive.open(entry.info) as file:
                return file.read(HEAD_BYTES)
        except _BROKEN:
            self._problem(entry, "zip_entry_broken", "an entry of the package is damaged")
            return None

    def read(self, entry: Entry) -> bytes | None:
        """The whole entry; None when it cannot be unpacked, which is then told as a problem."""
        code, detail = _refusal(entry)
        if code:
            self._problem(entry, code, detail)
            return None
        if not self._found.may_read(entry.size, Source.XDM_METADATA, self.path_of(entry)):
            return None
        try:
            with self._archive.open(entry.info) as file:
                data = file.read(entry.size + 1)
        except _BROKEN:
            self._problem(entry, "zip_entry_broken", "an entry of the package is damaged")
            return None
        if len(data) != entry.size:
            self._problem(entry, "zip_entry_broken", "an entry of the package is damaged")
            return None
        return data

    def _problem(self, entry: Entry, code: str, detail: str) -> None:
        self._found.problem(Source.XDM_METADATA, self.path_of(entry), code, detail)


def open_archive(found: Collector, piece: Piece) -> Archive | None:
    """Open a package; None, with a problem, when it is none or is refused as a whole."""

    def refuse(code: str, detail: str) -> None:
        found.problem(Source.XDM_METADATA, piece.path, code, detail)

    # The library reads the whole directory at once: what is beyond the limit must not get that far.
    if piece.data.count(_CENTRAL) > 2 * MAX_ENTRIES:
        refuse("zip_too_many_entries", f"the package has more than {MAX_ENTRIES} entries")
        return None
    try:
        # It lives as long as the bytes, which are in memory: there is nothing to close.
        archive = zipfile.ZipFile(io.BytesIO(piece.data))
        infos = archive.infolist()
    except _BROKEN:
        refuse("zip_broken", "the package is damaged or not a zip file")
        return None
    if len(infos) > MAX_ENTRIES:
        refuse("zip_too_many_entries", f"the package has more than {MAX_ENTRIES} entries")
        return None
    if _overlap(infos):
        refuse("zip_overlapping_entries", "entries of the package overlap, which no honest one does")
        return None
    entries = tuple(
        Entry(number, info.filename.replace("\\", "/").removeprefix("./"), info.file_size, info)
        for number, info in enumerate(infos, 1)
        if not info.filename.endswith("/")
    )
    return Archive(found, piece.path, archive, entries)


def _overlap(infos: list[zipfile.ZipInfo]) -> bool:
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            return True
        end = info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size
    return False


def _refusal(entry: Entry) -> tuple[str, str]:
    info = entry.info
    if info.flag_bits & _ENCRYPTED:
        return "zip_encrypted", "an entry of the package is encrypted"
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return "zip_compression_unsupported", "an entry of the package is compressed in a way that is not supported"
    if entry.size > MAX_ENTRY_BYTES:
        return "zip_entry_too_large", f"an entry of the package has more than {MAX_ENTRY_BYTES // 1024 // 1024} MiB"
    if entry.size > _SMALL and entry.size > MAX_RATIO * max(1, info.compress_size):
        return "zip_ratio", f"an entry of the package unpacks to more than {MAX_RATIO} times its size"
    return "", ""
