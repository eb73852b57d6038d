"""A store whose messages rest on a token: moving there from a file, and the token taken away (F33)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.core.errors import KeyUnavailableError
from gateway.core.lifecycle import State
from gateway.keys import token_connection
from gateway.keys.body_keys import body_keys, body_sealer
from gateway.pipeline.body_keys import keys_in_order, retire, rotate
from gateway.settings import Settings, StoreSettings, TrustSettings
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import key_file_in, sealer_in
from tests.support.softhsm import LABEL, FaultyToken, SoftToken, forget_connections
from tests.support.store_samples import SteadyClock, inbound, settings_for

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def settings_of(token: SoftToken, folder: Path) -> Settings:
    return Settings(
        store=StoreSettings(key_token_label="bodies", key_file=str(folder / "bodies.keys")),
        trust=TrustSettings(pkcs11_module=token.library, pkcs11_token=LABEL, pkcs11_pin_file=token.pin_file()),
    )


def keep(store: SQLStore, number: int) -> str:
    at = NOW + timedelta(seconds=number)
    message_id = new_id(at)

    def work(tx: object) -> None:
        tx.messages.add_raw(message_id, at, inbound(b"raw %d" % number))  # type: ignore[attr-defined]
        tx.messages.set_state(message_id, State.RECEIVED, at)  # type: ignore[attr-defined]

    store.write_blocking(work)
    return message_id


def body(store: SQLStore, message_id: str) -> bytes:
    return store.read_blocking(lambda tx: tx.messages.raw(message_id)).body


async def test_a_store_moves_from_a_file_to_a_token(token: SoftToken, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    with SQLStore.open(settings_for(folder), sealer_in(folder)) as store:
        ids = [keep(store, number) for number in range(5)]
    first = key_file_in(folder).current_id
    settings = settings_of(token, folder)
    with SQLStore.open(settings_for(folder), body_sealer(settings), daemon=True) as store:
        assert [body(store, message_id) for message_id in ids] == [b"raw %d" % number for number in range(5)]
        ring = body_keys(settings)
        done = await rotate(store, SteadyClock(NOW), ring, "cli:test")
        assert (done.made, done.rewrapped) == (True, 5)
        ids.append(keep(store, 5))
        lines = await keys_in_order(store, ring)
        assert [(line.kek_id, line.messages) for line in lines] == [(done.kek_id, 6), (first, 0)]
        again = await rotate(store, SteadyClock(NOW + timedelta(days=1)), ring, "cli:test")
        assert again.rewrapped == 6
        assert not await retire(store, SteadyClock(NOW), ring, "cli:test", done.kek_id), "the token keeps its keys"
    (folder / "bodies.keys").unlink()
    forget_connections()
    with SQLStore.open(settings_for(folder), body_sealer(settings), daemon=True) as store:
        assert [body(store, message_id) for message_id in ids] == [b"raw %d" % number for number in range(6)]


def test_without_its_token_nothing_is_taken_and_nothing_is_lost(
    faulty: FaultyToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_connection, "RETRY_AFTER_SECONDS", 0.0)
    folder = tmp_path / "store"
    folder.mkdir()
    settings = settings_of(faulty, folder)
    body_keys(settings).make_key(NOW)
    with SQLStore.open(settings_for(folder), body_sealer(settings), daemon=True) as store:
        known = keep(store, 1)
        with SQLStore.open(settings_for(folder), body_sealer(settings)) as other:
            unknown = keep(other, 2)
        faulty.order("gone")
        assert body(store, known) == b"raw 1", "its key is remembered"
        with pytest.raises(KeyUnavailableError):
            body(store, unknown)
        for _ in range(2):
            with pytest.raises(KeyUnavailableError) as caught:
                keep(store, 3)
            assert caught.value.smtp_reply.startswith("451")
        with pytest.raises(KeyUnavailableError):
            store.read_blocking(lambda tx: tx.body_keys.require())
        faulty.recall("gone")
        assert body(store, unknown) == b"raw 2"
        assert body(store, keep(store, 3)) == b"raw 3"
        assert len(store.read_blocking(lambda tx: tx.messages.newest())) == 3
