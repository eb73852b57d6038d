"""What every store promises of logins (:class:`gateway.ports.LoginRows`) and sessions (``SessionRows``)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.errors import ConflictError, NotFoundError
from gateway.ports import ClientSession, Credentials, Store, UnitOfWork
from tests.support.store_samples import NOW
from tests.support.stores import STORES

LATER = NOW + timedelta(hours=2)
SALT, DIGEST = b"\0salt\xff", b"\1digest\0"


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    with STORES[request.param](tmp_path) as opened:

        def work(rows: UnitOfWork) -> None:
            for login in ("Nurse", "doctor"):
                rows.accounts.add(login, f"hash of {login}", NOW)

        await opened.write(work)
        yield opened


async def known(store: Store, login: str = "nurse") -> Credentials:
    found = await store.read(lambda rows: rows.logins.credentials(login))
    assert found is not None
    return found


async def test_an_account_is_enabled_until_somebody_says_otherwise(store: Store) -> None:
    assert await store.read(lambda rows: rows.logins.credentials("nobody")) is None
    assert await store.read(lambda rows: rows.logins.credentials("")) is None
    first = await known(store, "NURSE")
    assert (first.account.login, first.enabled, first.app_passwords, first.last_login) == ("Nurse", True, (), None)
    for enabled in (False, True, False):
        await store.write(
            lambda rows, enabled=enabled: rows.logins.set_enabled(1, "cli:root", "why", LATER, enabled=enabled)  # type: ignore[misc]
        )
        assert (await known(store)).enabled is enabled
    assert (await known(store, "doctor")).enabled
    doctor, nurse = await store.read(lambda rows: rows.logins.overview())
    assert (doctor.credentials.account.login, doctor.credentials.enabled, doctor.disabled_at) == ("doctor", True, None)
    assert (nurse.credentials.enabled, nurse.disabled_at, nurse.disabled_reason) == (False, LATER, "why")


async def test_app_passwords_have_numbers_of_their_own_and_never_the_same_again(store: Store) -> None:
    def work(rows: UnitOfWork) -> list[int]:
        made = [rows.logins.add_app_password(1, name, SALT, DIGEST, NOW) for name in ("a", "b", "c")]
        rows.logins.end_app_password(1, 3, "cli:root", LATER)
        rows.logins.end_app_password(1, 1, "cli:root", LATER)
        made.append(rows.logins.add_app_password(1, "d", SALT, DIGEST, LATER))
        return [*made, rows.logins.add_app_password(2, "e", SALT, DIGEST, NOW)]

    assert await store.write(work) == [1, 2, 3, 4, 1]
    found = (await known(store)).app_passwords
    assert [(one.number, one.name, one.made_at) for one in found] == [(2, "b", NOW), (4, "d", LATER)]
    assert (found[0].salt, found[0].digest) == (SALT, DIGEST)
    for number in (1, 5):
        with pytest.raises(NotFoundError):
            await store.write(
                lambda rows, number=number: rows.logins.end_app_password(1, number, "cli:root", LATER)  # type: ignore[misc]
            )
    doctor, nurse = await store.read(lambda rows: rows.logins.overview())
    assert [len(one.credentials.app_passwords) for one in (doctor, nurse)] == [1, 2]


async def test_the_newest_use_of_each_secret_is_kept(store: Store) -> None:
    def work(rows: UnitOfWork) -> None:
        rows.logins.add_app_password(1, "a", SALT, DIGEST, NOW)
        rows.logins.note_use(1, 0, NOW)
        rows.logins.note_use(1, 1, NOW)
        rows.logins.note_use(1, 1, LATER)

    await store.write(work)
    found = await known(store)
    assert (found.used_at, found.app_passwords[0].used_at, found.last_login) == (NOW, LATER, LATER)
    [_, nurse] = await store.read(lambda rows: rows.logins.overview())
    assert nurse.credentials == found


async def test_folders_and_sessions_are_counted_in_the_overview(store: Store) -> None:
    def work(rows: UnitOfWork) -> None:
        box = rows.mailboxes.create("desk", NOW, [])
        rows.accounts.grant(1, "INBOX", box, "lrs")
        rows.accounts.grant(1, "Old", box, "lrs")
        rows.accounts.grant(1, "Old", box, "")
        rows.sessions.add(session("one"))

    await store.write(work)
    doctor, nurse = await store.read(lambda rows: rows.logins.overview())
    assert [[(f.name, f.rights) for f in one.folders] for one in (doctor, nurse)] == [[], [("INBOX", "lrs")]]
    assert (doctor.sessions, nurse.sessions) == (0, 1)


def session(number: str, node: str = "n1", account_id: int = 1, app_password: int = 0) -> ClientSession:
    return ClientSession(number, node, account_id, "imap", "192.0.2.7", "password", app_password, NOW)


async def test_sessions_are_kept_until_they_are_removed(store: Store) -> None:
    added = [session("one"), session("two", "n2"), session("three", "n1", 2), session("four", "n2", 1, 7)]

    def add(rows: UnitOfWork) -> None:
        for one in added:
            rows.sessions.add(one)

    await store.write(add)
    logins = {1: "Nurse", 2: "doctor"}
    expected = sorted((replace(one, login=logins[one.account_id]) for one in added), key=lambda one: one.id)
    assert await store.read(lambda rows: rows.sessions.all()) == expected
    assert await store.read(lambda rows: sorted(rows.sessions.of_account(1))) == ["four", "one", "two"]
    assert await store.read(lambda rows: rows.sessions.of_account(1, 7)) == ["four"]
    with pytest.raises(ConflictError):
        await store.write(lambda rows: rows.sessions.add(session("one")))

    def ask(rows: UnitOfWork) -> None:
        rows.sessions.ask_to_end(["one", "two", "nobody"], "cli:root", LATER)
        rows.sessions.ask_to_end(["one"], "cli:another", LATER + timedelta(1))

    await store.write(ask)
    assert await store.read(lambda rows: rows.sessions.asked("n1")) == ["one"]
    assert await store.read(lambda rows: rows.sessions.asked("n2")) == ["two"]
    asked = {one.id: (one.ended_at, one.ended_by) for one in await store.read(lambda rows: rows.sessions.all())}
    assert asked["one"] == asked["two"] == (LATER, "cli:root"), "who asked first stands"
    assert asked["four"] == (None, "")
    await store.write(lambda rows: rows.sessions.remove(["one", "two", "nobody", *map(str, range(500))]))
    assert await store.read(lambda rows: {one.id for one in rows.sessions.all()}) == {"three", "four"}
    await store.write(lambda rows: rows.sessions.remove([]))
    await store.write(lambda rows: rows.sessions.ask_to_end([], "cli:root", LATER))
