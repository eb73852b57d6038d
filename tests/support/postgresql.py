"""A throw-away PostgreSQL cluster for tests: an unprivileged user, a temporary folder, loopback only."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import StoreSettings
from tests.support.gateway_process import free_ports

SUPERUSER = "boss"
ROLE = "gateway_owner"
MEMORY = Path("/dev/shm")
"""Where the clusters lie: what is tested is what the server promises, and not the disk under it."""
_NUMBERS = itertools.count(1)


def _memory() -> Path | None:
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 1 << 30
    return MEMORY if roomy else None


def binaries() -> Path | None:
    """The folder of the newest server programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    return Path(on_path).resolve().parent if on_path else None


def _as_user(folder: Path) -> list[str]:
    """What goes before a command so that it does not run as root, whom the server refuses; owns the folder."""
    if os.geteuid() != 0:
        return []
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            os.chown(folder, user.pw_uid, user.pw_gid)
            return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    pytest.skip("there is no unprivileged user to run PostgreSQL as")


@dataclass
class Cluster:
    """One server. ``settings_for`` gives a schema of its own to whoever asks."""

    folder: Path
    bin: Path
    port: int
    user: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, *options: str, port: int | None = None, place: Path | None = None) -> Cluster:
        """Make and start a cluster; ``options`` are lines of postgresql.conf. Skips by name when there is no server.

        ``place``: a folder on a disk, where what an fsync costs is part of the question.
        """
        server = binaries()
        if server is None:
            pytest.skip("PostgreSQL is not installed")
        folder = Path(tempfile.mkdtemp(prefix="gateway-pg-", dir=place or _memory()))
        cluster = cls(folder, server, port or free_ports(1)[0], _as_user(folder))
        cluster._run(
            "initdb", "-D", str(cluster.data), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8",
            "--no-sync",
        )  # fmt: skip
        cluster.configure(
            f"port = {cluster.port}",
            "listen_addresses = '127.0.0.1'",
            f"unix_socket_directories = '{folder}'",
            "max_connections = 200",
            "shared_buffers = 64MB",
            "log_min_messages = warning",
            *options,
        )
        cluster.start()
        cluster.sql(f"CREATE ROLE {ROLE} LOGIN")
        cluster.sql(f"CREATE DATABASE gateway OWNER {ROLE} TEMPLATE template0 ENCODING 'UTF8'")
        return cluster

    def standby(self, *options: str, through: int | None = None) -> Cluster:
        """Make and start a standby that follows this server, by way of the port ``through`` when it is given."""
        folder = Path(tempfile.mkdtemp(prefix="gateway-pg-", dir=self.folder.parent))
        made = Cluster(folder, self.bin, free_ports(1)[0], _as_user(folder))
        made._run(
            "pg_basebackup", "-h", "127.0.0.1", "-p", str(self.port), "-U", SUPERUSER, "-D", str(made.data),
            "--checkpoint=fast", "--no-sync",
        )  # fmt: skip
        made.configure(
            f"port = {made.port}",
            f"unix_socket_directories = '{folder}'",
            f"primary_conninfo = 'host=127.0.0.1 port={through or self.port} user={SUPERUSER}'",
            *options,
        )
        (made.data / "standby.signal").touch()
        made.start()
        return made

    def promote(self) -> None:
        """A standby is a primary from now on."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "60", "promote")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def configure(self, *lines: str) -> None:
        """Add lines to the configuration; the last of a name counts, from the next start or reload on."""
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write("\n".join(lines) + "\n")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self.user, str(self.bin / program), *arguments],
            capture_output=True,
            check=False,
            timeout=120,
            cwd=self.folder,
            # The server's own words, whatever the language of the machine.
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )
        assert done.returncode == 0, (program, done.stdout, done.stderr)

    def start(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "60", "-l", str(self.folder / "log"), "start")

    def stop(self, mode: str = "fast") -> None:
        """``immediate`` is a crash: no checkpoint, sessions are cut."""
        self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "-t", "60", "stop")

    def reload(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "reload")

    def remove(self) -> None:
        with contextlib.suppress(AssertionError):
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- using ---

    def connect(self, user: str = SUPERUSER, database: str = "postgres") -> Any:
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=user, dbname=database, autocommit=True, connect_timeout=10
        )

    def sql(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as superuser."""
        with self.connect(database=database) as connection:
            cursor = connection.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def url(self, user: str = ROLE, database: str = "gateway", port: int | None = None) -> str:
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def settings(self, **changes: Any) -> StoreSettings:
        """Settings of a store in a schema that nobody else uses."""
        values: dict[str, Any] = {
            "url": self.url(),
            "schema": f"t{next(_NUMBERS)}_{os.getpid()}",
            "group_commit_wait_ms": 1,
            "frozen_after_seconds": 2,
        }
        return StoreSettings(**(values | changes))


@contextlib.contextmanager
def running_cluster(*options: str) -> Iterator[Cluster]:
    """A cluster for as long as the context lasts."""
    cluster = Cluster.make(*options)
    try:
        yield cluster
    finally:
        cluster.remove()


_shared: list[Cluster] = []


def shared_cluster() -> Cluster:
    """The one cluster of this test run; made when it is first asked for."""
    if not _shared:
        import atexit

        cluster = Cluster.make()
        _shared.append(cluster)
        atexit.register(cluster.remove)
    return _shared[0]


ENGINES: Sequence[str] = ("postgresql", "sqlite")
