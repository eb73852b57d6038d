"""From schema 5, with a practice in it: what mail clients were shown is what they are shown, and nothing is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text

from gateway.settings import StoreSettings
from gateway.store.audit_verify import Witnesses, verify_store
from gateway.store.engines import append_only_triggers
from gateway.store.opening import open_database
from gateway.store.revisions import revisions, run
from gateway.store.schema_versions import FoundSchema
from gateway.store.sql_store import SQLStore
from gateway.store.tables import APPEND_ONLY, SCHEMA_VERSION
from gateway.store.upgrading import plan_upgrade, upgrade_store
from tests.support.body_keys import sealer_in
from tests.support.old_practice import OldPractice
from tests.support.postgresql import ENGINES
from tests.unit.store.test_upgrading import OLD

SHOWN = """
    SELECT m.mailbox_id, m.uid, m.size_bytes, f.flags, f.modseq, v.view, v.uid AS view_uid FROM mailbox_message m
    JOIN mailbox_flag f USING (mailbox_id, uid)
    LEFT JOIN view_entry v ON v.mailbox_id = m.mailbox_id AND v.of_uid = m.uid
    ORDER BY 1, 2
"""


def asked(settings: StoreSettings, query: str) -> list[tuple[Any, ...]]:
    database = open_database(settings, daemon=False)
    try:
        with database.reader.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]
    finally:
        database.close()


def at_schema_5(practice: OldPractice) -> None:
    """Bring it to where the release before left it: its tables, their guards, and the number."""
    database = open_database(practice.settings().store, daemon=False, upgrading=True)
    try:
        with database.writer.connect() as connection, connection.begin():
            database.begin_upgrade(connection)
            before = set(inspect(connection).get_table_names())
            for revision in revisions(after=3, until=5):
                run(connection, revision)
            made = set(inspect(connection).get_table_names()) - before
            for name in [table.name for table in APPEND_ONLY if table.name in made]:
                for statements in append_only_triggers(name, connection.dialect.name).values():
                    for statement in statements:
                        connection.exec_driver_sql(statement)
            now = "2026-01-01T00:00:00.000000Z"
            connection.execute(text("INSERT INTO schema_version VALUES (5, '0.1.0', :at)"), {"at": now})
            database.end_upgrade(connection)
    finally:
        database.close()


def contents(practice: OldPractice) -> dict[int, bytes]:
    def read(rows: Any) -> dict[int, bytes]:
        found: dict[int, bytes] = rows.mailboxes.contents(1, [1, 2, 3])
        assert all(content == rows.messages.content(rows.mailboxes.message_id(1, uid)).content
                   for uid, content in found.items())  # fmt: skip
        return found

    with SQLStore.open(practice.settings().store, sealer_in(practice.folder)) as store:
        return store.read_blocking(read)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_practice_of_schema_5_is_brought_up_to_date(engine: str, tmp_path: Path) -> None:
    practice = OLD[engine](tmp_path)
    at_schema_5(practice)
    settings = practice.settings().store
    plan = plan_upgrade(settings)
    assert (plan.found, [step.version for step in plan.steps]) == (FoundSchema(5, "0.1.0"), [6])
    before = asked(settings, SHOWN)
    assert len(before) == 3
    upgrade_store(settings, "cli:jane")
    assert asked(settings, SHOWN) == before
    assert asked(settings, "SELECT max(version) FROM schema_version") == [(SCHEMA_VERSION,)]
    assert asked(settings, "SELECT * FROM shown_fields") == []
    # What was filed before is shown as it was verified, as ever.
    assert len(contents(practice)) == 3
    assert practice.found() == (practice.uids, practice.raw_sha256)
    report = verify_store(settings, Witnesses(check_signature=lambda _head: None))
    assert [str(finding) for finding in report.findings] == []
    [(guards,)] = asked(settings, "SELECT detail FROM audit_event WHERE action = 'schema.upgraded'")
    assert '"guards":[]' in guards
