"""Reads the revisions that the package ships, and runs one of them, with alembic.

Only what alembic does best is used of it: the scripts, their order, and operations that each database spells its own
way. Which version a database has is kept in a table of ours (:mod:`gateway.store.schema_versions`), and transactions
are made by :mod:`gateway.store.upgrading`, so that all revisions of an upgrade, their proof and their event of the
audit log are committed together or not at all.

This is the only module that imports alembic, and those who need it import this one late: no command that finds the
right schema waits for it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from gateway.core.errors import StoreError

_HOME: Final = Path(__file__).parent / "migrations"
FOLDERS: Final = [_HOME / "versions"]
"""Where revisions lie. Tests add the revisions of a release that is not there yet."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One step from the schema before."""

    version: int
    purpose: str
    """One line for people."""
    rewrites: tuple[str, ...]
    """Tables each row of which is written anew, which takes time and space."""
    sha256: str
    """Of its file."""
    module: ModuleType


def revisions(*, after: int = 0, until: int | None = None) -> list[Revision]:
    """Return the revisions from the schema ``after`` (0: no tables) up to ``until`` (None: the newest), in order.

    Raises:
        StoreError: the shipped revisions make no single line; the installation is damaged.
    """
    scripts = ScriptDirectory(_HOME, version_locations=list(FOLDERS))
    if len(scripts.get_heads()) != 1 or len(scripts.get_bases()) != 1:
        raise StoreError("the revisions of the schema are damaged: install direct-gateway again")
    found = []
    for script in scripts.walk_revisions():
        version = int(script.revision)
        if version > after and (until is None or version <= until):
            module = script.module
            digest = hashlib.sha256(Path(script.path).read_bytes()).hexdigest()
            purpose = (module.__doc__ or "").strip().partition("\n")[0]
            found.append(Revision(version, purpose, tuple(module.REWRITES), digest, module))
    return sorted(found, key=lambda revision: revision.version)


def run(connection: Connection, revision: Revision) -> None:
    """Run one revision within the caller's transaction.

    Raises:
        DBAPIError: the database refused a statement of it.
    """
    with Operations.context(MigrationContext.configure(connection)):
        revision.module.upgrade()
