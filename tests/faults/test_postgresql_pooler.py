"""F37, a PgBouncer in the path: one that shares sessions is refused, one that does not carries everything.

The harness is believed because the same store opens, and works for a while, when nobody asks what is in the path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from gateway.cli.main import main
from gateway.core.errors import ConfigurationError, StoreUnavailableError
from gateway.core.lifecycle import JobKind
from gateway.settings import StoreSettings
from gateway.store import postgresql_connecting, postgresql_engine
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in
from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import wait_for
from tests.support.idling import Idling
from tests.support.nodes import WRITER, make_nodes
from tests.support.pgbouncer import PgBouncer, running_pgbouncer
from tests.support.pki import Authority
from tests.support.postgresql import shared_cluster

SENDER = "lab@partner.example"
SAID = r"lends sessions .* pool_mode = session"
SEEN_SECONDS = 15.0
"""Less than the 20 s after which mailboxes are looked at without a hint."""


def behind(pooler: PgBouncer, **changes: object) -> StoreSettings:
    return pooler.cluster.settings(url=pooler.cluster.url(port=pooler.port), **changes)


def opened(settings: StoreSettings, folder: Path, *, daemon: bool = True) -> SQLStore:
    return SQLStore.open(settings, sealer_in(folder), daemon=daemon)


def many_sessions(pooler: PgBouncer, count: int) -> None:
    """Let the pooler have so many sessions with the server, so that it may deal out now this and now that one."""
    connections = [psycopg.connect(pooler.cluster.url(port=pooler.port)) for _ in range(count)]
    for connection in connections:
        connection.execute("SELECT 1")
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("sessions", [0, 1, 2, 7])
@pytest.mark.parametrize("dealt", ["last first", "in turns"])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_that_shares_sessions_is_refused(tmp_path: Path, mode: str, dealt: str, sessions: int) -> None:
    cluster = shared_cluster()
    with running_pgbouncer(cluster, mode, server_round_robin=int(dealt == "in turns")) as pooler:
        if mode == "transaction":
            many_sessions(pooler, sessions)
        for daemon in (True, False):
            with pytest.raises(ConfigurationError, match=SAID):
                opened(behind(pooler), tmp_path, daemon=daemon)


def test_the_command_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_pgbouncer(shared_cluster(), "transaction") as pooler:
        made = tmp_path / "practice"
        assert main(["init", str(made), "--domain", "clinic.example", "--address", "inbox"]) == 0
        config = made / "gateway.toml"
        lines = config.read_text().splitlines()
        place = next(number for number, line in enumerate(lines) if line.startswith("url = "))
        lines[place] = f'url = "{pooler.cluster.url(port=pooler.port)}"'
        config.write_text("\n".join(lines) + "\n")
        capsys.readouterr()
        assert main(["store", "init", "--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert "pool_mode = session" in said
    assert "Traceback" not in said


def test_the_harness_sees_a_store_that_does_not_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeded bug: nothing is asked. With one session for all everything seems to be in order."""
    for module in (postgresql_connecting, postgresql_engine):
        monkeypatch.setattr(module, "refuse_shared_sessions", lambda *_: None)
    with running_pgbouncer(shared_cluster(), "transaction") as pooler, opened(behind(pooler), tmp_path) as store:
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))


def test_a_pooler_that_begins_to_share_sessions_is_noticed_at_the_next_one(tmp_path: Path) -> None:
    with running_pgbouncer(shared_cluster(), "session", server_lifetime=1) as pooler:
        settings = behind(pooler)
        with opened(settings, tmp_path) as store:
            store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
            pooler.write("transaction")
            pooler.reload()
            store._writer_engine.dispose()

            def refused() -> bool:
                try:
                    store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "n"))
                except StoreUnavailableError as exc:
                    return "pool_mode = session" in str(exc)
                # The pooler has not read its file yet.
                store._writer_engine.dispose()
                return False

            wait_for(refused, what="the refusal of new sessions")


def test_sessions_of_their_own_carry_the_name_of_a_node(tmp_path: Path) -> None:
    with running_pgbouncer(shared_cluster(), "session") as pooler:
        settings = behind(pooler, frozen_after_seconds=1)
        with opened(settings, tmp_path) as first:
            first.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
            with pytest.raises(ConfigurationError, match="node name main"):
                opened(settings, tmp_path)
            with opened(replace(settings, node="second"), tmp_path) as second:
                assert second.gateways() == ["main", "second"]
                [job] = second.write_blocking(lambda tx: tx.jobs.claim(60, 10))
                assert job.subject == "m"
        opened(settings, tmp_path).close()


@pytest.fixture
def in_session_mode() -> Iterator[PgBouncer]:
    cluster = shared_cluster()
    if not cluster.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{WRITER}'"):  # noqa: S608 - our own name
        cluster.sql(f"CREATE ROLE {WRITER} LOGIN")
    with running_pgbouncer(cluster, "session") as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_nodes_behind_a_pooler_of_sessions(
    in_session_mode: PgBouncer, tmp_path: Path, partner_ca: Authority, report: Callable[[str], None]
) -> None:
    """Mail in at one node is seen at the other by a hint; killed, a node leaves its name free and loses nothing."""
    nodes = make_nodes(shared_cluster(), tmp_path, partner_ca.pem, 2, port=in_session_mode.port)
    first, second = nodes
    first.set("store", url=shared_cluster().url(WRITER, port=in_session_mode.port))
    sent = []
    try:
        for node in nodes:
            node.start()
        with Idling(second) as idle:
            for number in range(3):
                inner = inner_message(SENDER, first.addresses, message_id=f"<{number}@partner.example>")
                raw = direct_message(
                    CryptographyStack(), inner, sender=SENDER, recipients=first.addresses,
                    signer=partner_ca.issue(address=SENDER), to=[first.identity()],
                )  # fmt: skip
                begun = time.monotonic()
                assert first.send(raw, SENDER, first.addresses)[0] == 250
                idle.wait_for(b"EXISTS", timeout=SEEN_SECONDS)
                assert time.monotonic() - begun < SEEN_SECONDS
                sent.append(inner)
                first.kill()
                first.start()
        first.settled(len(sent))
        inboxes = [node.inbox() for node in nodes]
    finally:
        for node in nodes:
            node.stop()
    lost = sum(one not in inbox for one in sent for inbox in inboxes)
    duplicated = sum(len(inbox) - len(set(inbox)) for inbox in inboxes)
    report(f"F37 (PgBouncer, sessions): points={len(sent)} lost={lost} duplicated={duplicated}")
    assert (lost, duplicated) == (0, 0)
