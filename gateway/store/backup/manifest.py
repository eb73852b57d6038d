"""The manifest of a backup: what it is of, and what must be found in it.

It is text in exactly one spelling and holds a digest of itself, so that no byte of it can change unseen. Somebody who
alters a backup on purpose can make these digests anew: against him stand the signed head of the audit log in it, heads
that were kept elsewhere, and the digest of the manifest, which the audit log of the store holds (``backup.created``).

Failure modes: InputError that says what is wrong with the text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar

from gateway.core.errors import InputError
from gateway.core.tree_head import NodeHead, TreeHead, from_document, to_document

FORMAT: Final = "direct-gateway-backup/1"
MANIFEST: Final = "manifest.json"
STORE_FILE: Final = "store.db"
SETTINGS_FOLDER: Final = "settings"
MAX_MANIFEST_BYTES: Final = 32 << 20
MAX_COUNTER: Final = 1 << 40
"""The highest id that a counter may have given out: ten million a day for three hundred years."""


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One table: how many rows, about how many bytes, and :class:`gateway.store.table_rows.RowsDigest` of them."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the backup, by its path in it."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key-encryption key, and how many messages cannot be read without it."""

    id: str
    messages: int


_Entry = TypeVar("_Entry", TableEntry, FileEntry, KeyEntry)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that a backup says of itself."""

    id: str
    at: datetime
    """When the snapshot was taken."""
    program: str
    """Version of the program that made it."""
    schema: int
    database: str
    """What it was made from: ``sqlite`` or ``postgresql``."""
    node: str
    """The node that made it."""
    tables: tuple[TableEntry, ...]
    counters: Mapping[str, int]
    """The highest id that a table's counter has given out, also to rows that are gone."""
    chains: tuple[NodeHead, ...]
    """The newest event of each node."""
    tree_size: int
    """Events in the tree of the snapshot; the later ones are in ``chains``."""
    tree_root: bytes
    head: TreeHead | None
    """The newest signed head in the snapshot."""
    keys: tuple[KeyEntry, ...]
    objects: int
    """Bodies that lie in a bucket and are not in the backup."""
    objects_bytes: int
    files: tuple[FileEntry, ...] = field(default=())
    left_out: tuple[str, ...] = field(default=())
    """Files that the gateway needs and that are not in the backup: keys and passwords."""

    @property
    def messages(self) -> int:
        """Messages in it."""
        return next((table.rows for table in self.tables if table.name == "raw_message"), 0)

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)


def manifest_text(manifest: Manifest) -> str:
    """The manifest as it is written."""
    document = _document(manifest)
    document["sha256"] = hashlib.sha256(_spelled(document).encode("ascii")).hexdigest()
    return _spelled(document)


def manifest_digest(text: str) -> str:
    """SHA-256 of the file: what the audit log keeps of a backup."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def read_manifest(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        InputError: it is none, or was altered, or is of another format.
    """
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or not str(document.get("format", "")).startswith("direct-gateway-backup/"):
            raise InputError(f"{MANIFEST} is no manifest of a backup")
        if document["format"] != FORMAT:
            raise InputError(f"the backup has the format {document['format'][:40]}, and this release reads {FORMAT}")
        told = document.pop("sha256", "")
        if told != hashlib.sha256(_spelled(document).encode("ascii")).hexdigest():
            raise InputError(f"{MANIFEST} was altered or damaged: it does not have the digest that it names")
        manifest = _manifest(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as exc:
        raise InputError(f"{MANIFEST} was altered or damaged: it cannot be read") from exc
    if manifest_text(manifest).encode("ascii") != data:
        raise InputError(f"{MANIFEST} was altered or damaged: it is not spelled as it was written")
    return manifest


def _spelled(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def _document(manifest: Manifest) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "id": manifest.id,
        "at": manifest.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "program": manifest.program,
        "schema": manifest.schema,
        "database": manifest.database,
        "node": manifest.node,
        "messages": manifest.messages,
        "files": [asdict(one) for one in manifest.files],
        "tables": [asdict(one) for one in manifest.tables],
        "counters": dict(manifest.counters),
        "chains": [{"node": one.node, "seq": one.seq, "hash": one.hash.hex()} for one in manifest.chains],
        "tree": {"size": manifest.tree_size, "root": manifest.tree_root.hex()},
        "head": None if manifest.head is None else to_document(manifest.head),
        "keys": [asdict(one) for one in manifest.keys],
        "objects": {"count": manifest.objects, "bytes": manifest.objects_bytes},
        "left_out": list(manifest.left_out),
    }


def _manifest(document: Mapping[str, Any]) -> Manifest:
    head = document["head"]
    return Manifest(
        id=str(document["id"]),
        at=datetime.fromisoformat(document["at"]).astimezone(UTC),
        program=str(document["program"]),
        schema=int(document["schema"]),
        database=str(document["database"]),
        node=str(document["node"]),
        tables=tuple(_counted(TableEntry(**one)) for one in document["tables"]),
        counters={str(name): _given_out(value) for name, value in document["counters"].items()},
        chains=tuple(NodeHead(one["node"], int(one["seq"]), bytes.fromhex(one["hash"])) for one in document["chains"]),
        tree_size=int(document["tree"]["size"]),
        tree_root=bytes.fromhex(document["tree"]["root"]),
        head=None if head is None else from_document(head),
        keys=tuple(_counted(KeyEntry(**one)) for one in document["keys"]),
        objects=int(document["objects"]["count"]),
        objects_bytes=int(document["objects"]["bytes"]),
        files=tuple(_inside(_counted(FileEntry(**one))) for one in document["files"]),
        left_out=tuple(str(one) for one in document["left_out"]),
    )


def _counted(entry: _Entry) -> _Entry:
    """Raises TypeError for a text where a number belongs, or the other way round."""
    for one in fields(entry):
        value = getattr(entry, one.name)
        if type(value) is not (int if one.type == "int" else str):
            raise TypeError(f"{one.name} of the manifest is of another kind")
    return entry


def _given_out(value: object) -> int:
    """A counter that stands near its end gives out no id more: such a backup would restore to a store that is stuck."""
    if type(value) is not int or not 0 <= value <= MAX_COUNTER:
        raise ValueError("a counter of the manifest stands where none can")
    return value


def _inside(entry: FileEntry) -> FileEntry:
    """A path that leads out of the backup is none of ours. Raises ValueError."""
    path = PurePosixPath(entry.path)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError("a path of the manifest leads out of the backup")
    return entry
