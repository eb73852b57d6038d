"""Accounts: people and programs that may log in, and how a login is decided.

Guarantees: a password is never stored, logged or audited, only its Argon2id hash; hashing runs in a small thread
pool, never on the event loop; an unknown login costs the same work as a wrong password; every decided login is in
the audit log before it is answered (``login.succeeded``, ``login.failed``; the actor is the login as it was given).

Failure modes: StoreError when the store cannot answer or cannot keep the audit row: then nobody is let in.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeVar

from argon2 import PasswordHasher

from gateway.accounts.login_delay import LoginDelay
from gateway.accounts.passwords import MAX_LOGIN_CHARS, default_hasher, is_correct, prepare_login, prepare_password
from gateway.accounts.verifier_cache import VerifierCache
from gateway.core.errors import InputError, NotFoundError
from gateway.ports import Account, Clock, Store, UnitOfWork

T = TypeVar("T")

LOGIN_SUCCEEDED = "login.succeeded"
LOGIN_FAILED = "login.failed"
ACCOUNT_ADDED = "account.added"
PASSWORD_CHANGED = "account.password_changed"  # noqa: S105 - the name of an event
OPERATOR = "operator"
"""Actor of what is done on the command line."""


class Accounts:
    """The accounts of one store. One per process; every method belongs on the event loop."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        max_parallel: int = 2,
        delay: LoginDelay | None = None,
        hasher: PasswordHasher | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``max_parallel`` bounds the password checks at one time (46 MiB and one thread each)."""
        self._store = store
        self._clock = clock
        self._delay = delay or LoginDelay(monotonic, asyncio.sleep)
        self._hasher = hasher or default_hasher()
        self._cache = VerifierCache(monotonic)
        self._pool = ThreadPoolExecutor(max_parallel, thread_name_prefix="password")
        self._no_hash = ""

    def close(self) -> None:
        """Let go of the threads; checks that run are finished by them."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def add(self, login: str, password: bytes | str, folders: Sequence[tuple[str, int, str]]) -> int:
        """Add an account that sees ``folders`` (name, mailbox id, RFC 4314 rights) and return its id.

        Raises:
            InputError: the login or the password cannot be one (empty, control characters, too long).
            ConflictError: the login is taken.
            StoreError: nothing was stored.
        """
        name, password_hash = _checked_login(login), await self._hash(password)
        now = self._clock.now()

        def work(unit: UnitOfWork) -> int:
            account_id = unit.accounts.add(name, password_hash, now)
            for folder, mailbox_id, rights in folders:
                unit.accounts.grant(account_id, folder, mailbox_id, rights)
            unit.audit.add(now, OPERATOR, ACCOUNT_ADDED, name, {"folders": len(folders)})
            return account_id

        return await self._store.write(work)

    async def set_password(self, login: str, password: bytes | str) -> None:
        """Replace the password of an account; what was remembered of the old one is forgotten.

        Raises:
            InputError: the password cannot be one.
            NotFoundError: there is no such account.
            StoreError: the old password still counts.
        """
        name, password_hash = _checked_login(login), await self._hash(password)
        now = self._clock.now()

        def work(unit: UnitOfWork) -> None:
            account = unit.accounts.by_login(name)
            if account is None:
                raise NotFoundError("there is no account with that login")
            unit.accounts.set_password_hash(account.id, password_hash)
            unit.audit.add(now, OPERATOR, PASSWORD_CHANGED, account.login)

        await self._store.write(work)
        self._cache.clear()

    async def authenticate(self, login: str, password: bytes | str, peer: str) -> Account | None:
        """The account, when the password is right; None otherwise, whatever the cause.

        ``peer`` is the network address of the client. After earlier failures the call waits before it checks
        anything (``login_delay``). Raises StoreError.
        """
        await self._delay.wait(self._delay.peer_delay(peer))
        name, secret = prepare_login(login), prepare_password(password)
        account = None if name is None else await self._store.read(lambda unit: unit.accounts.by_login(name))
        remembered = account is not None and secret is not None and self._cache.knows(account, secret)
        if not remembered and not await self._check(account, secret, name or ""):
            self._delay.failed(peer, _delay_key(account, name), secret or b"")
            await self._audit(login, LOGIN_FAILED, peer)
            return None
        if account is None:  # Unreachable: only an account passes the check. It keeps the types honest.
            return None
        await self._audit(account.login, LOGIN_SUCCEEDED, peer)
        self._delay.succeeded(peer, _delay_key(account, name))
        return account

    async def _check(self, account: Account | None, secret: bytes | None, name: str) -> bool:
        """Verify by Argon2. Without an account or a possible password the same work is done for nothing."""
        await self._delay.wait(self._delay.login_delay(_delay_key(account, name)))
        if not self._no_hash:
            self._no_hash = await self._run(lambda: self._hasher.hash(secrets.token_bytes(16)))
        known = account.password_hash if account is not None and secret is not None else self._no_hash
        correct = await self._run(lambda: is_correct(self._hasher, known, secret or b"\0"))
        if account is None or secret is None or not correct:
            return False
        self._cache.remember(account, secret)
        return True

    async def _audit(self, login: str, action: str, peer: str) -> None:
        now, actor = self._clock.now(), _printable(login)
        await self._store.write(lambda unit: _add_audit(unit, now, actor, action, peer))

    async def _hash(self, password: bytes | str) -> str:
        secret = prepare_password(password)
        if secret is None:
            raise InputError("a password must have 1 to 1024 bytes of UTF-8 text and no NUL")
        return await self._run(lambda: self._hasher.hash(secret))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _add_audit(unit: UnitOfWork, at: datetime, actor: str, action: str, peer: str) -> None:
    unit.audit.add(at, actor, action, actor, {"peer": peer})


def _checked_login(login: str) -> str:
    name = prepare_login(login)
    if name is None:
        raise InputError(f"a login must have 1 to {MAX_LOGIN_CHARS} printable characters")
    return name


def _delay_key(account: Account | None, name: str | None) -> str:
    """One spelling for each account, so that a change of case does not begin a new count."""
    return account.login if account is not None else (name or "").casefold()


def _printable(login: str) -> str:
    """A login as it may stand in the audit log, whatever was sent."""
    return "".join(char if char.isprintable() else "?" for char in login[:MAX_LOGIN_CHARS])
