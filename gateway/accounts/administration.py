"""What an operator does to accounts: app passwords, disabling and enabling, ending sessions.

Guarantees: each act is one transaction with its event in the audit log (ON-11), so there is none without the other. An
act that takes a way in away (``disable``, taking back an app password) asks in the same transaction for the end of the
sessions that began by it, on every node: a login that was decided before is among them, and one that is decided after
meets the new state. An app password is in no event and in no row: its number is, and a salted digest.

Failure modes: NotFoundError, ConflictError and InputError with a text for the operator; StoreError: nothing was done.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection

from gateway.accounts.app_passwords import MAX_APP_PASSWORDS, SALT_BYTES, checked_name, digest, generate_app_password
from gateway.core.errors import ConflictError, InputError, NotFoundError
from gateway.ports import AccountOverview, AppPassword, ClientSession, Clock, Credentials, Store, UnitOfWork

APP_PASSWORD_ADDED = "account.app_password_added"  # noqa: S105 - the name of an event
APP_PASSWORD_REVOKED = "account.app_password_revoked"  # noqa: S105 - the name of an event
ACCOUNT_DISABLED = "account.disabled"
ACCOUNT_ENABLED = "account.enabled"
SESSION_END_ASKED = "session.end_asked"
MAX_REASON_CHARS = 200


class Administration:
    """The accounts of one store, for one operator."""

    def __init__(self, store: Store, clock: Clock, actor: str) -> None:
        self._store = store
        self._clock = clock
        self._actor = actor

    # --- looking ---

    async def overview(self) -> list[AccountOverview]:
        """Every account, by login."""
        return await self._store.read(lambda unit: unit.logins.overview())

    async def app_passwords(self, login: str) -> tuple[str, tuple[AppPassword, ...]]:
        """The login as it is kept, and its app passwords. Raises NotFoundError."""
        known = await self._store.read(lambda unit: _known(unit, login))
        return known.account.login, known.app_passwords

    async def sessions(self) -> list[ClientSession]:
        """Who is logged in now, on every node; the oldest first."""
        return await self._store.read(lambda unit: unit.sessions.all())

    # --- app passwords ---

    async def add_app_password(self, login: str, name: str) -> tuple[int, str]:
        """Make an app password; returns its number and the secret, which is kept nowhere.

        Raises:
            NotFoundError: there is no such login. InputError: the name can be none.
            ConflictError: the name is taken, or there are MAX_APP_PASSWORDS already.
        """
        try:
            wanted = checked_name(name)
        except ValueError as exc:
            raise InputError(str(exc)) from None
        secret, salt, now = generate_app_password(), secrets.token_bytes(SALT_BYTES), self._clock.now()
        kept = digest(secret, salt)

        def work(unit: UnitOfWork) -> int:
            known = _known(unit, login)
            if wanted.casefold() in {one.name.casefold() for one in known.app_passwords}:
                raise ConflictError(f"{login} has an app password of that name; take it back first, or choose another")
            if len(known.app_passwords) >= MAX_APP_PASSWORDS:
                raise ConflictError(f"{login} has {MAX_APP_PASSWORDS} app passwords; take back what nobody uses")
            account = known.account
            number = unit.logins.add_app_password(account.id, wanted, salt, kept, now)
            detail = {"account": account.id, "app_password": number}
            unit.audit.add(now, self._actor, APP_PASSWORD_ADDED, account.login, detail)
            return number

        return await self._store.write(work), secret

    async def revoke_app_password(self, login: str, which: str) -> tuple[AppPassword, int]:
        """Take an app password back, by number or name; returns it, and how many sessions end.

        Raises NotFoundError.
        """
        now = self._clock.now()

        def work(unit: UnitOfWork) -> tuple[AppPassword, int]:
            known = _known(unit, login)
            account, one = known.account, _chosen(known, which)
            unit.logins.end_app_password(account.id, one.number, self._actor, now)
            ending = unit.sessions.of_account(account.id, one.number)
            unit.sessions.ask_to_end(ending, self._actor, now)
            detail = {"account": account.id, "app_password": one.number, "sessions_ended": len(ending)}
            unit.audit.add(now, self._actor, APP_PASSWORD_REVOKED, account.login, detail)
            return one, len(ending)

        return await self._store.write(work)

    # --- accounts ---

    async def disable(self, login: str, reason: str) -> int:
        """Let the login in by no means any more; returns how many sessions end.

        Raises NotFoundError, InputError (no reason), ConflictError (it is disabled already).
        """
        why, now = _checked_reason(reason, required=True), self._clock.now()

        def work(unit: UnitOfWork) -> int:
            known = _known(unit, login)
            account = known.account
            if not known.enabled:
                raise ConflictError(f"{account.login} is disabled already")
            unit.logins.set_enabled(account.id, self._actor, why, now, enabled=False)
            ending = unit.sessions.of_account(account.id)
            unit.sessions.ask_to_end(ending, self._actor, now)
            detail = {"account": account.id, "reason": why, "sessions_ended": len(ending)}
            unit.audit.add(now, self._actor, ACCOUNT_DISABLED, account.login, detail)
            return len(ending)

        return await self._store.write(work)

    async def enable(self, login: str) -> None:
        """Let the login in again, with the secrets that it had. Raises NotFoundError, ConflictError."""
        now = self._clock.now()

        def work(unit: UnitOfWork) -> None:
            known = _known(unit, login)
            account = known.account
            if known.enabled:
                raise ConflictError(f"{account.login} is not disabled")
            unit.logins.set_enabled(account.id, self._actor, "", now, enabled=True)
            unit.audit.add(now, self._actor, ACCOUNT_ENABLED, account.login, {"account": account.id})

        await self._store.write(work)

    # --- sessions ---

    async def end_sessions(
        self, *, ids: Collection[str] = (), login: str | None = None, reason: str = ""
    ) -> list[ClientSession]:
        """Ask the nodes to end sessions: those named, or all of a login. Returns them.

        Raises NotFoundError: there is no such session (or none of that login), or no such login; nothing was done.
        """
        why, now, wanted = _checked_reason(reason), self._clock.now(), set(ids)

        def work(unit: UnitOfWork) -> list[ClientSession]:
            account_id = None if login is None else _known(unit, login).account.id
            chosen = [one for one in unit.sessions.all() if one.id in wanted or one.account_id == account_id]
            missing = wanted - {one.id for one in chosen}
            if missing or not chosen:
                what = f"no session {', '.join(sorted(missing))}" if missing else f"no session of {login}"
                raise NotFoundError(f"there is {what}; see: direct-gateway session list")
            unit.sessions.ask_to_end([one.id for one in chosen], self._actor, now)
            for one in chosen:
                detail = {"session": one.id, "account": one.account_id} | ({"reason": why} if why else {})
                unit.audit.add(now, self._actor, SESSION_END_ASKED, one.login, detail)
            return chosen

        return await self._store.write(work)


def _known(unit: UnitOfWork, login: str) -> Credentials:
    known = unit.logins.credentials(login)
    if known is None:
        raise NotFoundError(f"there is no login {login}; see: direct-gateway user list")
    return known


def _chosen(known: Credentials, which: str) -> AppPassword:
    """By number; or by name, without regard to case."""
    for one in known.app_passwords:
        if which == str(one.number):
            return one
    for one in known.app_passwords:
        if which.casefold() == one.name.casefold():
            return one
    login = known.account.login
    raise NotFoundError(f"{login} has no app password {which}; see: direct-gateway user app-password list {login}")


def _checked_reason(reason: str, *, required: bool = False) -> str:
    text = " ".join(reason.split())
    if required and not text:
        raise InputError("give a reason; it is kept in the audit log")
    if len(text) > MAX_REASON_CHARS or not text.isprintable():
        raise InputError(f"a reason must have at most {MAX_REASON_CHARS} printable characters")
    return text
