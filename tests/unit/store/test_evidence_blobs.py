"""Evidence under its digest: damage is found, two writers do not disturb each other, large lists cost nothing twice."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from gateway.core.errors import StoreError
from gateway.core.lifecycle import State
from gateway.core.verdict import RevocationAnswer
from gateway.ports import UnitOfWork
from gateway.store import blobs, prepared, running
from gateway.store.files import FileLock, running_daemon
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from gateway.store.tables import certificate
from tests.support.store_samples import ALICE, ANCHOR_SET, CRL, NOW, accepted, inbound, open_store


def received(tx: UnitOfWork) -> str:
    message_id = new_id(NOW)
    tx.messages.add_raw(message_id, NOW, inbound(message_id.encode()))
    tx.messages.set_state(message_id, State.RECEIVED, NOW)
    return message_id


def judged(tx: UnitOfWork) -> str:
    message_id = received(tx)
    tx.messages.add_verdict(message_id, NOW, accepted(ALICE))
    return message_id


def damage(store: SQLStore, statement: str) -> None:
    with sqlite3.connect(store.path) as connection:
        table = statement.split()[1]
        connection.execute(f"DROP TRIGGER {table}_no_update")
        connection.execute(statement)


@pytest.mark.parametrize(
    ("statement", "look"),
    [
        (
            "UPDATE certificate SET der = x'00'",
            lambda tx: tx.messages.certificate(hashlib.sha256(b"signer certificate").hexdigest()),
        ),
        ("UPDATE certificate SET der = x'00'", lambda tx: tx.messages.anchor_set(ANCHOR_SET)),
        (
            "UPDATE revocation_data SET der = x'00'",
            lambda tx: tx.messages.revocation_data(hashlib.sha256(CRL).hexdigest()),
        ),
        ("UPDATE anchor_set SET members = '[]'", lambda tx: tx.messages.anchor_set(ANCHOR_SET)),
    ],
)
def test_damaged_evidence_is_found_when_it_is_read(tmp_path: Path, statement: str, look: object) -> None:
    with open_store(tmp_path) as store:
        store.write_blocking(judged)
        damage(store, statement)
        with pytest.raises(StoreError, match="does not match its digest"):
            store.read_blocking(look)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format":1}', '{"format":3}', "null"])
def test_a_verdict_of_another_format_is_refused(tmp_path: Path, text: str) -> None:
    with open_store(tmp_path) as store:
        message_id = store.write_blocking(judged)
        damage(store, f"UPDATE verdict SET judgement = '{text}'")  # noqa: S608 - a text of ours
        with pytest.raises(StoreError):
            store.read_blocking(lambda tx: tx.messages.verdict(message_id))


def test_two_writers_that_bring_the_same_evidence_both_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks before the other has written, as two nodes on one database may."""
    everything_is_new = lambda _connection, _table, digests: list(dict.fromkeys(digests))  # noqa: E731
    monkeypatch.setattr(blobs, "absent", everything_is_new)
    with open_store(tmp_path) as first, open_store(tmp_path) as second:
        gate, ids = threading.Barrier(2), []

        def write(store: SQLStore) -> None:
            gate.wait(10)
            ids.append(store.write_blocking(judged))

        threads = [threading.Thread(target=write, args=(store,)) for store in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(ids) == 2
        for message_id in ids:
            assert first.read_blocking(lambda tx, m=message_id: tx.messages.verdict(m)) is not None  # type: ignore[misc]
        assert first.read_blocking(lambda tx: tx.messages.revocation_data(hashlib.sha256(CRL).hexdigest())) == CRL


def test_a_large_list_that_is_known_is_neither_hashed_nor_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = os.urandom(1 << 20)
    answer = RevocationAnswer("ab" * 32, "good", "", "crl", "operator", "", "", "", hashlib.sha256(large).hexdigest())
    judgement = replace(accepted(ALICE), revocation=(answer, answer), revocation_data=(large,))
    hashed: list[int] = []
    sent: list[int] = []
    plain = blobs.sha256_hex

    def counting(data: bytes) -> str:
        hashed.append(len(data))
        return plain(data)

    with open_store(tmp_path) as store:

        def work(tx: UnitOfWork) -> None:
            tx.messages.add_verdict(received(tx), NOW, judgement)

        store.write_blocking(work)
        monkeypatch.setattr("gateway.store.verdicts.sha256_hex", counting)

        @event.listens_for(store._writer_engine, "before_cursor_execute")
        def look(_c: object, _cursor: object, _s: object, parameters: object, *_rest: object) -> None:
            sent.append(len(repr(parameters)))

        def prepared_look(
            connection: Connection, form: running.Form, bound: list[Any], fetch: Callable[[Any], Any]
        ) -> Any:
            sent.append(sum(len(value) for value in bound if isinstance(value, str | bytes | memoryview)))
            return running.run_statement(connection, form, bound, fetch)

        monkeypatch.setattr(prepared, "run_statement", prepared_look)
        store.write_blocking(work)
    assert hashed
    assert max(hashed) < 100
    assert sent
    assert max(sent) < 10_000


def test_a_running_daemon_is_seen_without_touching_its_lock(tmp_path: Path) -> None:
    database = tmp_path / "gateway.db"
    assert running_daemon(database) is None
    lock = FileLock(database)
    lock.acquire()
    try:
        assert running_daemon(database) == os.getpid()
    finally:
        lock.release()
    assert running_daemon(database) is None
    lock.path.write_text("not a number")
    assert running_daemon(database) is None
    lock.path.write_text("99999999999999999999")
    assert running_daemon(database) is None


@pytest.mark.parametrize("number", [1, 2, 3, 7, 8, 9, 20, 501])
def test_what_is_absent_is_found_for_any_number(tmp_path: Path, number: int) -> None:
    ders = {blobs.sha256_hex(der): der for der in (b"%d" % n for n in range(number))}
    known = dict(list(ders.items())[::2])
    with open_store(tmp_path) as store, store._writer_engine.begin() as connection:
        blobs.keep(connection, certificate, known)
        asked = [*ders, *ders]
        assert blobs.absent(connection, certificate, asked) == [digest for digest in ders if digest not in known]
        blobs.keep(connection, certificate, ders)
        assert blobs.absent(connection, certificate, ders) == []
        assert blobs.fetch_many(connection, certificate, ders) == ders
