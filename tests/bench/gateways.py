"""The real daemon on one of its databases, and what it costs: CPU by process, commits, what is left to do.

CPU is user and system time of the whole process, from ``/proc``, in ticks of 10 ms; of PostgreSQL that of the server
and all its sessions, those that ended included. Commits are counted where the database counts them itself: in the index
of SQLite's log (``iChange``, the file format of the wal-index), and as syncs of the log of PostgreSQL.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from tests.bench.mail_pool import MailPool
from tests.bench.world import SENDER, BenchError
from tests.support.gateway_process import Practice, free_ports
from tests.support.pki import Authority, Identity, rsa_key
from tests.support.postgresql import ROLE, Cluster, binaries

STORES = ("sqlite", "postgresql")
SCHEMA = "direct_gateway"
POSTGRESQL_OPTIONS = ("shared_buffers = 128MB", "log_min_messages = error")
"""As the server is delivered; only the number of sessions and where it listens differ."""
_WAL_CHANGES = 8
_TICKS = os.sysconf("SC_CLK_TCK")
Say = Callable[[str], None]


def missing_store(store: str) -> str | None:
    """What this machine lacks for that store, or None."""
    return "PostgreSQL is not installed" if store == "postgresql" and binaries() is None else None


@dataclass
class Site:
    """What all runs share: a practice as ``init`` makes it, a sender whom it trusts, mail, and a PostgreSQL server."""

    folder: Path
    signer: Identity
    template: Practice
    say: Say

    @classmethod
    def make(cls, folder: Path, say: Say) -> Site:
        say("making a practice")
        community = Authority.root("Bench Community CA", slot=11)
        template = Practice.make(folder / "template")
        template.trust(community.pem)
        # One machine plays all senders, so what is allowed to one of them must not stand in the way.
        template.set(
            "smtp",
            max_messages_per_minute_per_peer=0,
            max_recipients_per_hour_per_peer=0,
            max_connections_per_minute_per_peer=0,
        )
        return cls(folder, community.issue(address=SENDER, key=rsa_key(21)), template, say)

    @property
    def address(self) -> str:
        """Of the one recipient."""
        return self.template.addresses[0]

    @cached_property
    def cluster(self) -> Cluster:
        """The server, on the disk."""
        self.say("starting PostgreSQL")
        return Cluster.make(*POSTGRESQL_OPTIONS, place=Path(tempfile.gettempdir()))

    def pool(self, size: str) -> MailPool:
        """Messages to the practice."""
        return MailPool(self.folder, size, self.signer, self.template.identity(), self.address)

    def copy(self, name: str, origin: Practice | None = None) -> Practice:
        """Another practice with the same people, keys and mail, and ports of its own."""
        place = self.folder / name
        original = origin or self.template
        shutil.copytree(original.directory, place)
        smtp, imap, imaps, http = free_ports(4)
        made = replace(original, directory=place, smtp_port=smtp, imap_port=imap, imaps_port=imaps, http_port=http)
        made.set("smtp", port=smtp)
        made.set("imap", port=imap, tls_port=imaps)
        made.set("http", port=http)
        return made

    def gateway(self, store: str, name: str) -> Gateway:
        """A practice with an empty store; its daemon does not run yet."""
        practice = self.copy(name)
        if store == "sqlite":
            return SQLiteGateway(practice, self)
        self.cluster.sql(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE template0 ENCODING 'UTF8'")
        practice.use_postgresql(self.cluster.url(database=name), SCHEMA)
        return PostgreSQLGateway(practice, self, name)

    def close(self) -> None:
        """Remove what lies outside the folder."""
        if "cluster" in self.__dict__:
            self.cluster.remove()


@contextmanager
def site(say: Say) -> Iterator[Site]:
    """A site in a folder of its own, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        made = Site.make(Path(name), say)
        try:
            yield made
        finally:
            made.close()


