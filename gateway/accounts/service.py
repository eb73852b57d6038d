"""Accounts: people and programs that may log in, and how a login is decided.

A login is right with the account's password, with any of its app passwords (:mod:`gateway.accounts.app_passwords`), or
with an access token of the authority that the settings name (:mod:`gateway.accounts.tokens`); where
``accounts.imap_password`` is ``app_only``, the account's own password opens nothing to a mail client.

Guarantees: a password is never stored, logged or audited, only its Argon2id hash; hashing runs in a small thread
pool, never on the event loop; every decided login is in the audit log before it is answered (``login.succeeded``,
``login.failed``, ``login.limited``; the actor is the login as it was given), in the one transaction that also begins
its session. An unknown login, a disabled account and a wrong password cost the same work and get the same answer: the
same statements of the store, the same number of digests of app passwords, one run of Argon2. An account that is
disabled, or whose secret is taken away, while an attempt waits, is not let in by it.

Failure modes: StoreError when the store cannot answer or cannot keep the audit row: then nobody is let in.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from argon2 import PasswordHasher

from gateway.accounts.app_passwords import match
from gateway.accounts.attempt import APP_PASSWORD, PASSWORD, TOKEN, Given, is_same_login, is_stale, printable
from gateway.accounts.login_delay import LoginDelay
from gateway.accounts.passwords import MAX_LOGIN_CHARS, default_hasher, is_correct, prepare_login, prepare_password
from gateway.accounts.sessions import ClientSessions, Session
from gateway.accounts.token_judge import TokenJudge, TokenRefusedError
from gateway.accounts.verifier_cache import VerifierCache
from gateway.core.errors import InputError, NotFoundError, TooManySessionsError
from gateway.ports import Account, ClientSession, Clock, Store, UnitOfWork
from gateway.ports.logins import OWN_PASSWORD

T = TypeVar("T")
Attempt = Callable[[bool], Awaitable[Account | None]]
"""Does the work of one attempt; told whether it has the turn of its address."""

LOGIN_SUCCEEDED = "login.succeeded"
LOGIN_FAILED = "login.failed"
LOGIN_LIMITED = "login.limited"
"""The secret was right, and the account has as many sessions as it may."""
ACCOUNT_ADDED = "account.added"
PASSWORD_CHANGED = "account.password_changed"  # noqa: S105 - the name of an event
OPERATOR = "operator"
"""Actor of what is done on the command line."""
IMAP = "imap"
NO_LOGIN = "(token)"
"""Stands in the audit log where a token that says nothing was given without a login."""


class _OutOfTurnError(Exception):
    """An attempt that began when its address was in good standing has to wait like the others of it."""


class Accounts:
    """The accounts of one store. One per process; every method belongs on the event loop.

    Implements :class:`gateway.serving.authenticator.Authenticator`.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        max_parallel: int = 2,
        delay: LoginDelay | None = None,
        hasher: PasswordHasher | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sessions: ClientSessions | None = None,
        own_password: bool = True,
    ) -> None:
        """``max_parallel`` bounds the password checks at one time (46 MiB and one thread each).

        ``sessions``: where sessions begin; without it none does. ``own_password``: whether the account's own password
        opens anything to a mail client.
        """
        self._store = store
        self._clock = clock
        self._delay = delay or LoginDelay(monotonic, asyncio.sleep)
        self._hasher = hasher or default_hasher()
        self._cache = VerifierCache(monotonic)
        self._pool = ThreadPoolExecutor(max_parallel, thread_name_prefix="password")
        self._threads = asyncio.Semaphore(max_parallel)
        self._no_hash = ""
        self._sessions = sessions
        self._tokens: TokenJudge | None = None
        self._own_password = own_password

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
        now, digest = self._clock.now(), _digest(password_hash)

        def work(unit: UnitOfWork) -> int:
            account_id = unit.accounts.add(name, password_hash, now)
            for folder, mailbox_id, rights in folders:
                unit.accounts.grant(account_id, folder, mailbox_id, rights)
            detail = {"account": account_id, "folders": len(folders), "hash_sha256": digest}
            unit.audit.add(now, OPERATOR, ACCOUNT_ADDED, name, detail)
            return account_id

        return await self._store.write(work)

    async def set_password(
        self, login: str, password: bytes | str, *, actor: str = OPERATOR, end_sessions: bool = True
    ) -> int:
        """Replace the password of an account; what was remembered of the old one is forgotten.

        With ``end_sessions`` its sessions end, on every node. Returns how many are asked to.

        Raises:
            InputError: the password cannot be one.
            NotFoundError: there is no such account.
            StoreError: the old password still counts.
        """
        name, password_hash = _checked_login(login), await self._hash(password)
        now, digest = self._clock.now(), _digest(password_hash)

        def work(unit: UnitOfWork) -> int:
            account = unit.accounts.by_login(name)
            if account is None:
                raise NotFoundError("there is no account with that login; add it with: direct-gateway user add")
            unit.accounts.set_password_hash(account.id, password_hash)
            ending = unit.sessions.of_account(account.id) if end_sessions else []
            unit.sessions.ask_to_end(ending, actor, now)
            detail = {"account": account.id, "hash_sha256": digest, "sessions_ended": len(ending)}
            unit.audit.add(now, actor, PASSWORD_CHANGED, account.login, detail)
            return len(ending)

        count = await self._store.write(work)
        self._cache.clear()
        return count

    # --- logins ---

    async def authenticate(self, login: str, password: bytes | str, peer: str, protocol: str = IMAP) -> Account | None:
        """The account, when the password or an app password is right; None otherwise, whatever the cause.

        ``peer`` is the network address of the client. After earlier failures the call waits before it checks
        anything (``login_delay``). Raises TooManySessionsError, StoreError.
        """
        name, secret = prepare_login(login), prepare_password(password)
        known = await self._store.read(lambda unit: unit.logins.credentials(name or ""))
        number = match(secret, () if known is None else known.app_passwords)
        given = Given(login, name, secret, known, peer, protocol, PASSWORD)
        if number is not None:
            given = replace(given, method=APP_PASSWORD, app_password=number)
        return await self._in_order(given, self._is_known(given), lambda in_turn: self._attempt(given, in_turn=in_turn))

    def accept_tokens(self, judge: TokenJudge) -> None:
        """From now on let in who brings an access token that the judge believes."""
        self._tokens = judge

    @property
    def takes_tokens(self) -> bool:
        """Whether access tokens are taken."""
        return self._tokens is not None

    async def authenticate_token(self, token: str, login_hint: str, peer: str, protocol: str) -> Account | None:
        """The account that an access token speaks for; None when it speaks for none, whatever the cause.

        ``login_hint``, when it is not empty, must be the account's login. A signature cannot be guessed, so the token
        is looked at before any delay, and the answer waits. Raises TooManySessionsError, StoreError,
        KeyUnavailableError (no key of the authority can be had).
        """
        if self._tokens is None:
            return None
        hint, name, reason, login = prepare_login(login_hint), None, "", login_hint or NO_LOGIN
        try:
            login = await self._tokens.login_of(token)
            name = prepare_login(login)
            reason = "" if name else "unknown_login"
        except TokenRefusedError as error:
            reason = error.reason
        # A token that is no good counts against the account that was named; nothing else is done with that.
        known = await self._store.read(lambda unit: unit.logins.credentials(name or hint or ""))
        given = Given(login, name or hint, token.encode("utf-8", "replace"), known, peer, protocol, TOKEN)
        if not reason:
            reason = await self._objection(given, login_hint, hint)

        async def attempt(in_turn: bool) -> Account | None:
            if reason:
                await self._wait_for_account(given)
                if not in_turn and self._delay.peer_delay(peer):
                    raise _OutOfTurnError
                await self._refuse(given, reason)
                return None
            account = await self._let_in(given)
            if account is None:
                await self._refuse(given, "changed")
            return account

        return await self._in_order(given, not reason, attempt)

    async def _objection(self, given: Given, login_hint: str, hint: str | None) -> str:
        """What speaks against the account of a good token; nothing when it is empty."""
        if given.account is None or not is_same_login(given.login, given.account.login):
            return "unknown_login"
        if given.usable is None:
            return "disabled"
        if login_hint:
            named = await self._store.read(lambda unit: unit.logins.credentials(hint or ""))
            if named is None or named.account.id != given.account.id:
                return "other_login"
        return ""

    async def _in_order(self, given: Given, is_known: bool, attempt: Attempt) -> Account | None:
        """Make the attempt when it is its time: at once, or after the delay and in the turn of its address."""
        seconds = self._delay.peer_delay(given.peer)
        if not seconds:
            with contextlib.suppress(_OutOfTurnError):
                return await attempt(False)
        elif is_known and self._delay.is_welcome(given.peer, given.delay_key):
            await self._delay.wait(seconds)
            return await attempt(True)
        async with self._delay.turn(given.peer):
            return await attempt(True)

    def _is_known(self, given: Given) -> bool:
        """Whether the secret is right, as far as that can be told without Argon2."""
        account = given.usable
        if account is None or given.secret is None:
            return False
        if given.app_password:
            return True
        return self._own_password and self._cache.knows(account, given.secret)

    async def _attempt(self, given: Given, *, in_turn: bool) -> Account | None:
        correct = self._is_known(given) or await self._check(given, in_turn=in_turn)
        account = await self._let_in(given) if correct else None
        if account is not None:
            return account
        disabled = given.account is not None and given.usable is None
        await self._refuse(given, "disabled" if disabled else "")
        return None

    async def _refuse(self, given: Given, reason: str) -> None:
        self._delay.failed(given.peer, given.delay_key, given.secret or b"")
        now, actor = self._clock.now(), printable(given.login)
        # Which app password it was is said of a login that succeeded only.
        detail = replace(given, app_password=OWN_PASSWORD).detail | ({"reason": reason} if reason else {})
        await self._store.write(lambda unit: unit.audit.add(now, actor, LOGIN_FAILED, actor, detail), urgent=True)

    async def _let_in(self, given: Given) -> Account | None:
        """Write down that the account was let in; None when that is not so any more: the attempt may have waited."""
        account = given.account
        if account is None:
            return None
        session: Session | None = None
        try:
            if self._sessions is not None:
                session = self._sessions.reserve(account.id, given.protocol)
            found = await self._store.write(lambda unit: self._enter(unit, given, session), urgent=True)
        except TooManySessionsError:
            self._delay.succeeded(given.peer, given.delay_key)
            now = self._clock.now()
            actor = printable(account.login)
            await self._store.write(
                lambda unit: unit.audit.add(now, actor, LOGIN_LIMITED, actor, given.detail), urgent=True
            )
            raise
        except BaseException:
            if session is not None and self._sessions is not None:
                # The commit may have been done all the same: the row is removed, if there is one.
                self._sessions.give_up(session)
            raise
        if session is not None and self._sessions is not None:
            if found is None:
                self._sessions.give_up(session)
            else:
                session.let_in()
        if found is not None:
            self._delay.succeeded(given.peer, given.delay_key)
        return found

    def _enter(self, unit: UnitOfWork, given: Given, session: Session | None) -> Account | None:
        """The transaction of a login: event, session and, once an hour, when the secret was used."""
        now = self._clock.now()
        known = unit.logins.credentials(given.name or "")
        if known is None or not given.still_holds(known):
            return None
        account, number, detail = known.account, given.app_password, given.detail
        if session is not None and self._sessions is not None:
            account, detail = replace(account, session_id=session.id), detail | {"session": session.id}
            unit.sessions.add(
                ClientSession(
                    session.id, self._sessions.node, account.id, given.protocol, given.peer, given.method, number, now
                )
            )
        if is_stale(known, number, now):
            unit.logins.note_use(account.id, number, now)
        actor = printable(account.login)
        unit.audit.add(now, actor, LOGIN_SUCCEEDED, actor, detail)
        return account

    async def _check(self, given: Given, *, in_turn: bool) -> bool:
        """Verify by Argon2. Without an account or a possible password the same work is done for nothing.

        Raises:
            _OutOfTurnError: something came up against the address while this attempt of it waited for a thread.
        """
        await self._wait_for_account(given)
        async with self._threads:
            if not in_turn and self._delay.peer_delay(given.peer):
                raise _OutOfTurnError
            return await self._verify(given.usable if self._own_password else None, given.secret)

    async def _wait_for_account(self, given: Given) -> None:
        """Wait as the failures of the account say. Attempts that name none must not wait for each other."""
        if given.name is not None:
            await self._delay.wait(self._delay.login_delay(given.delay_key))

    async def _verify(self, account: Account | None, secret: bytes | None) -> bool:
        if not self._no_hash:
            self._no_hash = await self._run(lambda: self._hasher.hash(secrets.token_bytes(16)))
        known = account.password_hash if account is not None and secret is not None else self._no_hash
        correct = await self._run(lambda: is_correct(self._hasher, known, secret or b"\0"))
        if account is None or secret is None or not correct:
            return False
        self._cache.remember(account, secret)
        return True

    async def _hash(self, password: bytes | str) -> str:
        secret = prepare_password(password)
        if secret is None:
            raise InputError("a password must have 1 to 1024 bytes of UTF-8 text and no NUL")
        return await self._run(lambda: self._hasher.hash(secret))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _digest(password_hash: str) -> str:
    """What the event keeps of a password hash, so that one that was put in past the gateway shows (audit verify)."""
    return hashlib.sha256(password_hash.encode("utf-8")).hexdigest()


def _checked_login(login: str) -> str:
    name = prepare_login(login)
    if name is None:
        raise InputError(f"a login must have 1 to {MAX_LOGIN_CHARS} printable characters")
    return name
