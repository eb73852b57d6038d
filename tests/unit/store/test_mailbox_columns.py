"""Texts that a database joins become columns: whatever their order, and never a wrong one."""

from __future__ import annotations

import random
from array import array

import pytest

from gateway.core.errors import StoreError
from gateway.ports import FlagColumns
from gateway.store.mailbox_columns import Sets, take


def empty() -> FlagColumns:
    return FlagColumns(array("I"), [], array("Q"))


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_the_database_joined_in_another_order_are_put_in_order(seed: int) -> None:
    rows = [(uid, "a \\Seen" if uid % 3 else "", 2**40 + uid) for uid in range(1, 50)]
    shuffled = random.Random(seed).sample(rows, len(rows))
    found = empty()
    assert take(found, ["\n".join(str(row[part]) for row in shuffled) for part in range(3)], Sets()) == 49
    assert list(found.uids) == [row[0] for row in rows]
    assert found.flags == [frozenset(row[1].split()) for row in rows]
    assert list(found.modseqs) == [row[2] for row in rows]


def test_the_highest_numbers_and_one_message_without_flags() -> None:
    found = empty()
    assert take(found, (str(2**32 - 1), "", str(2**63 - 1)), Sets()) == 1
    assert (list(found.uids), found.flags, list(found.modseqs)) == ([2**32 - 1], [frozenset()], [2**63 - 1])


def test_no_rows_are_no_messages() -> None:
    found = empty()
    assert take(found, (None, None, None), Sets()) == 0
    assert found == empty()


@pytest.mark.parametrize("texts", [("1\n2", "", "5\n6"), ("1", "\n", "5"), ("1\n2", "a\nb", "5")])
def test_columns_of_different_lengths_are_a_fault(texts: tuple[str, str, str]) -> None:
    """The flags of one message must never be shown with another one."""
    found = empty()
    with pytest.raises(StoreError):
        take(found, texts, Sets())
    assert found == empty()
