"""``audit verify`` on PostgreSQL: what the role of the gateway may do to mutable rows, and the owner to guards (F29).

A guard counted as sound there as long as a trigger had its name, and no test held the verifier against this database.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.auditing.heads import TreeHeads
from gateway.settings import StoreSettings
from gateway.store.audit_verify import Witnesses, verify_store
from gateway.store.sql_store import SQLStore
from tests.faults.tampering import SIGNER, fill
from tests.support.body_keys import sealer_in
from tests.support.postgresql import shared_cluster
from tests.support.store_samples import SteadyClock

FORGERIES = {
    "hidden event": (
        (
            "INSERT INTO {s}.audit_event (node, seq, at, actor, action, subject, detail, hash, rows) VALUES "
            "('main', 0, '2026-03-01T12:00:00.000000Z', 'dr', 'message.read', 'x', '{{}}', '', '')"
        ),
        "it is in no chain",
    ),
    "account under another login": ("UPDATE {s}.account SET login_key = 'mallory'", "the login of account 1"),
    "quarantine with another reason": ("UPDATE {s}.quarantine SET reason = 'expired'", "another reason"),
    "known key": (
        "UPDATE {s}.wrapped_key SET wrapped = (SELECT proof FROM {s}.key_encryption_key)",
        "had its key replaced",
    ),
    "planted certificate": ("INSERT INTO {s}.certificate VALUES ('00', 'x')", "is not what its digest says"),
    "hollow function": (
        (
            "CREATE OR REPLACE FUNCTION {s}.gateway_refuse_change() RETURNS trigger LANGUAGE plpgsql "
            "AS $$ BEGIN RETURN NULL; END $$"
        ),
        "the guard anchor_set_no_update is missing or was altered",
    ),
    "guard with a condition": (
        (
            "CREATE OR REPLACE TRIGGER link_no_update BEFORE UPDATE ON {s}.link FOR EACH STATEMENT WHEN (false) "
            "EXECUTE FUNCTION {s}.gateway_refuse_change(); "
            "ALTER TABLE {s}.link ENABLE ALWAYS TRIGGER link_no_update"
        ),
        "the guard link_no_update is missing or was altered",
    ),
    "guard of another kind": (
        (
            "CREATE OR REPLACE TRIGGER link_no_update BEFORE TRUNCATE ON {s}.link "
            "EXECUTE FUNCTION {s}.gateway_refuse_change(); "
            "ALTER TABLE {s}.link ENABLE ALWAYS TRIGGER link_no_update"
        ),
        "the guard link_no_update is missing or was altered",
    ),
    "trigger of somebody else": (
        "CREATE TRIGGER helper AFTER UPDATE ON {s}.job EXECUTE FUNCTION {s}.gateway_refuse_change()",
        "the trigger helper is none of this program",
    ),
    "rule": ("CREATE RULE helper AS ON DELETE TO {s}.job DO INSTEAD NOTHING", "the rule helper is none"),
    "view": ("CREATE VIEW {s}.helper AS SELECT 1", "the view helper is none"),
    "policy": ("CREATE POLICY helper ON {s}.job", "the policy helper is none"),
}


@pytest.fixture
def settings(tmp_path: Path) -> StoreSettings:
    found = shared_cluster().settings()
    with SQLStore.open(found, sealer_in(tmp_path)) as store:
        fill(store)
        asyncio.run(TreeHeads(store, SteadyClock(), SIGNER, None).make())
    return found


def _findings(settings: StoreSettings) -> list[str]:
    return [str(finding) for finding in verify_store(settings, Witnesses(SIGNER.check)).findings]


def test_an_untouched_log_holds(settings: StoreSettings) -> None:
    assert _findings(settings) == []


@pytest.mark.parametrize("name", FORGERIES)
def test_each_forgery_is_named(settings: StoreSettings, name: str) -> None:
    statement, said = FORGERIES[name]
    shared_cluster().sql(statement.format(s=settings.schema), "gateway")
    assert any(said in line for line in _findings(settings)), _findings(settings)
