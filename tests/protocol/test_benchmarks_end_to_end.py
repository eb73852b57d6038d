"""The benchmarks against the real daemon: what they rest on, and that they notice what must not happen."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.bench import imap, load
from tests.bench.__main__ import main
from tests.bench.filling import fill
from tests.bench.gateways import Gateway, Site
from tests.bench.imap_operations import OPERATIONS
from tests.bench.imap_servers import missing_dovecot
from tests.bench.load import Manner, Quantiles, send
from tests.bench.mail_pool import MailPool, inner_of
from tests.bench.watcher import Watcher
from tests.bench.world import BenchError

PIPELINE = {"message.received", "message.accepted", "message.filed", "message.unlinked"}
MANNER = Manner(connections=2, per_session=2, tls=True)
NO_DELIVERY = {"audit_event", "audit_tree_head", "audit_tree_span", "sqlite_sequence"}
"""Whoever compares the inbox is in the log, and the daemon signs the log as it goes: that is no part of a delivery."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site.make(tmp_path_factory.mktemp("bench"), lambda _text: None)
    yield made
    made.close()


@pytest.fixture(scope="module")
def pool(here: Site) -> MailPool:
    made = here.pool("10k")
    made.ensure(6, here.say)
    return made


def _rows(gateway: Gateway) -> dict[str, int]:
    """How many rows each table has."""
    with closing(sqlite3.connect(gateway.practice.directory / "data" / "gateway.db")) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}  # noqa: S608


def _story(gateway: Gateway) -> tuple[list[object], list[object]]:
    """The audit events of the pipeline by what they tell of, and the states."""
    with closing(sqlite3.connect(gateway.practice.directory / "data" / "gateway.db")) as connection:
        events = connection.execute("SELECT action, detail FROM audit_event WHERE action LIKE 'message.%' ORDER BY seq")
        told: list[object] = [(action, sorted(json.loads(detail))) for action, detail in events if action in PIPELINE]
        states = connection.execute("SELECT seq, state, detail FROM message_state ORDER BY at, seq").fetchall()
        return told, states


def test_a_filled_store_has_the_rows_of_a_delivery(here: Site, pool: MailPool) -> None:
    filled, delivered = here.gateway("sqlite", "filled"), here.gateway("sqlite", "delivered")
    for gateway in (filled, delivered):
        # What is written once only, like certificates, is there then.
        with gateway.running():
            send(gateway, pool, MANNER, first=0, end=1, seconds=30)
    before = _rows(filled), _rows(delivered)
    seen: list[int] = []

    fill(filled.practice.config, pool, here.address, range(1), seen.append)
    with delivered.running():
        send(delivered, pool, MANNER, first=1, end=2, seconds=30)

    grown = [
        {name: count - old[name] for name, count in _rows(gateway).items() if name not in NO_DELIVERY}
        for gateway, old in zip((filled, delivered), before, strict=True)
    ]
    assert seen == [1]
    assert grown[0] == grown[1]
    assert grown[0]["raw_message"] == grown[0]["mailbox_message"] == 1
    assert _story(filled) == _story(delivered)
    assert filled.practice.run("audit", "verify").returncode == 0


def test_what_was_sent_is_measured_and_found(here: Site, pool: MailPool) -> None:
    gateway = here.gateway("sqlite", "measured")
    with gateway.running():
        found = send(gateway, pool, MANNER, first=0, end=6, seconds=30)
    assert found.messages == 6
    assert found.cpu["daemon"] > 0
    assert found.commits > 0
    assert 0 < found.sending_seconds <= found.seconds
    assert 0 < found.reply.p50 <= found.visible.p99


