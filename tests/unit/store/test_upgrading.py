"""Bringing a real practice of schema 3 up to date: what is said before, what is done, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import gateway
from gateway.cli.main import main
from gateway.core.errors import ConfigurationError, GatewayError, StoreError, StoreUnavailableError
from gateway.core.lifecycle import JobKind
from gateway.settings import StoreSettings
from gateway.store.audit_verify import Witnesses, verify_store
from gateway.store.opening import open_database
from gateway.store.schema_versions import FoundSchema, other_schema
from gateway.store.sql_store import SQLStore
from gateway.store.tables import SCHEMA_VERSION
from gateway.store.upgrading import plan_upgrade, upgrade_store
from tests.support.body_keys import sealer_in
from tests.support.old_practice import OldPractice, old_practice, old_practice_on_postgresql
from tests.support.postgresql import ENGINES, ROLE, shared_cluster

OLD: dict[str, Callable[[Path], OldPractice]] = {
    "postgresql": lambda folder: old_practice_on_postgresql(folder, shared_cluster()),
    "sqlite": old_practice,
}
WRITER = "gateway_upgraded_writer"


def rows(practice: OldPractice, query: str) -> list[tuple[Any, ...]]:
    database = open_database(practice.settings().store, daemon=False)
    try:
        with database.reader.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]
    finally:
        database.close()


def events(practice: OldPractice) -> list[tuple[Any, ...]]:
    return rows(practice, "SELECT actor, detail, rows FROM audit_event WHERE action = 'schema.upgraded'")


def verified(practice: OldPractice) -> list[str]:
    report = verify_store(practice.settings().store, Witnesses(check_signature=lambda _head: None))
    assert report.events > 25
    assert report.rows >= 60
    return [str(finding) for finding in report.findings]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_practice_of_schema_3_is_brought_up_to_date(engine: str, tmp_path: Path) -> None:
    practice = OLD[engine](tmp_path)
    store = practice.settings().store
    plan = plan_upgrade(store)
    assert (plan.found, plan.gateways) == (FoundSchema(3), ())
    assert [step.version for step in plan.steps] == list(range(4, SCHEMA_VERSION + 1))
    assert plan.size_bytes > 100_000
    assert rows(practice, "SELECT max(version) FROM schema_version") == [(3,)], "a plan changes nothing"
    told: list[int] = []
    done = upgrade_store(store, "cli:jane", progress=lambda step: told.append(step.version))
    assert told == [step.version for step in done.steps] == [step.version for step in plan.steps]
    assert practice.found() == (practice.uids, practice.raw_sha256)
    assert verified(practice) == []
    [(actor, detail, answered)] = events(practice)
    said = json.loads(detail)
    assert (actor, said["from"], said["to"], said["release"]) == ("cli:jane", 3, SCHEMA_VERSION, gateway.__version__)
    assert (said["guards"], answered) == ([], "")
    assert all(len(digest) == 64 for digest in said["revisions"].values())
    assert rows(practice, "SELECT version, release FROM schema_version ORDER BY version") == [
        (3, None),
        (SCHEMA_VERSION, gateway.__version__),
    ]
    assert upgrade_store(store, "cli:jane").steps == ()
    assert len(events(practice)) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_messages_of_before_get_their_keywords_and_their_view(engine: str, tmp_path: Path) -> None:
    """And what a client made up before the gateway spoke of it is gone; every other flag stays."""
    practice = OLD[engine](tmp_path)
    asked = (
        "SELECT uid, flags, modseq, (SELECT count(*) FROM link WHERE link.message_id = m.message_id) AS links "
        "FROM mailbox_flag JOIN mailbox_message m USING (mailbox_id, uid) ORDER BY uid"
    )
    made_up = "$DIRECTverified $directLinked $DirectReviewed $Directory \\Seen"
    database = open_database(practice.settings().store, daemon=False, upgrading=True)
    with database.writer.begin() as connection:
        connection.execute(text("UPDATE mailbox_flag SET flags = :flags WHERE uid = 1"), {"flags": made_up})
        connection.exec_driver_sql("UPDATE mailbox_flag SET flags = '$Forwarded' WHERE uid = 2")
    database.close()
    before = rows(practice, asked)
    [(highest,)] = rows(practice, "SELECT highest_modseq FROM mailbox_counter")
    assert [(uid, links) for uid, _, _, links in before] == [(1, 1), (2, 0), (3, 1)]
    upgrade_store(practice.settings().store, "cli:jane")
    assert rows(practice, asked) == [
        (1, "$DirectLinked $DirectVerified $Directory \\Seen", highest + 1, 1),
        (2, "$DirectNeedsReview $DirectVerified $Forwarded", highest + 1, 0),
        (3, "$DirectLinked $DirectVerified", highest + 1, 1),
    ]
    assert rows(practice, "SELECT highest_modseq FROM mailbox_counter") == [(highest + 1,)]
    assert rows(practice, "SELECT view, uid, of_uid, modseq FROM view_entry ORDER BY of_uid") == [
        ("linked", 1, 1, highest + 1),
        ("unlinked", 1, 2, highest + 1),
        ("linked", 2, 3, highest + 1),
    ]
    assert verified(practice) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_an_older_schema_is_refused_by_whoever_opens_it_and_left_alone(engine: str, tmp_path: Path) -> None:
    practice = OLD[engine](tmp_path)
    before = rows(practice, "SELECT count(*) FROM audit_event")
    for attempt in (practice.found, lambda: verified(practice)):
        with pytest.raises(ConfigurationError, match="run: direct-gateway store upgrade"):
            attempt()
    assert rows(practice, "SELECT count(*) FROM audit_event") == before
    assert rows(practice, "SELECT * FROM schema_version") == [(3,)]


def test_guards_that_were_gone_before_the_upgrade_are_in_its_event(tmp_path: Path) -> None:
    practice = old_practice(tmp_path)
    database = open_database(practice.settings().store, daemon=False)
    with database.writer.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER link_no_delete")
    database.close()
    upgrade_store(practice.settings().store, "cli:jane")
    [(_, detail, _)] = events(practice)
    assert json.loads(detail)["guards"] == ["link_no_delete"]
    assert verified(practice) == []


def test_a_row_that_was_altered_before_is_told_and_not_carried_over(tmp_path: Path) -> None:
    practice = old_practice(tmp_path)
    database = open_database(practice.settings().store, daemon=False)
    with database.writer.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER message_state_no_update")
        connection.exec_driver_sql("UPDATE message_state SET at = 'yesterday' WHERE seq = 1")
    database.close()
    with pytest.raises(StoreError, match="a row of message_state cannot be read"):
        upgrade_store(practice.settings().store, "cli:jane")
    assert rows(practice, "SELECT * FROM schema_version") == [(3,)]


def test_a_schema_that_nobody_can_convert_is_told_apart() -> None:
    assert "restore a backup" in other_schema(FoundSchema(SCHEMA_VERSION + 1, "2.0"))
    assert "start direct-gateway 2.0 or newer" in other_schema(FoundSchema(SCHEMA_VERSION + 1, "2.0"))
    assert "the newer release that made it" in other_schema(FoundSchema(SCHEMA_VERSION + 1))
    assert "begin with a new database" in other_schema(FoundSchema(2))
    assert other_schema(FoundSchema(SCHEMA_VERSION)) == ""


def test_a_newer_schema_is_not_upgraded_and_not_touched(tmp_path: Path) -> None:
    practice = old_practice(tmp_path)
    upgrade_store(practice.settings().store, "cli:jane")
    database = open_database(practice.settings().store, daemon=False)
    with database.writer.begin() as connection:
        connection.exec_driver_sql("INSERT INTO schema_version VALUES (99, '7.0', NULL)")
    database.close()
    with pytest.raises(ConfigurationError, match=r"schema 99, made by direct-gateway 7\.0"):
        upgrade_store(practice.settings().store, "cli:jane")
    assert plan_upgrade(practice.settings().store).steps == ()
    assert len(events(practice)) == 1


def test_a_schema_without_a_number_is_no_database_to_go_on_with(tmp_path: Path) -> None:
    practice = old_practice(tmp_path)
    database = open_database(practice.settings().store, daemon=False)
    with database.writer.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER schema_version_no_delete")
        connection.exec_driver_sql("DELETE FROM schema_version")
    database.close()
    with pytest.raises(ConfigurationError, match="does not say which schema"):
        upgrade_store(practice.settings().store, "cli:jane")


# --- roles ---


def test_on_postgresql_the_owner_upgrades_and_the_gateways_role_gets_its_rights(tmp_path: Path) -> None:
    cluster = shared_cluster()
    if not cluster.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{WRITER}'"):  # noqa: S608 - our name
        cluster.sql(f"CREATE ROLE {WRITER} LOGIN")
    practice = old_practice_on_postgresql(tmp_path, cluster)
    schema = practice.settings().store.schema
    cluster.sql(f"GRANT USAGE ON SCHEMA {schema} TO {WRITER}", "gateway")
    cluster.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {WRITER}", "gateway")
    practice.config.write_text(practice.config.read_text().replace(ROLE, WRITER))
    store = practice.settings().store
    with pytest.raises(ConfigurationError, match="--owner-url"):
        upgrade_store(store, "cli:jane")
    assert rows(practice, "SELECT max(version) FROM schema_version") == [(3,)]
    upgrade_store(store, "cli:jane", owner_url=cluster.url())
    assert practice.found() == (practice.uids, practice.raw_sha256)
    assert verified(practice) == []
    may = "SELECT has_table_privilege('audit_event', 'INSERT'), has_table_privilege('schema_version', 'INSERT')"
    assert rows(practice, may) == [(True, False)]


def test_a_file_has_no_owner(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="leave --owner-url out"):
        upgrade_store(old_practice(tmp_path).settings().store, "x", owner_url="postgresql://a@localhost/b")


# --- while somebody works on it ---


def test_a_gateway_that_runs_on_the_file_stops_the_upgrade_and_is_named(tmp_path: Path) -> None:
    practice = old_practice(tmp_path)
    running = open_database(practice.settings().store, daemon=True)
    try:
        with pytest.raises(ConfigurationError, match=r"serve \(process \d+\) runs on this database; stop it"):
            upgrade_store(practice.settings().store, "cli:jane")
        assert len(plan_upgrade(practice.settings().store).gateways) == 1
    finally:
        running.close()
    upgrade_store(practice.settings().store, "cli:jane")


def test_no_gateway_starts_on_the_file_during_an_upgrade(tmp_path: Path) -> None:
    practice = old_practice(tmp_path)
    upgrading = open_database(practice.settings().store, daemon=False, upgrading=True)
    with pytest.raises(ConfigurationError, match="stop it first"):
        open_database(practice.settings().store, daemon=True)
    upgrading.close()
    open_database(practice.settings().store, daemon=True).close()


def a_store(folder: Path) -> StoreSettings:
    settings = shared_cluster().settings()
    SQLStore.open(settings, sealer_in(folder)).close()
    return settings


def test_a_node_that_runs_stops_the_upgrade_on_postgresql_and_is_named(tmp_path: Path) -> None:
    settings = a_store(tmp_path)
    with (
        SQLStore.open(replace(settings, node="north"), sealer_in(tmp_path), daemon=True) as node,
        pytest.raises(ConfigurationError, match=r"stop them first, on: north$"),
    ):
        upgrade_store(settings, "cli:jane")
    assert node.dead is False
    # A command that writes holds the upgrade up as well.
    with SQLStore.open(replace(settings, node="south"), sealer_in(tmp_path)) as command:
        command.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
        with pytest.raises(ConfigurationError, match=r"stop them first, on: south$"):
            upgrade_store(settings, "cli:jane")
    assert upgrade_store(settings, "cli:jane").steps == ()


def test_who_starts_during_an_upgrade_on_postgresql_is_told_to_wait(tmp_path: Path) -> None:
    settings = a_store(tmp_path)
    upgrading = open_database(settings, daemon=False, upgrading=True)
    try:
        with pytest.raises(StoreUnavailableError, match="being upgraded"):
            SQLStore.open(settings, sealer_in(tmp_path), daemon=True)
        with (
            SQLStore.open(settings, sealer_in(tmp_path)) as command,
            pytest.raises(StoreUnavailableError, match="being upgraded"),
        ):
            command.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
        with pytest.raises(ConfigurationError, match="stop them first"):
            upgrade_store(settings, "another")
    finally:
        upgrading.close()
    SQLStore.open(settings, sealer_in(tmp_path), daemon=True).close()


def test_a_node_that_was_cut_off_during_an_upgrade_writes_nothing_any_more(tmp_path: Path) -> None:
    settings = a_store(tmp_path)
    with SQLStore.open(settings, sealer_in(tmp_path), daemon=True) as node:
        node._writer_engine.dispose()
        newer = f"INSERT INTO {settings.schema}.schema_version VALUES (99, '7.0', NULL)"  # noqa: S608 - our name
        shared_cluster().sql(newer, "gateway")
        with pytest.raises(StoreUnavailableError, match=f"schema 99 .* knows {SCHEMA_VERSION}"):
            node.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
    with pytest.raises(ConfigurationError, match="schema 99"):
        SQLStore.open(settings, sealer_in(tmp_path), daemon=True)


# --- what a revision must not do, and the proof that finds it ---

_HEAD = """'''Do something.'''
import sqlalchemy as sa
from alembic import op
revision = "0007"
down_revision = "0006"
REWRITES = ()


