"""Key-encryption keys on a PKCS#11 token: implements :class:`gateway.ports.KeyKeeper`.

They are AES keys of one label, told apart by their CKA_ID. They are made in the token and never leave it: the key of a
message goes in as an object of the session, and comes out wrapped. Ids that this gateway made sort by time; keys that
somebody else made count as older.

A wrapped form begins with a byte that says how it was wrapped, because tokens differ in the mechanisms that they
have: AES-KWP under its number of PKCS#11 3.0, the same under the older number (CKM_AES_KEY_WRAP_PAD, RFC 5649), or
AES-KW (RFC 3394), which suits a key of 256 bits as well.

Failure modes: KeyUnavailableError when the token is away, or no longer does what it did; ConfigurationError for what an
operator must change. A token gives the same return codes for damaged bytes and for its own troubles, so after a
failure it is asked to wrap and unwrap a value that is known: only when it does that are the bytes to blame
(SealBrokenError).
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from gateway.core.errors import ConfigurationError, KeyUnavailableError, SealBrokenError
from gateway.keys.body_key_file import KEY_BYTES, new_id
from gateway.keys.token_connection import TokenConnection, TokenOperationError
from gateway.keys.token_login import pkcs11_library

_T = TypeVar("_T")
_MECHANISMS = {2: "AES_KEY_WRAP_KWP", 3: "AES_KEY_WRAP_PAD", 4: "AES_KEY_WRAP"}
"""By the first byte of the wrapped form, the best first."""
_OURS = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}\Z")
_READABLE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


class TokenKeys:
    """The AES keys of one label on a token. The token is opened when it is first needed; safe to use from threads."""

    def __init__(self, connect: Callable[[], TokenConnection], label: str) -> None:
        self._connect = connect
        self._label = label
        self._lock = threading.Lock()
        self._ids: dict[str, bytes] | None = None
        self._form: int | None = None

    def __repr__(self) -> str:
        return f"TokenKeys({self._label!r})"

    @property
    def place(self) -> str:
        return f"the token, label {self._label}"

    @property
    def current_id(self) -> str:
        found = self.ids()
        if not found:
            raise ConfigurationError(
                f"store.key_token_label: the token has no AES key labelled {self._label!r}; "
                f"make one: direct-gateway keys make"
            )
        return found[0]

    def ids(self) -> tuple[str, ...]:
        return tuple(self._known())

    def reload(self) -> None:
        """Look again which keys the token has. Raises KeyUnavailableError, ConfigurationError."""
        try:
            found = self._connect().objects(self._template(), lambda keys: [bytes(key.id or b"") for key in keys])
        except TokenOperationError as error:
            raise KeyUnavailableError(f"the token does not show its keys ({error})") from None
        names = {_name(raw): raw for raw in found}
        ordered = sorted(names, key=lambda name: (_OURS.match(name) is not None, name), reverse=True)
        with self._lock:
            self._ids = {name: names[name] for name in ordered}

    def wrap(self, kek_id: str, key: bytes) -> bytes:
        """See :class:`gateway.ports.KeyWrapper`."""
        forms = list(_MECHANISMS) if self._form is None else [self._form]
        for form in forms:
            try:
                wrapped = self._wrap_as(form, kek_id, key)
            except TokenOperationError as error:
                if error.unsupported and form != forms[-1]:
                    continue
                raise KeyUnavailableError(f"the token does not wrap with the key {kek_id} ({error})") from None
            self._form = form
            return bytes((form,)) + wrapped
        raise AssertionError("the last form was taken or raised")

    def unwrap(self, kek_id: str, wrapped: bytes) -> bytes:
        """See :class:`gateway.ports.KeyWrapper`."""
        form = wrapped[0] if wrapped else 0
        if form not in _MECHANISMS:
            raise SealBrokenError("a wrapped key has a form that a token does not know")
        try:
            return self._unwrap_as(form, kek_id, wrapped[1:])
        except TokenOperationError as error:
            if self._works(form, kek_id):
                raise SealBrokenError("a wrapped key does not open") from None
            raise KeyUnavailableError(f"the token does not unwrap with the key {kek_id} ({error})") from None

    def make_key(self, at: datetime) -> str:
        """Make a key in the token; returns its id. Raises ConfigurationError: the token does not let us."""
        made = new_id(at)
        pkcs11 = pkcs11_library()
        flag, attribute = pkcs11.MechanismFlag, pkcs11.Attribute

        def generate(session: Any) -> None:
            # The session of the gateway only reads; one that writes shares its login.
            writing = session.token.open(rw=True)
            try:
                writing.generate_key(
                    pkcs11.KeyType.AES,
                    KEY_BYTES * 8,
                    id=made.encode(),
                    label=self._label,
                    store=True,
                    capabilities=flag.WRAP | flag.UNWRAP,
                    template={attribute.SENSITIVE: True, attribute.EXTRACTABLE: False, attribute.PRIVATE: True},
                )
            finally:
                writing.close()

        try:
            self._connect().browse(generate)
        except TokenOperationError as error:
            raise ConfigurationError(
                f"the token does not let this program make a key ({error}); make an AES-256 key labelled "
                f"{self._label!r} that wraps and unwraps, with the token's own program"
            ) from None
        self.reload()
        return made

    def remove_key(self, _kek_id: str) -> bool:
        """A key is never destroyed on a token from here: that cannot be undone. Always False."""
        return False

    def _known(self) -> dict[str, bytes]:
        known = self._ids
        if known is None:
            self.reload()
            known = self._ids
            assert known is not None  # noqa: S101 - set by reload
        return known

    def _raw(self, kek_id: str) -> bytes:
        raw = self._known().get(kek_id)
        if raw is None:
            self.reload()
            raw = self._known().get(kek_id)
        if raw is None:
            raise KeyUnavailableError(
                f"the key {kek_id}, which stored mail rests on, is not on the token under the label {self._label!r}; "
                f"connect the right token, or restore the token's backup"
            )
        return raw

    def _template(self, raw: bytes | None = None) -> dict[Any, Any]:
        pkcs11 = pkcs11_library()
        attribute = pkcs11.Attribute
        template: dict[Any, Any] = {
            attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
            attribute.KEY_TYPE: pkcs11.KeyType.AES,
            attribute.LABEL: self._label,
        }
        return template if raw is None else template | {attribute.ID: raw}

    def _with_key(self, kek_id: str, operation: Callable[[Any], _T]) -> _T:
        raw = self._raw(kek_id)

        def run(found: list[Any]) -> _T:
            if len(found) != 1:
                raise KeyUnavailableError(f"the token has lost the key {kek_id}, or has two of it")
            return operation(found[0])

        return self._connect().objects(self._template(raw), run)

    def _wrap_as(self, form: int, kek_id: str, key: bytes) -> bytes:
        pkcs11 = pkcs11_library()
        attribute, mechanism = pkcs11.Attribute, pkcs11.Mechanism[_MECHANISMS[form]]
        template = {
            attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
            attribute.KEY_TYPE: pkcs11.KeyType.GENERIC_SECRET,
            attribute.VALUE: key,
            attribute.TOKEN: False,
            attribute.SENSITIVE: False,
            attribute.EXTRACTABLE: True,
        }

        def run(kek: Any) -> bytes:
            given = kek.session.create_object(template)
            try:
                return bytes(kek.wrap_key(given, mechanism=mechanism))
            finally:
                given.destroy()

        return self._with_key(kek_id, run)

    def _unwrap_as(self, form: int, kek_id: str, wrapped: bytes) -> bytes:
        pkcs11 = pkcs11_library()
        attribute, mechanism = pkcs11.Attribute, pkcs11.Mechanism[_MECHANISMS[form]]
        template = {attribute.TOKEN: False, attribute.SENSITIVE: False, attribute.EXTRACTABLE: True}

        def run(kek: Any) -> bytes:
            secret = kek.unwrap_key(
                pkcs11.ObjectClass.SECRET_KEY,
                pkcs11.KeyType.GENERIC_SECRET,
                wrapped,
                mechanism=mechanism,
                template=template,
            )
            try:
                return bytes(secret[attribute.VALUE])
            finally:
                secret.destroy()

        return self._with_key(kek_id, run)

    def _works(self, form: int, kek_id: str) -> bool:
        """Whether the token wraps and unwraps a value that we know."""
        known = secrets.token_bytes(KEY_BYTES)
        try:
            return self._unwrap_as(form, kek_id, self._wrap_as(form, kek_id, known)) == known
        except TokenOperationError:
            return False


def _name(raw: bytes) -> str:
    return raw.decode() if _READABLE.match(raw) else f"id-{raw.hex()}"
