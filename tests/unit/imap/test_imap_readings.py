"""What a session is recorded to have seen: each look once, whatever it costs to remember. ON-10."""

from __future__ import annotations

import sys

from gateway.inbox.readings import FORGET_SECONDS, Readings
from gateway.inbox.service import MESSAGE_LISTED, MESSAGE_READ


def test_each_look_is_recorded_once_and_who_has_read_has_listed() -> None:
    readings = Readings()
    far = [0, 1_023, 1_024, 5_000, 2_000_000]
    assert readings.unrecorded(MESSAGE_LISTED, far) == far
    readings.remember(MESSAGE_LISTED, [0, 1_024])
    readings.remember(MESSAGE_READ, [1_023, 2_000_000])
    assert readings.unrecorded(MESSAGE_LISTED, far) == [5_000]
    assert readings.unrecorded(MESSAGE_READ, far) == [0, 1_024, 5_000]
    assert readings.unrecorded(MESSAGE_READ, [1_022, 1_025, 2_000_001]) == [1_022, 1_025, 2_000_001]


def test_after_an_hour_a_look_is_recorded_anew() -> None:
    now = 100.0
    readings = Readings(lambda: now)
    readings.remember(MESSAGE_READ, [7])
    assert readings.first_search()
    readings.remember_search()
    assert not readings.first_search()
    now += FORGET_SECONDS
    assert readings.unrecorded(MESSAGE_READ, [7]) == []
    now += 1
    assert readings.unrecorded(MESSAGE_READ, [7]) == [7]
    assert readings.first_search()


def test_a_session_that_looks_at_the_newest_message_of_a_large_mailbox_holds_little() -> None:
    """Two thousand idle clients must not keep two thousand bytes times the mailbox."""
    readings = Readings()
    readings.remember(MESSAGE_LISTED, [1_000_000])
    held = sys.getsizeof(readings._pages) + sum(map(sys.getsizeof, readings._pages.values()))
    assert held < 2_000