def upgrade():
"""
BREAKING = {
    "a column is filled": (
        "    op.add_column('message_state', sa.Column('more', sa.String(), server_default='x', nullable=False))\n",
        "t.message_state.append_column(t.Column('more', t.CleanText, nullable=False))",
        "message_state",
    ),
    "a column goes": (
        "    op.add_column('link', sa.Column('more', sa.String()))\n    op.drop_column('link', 'rule')\n",
        "t.link.append_column(t.Column('more', t.CleanText))",
        "link",
    ),
    "a row goes": (
        "    op.execute('DROP TRIGGER link_receipt_no_delete')\n    op.execute('DELETE FROM link_receipt')\n",
        "None",
        "link_receipt",
    ),
    "a row is altered": (
        "    op.execute('DROP TRIGGER verdict_no_update')\n    op.execute(\"UPDATE verdict SET sender = 'x'\")\n",
        "None",
        "verdict",
    ),
    "a row comes in that no event would answer for": (
        "    op.execute(\"INSERT INTO mailbox_route SELECT 'x@y.example', id FROM mailbox\")\n",
        "None",
        "mailbox_route",
    ),
    "a table goes": (
        "    op.drop_table('recheck')\n",
        "t.metadata.remove(t.recheck)",
        "recheck",
    ),
}


@pytest.mark.parametrize("what", BREAKING)
def test_a_revision_that_breaks_the_audit_log_changes_nothing(what: str, tmp_path: Path) -> None:
    practice = old_practice(tmp_path)
    body, change, table = BREAKING[what]
    folder = tmp_path / "revisions"
    folder.mkdir()
    (folder / "r0007_breaks.py").write_text(_HEAD + body)
    script = (
        "import sys\nfrom pathlib import Path\nfrom gateway.store import tables as t\n"
        "from tests.support.next_release import become\n"
        f"become(Path({str(folder)!r}), change=lambda: [{change}])\n"
        "from gateway.cli.main import main\nsys.exit(main())\n"
    )
    before = (tmp_path / "gateway.db").read_bytes()
    words = [sys.executable, "-c", script, "store", "upgrade", "--config", str(practice.config)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).resolve().parents[3])
    assert done.returncode == 3, (done.stdout, done.stderr)
    assert f"nothing was changed: this upgrade would break what the audit log says of the table {table}" in done.stderr
    assert rows(practice, "SELECT * FROM schema_version") == [(3,)]
    assert len((tmp_path / "gateway.db").read_bytes()) == len(before)
    upgrade_store(practice.settings().store, "cli:jane")
    assert verified(practice) == []


# --- the commands ---


def test_the_commands_say_what_they_will_do_and_do_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    practice = old_practice(tmp_path)
    config = ["--config", str(practice.config)]
    assert main(["store", "status", *config]) == 1
    told = capsys.readouterr()
    assert "3, made by a release that did not say" in told.out
    assert "run: direct-gateway store upgrade" in told.err
    assert main(["store", "upgrade", "--dry-run", *config]) == 0
    told = capsys.readouterr()
    for part in (
        "from schema 3",
        "4: Write down with each schema which release made it, and when. (rewrites no rows)",
        "tell clients verdict and link. (writes 3 rows anew)",
        "about 3 s",
        "direct-gateway backup create",
        "nothing was changed",
    ):
        assert part in told.out, part
    assert rows(practice, "SELECT * FROM schema_version") == [(3,)]
    assert main(["store", "upgrade", "--json", *config]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["from"], document["to"], document["done"]) == (3, SCHEMA_VERSION, True)
    assert document["steps"][0]["rewrites_rows"] == 0
    assert document["size_bytes"] > 100_000
    assert main(["store", "upgrade", *config]) == 0
    assert "there is nothing to upgrade" in capsys.readouterr().out
    assert main(["store", "status", "--json", *config]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["usable"], document["from"], document["made_by"]) == (True, SCHEMA_VERSION, gateway.__version__)
    assert main(["audit", "verify", "--against", str(practice.head), *config]) == 0


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.toml").write_text('[store]\nurl = "sqlite:///gateway.db"\n')
    for words in (["store", "status"], ["store", "upgrade"], ["store", "upgrade", "--dry-run"]):
        assert main([*words, "--config", str(tmp_path / "gateway.toml")]) == 2
        assert "there is no database" in capsys.readouterr().err
    assert not (tmp_path / "gateway.db").exists()


def test_the_words_of_an_upgrade_that_is_refused_are_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    practice = old_practice(tmp_path)
    running = open_database(practice.settings().store, daemon=True)
    try:
        assert main(["store", "upgrade", "--config", str(practice.config)]) == 2
    finally:
        running.close()
    told = capsys.readouterr()
    assert "stop first: " in told.out
    assert told.err.startswith("schema 4 ...") is False
    assert "stop it first" in told.err
    with pytest.raises(GatewayError):
        practice.found()
