"""Logins against the real store: who gets in, what it costs, what the audit log says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from gateway.accounts.login_delay import LoginDelay
from gateway.accounts.service import Accounts
from gateway.accounts.verifier_cache import REMEMBER_SECONDS, VerifierCache
from gateway.core.errors import ConflictError, InputError, NotFoundError, StoreError
from gateway.ports import Account, Store, UnitOfWork
from tests.support.store_samples import ALICE, NOW, SteadyClock, open_store

PEER = "192.0.2.7"


class CountingHasher(PasswordHasher):
    """A real Argon2 of the smallest cost that counts its work and where it was done."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.verified: list[str] = []
        self.threads: set[str] = set()
        self.running = self.most = 0
        self.lock = threading.Lock()
        self.gate: threading.Event | None = None

    def verify(self, hash: str | bytes, password: str | bytes) -> Any:  # noqa: A002 - the name of the base class
        with self.lock:
            self.verified.append(str(hash))
            self.threads.add(threading.current_thread().name)
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            if self.gate is not None:
                assert self.gate.wait(10)
            return super().verify(hash, password)
        finally:
            with self.lock:
                self.running -= 1


class Time:
    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Desk:
    """Accounts with everything that a test looks at."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.time = Time()
        self.hasher = CountingHasher()
        self.accounts = self.another()

    def another(self, **options: Any) -> Accounts:
        delay = LoginDelay(self.time.monotonic, self.time.sleep)
        return Accounts(
            self.store, SteadyClock(), delay=delay, hasher=self.hasher, monotonic=self.time.monotonic, **options
        )

    async def login(self, login: str, password: bytes | str, peer: str = PEER) -> str | None:
        account = await self.accounts.authenticate(login, password, peer)
        return None if account is None else account.login

    async def audit(self) -> list[tuple[str, str, str, str]]:
        """Actor, action, subject and detail of every event, as stored."""

        def work(unit: UnitOfWork) -> list[tuple[str, str, str, str]]:
            log: Any = unit.audit
            return [(e.actor, e.action, e.subject, e.detail) for e in log.events()]

        return await self.store.read(work)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    with open_store(tmp_path) as store:
        made = Desk(store)
        await made.accounts.add("Nurse@Clinic.example", "correct horse", [])
        yield made
        made.accounts.close()


async def test_the_right_password_lets_in_and_nothing_else_does(desk: Desk) -> None:
    assert await desk.login("Nurse@Clinic.example", "correct horse") == "Nurse@Clinic.example"
    assert await desk.login("nurse@clinic.EXAMPLE", b"correct horse") == "Nurse@Clinic.example"
    attempts: list[tuple[str, bytes | str]] = [
        ("Nurse@Clinic.example", "correct horse "),
        ("Nurse@Clinic.example", "Correct horse"),
        ("Nurse@Clinic.example", ""),
        ("Nurse@Clinic.example", "correct horse\0"),
        ("Nurse@Clinic.example", b"\xff"),
        ("someone", "correct horse"),
        ("", "correct horse"),
        ("Nurse@Clinic.example\0", "correct horse"),
        ("\ud800", "correct horse"),
    ]
    for login, password in attempts:
        assert await desk.login(login, password) is None


async def test_composed_and_decomposed_letters_are_the_same_password(desk: Desk) -> None:
    await desk.accounts.add("doctor", "Mu\u0308ller", [])
    assert await desk.login("doctor", "M\u00fcller".encode()) == "doctor"


async def test_an_account_sees_the_folders_it_was_given(desk: Desk) -> None:
    mailbox = await desk.store.write(lambda unit: unit.mailboxes.create("alice", NOW, [ALICE]))
    account_id = await desk.accounts.add("front desk", "pw", [("INBOX", mailbox, "lrs"), ("Team/Alice", mailbox, "lr")])
    folders = await desk.store.read(lambda unit: unit.accounts.folders(account_id))
    assert [(f.name, f.mailbox_id, f.rights) for f in folders] == [
        ("INBOX", mailbox, "lrs"),
        ("Team/Alice", mailbox, "lr"),
    ]


async def test_a_taken_login_is_refused_and_keeps_its_password(desk: Desk) -> None:
    with pytest.raises(ConflictError):
        await desk.accounts.add("nurse@clinic.example", "other", [])
    assert await desk.login("nurse@clinic.example", "other") is None
    assert await desk.login("nurse@clinic.example", "correct horse") is not None


@pytest.mark.parametrize(("login", "password"), [("", "x"), ("a\nb", "x"), ("a", ""), ("a", "x\0"), ("a", b"\xff")])
async def test_what_can_be_no_login_or_password_is_an_input_error(
    desk: Desk, login: str, password: bytes | str
) -> None:
    with pytest.raises(InputError) as caught:
        await desk.accounts.add(login, password, [])
    assert "\\xff" not in str(caught.value)
    with pytest.raises(InputError):
        await desk.accounts.set_password(login, password)


async def test_passwords_are_stored_as_argon2id_only(desk: Desk, tmp_path: Path) -> None:
    account = await desk.store.read(lambda unit: unit.accounts.by_login("nurse@clinic.example"))
    assert account is not None
    assert account.password_hash.startswith("$argon2id$")
    await desk.login("nurse@clinic.example", "a wrong secret")
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"correct horse" not in files
    assert b"a wrong secret" not in files


async def test_the_audit_log_names_every_login_and_no_password(desk: Desk) -> None:
    await desk.login("nurse@clinic.example", "correct horse")
    await desk.login("nurse@clinic.example", "correct horse")
    await desk.login("NURSE@clinic.example", "wrong secret")
    await desk.login("nobody\r\nforged line", "wrong secret", "2001:db8::1")
    await desk.login("x" * 5_000, "wrong secret")
    events = (await desk.audit())[1:]
    name = "Nurse@Clinic.example"
    peer = '{"method":"password","peer":"192.0.2.7","protocol":"imap"}'
    assert events == [
        (name, "login.succeeded", name, peer),
        (name, "login.succeeded", name, peer),
        ("NURSE@clinic.example", "login.failed", "NURSE@clinic.example", peer),
        ("nobody??forged line", "login.failed", "nobody??forged line", peer.replace(PEER, "2001:db8::1")),
        ("x" * 254, "login.failed", "x" * 254, peer),
    ]


async def test_a_client_that_reconnects_does_not_cost_another_hash(desk: Desk) -> None:
    for _ in range(5):
        assert await desk.login("nurse@clinic.example", "correct horse") is not None
    assert len(desk.hasher.verified) == 1
    desk.time.now += REMEMBER_SECONDS
    assert await desk.login("nurse@clinic.example", "correct horse") is not None
    assert len(desk.hasher.verified) == 2


async def test_a_wrong_password_is_never_remembered(desk: Desk) -> None:
    await desk.login("nurse@clinic.example", "correct horse")
    for _ in range(3):
        assert await desk.login("nurse@clinic.example", "wrong") is None
    assert len(desk.hasher.verified) == 4


async def test_a_changed_password_counts_at_once(desk: Desk) -> None:
    await desk.login("nurse@clinic.example", "correct horse")
    await desk.accounts.set_password("NURSE@clinic.example", "new horse")
    assert await desk.login("nurse@clinic.example", "correct horse") is None
    assert await desk.login("nurse@clinic.example", "new horse") is not None
    with pytest.raises(NotFoundError):
        await desk.accounts.set_password("nobody", "x")


async def test_a_password_changed_by_another_process_counts_at_once(desk: Desk) -> None:
    """The command line changes the password while the daemon remembers the old one."""
    await desk.login("nurse@clinic.example", "correct horse")
    other = desk.another()
    await other.set_password("nurse@clinic.example", "new horse")
    other.close()
    assert await desk.login("nurse@clinic.example", "correct horse") is None


async def test_an_unknown_login_costs_the_same_work_as_a_wrong_password(desk: Desk) -> None:
    known = await desk.store.read(lambda unit: unit.accounts.by_login("nurse@clinic.example"))
    assert known is not None
    for login, password in [("nurse@clinic.example", "wrong"), ("nobody", "wrong"), ("nurse@clinic.example", "")]:
        before = len(desk.hasher.verified)
        assert await desk.login(login, password) is None
        assert len(desk.hasher.verified) == before + 1
    dummy = desk.hasher.verified[1]
    # The same parameters and lengths as a real hash, so the same time.
    assert dummy.rpartition("$")[0].rpartition("$")[0] == known.password_hash.rpartition("$")[0].rpartition("$")[0]
    assert len(dummy) == len(known.password_hash)
    assert dummy != known.password_hash


async def test_failures_delay_the_next_attempts(desk: Desk) -> None:
    for n in range(6):
        await desk.login("nurse@clinic.example", f"guess {n}", f"192.0.2.{n}")
    assert desk.time.slept == [2, 4, 8, 15, 15]  # Fresh addresses, one account.
    desk.time.slept.clear()
    for n in range(3):
        await desk.login(f"nobody{n}", "guess", "198.51.100.1")
    assert desk.time.slept == [2, 4]  # One address, fresh accounts.


async def test_a_known_good_client_is_not_slowed_by_attacks_from_elsewhere(desk: Desk) -> None:
    await desk.login("nurse@clinic.example", "correct horse")
    for n in range(4):
        await desk.login("nurse@clinic.example", f"guess {n}", "198.51.100.1")
    desk.time.slept.clear()
    assert await desk.login("nurse@clinic.example", "correct horse") is not None
    assert desk.time.slept == []


async def test_a_guess_from_a_delayed_address_learns_nothing_sooner_by_being_right(desk: Desk) -> None:
    await desk.login("nurse@clinic.example", "correct horse")
    await desk.login("nurse@clinic.example", "guess", "198.51.100.1")
    desk.time.slept.clear()
    assert await desk.login("nurse@clinic.example", "correct horse", "198.51.100.1") is not None
    assert desk.time.slept == [2]


async def test_a_hundred_connections_of_an_address_guess_no_more_than_one(desk: Desk) -> None:
    """All begin before any has failed: two are checked at once, and every other one waits for its turn and delay."""
    guesses = [desk.login(f"nobody{n}", "x", "198.51.100.1") for n in range(20)]
    assert await asyncio.gather(*guesses) == [None] * 20
    # One or two before anything was known, the rest one after the other. A second one may be through before the first
    # turn begins, or after it, or the first one may have failed before it began.
    *first, last = sorted(desk.time.slept)[:-16]
    assert (first, last) in [([2], 8), ([4], 8), ([2, 4], 8)]
    assert sorted(desk.time.slept)[-16:] == [15] * 16
    assert desk.accounts._delay._turns == {}


async def test_an_old_password_in_one_telephone_does_not_close_the_office(desk: Desk) -> None:
    """Who logged in from there before waits the delay, and not behind everybody else's turn."""
    await desk.login("nurse@clinic.example", "correct horse", "198.51.100.1")
    await desk.login("doctor@clinic.example", "last month's", "198.51.100.1")
    turn = desk.accounts._delay.turn("198.51.100.1")
    async with turn:
        desk.time.slept.clear()
        assert await desk.login("nurse@clinic.example", "correct horse", "198.51.100.1") is not None
        assert desk.time.slept == [2]
        # The same from an address where it never was known, and another password from the one where it was, wait.
        for password in ("wrong", "correct horse "):
            async with asyncio.timeout(0.2):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(desk.login("nurse@clinic.example", password, "198.51.100.1"), 0.05)


