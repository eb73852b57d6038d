"""The cipher of the parts: what opens, and everything that must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.errors import SealBrokenError
from gateway.ports import PartName
from tests.support.body_keys import sealer_in

NAME = PartName("01HXA0000000000000000000AB", "raw", 3, last=False)


def test_a_part_opens_under_its_key_and_name(tmp_path: Path) -> None:
    sealer = sealer_in(tmp_path)
    key = sealer.new_key()
    for part in (b"", b"x", b"part" * 1000):
        sealed = sealer.seal(key, NAME, part)
        # A byte or two may come up by chance.
        assert len(part) < 16 or part not in sealed
        assert len(sealed) == len(part) + 29
        assert sealer.open(key, NAME, sealed) == part


def test_no_two_seals_share_a_nonce_or_a_key(tmp_path: Path) -> None:
    sealer = sealer_in(tmp_path)
    key = sealer.new_key()
    assert len({sealer.seal(key, NAME, b"same") for _ in range(500)}) == 500
    assert len({sealer.seal(key, NAME, b"same")[1:13] for _ in range(500)}) == 500
    assert len({sealer.new_key() for _ in range(100)}) == 100
    assert len(key) == 32


OTHER_NAMES: dict[str, Callable[[PartName], PartName]] = {
    "message": lambda name: replace(name, message_id="01HXA0000000000000000000AC"),
    "kind": lambda name: replace(name, kind="content"),
    "position": lambda name: replace(name, position=4),
    "last": lambda name: replace(name, last=True),
    # Lengths are bound as well: what moves from one field to the next is another name.
    "shifted": lambda name: replace(name, message_id=name.message_id + "r", kind="aw"),
}


@pytest.mark.parametrize("other", OTHER_NAMES)
def test_a_part_does_not_open_under_another_name(tmp_path: Path, other: str) -> None:
    sealer = sealer_in(tmp_path)
    key = sealer.new_key()
    sealed = sealer.seal(key, NAME, b"part")
    with pytest.raises(SealBrokenError):
        sealer.open(key, OTHER_NAMES[other](NAME), sealed)


def test_no_byte_may_change_and_nothing_may_be_cut_or_added(tmp_path: Path) -> None:
    sealer = sealer_in(tmp_path)
    key = sealer.new_key()
    sealed = sealer.seal(key, NAME, b"sixteen bytes ok")
    broken = [bytes(b ^ (1 << bit) if i == at else b for i, b in enumerate(sealed))
              for at in range(len(sealed)) for bit in (0, 7)]  # fmt: skip
    broken += [sealed[:length] for length in range(len(sealed))] + [sealed + b"\0", b"\0" + sealed, b""]
    for one in broken:
        with pytest.raises(SealBrokenError):
            sealer.open(key, NAME, one)
    with pytest.raises(SealBrokenError):
        sealer.open(sealer.new_key(), NAME, sealed)
