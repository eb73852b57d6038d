"""The folder adapter: a folder per patient, in it a folder per link.

::

    BASE/PATIENT/LINK/message.eml          the exact bytes of the verified message
                      parts/01-name.ext    each leaf part, decoded
                      record.json          who, what, when, with a SHA-256 of each file
    BASE/PATIENT/LINK.retracted.json       the link was taken back: by whom, when and why

Guarantees

* Idempotent by link id: a folder that is there already is left as it is and gives the same receipt.
* A folder with its final name is complete and on the disk. It is written under ``.partial-LINK``, every file and
  folder is synced, then it is renamed and its parent synced. Whoever watches BASE ignores names with a dot.
* A crash leaves at most a ``.partial-`` folder, which the next attempt replaces. Attempts for one patient exclude
  each other, across threads and processes, by a lock on the patient's folder that the kernel drops with its holder.
* The lock is waited for only for a while, and files are written by threads of the importer's own: somebody else who
  holds the lock, or a disk that hangs, keeps imports waiting and never the mail.
* A retraction removes and changes nothing: it is a record of its own, complete once it has its name, and the first
  one stays.
* Folders are 0700 and files 0600. Names given by the sender appear in ``record.json`` only; see ``file_names``.

Failure modes: an ``OSError`` (no space, no rights) leaves nothing under a final name and is worth another attempt;
a message whose bytes do not have the recorded digest is refused with ``StoreError``.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.core.errors import ConflictError, StoreError
from gateway.importers.file_names import folder_name, part_name
from gateway.observability.folders import sync_folder
from gateway.ports import IMPORTER_API_VERSION, ImporterCapabilities, ImportPreview, ImportRequest, Retraction

RECORD_FORMAT = "direct-gateway/chart-record"
RETRACTION_FORMAT = "direct-gateway/chart-retraction"
RECORD_VERSION = 1
_OUR_LINK_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}\Z")
_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_THREADS = 2
LOCK_SECONDS = 10.0
"""How long an attempt waits for the lock on a patient's folder; then it fails, and comes again by its schedule."""
_LOCK_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class _File:
    """One file to write, and how the record names it."""

    path: str
    """Relative to the link's folder, with ``/``."""
    role: str
    filename: str
    content_type: str
    data: bytes

    def described(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "role": self.role,
            "filename": self.filename,
            "content_type": self.content_type,
            "size_bytes": len(self.data),
            "sha256": hashlib.sha256(self.data).hexdigest(),
        }


