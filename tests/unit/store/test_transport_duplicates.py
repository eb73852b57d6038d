"""Which deliveries are taken for one that came before (F13), and which must never be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.lifecycle import State
from gateway.core.message import Inbound
from gateway.ports import UnitOfWork
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.store_samples import ALICE, BOB, NOW, SENDER, accepted, inbound, rejected
from tests.support.stores import STORES

RAW = b"the same bytes"


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SQLStore]:
    with STORES[request.param](tmp_path) as opened:
        yield opened


def arrive(store: SQLStore, message: Inbound, outcome: State = State.RECEIVED, *delivered: str) -> str:
    def work(tx: UnitOfWork) -> str:
        message_id = new_id(NOW)
        tx.messages.add_raw(message_id, NOW, message)
        tx.messages.set_state(message_id, State.RECEIVED, NOW)
        if outcome is State.REFUSED:
            tx.messages.add_verdict(message_id, NOW, rejected())
            tx.messages.set_state(message_id, State.REFUSED, NOW)
        elif outcome is not State.RECEIVED:
            tx.messages.add_content(message_id, accepted(*delivered))
            tx.messages.set_state(message_id, State.UNWRAPPED, NOW)
        return message_id

    return store.write_blocking(work)


def duplicate(store: SQLStore, message: Inbound, recipient: str = ALICE) -> str | None:
    return store.read_blocking(lambda tx: tx.messages.find_transport_duplicate(message, recipient))


@pytest.mark.parametrize("outcome", [State.RECEIVED, State.UNWRAPPED])
def test_the_same_delivery_again_is_a_duplicate(store: SQLStore, outcome: State) -> None:
    first = arrive(store, inbound(RAW, ALICE), outcome, ALICE)
    assert duplicate(store, inbound(RAW, ALICE)) == first


def test_other_bytes_recipient_or_reverse_path_are_no_duplicate(store: SQLStore) -> None:
    arrive(store, inbound(RAW, ALICE), State.UNWRAPPED, ALICE)
    assert duplicate(store, inbound(RAW + b"!", ALICE)) is None
    assert duplicate(store, inbound(RAW, BOB), BOB) is None
    assert duplicate(store, inbound(RAW, ALICE, mail_from="other@partner.example")) is None


def test_null_sender_no_envelope_and_a_sender_of_that_name_stay_apart(store: SQLStore) -> None:
    for mail_from in (None, "", "none"):
        assert duplicate(store, inbound(RAW, mail_from=mail_from)) is None
        arrive(store, inbound(RAW, mail_from=mail_from))


def test_a_refused_message_makes_no_duplicate(store: SQLStore) -> None:
    arrive(store, inbound(RAW), State.REFUSED)
    assert duplicate(store, inbound(RAW)) is None


def test_a_replay_with_a_wrong_envelope_does_not_poison_the_genuine_delivery(store: SQLStore) -> None:
    replay = inbound(RAW, ALICE, mail_from="attacker@evil.example")
    arrive(store, replay, State.REFUSED)
    genuine = inbound(RAW, ALICE)
    assert duplicate(store, genuine) is None
    first = arrive(store, genuine, State.UNWRAPPED, ALICE)
    assert duplicate(store, genuine) == first


def test_a_replay_that_adds_a_recipient_and_is_not_judged_yet_does_not_poison_it_either(store: SQLStore) -> None:
    """It may be refused for the recipient that was added (ROUTING_TAMPER), a moment after the genuine one's 250."""
    arrive(store, inbound(RAW, ALICE, "somebody@direct.practice.example"))
    assert duplicate(store, inbound(RAW, ALICE)) is None


def test_a_retry_for_more_recipients_still_recognises_what_waits(store: SQLStore) -> None:
    first = arrive(store, inbound(RAW, ALICE))
    assert duplicate(store, inbound(RAW, ALICE, BOB), ALICE) == first
    assert duplicate(store, inbound(RAW, ALICE, BOB), BOB) is None


def test_a_recipient_who_was_left_out_gets_another_chance(store: SQLStore) -> None:
    """Trust is per recipient (AS-56): Bob's anchor was missing, was added, and the sender sends again."""
    first = arrive(store, inbound(RAW, ALICE, BOB), State.UNWRAPPED, ALICE)
    again = inbound(RAW, ALICE, BOB)
    assert duplicate(store, again, ALICE) == first
    assert duplicate(store, again, BOB) is None


def test_a_later_refused_attempt_does_not_hide_the_delivered_one(store: SQLStore) -> None:
    first = arrive(store, inbound(RAW, ALICE, SENDER), State.UNWRAPPED, ALICE)
    arrive(store, inbound(RAW, ALICE), State.REFUSED)
    assert duplicate(store, inbound(RAW, ALICE)) == first


def test_attempts_are_numbered_so_that_two_nodes_cannot_both_take_a_delivery(store: SQLStore) -> None:
    for _ in range(3):
        arrive(store, inbound(RAW), State.REFUSED)
    with store._reader_engine.connect() as connection:
        attempts = connection.exec_driver_sql("SELECT attempt, dedup_key FROM raw_recipient ORDER BY attempt").all()
    assert [row[0] for row in attempts] == [1, 2, 3]
    assert len({row[1] for row in attempts}) == 1