class Gateway:
    """One practice on one store."""

    def __init__(self, practice: Practice, site: Site) -> None:
        self.practice = practice
        self.site = site

    @contextmanager
    def running(self) -> Iterator[None]:
        """The daemon, for as long as the context lasts. Raises BenchError when it does not end well."""
        self.practice.start()
        try:
            yield
        except BaseException:
            self.practice.kill()
            raise
        status = self.practice.stop()
        if status:
            raise BenchError(f"the daemon ended with status {status}: {self.practice.log.read_text()[-2000:]}")

    def cpu(self) -> dict[str, float]:
        """CPU seconds until now, by what used them."""
        process = self.practice.process
        if process is None:
            raise BenchError("the daemon does not run")
        return {"daemon": tree_seconds(process.pid)}

    def resident_bytes(self) -> int:
        """Memory of the daemon itself, without its children."""
        process = self.practice.process
        if process is None:
            raise BenchError("the daemon does not run")
        return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def commits(self) -> int:
        """Commits until now, of all units that write; only the difference of two calls means something."""
        raise NotImplementedError

    def jobs_left(self) -> int:
        """Jobs that wait or run."""
        raise NotImplementedError

    def stored_bytes(self) -> int:
        """The size of the database on the disk."""
        raise NotImplementedError

    def twin(self, name: str) -> Gateway:
        """The same practice once more, with everything that is stored; neither daemon runs."""
        raise NotImplementedError

    def remove(self) -> None:
        """Make room on the disk."""
        shutil.rmtree(self.practice.directory, ignore_errors=True)

    def settle(self, seconds: float = 120) -> None:
        """Wait until nothing is left to do. Raises BenchError."""
        deadline = time.monotonic() + seconds
        while left := self.jobs_left():
            if time.monotonic() > deadline:
                raise BenchError(f"{left} jobs are left after {seconds:.0f} s")
            time.sleep(0.05)


class SQLiteGateway(Gateway):
    """Everything in one file."""

    @property
    def _file(self) -> Path:
        return self.practice.directory / "data" / "gateway.db"

    def commits(self) -> int:
        # A counter of 32 bits in the byte order of the machine, in the first copy of the header.
        with (self._file.parent / f"{self._file.name}-shm").open("rb") as index:
            return int(struct.unpack_from("=I", index.read(_WAL_CHANGES + 4), _WAL_CHANGES)[0])

    def jobs_left(self) -> int:
        with closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True, timeout=30)) as connection:
            return int(connection.execute("SELECT count(*) FROM job").fetchone()[0])

    def stored_bytes(self) -> int:
        return self._file.stat().st_size

    def twin(self, name: str) -> Gateway:
        return SQLiteGateway(self.site.copy(name, self.practice), self.site)


class PostgreSQLGateway(Gateway):
    """A database of its own in the server of the site."""

    def __init__(self, practice: Practice, site: Site, database: str) -> None:
        super().__init__(practice, site)
        self._database = database

    @property
    def _server(self) -> int:
        return int((self.site.cluster.data / "postmaster.pid").read_text().split()[0])

    def cpu(self) -> dict[str, float]:
        return {**super().cpu(), "postgresql": tree_seconds(self._server)}

    def commits(self) -> int:
        cluster = self.site.cluster
        # Each session tells of what it did once a second at most, and when it has been idle for a moment.
        time.sleep(1.2)
        version = int(cluster.sql("SHOW server_version_num")[0][0])
        newer = "SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal'"
        return int(cluster.sql(newer if version >= 180_000 else "SELECT wal_sync FROM pg_stat_wal")[0][0] or 0)

    def jobs_left(self) -> int:
        return int(self.site.cluster.sql(f"SELECT count(*) FROM {SCHEMA}.job", self._database)[0][0])  # noqa: S608

    def stored_bytes(self) -> int:
        return int(self.site.cluster.sql(f"SELECT pg_database_size('{self._database}')")[0][0])

    def twin(self, name: str) -> Gateway:
        self.site.cluster.sql(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE {self._database}")
        practice = self.site.copy(name, self.practice)
        practice.set("store", url=self.site.cluster.url(database=name))
        return PostgreSQLGateway(practice, self.site, name)

    def remove(self) -> None:
        super().remove()
        self.site.cluster.sql(f"DROP DATABASE {self._database} WITH (FORCE)")


def tree_seconds(pid: int) -> float:
    """CPU seconds of a process, of its children, and of those that ended and were waited for."""
    seconds = _own_seconds(pid, ended=True)
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _parent(entry) == pid:
            seconds += _own_seconds(int(entry.name), ended=False)
    return seconds


def _own_seconds(pid: int, *, ended: bool) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11 : 15 if ended else 13])) / _TICKS
    return 0.0


def _parent(entry: Path) -> int:
    with suppress(OSError):
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return 0
