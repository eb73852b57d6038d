"""The Merkle tree against the published vectors of RFC 6962/9162, and against a naive tree for every small size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import TamperedError
from gateway.core.merkle import (
    EMPTY_ROOT,
    Frontier,
    NodeHash,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

# The eight leaves, roots and proofs of the reference tests of RFC 6962 (certificate-transparency, merkle_tree_test).
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# (leaf, size, proof), the leaf counted from 0.
INCLUSION = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CONSISTENCY = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]


def naive_root(hashes: list[bytes]) -> bytes:
    """RFC 9162 2.1.1 word for word."""
    if not hashes:
        return EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return node_hash(naive_root(hashes[:k]), naive_root(hashes[k:]))


def nodes(hashes: list[bytes]) -> NodeHash:
    def node(level: int, index: int) -> bytes:
        begin, end = index << level, (index + 1) << level
        assert end <= len(hashes), "only complete subtrees may be asked for"
        return naive_root(hashes[begin:end])

    return node


VECTOR = [leaf_hash(data) for data in LEAVES]
MANY = [leaf_hash(bytes([n >> 8, n & 255])) for n in range(600)]


def test_the_published_roots() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    frontier = Frontier()
    assert frontier.root() == root(0, nodes([])) == EMPTY_ROOT
    for size, expected in enumerate(ROOTS, 1):
        frontier.append(VECTOR[size - 1])
        assert frontier.root().hex() == expected
        assert root(size, nodes(VECTOR)).hex() == expected


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_the_published_inclusion_proofs(index: int, size: int, proof: list[str]) -> None:
    assert [step.hex() for step in inclusion_proof(index, size, nodes(VECTOR))] == proof
    verify_inclusion(VECTOR[index], index, size, [bytes.fromhex(s) for s in proof], bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(("old", "new", "proof"), CONSISTENCY)
def test_the_published_consistency_proofs(old: int, new: int, proof: list[str]) -> None:
    assert [step.hex() for step in consistency_proof(old, new, nodes(VECTOR))] == proof
    steps = [bytes.fromhex(step) for step in proof]
    verify_consistency(old, new, bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1]), steps)


def test_every_proof_of_every_small_tree() -> None:
    hashes = MANY[:33]
    node = nodes(hashes)
    for size in range(1, len(hashes) + 1):
        top = naive_root(hashes[:size])
        assert root(size, node) == top
        for index in range(size):
            verify_inclusion(hashes[index], index, size, inclusion_proof(index, size, node), top)
        for old in range(size + 1):
            verify_consistency(old, size, naive_root(hashes[:old]), top, consistency_proof(old, size, node))


@given(size=st.integers(1, 600), data=st.data())
def test_a_growing_tree_agrees_with_a_naive_one(size: int, data: st.DataObject) -> None:
    hashes = MANY[:size]
    complete: dict[tuple[int, int], bytes] = {}
    frontier = Frontier(lambda level, index, digest: complete.__setitem__((level, index), digest))
    for leaf in hashes:
        frontier.append(leaf)
    top = naive_root(hashes)
    assert frontier.root() == top
    node: NodeHash = lambda level, index: complete[level, index]  # noqa: E731 - reads as what it is
    assert root(size, node) == top
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    verify_inclusion(hashes[index], index, size, inclusion_proof(index, size, node), top)
    verify_consistency(old, size, root(old, node), top, consistency_proof(old, size, node))


@given(size=st.integers(2, 64), data=st.data())
def test_nothing_else_is_proved(size: int, data: st.DataObject) -> None:
    """A flipped bit, a step more or less, another leaf, another size: none of it passes."""
    hashes = MANY[:size]
    node, top = nodes(hashes), naive_root(hashes)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, node)
    place = data.draw(st.integers(0, len(proof) - 1))
    wrong = [*proof[:place], bytes([proof[place][0] ^ 1]) + proof[place][1:], *proof[place + 1 :]]
    other = data.draw(st.integers(0, size - 1).filter(lambda n: n != index))
    for bad in (wrong, proof[:-1], [*proof, bytes(32)]):
        with pytest.raises(TamperedError):
            verify_inclusion(hashes[index], index, size, bad, top)
    with pytest.raises(TamperedError):
        verify_inclusion(hashes[other], index, size, proof, top)
    with pytest.raises(TamperedError):
        verify_inclusion(hashes[index], size, size, proof, top)


@given(size=st.integers(2, 64), data=st.data())
def test_a_log_that_was_rewritten_is_never_consistent(size: int, data: st.DataObject) -> None:
    hashes = MANY[:size]
    old = data.draw(st.integers(1, size - 1))
    changed = data.draw(st.integers(0, old - 1))
    forged = [*hashes[:changed], MANY[599], *hashes[changed + 1 :]]
    proof = consistency_proof(old, size, nodes(forged))
    with pytest.raises(TamperedError):
        verify_consistency(old, size, naive_root(hashes[:old]), naive_root(forged), proof)
    honest = consistency_proof(old, size, nodes(hashes))
    for bad in (honest[:-1], [*honest, bytes(32)], []):
        with pytest.raises(TamperedError):
            verify_consistency(old, size, naive_root(hashes[:old]), naive_root(hashes), bad)
    with pytest.raises(TamperedError, match="shorter"):
        verify_consistency(size, old, naive_root(hashes), naive_root(hashes[:old]), [])
    with pytest.raises(TamperedError):
        verify_consistency(size, size, naive_root(hashes), naive_root(forged), [])
    with pytest.raises(ValueError, match="larger"):
        consistency_proof(size, old, nodes(hashes))
    with pytest.raises(ValueError, match="no such leaf"):
        inclusion_proof(size, size, nodes(hashes))
