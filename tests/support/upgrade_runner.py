"""Upgrades a database to the next release again and again, killed by SIGKILL at each of its statements (F35).

``python -m tests.support.upgrade_runner CONFIG STRIDE [SEEDED]`` prints JSON. The process imports everything once;
every attempt is a forked child, and dies at every STRIDEth point. ``SEEDED`` puts a mistake in, which the run must
find: the revisions are committed one by one.

Points: before and after each statement that writes, and before and after the COMMIT. After each of them the database
must be of schema 3, with everything that was in it and nothing else, or of the new one, whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from tests.support.next_release import SCHEMA, become

become()

from sqlalchemy import Engine, event, inspect, text  # noqa: E402 - the next release comes first

from gateway.settings import StoreSettings, load  # noqa: E402
from gateway.store import upgrading as shipped  # noqa: E402
from gateway.store.audit_verify import Witnesses, verify_store  # noqa: E402
from gateway.store.opening import open_database  # noqa: E402

OLD = 3
REWRITTEN = {"mailbox_flag", "mailbox_counter"}
"""Tables whose rows a revision changes: mail clients are told how each message stands, as one change."""
_UNTOLD = """
    SELECT count(*) FROM mailbox_message m
    JOIN mailbox_flag f ON f.mailbox_id = m.mailbox_id AND f.uid = m.uid
    JOIN mailbox_counter c ON c.mailbox_id = m.mailbox_id
    LEFT JOIN view_entry v ON v.mailbox_id = m.mailbox_id AND v.of_uid = m.uid
    WHERE v.uid IS NULL OR f.flags NOT LIKE '%$DirectVerified%'
        OR f.modseq <> c.highest_modseq OR v.modseq <> c.highest_modseq
"""
"""How many messages have no view, no keywords, or a MODSEQ that no client asks for."""
upgrading: Any = shipped


def die_at(point: int) -> None:
    """End this process at the Nth boundary from now on."""
    passed = 0

    def boundary(*_arguments: Any, **_options: Any) -> None:
        nonlocal passed
        passed += 1
        if passed == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def statement(_connection: Any, _cursor: Any, words: str, *_arguments: Any) -> None:
        # What is only read changes nothing, wherever it ends.
        if words.split(maxsplit=1)[0].upper() not in {"SELECT", "PRAGMA", "WITH"}:
            boundary()

    event.listen(Engine, "before_cursor_execute", statement)
    event.listen(Engine, "after_cursor_execute", statement)
    # Before the driver's COMMIT; what comes after it is the end of the connection.
    event.listen(Engine, "commit", boundary)
    event.listen(Engine, "checkin", boundary)
    note = upgrading.note_schema

    def noted(connection: Any) -> None:
        boundary()
        note(connection)
        boundary()

    upgrading.note_schema = noted


def attempt(settings: StoreSettings, point: int, *, seeded: bool) -> int:
    """Upgrade in a child that dies at that point; returns how it ended."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            die_at(point)
            if seeded:
                run = upgrading.run

                def commits_each(connection: Any, revision: Any) -> None:
                    run(connection, revision)
                    connection.connection.dbapi_connection.commit()
                    if connection.dialect.name == "sqlite":
                        connection.exec_driver_sql("BEGIN")

                upgrading.run = commits_each
            upgrading.upgrade_store(settings, "cli:test")
            status = 0
        except Exception as exc:
            print(type(exc).__name__, exc, file=sys.stderr)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def state(settings: StoreSettings, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """The version, the shape of every table, and a digest of what ``base`` knew of every row."""
    before = base["shape"] if base else {}
    database = open_database(settings, daemon=False)
    try:
        with database.reader.connect() as connection:
            inspector = inspect(connection)
            shape = {
                name: sorted(column["name"] for column in inspector.get_columns(name))
                for name in sorted(inspector.get_table_names())
            }
            version = connection.scalar(text("SELECT max(version) FROM schema_version"))
            upgraded = connection.scalar(text("SELECT count(*) FROM audit_event WHERE action = 'schema.upgraded'"))
            digests = dict[str, str]()
            for name, columns in shape.items():
                if name in {"message_note", "schema_version", "audit_event"}:
                    continue
                known = ", ".join(f'"{column}"' for column in columns if column in before.get(name, columns))
                rows = connection.execute(text(f'SELECT {known} FROM "{name}"')).all()  # noqa: S608 - our names
                digests[name] = hashlib.sha256(repr(sorted(repr(tuple(row)) for row in rows)).encode()).hexdigest()
            untold = connection.scalar(text(_UNTOLD)) if "view_entry" in shape else None
            damage = [] if connection.dialect.name != "sqlite" else _damage(connection)
    finally:
        database.close()
    return {
        "version": version, "shape": shape, "rows": digests, "upgraded": upgraded, "damage": damage, "untold": untold,
    }  # fmt: skip


def _is_whole(found: dict[str, Any], base: dict[str, Any]) -> bool:
    """Everything that was there, the keywords and the view of each message, and what the next release adds."""
    kept = {name: digest for name, digest in base["rows"].items() if name not in REWRITTEN}
    return (
        (found["upgraded"], found["untold"]) == (1, 0)
        and "message_note" in found["shape"]
        and {name: found["rows"].get(name) for name in kept} == kept
    )


def _damage(connection: Any) -> list[str]:
    found = [line for line in connection.execute(text("PRAGMA integrity_check")).scalars() if line != "ok"]
    return found + [str(row) for row in connection.execute(text("PRAGMA foreign_key_check"))]


def main(config: Path, stride: int, *, seeded: bool) -> dict[str, Any]:
    """Every so many points until an attempt passes none any more."""
    settings = load(config).store
    file = Path(settings.url.removeprefix("sqlite:///")) if settings.url.startswith("sqlite") else None
    base = state(settings)
    wrong: list[str] = []
    points = committed = 0
    point = 1 - stride
    kept = file.with_name("base.db") if file else None
    if file and kept:
        shutil.copy(file, kept)
    while True:
        points += 1
        point += stride
        status = attempt(settings, point, seeded=seeded)
        found = state(settings, base)
        if status not in {0, -signal.SIGKILL}:
            wrong.append(f"point {point}: it ended with {status}")
            break
        if found["version"] == OLD and found != base:
            wrong.append(f"point {point}: schema {OLD}, and not as it was")
        if found["version"] == SCHEMA and not _is_whole(found, base):
            wrong.append(f"point {point}: schema {SCHEMA}, and not whole")
        if found["version"] not in {OLD, SCHEMA} or found["damage"]:
            wrong.append(f"point {point}: schema {found['version']}, damage {found['damage']}")
        if wrong or status == 0:
            break
        if found["version"] == SCHEMA:
            # It was committed, and the process died on its way home. The next attempt finds nothing to do.
            committed += 1
            again = upgrading.upgrade_store(settings, "cli:test")
            if again.steps or not (file and kept):
                break
            for beside in (file.with_name(file.name + ending) for ending in ("", "-wal", "-shm")):
                beside.unlink(missing_ok=True)
            shutil.copy(kept, file)
    told: dict[str, Any] = {"points": points, "wrong": wrong, "committed": committed}
    if not wrong:
        report = verify_store(settings, Witnesses(check_signature=lambda _head: None))
        told |= {"findings": [str(finding) for finding in report.findings], "rows": report.rows}
    return told


if __name__ == "__main__":
    sqlite3.enable_callback_tracebacks(True)
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), seeded=len(sys.argv) > 3)))