class FolderImporter:
    """A :class:`gateway.ports.PatientImporter` that writes files."""

    def __init__(self, base: Path, name: str = "folder") -> None:
        """``base`` is made, with its parents, at the first import."""
        self._base = base
        self._name = name
        # The threads of asyncio.to_thread are shared with the acceptance of mail, which must never wait for these.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="folder-importer")

    @property
    def name(self) -> str:
        return self._name

    @property
    def api_version(self) -> int:
        return IMPORTER_API_VERSION

    @property
    def capabilities(self) -> ImporterCapabilities:
        return ImporterCapabilities(retract=True, preview=True)

    async def import_message(self, request: ImportRequest) -> str:
        """Write the folder of the link and return its path relative to the base.

        Raises:
            StoreError: the content does not have the recorded digest.
            ConflictError: something else stands where the folder belongs.
            OSError: the file system refuses, or (TimeoutError) somebody else keeps the patient's folder locked.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._write, request)

    async def retract(self, retraction: Retraction) -> str:
        """Write the record of the retraction beside the folder of the link; return its path relative to the base.

        Raises:
            ConflictError: something else stands there.
            OSError: as :meth:`import_message`.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._write_retraction, retraction)

    async def check(self) -> str | None:
        """Whether the folder, or the nearest one above it that is there, can be written to. Makes nothing."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _unfit, self._base)

    async def preview(self, request: ImportRequest) -> ImportPreview:
        """The record that would be written, which lists every file."""
        files = await asyncio.get_running_loop().run_in_executor(self._threads, _files, request)
        return ImportPreview("application/json", files[-1].data)

    async def close(self) -> None:
        """Let the threads go. A disk that hangs is not waited for."""
        self._threads.shutdown(wait=False)

    def _write_retraction(self, retraction: Retraction) -> str:
        link = retraction.request.link
        patient_folder = self._base / folder_name(retraction.request.patient.id)
        final = patient_folder / f"{_link_name(link.id)}.retracted.json"
        _make_folders(patient_folder)
        with _locked(patient_folder):
            if os.path.lexists(final):
                if _retracted_link(final) != link.id:
                    raise ConflictError("something else stands where the record of a retraction belongs")
            else:
                partial = patient_folder / f".partial-{final.name}"
                partial.unlink(missing_ok=True)
                _write_file(partial, _retraction_record(retraction))
                os.rename(partial, final)  # noqa: PTH104 - one call per step keeps the order of effects visible
            sync_folder(patient_folder)
        return f"{patient_folder.name}/{final.name}"

    def _write(self, request: ImportRequest) -> str:
        whole = not request.link.part
        if whole and hashlib.sha256(request.content).hexdigest() != request.content_sha256:
            raise StoreError("the message does not have the digest under which it was stored")
        link_id = request.link.id
        patient_folder = self._base / folder_name(request.patient.id)
        link_name = _link_name(link_id)
        final = patient_folder / link_name
        _make_folders(patient_folder)
        with _locked(patient_folder):
            if os.path.lexists(final):
                _check_owner(final, link_id)
            else:
                partial = patient_folder / f".partial-{link_name}"
                if os.path.lexists(partial):
                    shutil.rmtree(partial)
                _write_all(partial, _files(request))
                os.rename(partial, final)  # noqa: PTH104 - one call per step keeps the order of effects visible
            # Also when the folder was there: the crash may have come between the rename and this sync.
            sync_folder(patient_folder)
        return f"{patient_folder.name}/{link_name}"


def _link_name(link_id: str) -> str:
    return link_id if _OUR_LINK_ID.match(link_id) else folder_name(link_id)


def _unfit(base: Path) -> str | None:
    nearest = next(folder for folder in (base, *base.parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        return "something that is not a folder stands where the folder of the charts belongs"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return "the folder of the charts cannot be written to by this user"
    return None


def _retracted_link(record: Path) -> str | None:
    try:
        found: object = json.loads(record.read_bytes())["link"]["id"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) else None


def _retraction_record(retraction: Retraction) -> bytes:
    document = {
        "format": RETRACTION_FORMAT,
        "version": RECORD_VERSION,
        "link": {"id": retraction.request.link.id},
        "receipt": retraction.receipt,
        "actor": retraction.actor,
        "reason": retraction.reason,
        "retracted_at": _iso(retraction.retracted_at),
    }
    return (json.dumps(document, indent=2, ensure_ascii=True) + "\n").encode("ascii")


def _files(request: ImportRequest) -> list[_File]:
    """Everything that belongs into the folder; the record comes last."""
    files = []
    if not request.link.part:
        files.append(_File("message.eml", "message", "", "message/rfc822", request.content))
    for number, part in enumerate(request.parts, start=1):
        path = f"parts/{part_name(number, part.filename, part.content_type)}"
        files.append(_File(path, "part", part.filename, part.content_type, part.data))
    record = json.dumps(_record(request, files), indent=2, ensure_ascii=True) + "\n"
    return [*files, _File("record.json", "record", "", "application/json", record.encode("ascii"))]


def _record(request: ImportRequest, files: list[_File]) -> dict[str, Any]:
    link, patient = request.link, request.patient
    return {
        "format": RECORD_FORMAT,
        "version": RECORD_VERSION,
        "link": {
            "id": link.id,
            "mode": link.mode,
            "actor": link.actor,
            "rule": link.rule,
            "linked_at": _iso(link.linked_at),
            # Of a link of one part: its number in the message, which is then not here.
            "part": link.part,
        },
        "patient": {
            "id": patient.id,
            "mrn": patient.mrn,
            "family": patient.family,
            "given": patient.given,
            "birth_date": patient.birth_date.isoformat() if patient.birth_date else None,
            "sex": patient.sex,
        },
        "message": {
            "id": link.message_id,
            "rfc822_message_id": request.rfc822_message_id,
            "sender": request.sender,
            "recipients": list(request.recipients),
            "subject": request.subject,
            "sent_at": _iso(request.sent_at),
            "received_at": _iso(request.received_at),
            "content_sha256": request.content_sha256,
            "text": request.text,
        },
        "files": [file.described() for file in files],
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _make_folders(patient_folder: Path) -> None:
    """Make the patient's folder and what is missing above it, each synced into its parent."""
    base = patient_folder.parent
    missing = [folder for folder in (patient_folder, *patient_folder.parents) if not os.path.lexists(folder)]
    for folder in reversed(missing):
        # Another import may be faster; it may not have synced yet, so this one does as well.
        with suppress(FileExistsError):
            folder.mkdir(mode=_FOLDER_MODE)
        sync_folder(folder.parent)
    if patient_folder.is_symlink() or not patient_folder.is_dir():
        raise ConflictError("something that is not a folder stands where a patient's folder belongs")
    # An earlier attempt may have crashed between making a folder and syncing it. The folder above the base may be
    # somebody else's and closed to us; then it was not we who made the base.
    sync_folder(base)
    with suppress(PermissionError):
        sync_folder(base.parent)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _wait_for_lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError("the folder of a patient stays locked") from None
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return


def _check_owner(final: Path, link_id: str) -> None:
    """Raise ConflictError unless the folder is the finished one of this very link."""
    try:
        record = json.loads((final / "record.json").read_bytes())
        owner = record["link"]["id"]
    except (OSError, ValueError, LookupError, TypeError):
        owner = None
    if owner != link_id:
        raise ConflictError("something else stands where the folder of the link belongs")


def _write_all(folder: Path, files: list[_File]) -> None:
    """Write the files into the new folder and sync them, the folders last."""
    folder.mkdir(mode=_FOLDER_MODE)
    parts = folder / "parts"
    parts.mkdir(mode=_FOLDER_MODE)
    for file in files:
        _write_file(folder / file.path, file.data)
    sync_folder(parts)
    sync_folder(folder)


def _write_file(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, _FILE_MODE)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
