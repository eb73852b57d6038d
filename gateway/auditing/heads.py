"""Makes signed tree heads of the audit log and puts them where they can be copied away (tamper evidence, F29).

A head is made in one transaction with the growth of the tree, kept in the store, and then written to the folder of
heads as a file of its own: written under another name, synced, renamed, and the folder synced. A file that cannot be
written costs nothing but that file: the head is in the store, the next one covers it, and the operator is told.

Failure modes: StoreError when the commit failed: there is no new head. ``OSError`` of the folder leaves ``export`` as
it comes.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from pathlib import Path
from typing import Protocol

from gateway.core.tree_head import TreeHead, to_document
from gateway.observability.folders import new_file, sync_folder
from gateway.ports import Clock, Store, UnitOfWork

GROWTH = 20_000
"""Events taken into the tree in one transaction: the first head of a long log must not hold the writer for minutes."""


class Signer(Protocol):
    """Signs heads. Satisfied by :class:`gateway.keys.head_signing.HeadSigner`."""

    def sign(self, head: TreeHead) -> TreeHead:
        """Return the head with the key's name and signature."""
        ...


class TreeHeads:
    """Makes heads of one store."""

    def __init__(self, store: Store, clock: Clock, signer: Signer, folder: Path | None) -> None:
        """``folder`` gets a file for each head; None: the heads stay in the store."""
        self._store = store
        self._clock = clock
        self._signer = signer
        self._folder = folder

    async def make(self) -> TreeHead:
        """Make a head over every event that is committed now, sign it and keep it.

        Raises:
            StoreError: nothing was kept.
        """
        while True:
            head = await self._store.write(self._grow)
            if head is not None:
                return head

    def _grow(self, rows: UnitOfWork) -> TreeHead | None:
        """Take the next events in; when no more wait, sign and keep the head."""
        before = rows.audit_tree.size()
        size = rows.audit_tree.grow(GROWTH)
        if size - before == GROWTH:
            return None
        unsigned = TreeHead(size, rows.audit_tree.root(size), self._clock.now(), rows.audit_tree.node_heads(size), "")
        head = self._signer.sign(unsigned)
        rows.audit_tree.add_head(size, head_text(head))
        return head

    async def export(self, head: TreeHead) -> Path | None:
        """Write the head to the folder; return the file, or None where no folder is set. Raises OSError."""
        if self._folder is None:
            return None
        name = f"head-{head.at:%Y%m%dT%H%M%S}{head.at.microsecond:06d}Z-{head.size}.json"
        path = self._folder / name
        await asyncio.to_thread(self._write, path, head)
        return path

    def _write(self, path: Path, head: TreeHead) -> None:
        # Not with the folders above it: where a volume is not mounted, nothing must be made in its place.
        path.parent.mkdir(mode=0o755, exist_ok=True)
        write_head(path, head)

    def require_folder(self) -> None:
        """See that the folder, where one is set, would take a head. Raises OSError."""
        if self._folder is not None:
            require_writable(self._folder)


def require_writable(folder: Path) -> None:
    """Raises OSError: this folder is none, or a file cannot be made in it. Writes nothing."""
    if not stat.S_ISDIR(folder.stat().st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def head_text(head: TreeHead) -> str:
    """The head as one line of JSON."""
    return json.dumps(to_document(head), separators=(",", ":"), ensure_ascii=True)


def write_head(path: Path, head: TreeHead) -> None:
    """Write a head so that the file is there whole or not at all. Raises OSError."""
    write_whole(path, json.dumps(to_document(head), indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a text file under another name, sync it, rename it, and sync the folder, which is there. Raises OSError."""
    staged = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        # Others may read heads: they are made to be kept elsewhere.
        with os.fdopen(new_file(staged, 0o644), "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staged.rename(path)
    finally:
        staged.unlink(missing_ok=True)
    sync_folder(path.parent)
