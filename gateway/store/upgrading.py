"""Brings the tables of an older release up to date: says what it will do, and does all of it or nothing.

Guarantees

* Nobody works on the tables meanwhile: a running gateway is named and the upgrade refused, and what starts during it is
  refused (the lock beside a SQLite file; :mod:`gateway.store.postgresql_schema_lock`).
* One transaction: the revisions, the guards and rights of new tables, the new version, and the event
  ``schema.upgraded``, which says who did it, from which version to which, with the digest of each revision.
* No row that was kept says anything else afterwards (:mod:`gateway.store.upgrade_proof`), before it is committed.

Crash story: killed at any point, the database is as it was before, and the command runs again; killed after the commit,
it finds nothing to do. Where a connection was lost at the COMMIT, ``store status`` tells which of both it was.

Failure modes: ConfigurationError for what a person must do first (a gateway that runs, a schema of a newer release, a
role that does not own the tables); StoreError when the proof does not hold; StoreFullError, StoreUnavailableError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, func, inspect, select, table, text
from sqlalchemy.exc import DBAPIError, StatementError

import gateway
from gateway.core.errors import ConfigurationError
from gateway.observability.clock import SystemClock
from gateway.settings import POSTGRESQL_PREFIXES, StoreSettings
from gateway.store.audit_log import AuditLog
from gateway.store.database_errors import as_gateway_error, sqlstate
from gateway.store.engines import Database
from gateway.store.facts import begin
from gateway.store.guards import restore_guards
from gateway.store.opening import open_database
from gateway.store.revisions import Revision, revisions, run
from gateway.store.rights import grant_rights
from gateway.store.schema import note_schema
from gateway.store.schema_versions import OLDEST_SCHEMA, FoundSchema, found_schema, refuse_other
from gateway.store.tables import SCHEMA_VERSION
from gateway.store.upgrade_proof import UpgradeProof

UPGRADED: Final = "schema.upgraded"
ROWS_PER_SECOND: Final = 20_000
"""At which rows are written anew, measured low: an estimate that is kept is worth more than one that is exact."""
_SIZES = {
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "postgresql": (
        "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class "
        "WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
    ),
}


@dataclass(frozen=True, slots=True)
class Step:
    """What one revision will do."""

    version: int
    purpose: str
    rows: int
    """Rows that are written anew."""


@dataclass(frozen=True, slots=True)
class UpgradePlan:
    """What an upgrade will do. Without steps there is nothing to do."""

    found: FoundSchema
    steps: tuple[Step, ...]
    size_bytes: int
    """Of the whole database."""
    gateways: tuple[str, ...]
    """The daemons that run on it and have to be stopped first."""
    newest: int = SCHEMA_VERSION

    @property
    def seconds(self) -> int:
        """About how long it takes."""
        return len(self.steps) + sum(step.rows for step in self.steps) // ROWS_PER_SECOND


def plan_upgrade(settings: StoreSettings) -> UpgradePlan:
    """Look at the database, and change nothing. Also for a schema that is newer than this release: no steps.

    Raises:
        ConfigurationError: there are no tables, or none of ours. StoreUnavailableError: it does not answer now.
    """
    with _opened(settings, upgrading=False) as database, database.reader.connect() as connection:
        return _plan(connection, tuple(database.gateways()))


def upgrade_store(
    settings: StoreSettings,
    actor: str,
    *,
    owner_url: str | None = None,
    progress: Callable[[Step], None] = lambda _step: None,
) -> UpgradePlan:
    """Bring the tables up to date, and return what was done.

    Args:
        settings: of the gateway.
        actor: who does it, for the audit log.
        owner_url: PostgreSQL: the same database, as the role that owns the tables, when that is not the role of
            ``store.url``. That one is given its rights anew.
        progress: told of each step before it begins.

    Raises:
        ConfigurationError, StoreError: see the module; nothing was changed.
    """
    is_postgresql = settings.url.startswith(POSTGRESQL_PREFIXES)
    if owner_url is not None and not is_postgresql:
        raise ConfigurationError("store.url is a SQLite file, which has no owner: leave --owner-url out")
    own = settings if owner_url is None else replace(settings, url=owner_url, password_file=None)
    with _opened(own, upgrading=True) as database, database.writer.connect() as connection:
        with connection.begin():
            database.begin_upgrade(connection)
            plan = _plan(connection, ())
            refuse_newer(plan.found)
            if plan.steps:
                _refuse_gateways(database)
                _upgrade(connection, _Entry(settings.node, actor), plan, progress)
                if owner_url is not None:
                    _grant(connection, settings)
                database.end_upgrade(connection)
                _refuse_gateways(database)
            database.before_commit(connection)
        database.after_commit(connection)
    return plan


def _refuse_gateways(database: Database) -> None:
    """Refuse while a daemon of a release before the lock on the schema runs: it holds the name of its node only.

    Raises:
        ConfigurationError: one runs, or has started while the revisions ran.
    """
    if database.shared and (running := database.gateways()):
        raise ConfigurationError(f"store.url: gateways run on this database ({', '.join(running)}); stop them first")


@dataclass(frozen=True, slots=True)
class _Entry:
    """In whose chain the event is, and who did it."""

    node: str
    actor: str


def refuse_newer(found: FoundSchema) -> None:
    """Raises ConfigurationError for a schema that cannot be brought up to date."""
    if not OLDEST_SCHEMA <= found.version <= SCHEMA_VERSION:
        refuse_other(found)


def _upgrade(connection: Connection, entry: _Entry, plan: UpgradePlan, progress: Callable[[Step], None]) -> None:
    before = set(inspect(connection).get_table_names())
    proof = UpgradeProof(connection)
    # From here on the rows that a revision adds are noted for the event.
    facts = begin(connection)
    scripts = _scripts(plan.found)
    for step, revision in zip(plan.steps, scripts, strict=True):
        progress(step)
        run(connection, revision)
    restored = restore_guards(connection)
    proof.check(facts.waiting())
    note_schema(connection)
    detail: dict[str, Any] = {
        "from": plan.found.version,
        "to": SCHEMA_VERSION,
        "release": gateway.__version__,
        "revisions": {f"{revision.version:04d}": revision.sha256 for revision in scripts},
        # Of tables that were there: new ones have guards as a matter of course.
        "guards": [name for name in restored if name.rpartition("_no_")[0] in before],
    }
    AuditLog(connection, entry.node, facts).add(SystemClock().now(), entry.actor, UPGRADED, "", detail)


def _grant(connection: Connection, settings: StoreSettings) -> None:
    """The gateway's own role may use the new tables as it uses the others."""
    from gateway.store.postgresql_address import PostgreSQLAddress  # noqa: PLC0415 - needs the driver
    from gateway.store.postgresql_connecting import role_of  # noqa: PLC0415 - needs the driver

    grant_rights(connection, settings.schema, role_of(PostgreSQLAddress.parse(settings)))


