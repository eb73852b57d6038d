"""A node of the release before, which knows of no lock on the schema, stops the upgrade by its name alone (F35).

Schema 3 came before the lock that keeps nodes and upgrades apart. Its daemons hold the name of their node, and nothing
else: an upgrade that looked at the lock only went on beneath a running gateway, which then worked on with tables that
it did not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import ConfigurationError
from gateway.settings import StoreSettings
from gateway.store import revisions, upgrading
from gateway.store.opening import open_database
from gateway.store.postgresql_engine import NODE_LOCK, second_key
from gateway.store.upgrading import plan_upgrade, upgrade_store
from tests.support.old_practice import old_practice_on_postgresql
from tests.support.postgresql import Cluster, shared_cluster


@contextmanager
def node_of_schema_3(cluster: Cluster, schema: str, node: str) -> Iterator[None]:
    """The session of such a daemon, as the server sees it."""
    with cluster.connect("gateway_owner", "gateway") as connection:
        connection.execute("SELECT set_config('application_name', %s, false)", [f"direct-gateway {node} writer"[:63]])
        connection.execute("SELECT pg_advisory_lock(%s, %s)", [NODE_LOCK, second_key(schema, node)])
        yield


@pytest.fixture
def settings(tmp_path: Path) -> StoreSettings:
    return old_practice_on_postgresql(tmp_path, shared_cluster()).settings().store


@pytest.mark.parametrize("node", ["north", "n" * 60])
def test_a_node_of_schema_3_stops_the_upgrade_and_is_named(settings: StoreSettings, node: str) -> None:
    with node_of_schema_3(shared_cluster(), settings.schema, node):
        with pytest.raises(ConfigurationError, match=f"{node[:48]}.*; stop"):
            upgrade_store(settings, "cli:jane")
        assert plan_upgrade(settings).found.version == 3
    assert [step.version for step in upgrade_store(settings, "cli:jane").steps] == [4, 5, 6]


def test_one_that_starts_during_the_upgrade_stops_it_too(settings: StoreSettings) -> None:
    run: Any = revisions.run
    with pytest.MonkeyPatch.context() as patch:
        late = node_of_schema_3(shared_cluster(), settings.schema, "late")

        def run_while_it_starts(*arguments: Any) -> None:
            run(*arguments)
            patch.setattr(upgrading, "run", run)
            late.__enter__()

        patch.setattr(upgrading, "run", run_while_it_starts)
        try:
            with pytest.raises(ConfigurationError, match="late"):
                upgrade_store(settings, "cli:jane")
        finally:
            late.__exit__(None, None, None)
    assert plan_upgrade(settings).found.version == 3
    upgrade_store(settings, "cli:jane")


def test_gateways_of_another_schema_of_the_database_are_none_of_ours(settings: StoreSettings) -> None:
    with node_of_schema_3(shared_cluster(), "another", "north"):
        database = open_database(settings, daemon=False)
        try:
            assert database.gateways() == []
        finally:
            database.close()
        assert [step.version for step in upgrade_store(settings, "cli:jane").steps] == [4, 5, 6]
