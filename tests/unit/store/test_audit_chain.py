"""The hash chain of the audit log (F29 in part): what it shows, and where."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.audit import GENESIS, AuditEvent, canonical_bytes, detail_text, first_broken, next_hash
from gateway.ports import UnitOfWork
from gateway.store.sql_store import SQLStore
from tests.support.store_samples import NOW, open_store


def chain(length: int) -> list[AuditEvent]:
    events: list[AuditEvent] = []
    previous = GENESIS
    for seq in range(1, length + 1):
        detail = detail_text({"n": seq})
        canonical = canonical_bytes(node="main", seq=seq, at=NOW, actor="a", action="b", subject="c", detail=detail)
        previous = next_hash(previous, canonical)
        events.append(AuditEvent("main", seq, NOW, "a", "b", "c", detail, previous))
    return events


def test_the_canonical_form_never_changes() -> None:
    """Events that exist were hashed with it: this vector is the contract with every log ever written."""
    canonical = canonical_bytes(
        node="main", seq=7, at=NOW, actor="gäteway", action="x", subject="s", detail=detail_text({"b": 1, "a": "ü"})
    )
    assert canonical == (
        b'["1","main","7","2026-03-01T12:00:00.000000+00:00","g\\u00e4teway","x","s","{\\"a\\":\\"\\\\u00fc\\",\\"b\\":1}"]'
    )
    assert next_hash(GENESIS, canonical).hex() == "0ba4d7383930643b9ec19cb582fd582e3d12c94164f806c32caf782415cf664f"


def test_a_sound_chain_holds() -> None:
    assert first_broken(chain(5)) is None
    assert first_broken([]) is None
    assert first_broken(chain(5)[2:], seq=2, previous=chain(5)[1].hash) is None


@pytest.mark.parametrize(
    ("tamper", "where"),
    [
        (lambda e: [e[0], replace(e[1], subject="other"), *e[2:]], 2),
        (lambda e: [e[0], replace(e[1], detail="{}"), *e[2:]], 2),
        (lambda e: [e[0], replace(e[1], at=NOW + timedelta(microseconds=1)), *e[2:]], 2),
        (lambda e: [e[0], e[2], e[1], *e[3:]], 2),
        (lambda e: [*e[:2], *e[3:]], 3),
        (lambda e: e[1:], 1),
        (lambda e: [*e[:4], replace(e[4], hash=bytes(32))], 5),
        # The canonical form must keep the fields apart.
        (lambda e: [replace(e[0], actor="ab", action=""), *e[1:]], 1),
    ],
)
def test_every_change_shows_at_its_place(tamper: Callable[[list[AuditEvent]], list[AuditEvent]], where: int) -> None:
    assert first_broken(tamper(chain(5))) == where


async def test_the_chain_has_no_fork_although_units_fail_and_tools_write_beside(tmp_path: Path) -> None:
    def audited(store: SQLStore, number: int) -> asyncio.Future[None]:
        def unit(tx: UnitOfWork) -> None:
            tx.audit.add(NOW, "actor \ud800", "action", f"subject {number}\0", {"n": number})
            if number % 4 == 0:
                raise ValueError

        return asyncio.ensure_future(store.write(unit))

    with open_store(tmp_path) as daemon, open_store(tmp_path) as tool:
        units = [audited(daemon if n % 2 else tool, n) for n in range(60)]
        await asyncio.gather(*units, return_exceptions=True)
        with daemon._reader_engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM audit_event").scalar_one() == 45
        assert daemon.read_blocking(lambda tx: tx.audit.first_broken()) is None  # type: ignore[attr-defined]


async def test_a_changed_row_is_found(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        for number in range(3):
            await store.write(lambda tx, n=number: tx.audit.add(NOW, "a", "b", "c", {"n": n}))  # type: ignore[misc]
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute("DROP TRIGGER audit_event_no_update")
        other.execute("UPDATE audit_event SET actor = 'nobody' WHERE seq = 2")
        other.close()
        assert store.read_blocking(lambda tx: tx.audit.first_broken()) == 2  # type: ignore[attr-defined]
