"""The connection to one PKCS#11 token: its library, one session, and what to do when they are lost.

A library is a property of the process: it is loaded once, and a login holds for every session of the process. So
there is one connection for each token, kept across reloads (:func:`connect`), and it has one session.

Guarantees:

* One thread at a time is inside a library. python-pkcs11 initialises it without telling it of threads, and a library
  may then do without locks. The GIL is released meanwhile; who waits too long is told that the token is busy.
* A lost session is opened anew and the operation repeated once. When that fails as well, the token is left alone for
  ``RETRY_AFTER_SECONDS``: what comes in that time fails at once.
* No retry locks a token: see :mod:`gateway.keys.token_login`.
* No PIN, no key and no data of a message is in any error text, representation or log line.

Failure modes: opening raises :class:`ConfigurationError` for what an operator must change (the library, the label,
the PIN) and :class:`KeyUnavailableError` for a token that is not there now. Afterwards a lost token is always a
:class:`KeyUnavailableError`, and every other fault of an operation a :class:`TokenOperationError`.

Which return codes mean a lost session is data: ``_LOST``. Only these are answered by a new session. Every other code,
CKR_DEVICE_ERROR among them, is an answer to the operation that may come from the data as well, because libraries
disagree: for wrong padding SoftHSM says CKR_GENERAL_ERROR, others CKR_ENCRYPTED_DATA_INVALID, CKR_FUNCTION_FAILED,
CKR_DEVICE_ERROR or a code of their own. Hence no code of a decryption ever decides whether a message is refused or
tried again (S/MIME rule 2): that is the question of :meth:`gateway.ports.KeyOps.recheck`, which is asked the same way
whatever the code was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gateway.core.errors import ConfigurationError, GatewayError, KeyUnavailableError
from gateway.keys.token_login import NoTokenError, code_of, open_session, pkcs11_library, require_support
from gateway.observability.log import get_log

_T = TypeVar("_T")
BUSY_AFTER_SECONDS = 60.0
RETRY_AFTER_SECONDS = 5.0
_LOST = (
    "SessionClosed",
    "SessionHandleInvalid",
    "SessionCount",
    "UserNotLoggedIn",
    "TokenNotPresent",
    "TokenNotRecognised",
    "DeviceRemoved",
    "SlotIDInvalid",
    "KeyHandleInvalid",
    "ObjectHandleInvalid",
    "OperationActive",
    "OperationNotInitialized",
)
"""Classes of python-pkcs11 for the return codes that can only mean that session, login, token or handle are gone."""
_NOT_INITIALISED = "not initialized"
"""How python-pkcs11 tells CKR_CRYPTOKI_NOT_INITIALIZED, for which it has no class."""
_UNSUPPORTED = frozenset({"MechanismInvalid", "FunctionNotSupported"})
log = get_log("keys")


class TokenOperationError(GatewayError):
    """The token did not do what it was asked; the cause may be the data, the key or the token itself.

    The text is the name of the return code and nothing else. ``unsupported``: the token says that it never does this.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.unsupported = code in _UNSUPPORTED


@dataclass(frozen=True, slots=True)
class KeyReference:
    """What finds a private key on its token: CKA_ID and CKA_LABEL, an empty one is not asked for; CKA_KEY_TYPE."""

    id: bytes
    label: str
    key_type: int


@dataclass
class _Library:
    """A PKCS#11 library of this process, and the lock of all who call it."""

    path: str
    lock: threading.Lock = field(default_factory=threading.Lock)


_registry_lock = threading.Lock()
_libraries: dict[str, _Library] = {}
_connections: dict[tuple[str, str], TokenConnection] = {}


def connect(module: Path, label: str, pin: str | None) -> TokenConnection:
    """Return this process's connection to a token, open and logged in.

    ``label`` names the token; ``pin`` None is for a token that asks for none.

    Raises:
        ConfigurationError: python-pkcs11 or the library cannot be loaded, no or more than one token has the label, or
            the PIN is missing, wrong, expired or locked.
        KeyUnavailableError: the token does not answer now.
    """
    require_support()
    if not module.is_file():
        raise ConfigurationError(f"no PKCS#11 library at {module}; set trust.pkcs11_module to the .so of the token")
    path = str(module.resolve())
    with _registry_lock:
        library = _libraries.setdefault(path, _Library(path))
        connection = _connections.setdefault((path, label), TokenConnection(library, label))
    connection.open(pin)
    return connection


