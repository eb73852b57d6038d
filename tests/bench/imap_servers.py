"""The two servers that the IMAP benchmark compares, with the same mail: ours on SQLite, and Dovecot with mdbox.

Both run as they are delivered but for limits on connections, which one machine that plays all clients would reach, and
for what Dovecot does about the disk: with ``mail_fsync = never`` it waits for none of its writes, while every change in
ours is on the disk before it is answered. Both speak TLS with the same certificate.

CPU is user and system time of all processes of a server, from their own clocks, to the nanosecond.
"""

from __future__ import annotations

import re
import resource
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Protocol

from tests.bench.filling import fill_with
from tests.bench.gateways import Gateway, Site
from tests.bench.imap_client import Client
from tests.bench.mail_pool import MailPool
from tests.bench.world import BenchError
from tests.support.dovecot import PROGRAM, USER, Dovecot

CONNECTIONS = 5_000
_APPENDED_AT_ONCE = 500
FSYNC = ("never", "optimized", "always")
DOVECOT_SETTINGS = f"""\
mail_location = mdbox:~/mdbox
default_process_limit = {CONNECTIONS}
mail_max_userip_connections = {CONNECTIONS}
imap_idle_notify_interval = 29 mins
"""
_PSS = re.compile(r"(?m)^Pss:\s+(\d+) kB")
_CPU_CLOCK = 2
"""The clock of a process with all its threads, as clock_getcpuclockid(3) makes its number."""


class Server(Protocol):
    """What the benchmark needs of either of them."""

    name: str

    def connect(self) -> Client:
        """A logged-in client."""
        ...

    def fill(self, messages: Iterable[bytes], tell: Callable[[int], None]) -> None:
        """Put messages into the empty INBOX, in their order."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def pid(self) -> int:
        """The first process; all others are in its session."""
        ...


def missing_dovecot() -> str | None:
    """What this machine lacks, or None."""
    return None if Path(PROGRAM).exists() else "Dovecot is not installed"


def allow_connections(count: int) -> bool:
    """Let this process, and what it starts, have so many open files; whether it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 1_000
    if most != resource.RLIM_INFINITY and wanted > most:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return True


class Ours:
    """The real daemon."""

    name = "gateway"

    def __init__(self, gateway: Gateway, site: Site, pool: MailPool) -> None:
        self.gateway = gateway
        self.practice = gateway.practice
        self._site = site
        self._pool = pool
        self.practice.set(
            "imap",
            max_connections=CONNECTIONS,
            max_connections_per_peer=CONNECTIONS,
            max_sessions_per_account=CONNECTIONS,
        )
        self._tls: ssl.SSLContext = self.practice.tls()

    def fill(self, messages: Iterable[bytes], tell: Callable[[int], None]) -> None:
        fill_with(self.practice.config, self._pool, self._site.address, messages, tell)

    def start(self) -> None:
        self.practice.start()

    def stop(self) -> None:
        if self.practice.process is not None and self.practice.stop():
            raise BenchError(f"the daemon did not end well: {self.practice.log.read_text()[-2000:]}")

    def pid(self) -> int:
        if self.practice.process is None:
            raise BenchError("the daemon does not run")
        return self.practice.process.pid

    def connect(self) -> Client:
        return Client(self.practice.imaps_port, self._tls, self.practice.login, self.practice.password)


class Theirs:
    """Dovecot."""

    name = "dovecot"

    def __init__(self, dovecot: Dovecot) -> None:
        self.dovecot = dovecot
        self._tls = ssl.create_default_context(cafile=str(dovecot.tls_ca))
        self._config = (dovecot.folder / "dovecot.conf").read_text()

    @classmethod
    def make(cls, site: Site) -> Theirs:
        """A new one, empty, with the certificate of the site. ``mail_fsync`` is ``never``."""
        return cls(Dovecot.make(site.template, settings=DOVECOT_SETTINGS))

    def sync(self, mode: str) -> None:
        """Say when it waits for the disk, one of FSYNC; it must not run."""
        text = self._config + f"mail_fsync = {mode}\n"
        (self.dovecot.folder / "dovecot.conf").write_text(text)

    def fill(self, messages: Iterable[bytes], tell: Callable[[int], None]) -> None:
        self.start()
        rest, count = iter(messages), 0
        with self.connect() as client:
            while batch := list(islice(rest, _APPENDED_AT_ONCE)):
                client.append(batch)
                count += len(batch)
                tell(count)
        self.stop()

    def start(self) -> None:
        self.dovecot.start()

    def stop(self) -> None:
        self.dovecot.stop()

    def pid(self) -> int:
        if self.dovecot.process is None:
            raise BenchError("Dovecot does not run")
        return self.dovecot.process.pid

    def connect(self) -> Client:
        return Client(self.dovecot.imaps, self._tls, USER, self.dovecot.password)


def processes(server: Server) -> list[int]:
    """All processes of a running server."""
    session = server.pid()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session:
                    found.append(int(entry.name))
    return found


def cpu_clocks(pids: Iterable[int]) -> dict[int, float]:
    """CPU seconds until now, by process. Only the differences of what lives at both moments count."""
    clocks: dict[int, float] = {}
    for pid in pids:
        with suppress(OSError):
            clocks[pid] = time.clock_gettime((~pid << 3) | _CPU_CLOCK)
    return clocks


def cpu_between(before: dict[int, float], after: dict[int, float]) -> float:
    """CPU seconds of what ran in between."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def memory_bytes(server: Server) -> int:
    """Memory of all its processes; what several of them share counts once (the proportional set, PSS)."""
    total = 0
    for pid in processes(server):
        with suppress(OSError):
            found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
            total += int(found[1]) * 1024 if found else 0
    return total
