"""Finds a PKCS#11 token by its label, opens a session and logs in.

Guarantees: a PIN that the token has refused is never sent again by this process; and no process sends one when the
token says that one more mistake locks it (CKF_USER_PIN_FINAL_TRY). So no retry locks a token, and no restart one that
sets that flag. No PIN is in any error text.

Failure modes: :class:`ConfigurationError` for what an operator must change: the library, the label, the PIN; and
:class:`KeyUnavailableError` for a token that is not there now.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import Any

from gateway.core.errors import ConfigurationError, KeyUnavailableError

_WRONG_PIN = ("PinIncorrect", "PinInvalid", "PinLenRange")
_NO_ENTRY = ("PinLocked", "PinExpired", "UserPinNotInitialized")


class NoTokenError(ConfigurationError):
    """The library has tokens, but not this one: a wrong label, or a token that was taken away."""


def require_support() -> None:
    """See that python-pkcs11 is installed; it comes with an extra of its own.

    Raises:
        ConfigurationError: it is not.
    """
    try:
        pkcs11_library()
    except ImportError:
        raise ConfigurationError(
            "keys on a token are configured (trust.pkcs11_module), but the support for them is not installed: "
            ".venv/bin/pip install -e '.[hsm]' in the checkout"
        ) from None


def pkcs11_library() -> Any:
    """Return python-pkcs11. It is imported here alone, and only where a token is configured."""
    return importlib.import_module("pkcs11")


def open_session(path: str, label: str, pin: str | None, refused: set[str]) -> Any:
    """Open a session with the token of that label and log in.

    ``refused`` has the PINs that the token has refused in this process; one more is added here.

    Raises:
        ConfigurationError: the library cannot be loaded, or the PIN is missing, wrong, expired or locked;
            :class:`NoTokenError` when the library has only other tokens, or several of the label.
        KeyUnavailableError: the library or the token does not answer now, or there is no token at all.
    """
    pkcs11 = pkcs11_library()
    try:
        library = pkcs11.lib(path)
    except pkcs11.PKCS11Error as error:
        if "OS exception" in str(error):
            raise ConfigurationError(f"{path} cannot be loaded as a PKCS#11 library; set trust.pkcs11_module") from None
        raise KeyUnavailableError(f"the PKCS#11 library does not start ({code_of(error)})") from None
    try:
        return _log_in(_find_token(library, label), label, pin, refused)
    except pkcs11.PKCS11Error as error:
        raise KeyUnavailableError(f"the token {label!r} cannot be opened ({code_of(error)})") from None


def code_of(error: Exception) -> str:
    """The name of a return code: the class of the exception; for a code without a class the number in its text."""
    name = type(error).__name__
    return name if name != "PKCS11Error" else f"PKCS11Error {str(error).rpartition(' ')[2][:20]}"


def _find_token(library: Any, label: str) -> Any:
    pkcs11 = pkcs11_library()
    tokens = []
    for slot in library.get_slots(token_present=True):
        with suppress(pkcs11.PKCS11Error):  # A slot that cannot be read is not the one that is looked for.
            tokens.append(slot.get_token())
    matching = [token for token in tokens if token.label == label]
    if len(matching) > 1:
        raise ConfigurationError(f"{len(matching)} tokens are labelled {label!r}; give each a label of its own")
    if matching:
        return matching[0]
    others = ", ".join(repr(token.label) for token in tokens if token.label)
    if others:
        raise NoTokenError(f"no token is labelled {label!r}; the library has {others}; set trust.pkcs11_token")
    raise KeyUnavailableError(f"no token is labelled {label!r}: the library has none; is it plugged in?")


def _log_in(token: Any, label: str, pin: str | None, refused: set[str]) -> Any:
    pkcs11 = pkcs11_library()
    if pin is None:
        if token.flags & pkcs11.TokenFlag.LOGIN_REQUIRED:
            raise ConfigurationError(f"the token {label!r} asks for a PIN; set trust.pkcs11_pin_file")
        return token.open()
    if pin in refused:
        raise ConfigurationError(
            f"the token {label!r} has refused this PIN before, and it is not tried again; put the right one into "
            "trust.pkcs11_pin_file, or start the gateway again if it is right after all"
        )
    if token.flags & pkcs11.TokenFlag.USER_PIN_FINAL_TRY:
        raise ConfigurationError(
            f"one more wrong PIN locks the token {label!r}, so the gateway does not try; log in once with the token's "
            "own program, and put the right PIN into trust.pkcs11_pin_file"
        )
    try:
        return token.open(user_pin=pin)
    except pkcs11.UserAlreadyLoggedIn:
        return token.open()
    except pkcs11.PKCS11Error as error:
        if type(error).__name__ in _WRONG_PIN:
            refused.add(pin)
            raise ConfigurationError(f"the PIN in trust.pkcs11_pin_file is wrong for the token {label!r}") from None
        if type(error).__name__ in _NO_ENTRY:
            raise ConfigurationError(
                f"the token {label!r} lets nobody in ({code_of(error)}); unlock it with its own program"
            ) from None
        raise
