"""App passwords, disabled accounts and sessions against the real store: who gets in, at what cost, and what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.accounts import app_passwords
from gateway.accounts.administration import Administration
from gateway.accounts.app_passwords import MAX_APP_PASSWORDS, digest, generate_app_password, match
from gateway.accounts.login_delay import LoginDelay
from gateway.accounts.service import Accounts
from gateway.accounts.sessions import ClientSessions
from gateway.accounts.token_judge import TokenJudge
from gateway.core.errors import ConflictError, InputError, NotFoundError, StoreError, TooManySessionsError
from gateway.ports import Account, AppPassword, Store
from tests.support.store_samples import NOW, SteadyClock, open_store
from tests.unit.accounts.test_accounts_service import CountingHasher, Time

PEER = "192.0.2.7"
NURSE = "Nurse@Clinic.example"
PASSWORD = "correct horse"


@dataclass
class Office:
    """Accounts, what an operator does to them, and everything that a test looks at."""

    store: Store
    folder: Path
    time: Time
    clock: SteadyClock
    hasher: CountingHasher
    sessions: ClientSessions
    accounts: Accounts
    operator: Administration

    @classmethod
    def open(cls, store: Store, folder: Path, tokens: TokenJudge | None = None, **options: Any) -> Office:
        time, clock, hasher = Time(), SteadyClock(), CountingHasher()
        sessions = ClientSessions(store, clock, node="main", poll_seconds=0.01, most={"imap": 3})
        delay = LoginDelay(time.monotonic, time.sleep)
        accounts = Accounts(
            store, clock, delay=delay, hasher=hasher, monotonic=time.monotonic, sessions=sessions, **options
        )
        if tokens is not None:
            accounts.accept_tokens(tokens)
        return cls(store, folder, time, clock, hasher, sessions, accounts, Administration(store, clock, "cli:root"))

    async def login(self, secret: str, login: str = NURSE, peer: str = PEER, protocol: str = "pop3") -> Account | None:
        return await self.accounts.authenticate(login, secret, peer, protocol)

    async def events(self, *actions: str) -> list[tuple[str, str, str]]:
        log: Any = await self.store.read(lambda unit: list(unit.audit.events()))  # type: ignore[attr-defined]
        return [(e.actor, e.action, e.detail) for e in log if e.action in actions]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    with open_store(tmp_path) as store:
        made = Office.open(store, tmp_path)
        await made.accounts.add(NURSE, PASSWORD, [])
        yield made
        made.accounts.close()


def test_an_app_password_can_be_typed_and_not_guessed() -> None:
    made = {generate_app_password() for _ in range(50)}
    assert len(made) == 50
    for secret in made:
        groups = secret.split("-")
        assert [len(group) for group in groups] == [4] * 7
        assert not set(secret) & set("ilo01")
    # 28 characters of an alphabet of 31: 138 bits.
    assert 31**28 > 2**128


def test_a_match_takes_the_same_work_whatever_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    secret, salt = generate_app_password(), b"s" * 16
    mine = AppPassword(7, "mine", NOW, salt, digest(secret, salt))
    others = [AppPassword(n, f"{n}", NOW, b"%016d" % n, b"x" * 32) for n in range(8, 12)]
    work: list[int] = []
    real = app_passwords._digest

    def counted(plain: bytes, salt: bytes) -> bytes:
        work.append(1)
        return real(plain, salt)

    monkeypatch.setattr(app_passwords, "_digest", counted)
    asked = [
        (secret.encode(), [mine, *others]), (secret.encode(), others), (b"wrong", [mine]), (None, [mine]), (None, []),
        (secret.upper().replace("-", " ").encode(), [*others, mine]), (secret.encode()[:-1], [mine]), (b"", []),
    ]  # fmt: skip
    found = []
    for given, known in asked:
        work.clear()
        found.append(match(given, known))
        assert len(work) == MAX_APP_PASSWORDS
    assert found == [7, None, None, None, None, 7, None, None]


async def test_an_app_password_lets_in_beside_the_password_and_without_argon2(office: Office) -> None:
    number, secret = await office.operator.add_app_password(NURSE.upper(), "  Outlook in\troom 2 ")
    assert await office.login(secret) is not None
    assert await office.login(secret.upper().replace("-", "")) is not None
    assert office.hasher.verified == []
    assert await office.login(PASSWORD) is not None
    assert await office.login(secret[:-1]) is None
    assert await office.login(secret, "nobody") is None
    await office.accounts.add("doctor", PASSWORD, [])
    assert await office.login(secret, "doctor") is None
    assert (await office.operator.app_passwords(NURSE))[1][0].name == "Outlook in room 2"
    detail = '{"app_password":1,"method":"app-password","peer":"192.0.2.7","protocol":"pop3","session":'
    events = await office.events("login.succeeded", "account.app_password_added")
    assert events[0] == ("cli:root", "account.app_password_added", '{"account":1,"app_password":1}')
    assert [event[2].startswith(detail) for event in events[1:]] == [True, True, False]
    assert number == 1


async def test_nothing_that_is_kept_opens_anything(office: Office) -> None:
    _, secret = await office.operator.add_app_password(NURSE, "telephone")
    await office.login(secret)
    kept = b"".join(path.read_bytes() for path in office.folder.rglob("*") if path.is_file())
    assert secret.encode() not in kept
    assert secret.replace("-", "").encode() not in kept
    assert secret not in repr(await office.operator.app_passwords(NURSE))
    rows = (await office.operator.app_passwords(NURSE))[1]
    assert rows[0].digest in kept
    assert rows[0].digest.hex() not in repr(rows)
    for given in (rows[0].digest, rows[0].digest.hex().encode()):
        assert await office.accounts.authenticate(NURSE, given, PEER) is None


async def test_one_that_was_taken_back_opens_nothing_and_its_name_is_free_again(office: Office) -> None:
    _, first = await office.operator.add_app_password(NURSE, "telephone")
    _, second = await office.operator.add_app_password(NURSE, "tablet")
    one, count = await office.operator.revoke_app_password(NURSE, "Telephone")
    assert (one.number, count) == (1, 0)
    assert await office.login(first) is None
    assert await office.login(second) is not None
    with pytest.raises(NotFoundError):
        await office.operator.revoke_app_password(NURSE, "1")
    number, _ = await office.operator.add_app_password(NURSE, "telephone")
    assert number == 3
    with pytest.raises(ConflictError):
        await office.operator.add_app_password(NURSE, "TABLET")
    for name in ("", " ", "a\x00b", "x" * 65):
        with pytest.raises(InputError):
            await office.operator.add_app_password(NURSE, name)
    with pytest.raises(NotFoundError):
        await office.operator.add_app_password("nobody", "x")


async def test_there_are_never_more_than_a_match_looks_at(office: Office) -> None:
    secrets = [(await office.operator.add_app_password(NURSE, f"client {n}"))[1] for n in range(MAX_APP_PASSWORDS)]
    with pytest.raises(ConflictError):
        await office.operator.add_app_password(NURSE, "one more")
    assert await office.login(secrets[-1]) is not None


async def test_one_taken_back_while_a_login_waits_opens_nothing(office: Office) -> None:
    _, secret = await office.operator.add_app_password(NURSE, "telephone")
    await office.login("wrong", "somebody")
    waits, go = asyncio.Event(), asyncio.Event()

    async def sleep(_seconds: float) -> None:
        waits.set()
        await go.wait()

    office.accounts._delay._sleep = sleep
    thief = asyncio.ensure_future(office.login(secret))
    await asyncio.wait_for(waits.wait(), 10)
    await office.operator.revoke_app_password(NURSE, "1")
    go.set()
    assert await asyncio.wait_for(thief, 10) is None
    assert office.sessions.count == 0


async def test_use_is_noted_once_an_hour(office: Office) -> None:
    _, secret = await office.operator.add_app_password(NURSE, "telephone")
    before = (await office.operator.overview())[0].credentials
    assert (before.last_login, before.app_passwords[0].used_at) == (None, None)
    await office.login(secret)
    first = (await office.operator.app_passwords(NURSE))[1][0].used_at
    assert first is not None
    await office.login(secret)
    assert (await office.operator.app_passwords(NURSE))[1][0].used_at == first
    office.clock.advance(3_600)
    await office.login(secret)
    later = (await office.operator.app_passwords(NURSE))[1][0].used_at
    assert later is not None
    assert later >= first + timedelta(hours=1)
    overview = (await office.operator.overview())[0]
    assert overview.credentials.last_login == later
    assert overview.credentials.used_at is None
    assert overview.sessions == 3


async def test_where_the_own_password_opens_nothing_an_app_password_does(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        office = Office.open(store, tmp_path, own_password=False)
        await office.accounts.add(NURSE, PASSWORD, [])
        _, secret = await office.operator.add_app_password(NURSE, "telephone")
        assert await office.login(secret) is not None
        assert await office.login(PASSWORD) is None
        assert await office.login(PASSWORD) is None
        assert len(office.hasher.verified) == 2, "each costs an Argon2 run, and none is remembered"
        office.accounts.close()


async def test_a_disabled_login_gets_the_answer_and_the_cost_of_a_wrong_password(office: Office) -> None:
    _, secret = await office.operator.add_app_password(NURSE, "telephone")
    assert await office.login(PASSWORD) is not None
    await office.operator.disable(NURSE, "left the practice")
    for given in (PASSWORD, secret, "wrong"):
        before = len(office.hasher.verified)
        assert await office.login(given, peer=f"203.0.113.{len(given)}") is None
        assert len(office.hasher.verified) == before + 1, "the remembered password and the app password too"
    failed = await office.events("login.failed")
    assert all('"reason":"disabled"' in detail for _, _, detail in failed)
    known = (await office.operator.overview())[0]
    assert not known.credentials.enabled
    assert known.disabled_reason == "left the practice"
    with pytest.raises(ConflictError):
        await office.operator.disable(NURSE, "again")
    with pytest.raises(InputError):
        await office.operator.disable(NURSE, " ")
    await office.operator.enable(NURSE)
    with pytest.raises(ConflictError):
        await office.operator.enable(NURSE)
    assert await office.login(secret) is not None
    assert await office.login(PASSWORD) is not None
    assert [action for _, action, _ in await office.events("account.disabled", "account.enabled")] == [
        "account.disabled",
        "account.enabled",
    ]


async def test_a_login_begins_its_session_in_the_transaction_of_its_event(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[object] = []
    real = office.store.write

    async def counted(work: Any, **options: Any) -> Any:
        writes.append(work)
        return await real(work, **options)

    monkeypatch.setattr(office.store, "write", counted)
    account = await office.login(PASSWORD, protocol="imap")
    assert account is not None
    assert len(writes) == 1
    rows = await office.operator.sessions()
    assert [(row.id, row.login, row.protocol, row.peer, row.method, row.node) for row in rows] == [
        (account.session_id, NURSE, "imap", PEER, "password", "main")
    ]
    events = await office.events("login.succeeded")
    assert f'"session":"{account.session_id}"' in events[0][2]


async def test_an_account_has_so_many_sessions_and_no_more(office: Office) -> None:
    handles = []
    for _ in range(3):
        account = await office.login(PASSWORD, protocol="imap")
        assert account is not None
        handles.append(office.sessions.begin(account, "imap", PEER))
    with pytest.raises(TooManySessionsError):
        await office.login(PASSWORD, protocol="imap")
    assert await office.login("wrong", protocol="imap") is None, "who does not know the secret is not told"
    assert await office.login(PASSWORD, protocol="pop3") is not None, "each protocol by itself"
    assert len(await office.events("login.limited")) == 1
    assert len(await office.operator.sessions()) == 4
    await handles[0].end()
    await handles[0].end()
    assert await office.login(PASSWORD, protocol="imap") is not None


async def test_sessions_end_from_outside_and_their_rows_go(office: Office) -> None:
    running = asyncio.create_task(office.sessions.run())
    accounts = [await office.login(PASSWORD, protocol="imap") for _ in range(2)]
    kept, ended = (office.sessions.begin(one, "imap", PEER) for one in accounts if one is not None)
    interrupts: list[str] = []
    kept.on_end(lambda: interrupts.append("kept"))
    ended.on_end(lambda: interrupts.append("ended"))
    await office.operator.end_sessions(ids=[ended.id], reason="lost telephone")
    await asyncio.wait_for(ended.ended.wait(), 10)
    assert interrupts == ["ended"]
    assert [row.ended_by for row in await office.operator.sessions()].count("cli:root") == 1
    await ended.end()
    async with asyncio.timeout(10):
        while len(await office.operator.sessions()) > 1:
            await asyncio.sleep(0.01)
    assert not kept.ended.is_set()
    detail = f'{{"account":1,"reason":"lost telephone","session":"{ended.id}"}}'
    assert await office.events("session.end_asked") == [("cli:root", "session.end_asked", detail)]
    with pytest.raises(NotFoundError):
        await office.operator.end_sessions(ids=[ended.id])
    with pytest.raises(NotFoundError):
        await office.operator.end_sessions(ids=[kept.id, "0123456789ab"])
    assert not (await office.operator.sessions())[0].ended_by, "all of them or none"
    await kept.end()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await office.operator.sessions() == [], "the last words of the daemon"
    with pytest.raises(NotFoundError):
        await office.operator.end_sessions(login=NURSE)


async def test_whoever_asks_late_is_told_at_once(office: Office) -> None:
    account = await office.login(PASSWORD, protocol="imap")
    assert account is not None
    await office.operator.end_sessions(login=NURSE)
    await office.sessions._look()
    handle = office.sessions.begin(account, "imap", PEER)
    told: list[int] = []
    handle.on_end(lambda: told.append(1))
    assert told == [1]
    assert handle.ended.is_set()


async def test_what_takes_a_way_in_away_ends_the_sessions_that_came_by_it(office: Office) -> None:
    _, secret = await office.operator.add_app_password(NURSE, "telephone")
    by_app = await office.login(secret, protocol="imap")
    by_own = await office.login(PASSWORD, protocol="imap")
    assert by_app is not None
    assert by_own is not None

    async def ending() -> set[str]:
        return {row.id for row in await office.operator.sessions() if row.ended_at is not None}

    assert (await office.operator.revoke_app_password(NURSE, "1"))[1] == 1
    assert await ending() == {by_app.session_id}
    assert await office.accounts.set_password(NURSE, "another one", end_sessions=False) == 0
    assert await ending() == {by_app.session_id}
    assert await office.accounts.set_password(NURSE, "a third one") == 2
    assert await ending() == {by_app.session_id, by_own.session_id}
    third = await office.login("a third one", protocol="imap")
    assert third is not None
    assert await office.operator.disable(NURSE, "gone") == 3
    assert third.session_id in await ending()


async def test_rows_without_a_session_are_swept_and_those_of_others_are_not(office: Office) -> None:
    """A crash leaves rows: the next start removes them at once. Other nodes answer for theirs."""
    dead = ClientSessions(office.store, office.clock, node="main", poll_seconds=1)
    other = ClientSessions(office.store, office.clock, node="other", poll_seconds=1)
    for owner in (dead, other):
        office.accounts._sessions = owner
        assert await office.login(PASSWORD, protocol="imap") is not None
    office.clock.advance(1)
    seconds = 0.0
    fresh = ClientSessions(office.store, office.clock, node="main", poll_seconds=1, monotonic=lambda: seconds)
    office.accounts._sessions = fresh
    account = await office.login(PASSWORD, protocol="imap")
    assert account is not None
    await fresh._sweep()
    assert [row.node for row in await office.operator.sessions()] == ["other", "main"]
    # What was asked to end and did not for so long is on a node that is gone. This node counts itself: by the clock of
    # another machine an hour may have passed before the session's node has looked once.
    await office.operator.end_sessions(login=NURSE)
    office.clock.advance(3600)
    await fresh._sweep()
    assert "other" in [row.node for row in await office.operator.sessions()]
    seconds += 601
    await fresh._sweep()
    assert [row.node for row in await office.operator.sessions() if row.node == "other"] == []


async def test_a_client_that_goes_away_in_the_middle_of_its_login_leaves_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, real = asyncio.Event(), office.store.write

    async def slow(work: Any, **options: Any) -> Any:
        found = await real(work, **options)
        entered.set()
        await asyncio.sleep(10)
        return found

    monkeypatch.setattr(office.store, "write", slow)
    login = asyncio.ensure_future(office.login(PASSWORD, protocol="imap"))
    await asyncio.wait_for(entered.wait(), 10)
    login.cancel()
    with pytest.raises(asyncio.CancelledError):
        await login
    monkeypatch.setattr(office.store, "write", real)
    assert office.sessions.count == 0
    assert len(await office.operator.sessions()) == 1, "the commit was done"
    await office.sessions._look()
    assert await office.operator.sessions() == []


async def test_a_login_that_nobody_goes_on_with_does_not_count_for_ever(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await office.login(PASSWORD, protocol="imap")
    assert account is not None
    session = office.sessions._live[account.session_id]
    await office.sessions._sweep()
    assert office.sessions.count == 1
    assert session.let_in_at is not None
    session.let_in_at -= 61
    await office.sessions._sweep()
    await office.sessions._look()
    assert office.sessions.count == 0
    assert await office.operator.sessions() == []


async def test_a_store_that_does_not_answer_ends_no_session_and_is_made_up_for(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = asyncio.create_task(office.sessions.run())
    account = await office.login(PASSWORD, protocol="imap")
    assert account is not None
    handle = office.sessions.begin(account, "imap", PEER)
    failures: list[int] = []
    read = office.store.read

    async def away(work: object) -> None:
        failures.append(1)
        raise StoreError("away")

    monkeypatch.setattr(office.store, "read", away)
    async with asyncio.timeout(10):
        while len(failures) < 3:
            await asyncio.sleep(0.01)
    assert not handle.ended.is_set()
    monkeypatch.setattr(office.store, "read", read)
    await office.operator.end_sessions(login=NURSE)
    await asyncio.wait_for(handle.ended.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