def _plan(connection: Connection, gateways: tuple[str, ...]) -> UpgradePlan:
    names = set(inspect(connection).get_table_names())
    found = found_schema(connection, names)
    if found is None:
        raise ConfigurationError("the database has no tables yet; the first serve or store init makes them")
    steps = tuple(
        Step(
            revision.version,
            revision.purpose,
            sum(_rows(connection, name) for name in revision.rewrites if name in names),
        )
        for revision in _scripts(found)
    )
    size = connection.scalar(text(_SIZES[connection.dialect.name])) or 0
    return UpgradePlan(found, steps, int(size), gateways)


def _scripts(found: FoundSchema) -> list[Revision]:
    return revisions(after=found.version, until=SCHEMA_VERSION) if found.version >= OLDEST_SCHEMA else []


def _rows(connection: Connection, name: str) -> int:
    return connection.scalar(select(func.count()).select_from(table(name))) or 0


@contextmanager
def _opened(settings: StoreSettings, *, upgrading: bool) -> Iterator[Database]:
    database = open_database(settings, daemon=False, upgrading=upgrading)
    try:
        yield database
    except StatementError as exc:
        if isinstance(exc, DBAPIError) and sqlstate(exc) == "42501":
            raise ConfigurationError(
                "store.url: this role does not own the tables and cannot change them; "
                "run: direct-gateway store upgrade --owner-url URL"
            ) from exc
        error = as_gateway_error(exc)
        if error is exc:
            raise
        raise error from exc
    finally:
        database.close()
