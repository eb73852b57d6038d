"""A PgBouncer of Debian before a throw-away cluster, for tests. Skips by name when it is not installed."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.support.gateway_process import free_ports, wait_for
from tests.support.postgresql import ROLE, SUPERUSER, Cluster

WRITER = "gateway_writer"


@dataclass
class PgBouncer:
    """One running pooler. ``port`` is where it listens."""

    folder: Path
    cluster: Cluster
    port: int
    process: subprocess.Popen[bytes]

    def write(self, mode: str, **options: object) -> None:
        """Its configuration: it counts from the next ``reload`` on."""
        _write(self.folder, self.cluster, self.port, mode, options)

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)


def _write(folder: Path, cluster: Cluster, port: int, mode: str, options: dict[str, object]) -> None:
    lines = [
        "[databases]",
        f"* = host=127.0.0.1 port={cluster.port}",
        "[pgbouncer]",
        "listen_addr = 127.0.0.1",
        f"listen_port = {port}",
        "unix_socket_dir =",
        "auth_type = trust",
        f"auth_file = {folder / 'users'}",
        f"pool_mode = {mode}",
        *(f"{name} = {value}" for name, value in options.items()),
    ]
    (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")


@contextlib.contextmanager
def running_pgbouncer(cluster: Cluster, mode: str, **options: object) -> Iterator[PgBouncer]:
    """A pooler in this mode for as long as the context lasts."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    folder = Path(tempfile.mkdtemp(prefix="gateway-pgbouncer-"))
    # It refuses to be root, as the server does.
    folder.chmod(0o755)
    (folder / "users").write_text("".join(f'"{role}" ""\n' for role in (ROLE, SUPERUSER, WRITER)))
    (port,) = free_ports(1)
    _write(folder, cluster, port, mode, options)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*cluster.user, program, str(folder / "pgbouncer.ini")], stdout=log, stderr=log)
    made = PgBouncer(folder, cluster, port, process)
    try:
        wait_for(lambda: _answers(made), what="the pooler's start")
        yield made
    finally:
        process.kill()
        process.wait(timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(made: PgBouncer) -> bool:
    assert made.process.poll() is None, (made.folder / "log").read_text()
    with contextlib.suppress(psycopg.Error), psycopg.connect(made.cluster.url(port=made.port), connect_timeout=5):
        return True
    return False
