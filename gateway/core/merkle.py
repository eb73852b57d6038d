"""The Merkle tree of RFC 9162 2.1, as pure functions: a log that only grows can be proved to have only grown.

A leaf is ``SHA-256(0x00 ‖ data)``, an inner node ``SHA-256(0x01 ‖ left ‖ right)``; the root of a tree of ``size``
leaves splits them at the largest power of two below ``size``. Whoever kept the root of yesterday can be shown with a
few hashes that the log of today begins with the log of yesterday (consistency), and that an event is in it
(inclusion).

Nothing here holds the tree. A caller gives ``node(level, index)``: the hash of the complete subtree over the leaves
``[index·2^level, (index+1)·2^level)``. A root or a proof asks for about ``2·log2(size)`` of them, whatever the size.

The verifying functions raise and never return a truth value, so that no caller can forget to look at the answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from gateway.core.errors import TamperedError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of no leaves (RFC 9162 2.1.1)."""

NodeHash = Callable[[int, int], bytes]
"""``(level, index)`` to the hash of that complete subtree; level 0 is a leaf."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf. The prefix keeps a leaf from being passed off as an inner node."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that grows leaf by leaf and remembers only the complete subtrees on its right edge: log2(size) hashes."""

    def __init__(self, completed: Callable[[int, int, bytes], None] | None = None) -> None:
        """``completed(level, index, hash)`` is told of every subtree, leaves included, in the moment it is complete."""
        self.size = 0
        self._edge: list[bytes | None] = []
        self._completed = completed

    def append(self, leaf: bytes) -> None:
        """Add the hash of the next leaf."""
        level, index, digest = 0, self.size, leaf
        self._tell(level, index, digest)
        while index & 1:
            left = self._edge[level]
            assert left is not None  # noqa: S101 - an odd index has a complete left neighbour
            self._edge[level] = None
            digest = node_hash(left, digest)
            level, index = level + 1, index >> 1
            self._tell(level, index, digest)
        if level == len(self._edge):
            self._edge.append(None)
        self._edge[level] = digest
        self.size += 1

    def root(self) -> bytes:
        """The root of the leaves so far."""
        root: bytes | None = None
        for subtree in self._edge:
            if subtree is not None:
                root = subtree if root is None else node_hash(subtree, root)
        return EMPTY_ROOT if root is None else root

    def _tell(self, level: int, index: int, digest: bytes) -> None:
        if self._completed is not None:
            self._completed(level, index, digest)


def root(size: int, node: NodeHash) -> bytes:
    """Return the root of the first ``size`` leaves."""
    return _range(0, size, node) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, node: NodeHash) -> list[bytes]:
    """Return the proof that leaf ``index`` is in the tree of ``size`` leaves (RFC 9162 2.1.3.1), the leaf's side first.

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError("no such leaf in a tree of that size")
    proof: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            proof.append(_range(middle, end, node))
            end = middle
        else:
            proof.append(_range(begin, middle, node))
            begin = middle
    return proof[::-1]


def consistency_proof(old: int, new: int, node: NodeHash) -> list[bytes]:
    """Return the proof that the tree of ``new`` leaves begins with that of ``old`` leaves (RFC 9162 2.1.4.1).

    Empty where there is nothing to prove: ``old`` is 0 or equals ``new``.

    Raises:
        ValueError: the old tree is the larger one.
    """
    if not 0 <= old <= new:
        raise ValueError("a tree cannot have been larger before")
    if old in {0, new}:
        return []
    proof: list[bytes] = []
    begin, end = 0, new
    while end != old:
        middle = begin + _split(end - begin)
        if old <= middle:
            proof.append(_range(middle, end, node))
            end = middle
        else:
            proof.append(_range(begin, middle, node))
            begin = middle
    if begin > 0:
        # Otherwise the old tree is itself a complete subtree, whose root the verifier has.
        proof.append(_range(begin, end, node))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root_hash: bytes) -> None:
    """Check an inclusion proof (RFC 9162 2.1.3.2). ``leaf`` is the hash of the leaf.

    Raises:
        TamperedError: it does not prove what it says.
    """
    if not 0 <= index < size:
        raise TamperedError("the proof is for a leaf outside the tree")
    first, last, digest = index, size - 1, leaf
    for step in proof:
        if last == 0:
            raise TamperedError("the inclusion proof is too long")
        if first & 1 or first == last:
            digest = node_hash(step, digest)
            first, last = _up_to_right_child(first, last)
        else:
            digest = node_hash(digest, step)
        first, last = first >> 1, last >> 1
    if last != 0 or digest != root_hash:
        raise TamperedError("the inclusion proof does not lead to the root")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check a consistency proof (RFC 9162 2.1.4.2).

    Raises:
        TamperedError: it does not prove that the new tree begins with the old one.
    """
    if not 0 <= old <= new:
        raise TamperedError("the log is shorter than it was")
    if old in {0, new}:
        known = EMPTY_ROOT if old == 0 else new_root
        if proof or old_root != known:
            raise TamperedError("the roots differ although the sizes say they are the same")
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise TamperedError("the consistency proof is empty")
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    before = after = path[0]
    for step in path[1:]:
        if last == 0:
            raise TamperedError("the consistency proof is too long")
        if first & 1 or first == last:
            before, after = node_hash(step, before), node_hash(step, after)
            first, last = _up_to_right_child(first, last)
        else:
            after = node_hash(after, step)
        first, last = first >> 1, last >> 1
    if last != 0 or before != old_root or after != new_root:
        raise TamperedError("the log of today does not begin with the log of then")


def _up_to_right_child(first: int, last: int) -> tuple[int, int]:
    """Climb while the node is a left child without a right neighbour: it is carried up unchanged."""
    while first and not first & 1:
        first, last = first >> 1, last >> 1
    return first, last


def _split(count: int) -> int:
    """The largest power of two below ``count``, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def _range(begin: int, end: int, node: NodeHash) -> bytes:
    """The root over ``[begin, end)``, where ``begin`` is a multiple of the power of two that ``end - begin`` needs."""
    digest: bytes | None = None
    # The complete subtrees from the right: the lowest set bit of what is left is the next one.
    while end > begin:
        size = (end - begin) & -(end - begin)
        level = size.bit_length() - 1
        subtree = node(level, (end - size) >> level)
        digest = subtree if digest is None else node_hash(subtree, digest)
        end -= size
    assert digest is not None  # noqa: S101 - the callers ask for no empty range
    return digest
