"""Failure delays by address and by account."""

from __future__ import annotations

import pytest

from gateway.accounts.login_delay import FORGET_AFTER_SECONDS, LoginDelay

PEER = "192.0.2.7"


class Time:
    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def delay(clock: Time) -> LoginDelay:
    return LoginDelay(clock.monotonic, clock.sleep)


def test_the_delay_grows_to_fifteen_seconds_for_the_address_and_the_account(delay: LoginDelay) -> None:
    assert (delay.peer_delay(PEER), delay.login_delay("nurse")) == (0, 0)
    seen = []
    for n in range(6):
        delay.failed(PEER, "nurse", b"guess %d" % n)
        seen.append((delay.peer_delay(PEER), delay.login_delay("nurse")))
    assert seen == [(2, 2), (4, 4), (8, 8), (15, 15), (15, 15), (15, 15)]
    assert delay.peer_delay("192.0.2.8") == 0
    assert delay.login_delay("doctor") == 0


def test_the_same_wrong_password_again_does_not_raise_the_delay(delay: LoginDelay) -> None:
    for peer in (PEER, PEER, "192.0.2.8"):  # A phone and a laptop with last month's password.
        delay.failed(peer, "nurse", b"last month's")
    assert delay.peer_delay(PEER) == 2
    assert delay.login_delay("nurse") == 2


def test_one_password_on_many_accounts_counts_each_time(delay: LoginDelay) -> None:
    for n in range(3):
        delay.failed(PEER, f"login{n}", b"Winter2026")
    assert delay.peer_delay(PEER) == 8
    assert delay.login_delay("login0") == 2


def test_guesses_from_many_addresses_add_up_for_the_account(delay: LoginDelay) -> None:
    for n in range(4):
        delay.failed(f"192.0.2.{n}", "nurse", b"guess %d" % n)
    assert delay.login_delay("nurse") == 15
    assert delay.peer_delay("192.0.2.1") == 2


def test_a_success_takes_back_only_what_the_same_person_got_wrong(delay: LoginDelay) -> None:
    delay.failed(PEER, "nurse", b"typo")
    delay.failed(PEER, "doctor", b"guess 1")
    delay.failed(PEER, "doctor", b"guess 2")
    delay.failed("192.0.2.99", "nurse", b"guess 3")
    delay.succeeded(PEER, "nurse")
    assert delay.peer_delay(PEER) == 4
    assert delay.login_delay("nurse") == 2
    assert delay.login_delay("doctor") == 4
    delay.succeeded(PEER, "doctor")
    assert delay.peer_delay(PEER) == 0


def test_failures_are_forgotten(delay: LoginDelay, clock: Time) -> None:
    delay.failed(PEER, "nurse", b"a")
    clock.now += FORGET_AFTER_SECONDS - 1
    assert delay.peer_delay(PEER) == 2
    delay.failed(PEER, "nurse", b"a")
    clock.now += FORGET_AFTER_SECONDS - 1
    assert delay.peer_delay(PEER) == 2
    clock.now += 1
    assert delay.peer_delay(PEER) == 0
    assert delay.login_delay("nurse") == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("a unix socket", "a unix socket", True),
    ],
)
def test_what_counts_as_one_address(delay: LoginDelay, one: str, other: str, *, same: bool) -> None:
    delay.failed(one, "nurse", b"x")
    assert delay.peer_delay(other) == (2 if same else 0)


def test_memory_is_bounded_and_holds_no_password(clock: Time) -> None:
    delay = LoginDelay(clock.monotonic, clock.sleep, max_entries=10)
    for n in range(1_000):
        delay.failed(f"192.0.2.{n % 250}", f"login{n}", b"secret%d" % n)
    assert len(delay._peers) == len(delay._logins) == 10
    for n in range(1_000):
        delay.failed(PEER, "nurse", b"%d" % n)
    entries = [*delay._peers.values(), *delay._logins.values()]
    assert max(len(entry.seen) for entry in entries) <= 16
    kept = b"".join(
        key + tried + by
        for table in (delay._peers, delay._logins)
        for key, e in table.items()
        for tried, by in e.seen.items()
    )
    assert b"secret" not in kept
    assert b"nurse" not in kept


async def test_waiting_uses_the_injected_sleep(delay: LoginDelay, clock: Time) -> None:
    await delay.wait(0)
    await delay.wait(4)
    assert clock.slept == [4]
