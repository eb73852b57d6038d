"""The ring of key-encryption keys that the settings name, and the sealer of message bodies on top of it.

``[store] key_file`` is a file, or ``credential:NAME`` for a credential that systemd hands to the service
(systemd.exec(5), LoadCredentialEncrypted): that one can only be read. With ``[store] key_token_label`` the keys are on
the token of ``[trust] pkcs11_*``; a key file that is there as well still opens what was sealed under it, so that a
gateway can move from a file to a token by ``keys rotate``.

Nothing is read before it is needed: a command that touches no body works without the keys.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from gateway.core.errors import ConfigurationError
from gateway.keys.body_key_file import KeyFile
from gateway.keys.body_sealer import AESBodySealer
from gateway.keys.body_token_keys import TokenKeys
from gateway.ports import KeyKeeper
from gateway.settings import CREDENTIAL_PREFIX, Settings, credential_path


def body_sealer(settings: Settings) -> AESBodySealer:
    """Return the sealer of these settings. Raises ConfigurationError: they contradict themselves."""
    return AESBodySealer(body_keys(settings))


def body_keys(settings: Settings) -> KeyKeeper:
    """Return the ring of these settings. Raises ConfigurationError: they contradict themselves."""
    if not settings.store.key_token_label:
        return key_file(settings)
    token = _token_keys(settings)
    older = None if settings.store.key_file.startswith(CREDENTIAL_PREFIX) else Path(settings.store.key_file)
    return token if older is None or not older.is_file() else JoinedKeys(token, KeyFile(older))


def key_file(settings: Settings) -> KeyFile:
    """Return the ring in the key file of these settings. Raises ConfigurationError."""
    value = settings.store.key_file
    if not value.startswith(CREDENTIAL_PREFIX):
        return KeyFile(Path(value))
    told = (
        f"store.key_file is {value}, which can only be read here: print a new key (direct-gateway keys make --print), "
        f"put its line above the others in the credential, restart the gateway, and run direct-gateway keys rotate"
    )
    return KeyFile(lambda: credential_path(value), read_only=told)


def _token_keys(settings: Settings) -> TokenKeys:
    trust = settings.trust
    if trust.pkcs11_module is None or not trust.pkcs11_token:
        raise ConfigurationError(
            "store.key_token_label is set; set trust.pkcs11_module and trust.pkcs11_token to the token too"
        )
    module, label, pin_file = trust.pkcs11_module, trust.pkcs11_token, trust.pkcs11_pin_file
    # Only here, so that a gateway without a token needs none of it.
    from gateway.keys.loading import read_pin  # noqa: PLC0415
    from gateway.keys.token_connection import TokenConnection, connect  # noqa: PLC0415

    opened: list[TokenConnection] = []

    def connection() -> TokenConnection:
        if not opened:
            opened.append(connect(module, label, read_pin(pin_file, [])))
        return opened[0]

    return TokenKeys(connection, settings.store.key_token_label)


class JoinedKeys:
    """The keys of a token, and the file whose keys sealed mail before: implements :class:`gateway.ports.KeyKeeper`."""

    def __init__(self, token: KeyKeeper, older: KeyKeeper) -> None:
        self._token = token
        self._older = older

    @property
    def place(self) -> str:
        return f"{self._token.place}, and {self._older.place}"

    @property
    def current_id(self) -> str:
        return self._token.current_id

    def ids(self) -> tuple[str, ...]:
        return (*self._token.ids(), *self._older.ids())

    def wrap(self, kek_id: str, key: bytes) -> bytes:
        return self._holder(kek_id).wrap(kek_id, key)

    def unwrap(self, kek_id: str, wrapped: bytes) -> bytes:
        return self._holder(kek_id).unwrap(kek_id, wrapped)

    def reload(self) -> None:
        self._older.reload()
        self._token.reload()

    def make_key(self, at: datetime) -> str:
        return self._token.make_key(at)

    def remove_key(self, kek_id: str) -> bool:
        return self._holder(kek_id).remove_key(kek_id)

    def _holder(self, kek_id: str) -> KeyKeeper:
        return self._older if kek_id in self._older.ids() else self._token
