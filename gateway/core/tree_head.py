"""A signed tree head: what the audit log was at one moment, in a few hundred bytes that can be kept elsewhere.

A head says how many events the log had, the root of the Merkle tree over them (:mod:`gateway.core.merkle`), and the
newest event of each node. Whoever keeps it can find out later whether the log of that moment is still in the log of
today, bit for bit: a tail that was cut off, a backup that was put back, a chain that was forged as a whole. No check
inside the database can show these.

The signature is over :func:`signed_bytes`. The key is named by the SHA-256 of its public half.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.core.errors import InputError
from gateway.core.merkle import HASH_BYTES

FORMAT = "direct-gateway-audit-head/1"
SIGNATURE_BYTES = 64
MAX_DOCUMENT_CHARS = 1 << 20


@dataclass(frozen=True, slots=True)
class NodeHead:
    """The newest event of one node in the tree."""

    node: str
    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class TreeHead:
    """The log at one moment."""

    size: int
    """Events in the tree."""
    root: bytes
    at: datetime
    nodes: tuple[NodeHead, ...]
    """By name of the node."""
    key_id: str
    """SHA-256 of the public key's DER (SubjectPublicKeyInfo), hexadecimal."""
    signature: bytes = b""
    """Ed25519 over :func:`signed_bytes`."""


def signed_bytes(head: TreeHead) -> bytes:
    """Return what the signature is over: a JSON array in one spelling, which begins with the name of the format."""
    moment = head.at.astimezone(UTC).isoformat(timespec="microseconds")
    nodes = [[node.node, node.seq, node.hash.hex()] for node in head.nodes]
    fields = [FORMAT, head.size, head.root.hex(), moment, nodes, head.key_id]
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def to_document(head: TreeHead) -> dict[str, Any]:
    """Return the head as JSON-able values, with the signed bytes themselves, so that any tool can check them."""
    return {
        "format": FORMAT,
        "size": head.size,
        "root": head.root.hex(),
        "at": head.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "nodes": [{"node": node.node, "seq": node.seq, "hash": node.hash.hex()} for node in head.nodes],
        "key_id": head.key_id,
        "signed": signed_bytes(head).decode("ascii"),
        "signature": base64.b64encode(head.signature).decode("ascii"),
    }


def from_document(document: Any) -> TreeHead:
    """Read a head. The signature is not checked here.

    Raises:
        InputError: it is no tree head of this format; or the text under ``signed`` says something else than the rest.
    """
    try:
        if document["format"] != FORMAT:
            raise InputError(f"the head has another format than {FORMAT}")
        head = TreeHead(
            size=_count(document["size"]),
            root=_hash(document["root"]),
            at=_moment(document["at"]),
            nodes=tuple(NodeHead(str(n["node"]), _count(n["seq"]), _hash(n["hash"])) for n in document["nodes"]),
            key_id=str(document["key_id"]),
            signature=base64.b64decode(document["signature"], validate=True),
        )
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as exc:
        raise InputError(
            "this is no tree head of an audit log (a JSON document from: direct-gateway audit head)"
        ) from exc
    if len(head.signature) != SIGNATURE_BYTES or document.get("signed") != signed_bytes(head).decode("ascii"):
        raise InputError("the tree head contradicts itself: what it says is not what was signed")
    return head


def from_text(text: str) -> TreeHead:
    """Read a head from JSON text. Raises InputError."""
    if len(text) > MAX_DOCUMENT_CHARS:
        raise InputError("this is no tree head: it is too long")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InputError("this is no tree head: it is not JSON") from exc
    return from_document(document)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("not a count")
    return value


def _hash(value: Any) -> bytes:
    found = bytes.fromhex(value)
    if len(found) != HASH_BYTES:
        raise ValueError("not a SHA-256")
    return found


def _moment(value: Any) -> datetime:
    at = datetime.fromisoformat(value)
    if at.tzinfo is None:
        raise ValueError("not a moment")
    return at.astimezone(UTC)
