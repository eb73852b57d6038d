"""Notices that the database of a practice that was in use is gone, and keeps that from being forgotten (SQLite).

A volume that was not mounted, a wrong path, a folder that somebody removed: the gateway would make an empty database,
and the practice would seem to have lost its mail, or work on for days in the wrong place. So before a database is made
where keys or other traces say that the practice is not new, a note is left beside it. Whoever starts or checks the
gateway is told for as long as the note is there; a person removes it when the new database is meant to be there. When
the right folder comes back (the volume is mounted), the note is gone with the wrong one.

Crash story: the note is on the disk before the empty database is made. Killed between the two, the next start finds the
note. Failure modes: none of its own; a folder that cannot be written is told by whoever makes the database in it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from gateway.settings import Settings

NOTE = "DATABASE-WAS-MISSING.txt"
UNFINISHED_RESTORE = ".restoring"
"""Added to the name of the database: what a restore has made so far (:mod:`gateway.store.backup.restoring`)."""
_PREFIX = "sqlite:///"


def missing_database(settings: Settings) -> str:
    """What to tell of a database that is gone, or was gone when this one was made; empty when all is well.

    One line for people. Reads, never writes; raises nothing.
    """
    database = _database(settings)
    if database is None:
        return ""
    note = database.with_name(NOTE)
    with suppress(OSError):
        if note.is_file() and database.is_file():
            return (
                f"the database {database} was made anew and empty, because the one that this practice had used was "
                f"gone: mail and charts from before are not in it. Stop the gateway and put the right database back "
                f"(mount its volume, mend store.url, or restore a backup); or, if this one is meant, remove {note}"
            )
        if not database.is_file() and (found := _traces(settings, database)):
            return (
                f"there is no database {database}, but this practice was in use before ({', '.join(found)}): mail and "
                f"charts from before would be missing. Mount its volume, mend store.url, or restore a backup before "
                f"the gateway starts; only a new practice begins with an empty one, which its first serve makes"
            )
    return ""


def leave_note(settings: Settings) -> None:
    """Leave the note when a database is about to be made in the place of one that is gone. Raises nothing."""
    database = _database(settings)
    if database is None or database.is_file() or not missing_database(settings):
        return
    note = database.with_name(NOTE)
    text = (
        "When this note was written, the gateway found keys or other traces of a practice in use, and no database.\n"
        "It made an empty one beside this note. Put the right database back: mount its volume, mend store.url, or\n"
        "restore a backup. If the new database is meant, remove this note: until then every start warns of it.\n"
    )
    with suppress(OSError):
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(handle, text.encode("ascii"))
            os.fsync(handle)
        finally:
            os.close(handle)


def _database(settings: Settings) -> Path | None:
    """The file; None for a database that is not a file."""
    url = settings.store.url
    return Path(url.removeprefix(_PREFIX)) if url.startswith(_PREFIX) else None


def _traces(settings: Settings, database: Path) -> list[str]:
    """What shows that the practice is not new."""
    identities, charts = settings.trust.identities_dir, settings.charts.folder_importer_dir
    login, wal = settings.base_dir / "imap-login.txt", database.with_name(database.name + "-wal")
    restoring = database.with_name(database.name + UNFINISHED_RESTORE)
    found = [
        (_holds(identities, ".cert.pem", ".p12"), f"keys in {identities}"),
        (settings.trust.pkcs11_module is not None, "keys on a token"),
        (charts is not None and _holds(charts), f"charts in {charts}"),
        (login.is_file(), f"{login} of init"),
        (wal.is_file(), f"{wal}"),
        (restoring.is_file(), f"a restore that did not end, {restoring}: run it again"),
    ]
    return [words for is_there, words in found if is_there]


def _holds(folder: Path, *endings: str) -> bool:
    return folder.is_dir() and any(not endings or path.name.endswith(endings) for path in folder.iterdir())