async def test_an_address_in_its_turn_keeps_nobody_else_waiting(desk: Desk) -> None:
    await desk.login("nobody", "x", "198.51.100.1")
    going, asleep = asyncio.Event(), asyncio.Event()

    async def sleep(_seconds: float) -> None:
        asleep.set()
        await going.wait()

    desk.accounts._delay._sleep = sleep
    guesses = [asyncio.create_task(desk.login("nobody", "y", "198.51.100.1")) for _ in range(5)]
    await asleep.wait()
    assert await desk.login("nurse@clinic.example", "correct horse", "203.0.113.9") is not None
    guesses[3].cancel()
    going.set()
    await asyncio.gather(*guesses, return_exceptions=True)
    assert desk.accounts._delay._turns == {}


async def test_a_typo_is_forgiven_by_the_right_password(desk: Desk) -> None:
    await desk.login("nurse@clinic.example", "typo")
    await desk.login("nurse@clinic.example", "correct horse")
    desk.time.slept.clear()
    await desk.login("nurse@clinic.example", "typo")
    assert desk.time.slept == []


async def test_hashing_leaves_the_loop_free_and_is_bounded(desk: Desk) -> None:
    accounts = desk.another(max_parallel=2)
    desk.hasher.gate = threading.Event()
    tasks = [asyncio.create_task(accounts.authenticate(f"nobody{n}", "x", f"203.0.113.{n}")) for n in range(6)]
    while desk.hasher.running < 2:
        await asyncio.sleep(0)  # The loop turns while both threads are busy.
    desk.hasher.gate.set()
    assert await asyncio.gather(*tasks) == [None] * 6
    assert desk.hasher.most == 2
    assert threading.current_thread().name not in desk.hasher.threads
    accounts.close()


async def test_nobody_is_let_in_when_the_audit_row_cannot_be_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(work: object, **_options: object) -> None:
        raise StoreError("no space")

    monkeypatch.setattr(desk.store, "write", full)
    with pytest.raises(StoreError):
        await desk.login("nurse@clinic.example", "correct horse")


def test_the_cache_is_bounded_and_holds_no_password() -> None:
    time = Time()
    cache = VerifierCache(time.monotonic, max_entries=3)
    accounts = [Account(n, f"login{n}", f"hash{n}") for n in range(5)]
    for account in accounts:
        cache.remember(account, b"secret")
    assert [cache.knows(account, b"secret") for account in accounts] == [False, False, True, True, True]
    assert not cache.knows(accounts[4], b"Secret")
    assert not cache.knows(Account(4, "login4", "another hash"), b"secret")
    assert not cache.knows(Account(3, "login4", "hash4"), b"secret")
    assert len(cache._expires) == 3
    assert all(b"secret" not in digest for digest in cache._expires)
    cache.clear()
    assert not cache.knows(accounts[4], b"secret")