class TokenConnection:
    """One token. Safe to use from several threads at once. Get it from :func:`connect`."""

    def __init__(self, library: _Library, label: str) -> None:
        self.label = label
        self._library = library
        self._pin: str | None = None
        self._refused: set[str] = set()
        self._session: Any = None
        self._keys: dict[KeyReference, Any] = {}
        self._fail_until = 0.0

    def __repr__(self) -> str:
        return f"TokenConnection({self.label!r})"

    def open(self, pin: str | None) -> None:
        """Open the session, or see that it is still there. With another PIN than before, log in with the new one.

        Raises:
            ConfigurationError, KeyUnavailableError: as :func:`connect`; a connection that was open still is.
        """
        with self._exclusive():
            before = self._pin
            if self._session is not None and pin != before:
                self._drop()
            if self._session is not None:
                try:
                    self._see_session()
                except pkcs11_library().PKCS11Error:
                    self._drop()
            if self._session is None:
                self._pin = pin
                try:
                    self._session = self._opened_at_last()
                except ConfigurationError:
                    # What was in force stays in force: the next operation logs in with the PIN that worked.
                    self._pin = before if before is not None else pin
                    raise

    def run(self, reference: KeyReference, operation: Callable[[Any], _T]) -> _T:
        """Do something with a private key; ``operation`` gets it as an object of python-pkcs11.

        Raises:
            KeyUnavailableError: the token cannot be reached, or no longer has the key.
            TokenOperationError: the token did not do it; the text has the name of its return code and nothing else.
        """
        return self.browse(lambda _: operation(self._key(reference)))

    def browse(self, operation: Callable[[Any], _T]) -> _T:
        """Do something with the session. Raises as :meth:`run`."""
        pkcs11 = pkcs11_library()
        with self._exclusive():
            try:
                return operation(self._current())
            except pkcs11.PKCS11Error as error:
                if not _is_lost(error):
                    raise TokenOperationError(code_of(error)) from None
                log.warning("token_session_lost", exc=error)
                self._drop()
            try:
                return operation(self._current())
            except pkcs11.PKCS11Error as error:
                raise TokenOperationError(code_of(error)) from None

    def objects(self, template: Mapping[Any, Any], operation: Callable[[list[Any]], _T]) -> _T:
        """Do something with the objects of the token that fit a template. Raises as :meth:`run`."""
        return self.browse(lambda _: operation(self._find(template)))

    def reset(self) -> None:
        """End the session and the library: a token that gives wrong answers is opened from the start next time."""
        with self._exclusive():
            self._drop()
            self._restart_library()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if not self._library.lock.acquire(timeout=BUSY_AFTER_SECONDS):
            raise KeyUnavailableError(f"the token {self.label!r} has not answered for {BUSY_AFTER_SECONDS:.0f} seconds")
        try:
            yield
        finally:
            self._library.lock.release()

    def _current(self) -> Any:
        """The session; a lost one is opened anew.

        Raises:
            KeyUnavailableError: it cannot be opened.
        """
        if self._session is None:
            if time.monotonic() < self._fail_until:
                raise KeyUnavailableError(f"the token {self.label!r} could not be reached a moment ago")
            try:
                self._session = self._opened_at_last()
            except (KeyUnavailableError, ConfigurationError) as error:
                self._fail_until = time.monotonic() + RETRY_AFTER_SECONDS
                log.warning("token_unreachable", exc=error, retry_seconds=RETRY_AFTER_SECONDS)
                raise KeyUnavailableError(str(error)) from None
            log.info("token_opened")
        return self._session

    def _key(self, reference: KeyReference) -> Any:
        self._current()  # A session that is opened now forgets the objects of the one before.
        key = self._keys.get(reference)
        if key is None:
            found = self._find(private_keys(reference))
            if len(found) != 1:
                raise KeyUnavailableError(f"the token {self.label!r} has lost a key, or has two of it")
            key = self._keys[reference] = found[0]
        return key

    def _find(self, template: Mapping[Any, Any]) -> list[Any]:
        session = self._current()
        self._see_session()
        return list(session.get_objects(dict(template)))

    def _see_session(self) -> None:
        """Raise the error of python-pkcs11 that says so, when the session is lost.

        A search on a lost session would do so too, but it complains a second time when it is cleaned away.
        """
        try:
            self._session.generate_random(64)
        except pkcs11_library().PKCS11Error as error:
            if _is_lost(error):
                raise  # Any other says only that the token gives no random numbers.

    def _drop(self) -> None:
        """Forget the session. Closing it logs the process out, which is wanted: the next one logs in again."""
        session, self._session = self._session, None
        self._keys.clear()
        if session is not None:
            with suppress(pkcs11_library().PKCS11Error):
                session.close()

    def _restart_library(self) -> None:
        """Finalise and initialise: some libraries see a token that came back only then. Every session ends by it."""
        pkcs11 = pkcs11_library()
        for connection in list(_connections.values()):
            if connection._library is self._library:  # noqa: SLF001 - the same class, and its lock is held
                connection._session = None  # noqa: SLF001
                connection._keys.clear()  # noqa: SLF001
        with suppress(pkcs11.PKCS11Error):
            pkcs11.lib(self._library.path).finalize()

    def _opened_at_last(self) -> Any:
        """Open a session, if need be with the library started anew. Raises as :func:`open_session`."""
        try:
            return open_session(self._library.path, self.label, self._pin, self._refused)
        except (KeyUnavailableError, NoTokenError):
            self._restart_library()
            return open_session(self._library.path, self.label, self._pin, self._refused)


def private_keys(reference: KeyReference) -> dict[Any, Any]:
    """Return the template that finds the private keys which a reference fits."""
    pkcs11 = pkcs11_library()
    attribute = pkcs11.Attribute
    template: dict[Any, Any] = {
        attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY,
        attribute.KEY_TYPE: pkcs11.KeyType(reference.key_type),
    }
    if reference.id:
        template[attribute.ID] = reference.id
    if reference.label:
        template[attribute.LABEL] = reference.label
    return template


def _is_lost(error: Exception) -> bool:
    return type(error).__name__ in _LOST or _NOT_INITIALISED in str(error)