def test_another_message_in_the_inbox_breaks_the_benchmark(
    here: Site, pool: MailPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = here.gateway("sqlite", "altered")
    monkeypatch.setattr(load, "inner_of", lambda size, number, address: inner_of(size, number + 1, address))
    with gateway.running(), pytest.raises(BenchError, match="not what was sent"):
        send(gateway, pool, MANNER, first=0, end=2, seconds=30)


def test_a_message_that_is_not_filed_breaks_the_benchmark(
    here: Site, pool: MailPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = here.gateway("sqlite", "untrusting")
    (gateway.practice.directory / "certs" / "anchors" / "partner.pem").unlink()
    wait_for = Watcher.wait_for
    monkeypatch.setattr(Watcher, "wait_for", lambda self, count: wait_for(self, count, stall_seconds=1))
    with gateway.running(), pytest.raises(BenchError, match="only 0 of 2 became visible"):
        send(gateway, pool, MANNER, first=0, end=2, seconds=30)


def test_a_refused_message_breaks_the_benchmark(here: Site, pool: MailPool) -> None:
    gateway = here.gateway("sqlite", "refusing")
    gateway.practice.set("smtp", max_messages_per_minute_per_peer=1)
    with gateway.running(), pytest.raises(BenchError, match="did not take a message"):
        send(gateway, pool, MANNER, first=0, end=6, seconds=30)


def test_quantiles() -> None:
    assert Quantiles.of([float(n) for n in range(101)]) == Quantiles(50, 95, 99)
    assert Quantiles.of([3.0]) == Quantiles(3, 3, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["intake", "--seconds", "0"],
        ["growth", "--stored", "1000"],
        ["intake", "--sizes", "x"],
        ["imap", "--only", "x"],
    ],
)
def test_misuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    assert status == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_growth_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "growth.json"
    options = ["--stores", "sqlite", "--stored", "5,30", "--rounds", "1", "--messages", "5", "--json", str(document)]
    assert main(["growth", *options]) == 0
    assert "at 30 stored at most 1.15 times that at 5" in capsys.readouterr().out
    assert document.exists()


def _imap(tmp_path: Path, *options: str) -> dict[str, Any]:
    """Run the IMAP benchmark with a handful of messages and return what it wrote."""
    document = tmp_path / "imap.json"
    small = ["--messages", "40", "--large", "2", "--rounds", "1", "--sessions", "3", "--dovecot-sessions", "2"]
    assert main(["imap", *small, *options, "--json", str(document)]) == 0
    written: dict[str, Any] = json.loads(document.read_text())
    return written


@pytest.mark.slow
def test_imap_in_small_beside_dovecot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if (reason := missing_dovecot()) is not None:
        pytest.skip(reason)
    [measured] = _imap(tmp_path)["sizes"]
    costs = measured["costs"]["rounds"]
    assert set(costs) == {operation.key for operation in OPERATIONS}
    for rounds in costs.values():
        assert set(rounds) == {"gateway", "dovecot"}
        # One command of so few messages may take less CPU than the kernel counts.
        assert all(one["wall_ms"] > 0 and one["cpu_ms"] >= 0 for of_one in rounds.values() for one in of_one)
    assert any(one["cpu_ms"] > 0 for rounds in costs.values() for of_one in rounds.values() for one in of_one)
    assert set(measured["synced"]) == {"optimized", "always"}
    # So few sessions may fit into memory that the processes had.
    assert all(isinstance(crowd["bytes_each"], (int, float)) for crowd in measured["crowds"].values())
    assert set(measured["crowds"]) == set(measured["noticed"]) == set(measured["first_select_ms"])
    shown = capsys.readouterr().out
    assert "from filing to EXISTS in IDLE: under 10 ms" in shown
    assert "not measured" not in shown


@pytest.mark.slow
def test_imap_without_dovecot_measures_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imap, "missing_dovecot", lambda: "Dovecot is not installed")
    [measured] = _imap(tmp_path, "--only", "flags,bulk,subject")["sizes"]
    assert {key: list(rounds) for key, rounds in measured["costs"]["rounds"].items()} == {
        key: ["gateway"] for key in ("flags", "bulk", "subject")
    }
    assert "not measured: dovecot: Dovecot is not installed" in capsys.readouterr().out
