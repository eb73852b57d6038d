"""Key-encryption keys on a real token (SoftHSM), and what its loss means (F33)."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import ConfigurationError, KeyUnavailableError, SealBrokenError
from gateway.keys import token_connection
from gateway.keys.body_keys import JoinedKeys, body_keys
from gateway.keys.body_token_keys import TokenKeys
from gateway.ports import KeyKeeper
from gateway.settings import Settings, StoreSettings, TrustSettings
from tests.support.body_keys import key_file_in
from tests.support.softhsm import LABEL, FaultyToken, SoftToken, forget_connections

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DEK = bytes(range(32))


def settings_of(token: SoftToken, key_file: Path | None = None) -> Settings:
    return Settings(
        store=StoreSettings(key_token_label="bodies", key_file=str(key_file or token.folder / "none")),
        trust=TrustSettings(pkcs11_module=token.library, pkcs11_token=LABEL, pkcs11_pin_file=token.pin_file()),
    )


def ring_of(token: SoftToken) -> KeyKeeper:
    return body_keys(settings_of(token))


def test_keys_are_made_in_the_token_and_wrap(token: SoftToken) -> None:
    ring = ring_of(token)
    assert ring.ids() == ()
    with pytest.raises(ConfigurationError, match="no AES key labelled 'bodies'; make one: direct-gateway keys make"):
        _ = ring.current_id
    first = ring.make_key(NOW)
    wrapped = ring.wrap(first, DEK)
    assert DEK not in wrapped
    second = ring.make_key(NOW + timedelta(seconds=1))
    assert ring.ids() == (second, first)
    assert ring.current_id == second
    forget_connections()
    again = ring_of(token)
    assert again.ids() == (second, first)
    assert again.unwrap(first, wrapped) == DEK


def test_a_key_never_leaves_the_token(token: SoftToken) -> None:
    made = ring_of(token).make_key(NOW)
    pkcs11: Any = importlib.import_module("pkcs11")
    attribute = pkcs11.Attribute
    with token.session() as session:
        (key,) = session.get_objects({attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY, attribute.ID: made.encode()})
        assert (key[attribute.SENSITIVE], key[attribute.EXTRACTABLE], key[attribute.PRIVATE]) == (True, False, True)
        with pytest.raises(pkcs11.AttributeSensitive):
            _ = key[attribute.VALUE]
        # Nothing of the keys of messages stays behind.
        assert len(list(session.get_objects({attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY}))) == 1


def test_what_was_changed_or_is_of_another_key_does_not_open(token: SoftToken) -> None:
    ring = ring_of(token)
    first, second = ring.make_key(NOW), ring.make_key(NOW + timedelta(seconds=1))
    wrapped = ring.wrap(first, DEK)
    changed = [bytes(b ^ 1 if i == at else b for i, b in enumerate(wrapped)) for at in range(1, len(wrapped), 7)]
    for one in (*changed, wrapped[:-8], wrapped[:1], b"", b"\x01" + wrapped[1:]):
        with pytest.raises(SealBrokenError):
            ring.unwrap(first, one)
    with pytest.raises(SealBrokenError):
        ring.unwrap(second, wrapped)
    assert ring.unwrap(first, wrapped) == DEK


def test_a_key_that_is_not_on_the_token_is_named(token: SoftToken) -> None:
    with pytest.raises(KeyUnavailableError, match=r"the key gone-1, .* under the label 'bodies'"):
        ring_of(token).unwrap("gone-1", b"\x03" + bytes(40))


def test_a_key_that_another_process_made_is_found(token: SoftToken) -> None:
    ring = ring_of(token)
    ring.make_key(NOW)
    assert len(ring.ids()) == 1
    other = ring_of(token).make_key(NOW + timedelta(days=1))
    assert ring.unwrap(other, ring.wrap(other, DEK)) == DEK


def test_keys_of_another_label_are_not_ours(token: SoftToken) -> None:
    ring_of(token).make_key(NOW)
    settings = settings_of(token)
    other = body_keys(Settings(store=StoreSettings(key_token_label="other", key_file="/nowhere"), trust=settings.trust))
    assert other.ids() == ()


def test_a_key_on_a_token_is_never_destroyed_from_here(token: SoftToken) -> None:
    ring = ring_of(token)
    made = ring.make_key(NOW)
    assert not ring.remove_key(made)
    ring.reload()
    assert ring.ids() == (made,)


def test_from_a_file_to_a_token(token: SoftToken, tmp_path: Path) -> None:
    file = key_file_in(tmp_path)
    wrapped = file.wrap(file.current_id, DEK)
    ring = body_keys(settings_of(token, tmp_path / "bodies.keys"))
    assert isinstance(ring, JoinedKeys)
    assert ring.ids() == (file.current_id,)
    made = ring.make_key(NOW)
    assert ring.ids() == (made, file.current_id)
    assert ring.current_id == made
    assert ring.unwrap(file.current_id, wrapped) == DEK
    assert ring.unwrap(made, ring.wrap(made, DEK)) == DEK
    assert "token" in ring.place
    assert str(tmp_path) in ring.place


def test_a_token_that_is_gone_says_nothing_about_a_message(
    faulty: FaultyToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_connection, "RETRY_AFTER_SECONDS", 0.0)
    ring = ring_of(faulty)
    made = ring.make_key(NOW)
    wrapped = ring.wrap(made, DEK)
    faulty.order("gone")
    for _ in range(2):
        with pytest.raises(KeyUnavailableError):
            ring.unwrap(made, wrapped)
        with pytest.raises(KeyUnavailableError):
            ring.wrap(made, DEK)
    faulty.recall("gone")
    assert ring.unwrap(made, wrapped) == DEK


def test_a_token_that_fails_is_told_from_damage(token: SoftToken, monkeypatch: pytest.MonkeyPatch) -> None:
    """The return codes do not tell the two apart; a value that is known does."""
    ring = ring_of(token)
    assert isinstance(ring, TokenKeys)
    made = ring.make_key(NOW)
    wrapped = ring.wrap(made, DEK)

    def fails(*_: object) -> bytes:
        raise token_connection.TokenOperationError("DeviceError")

    monkeypatch.setattr(TokenKeys, "_unwrap_as", fails)
    with pytest.raises(KeyUnavailableError, match="does not unwrap"):
        ring.unwrap(made, wrapped)
    monkeypatch.undo()
    monkeypatch.setattr(TokenKeys, "_wrap_as", fails)
    with pytest.raises(KeyUnavailableError, match="does not wrap"):
        ring.wrap(made, DEK)
