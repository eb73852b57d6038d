"""Keys of stored bodies for tests: a real key file in a scratch folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from gateway.keys.body_key_file import KeyFile
from gateway.keys.body_sealer import AESBodySealer

_MADE = datetime(2026, 1, 1, tzinfo=UTC)


def key_file_in(folder: Path) -> KeyFile:
    """The ring of a folder; made with one key when it is not there."""
    path = folder / "bodies.keys"
    ring = KeyFile(path)
    if not path.exists():
        ring.create(_MADE)
    return ring


def sealer_in(folder: Path) -> AESBodySealer:
    """A sealer over the ring of a folder."""
    return AESBodySealer(key_file_in(folder))
