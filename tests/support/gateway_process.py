"""The real daemon, made by ``direct-gateway init`` and run by ``direct-gateway serve``, for end-to-end tests.

``init`` is run once in a process for each domain and its addresses; further practices are copies of what it made, with
ports of their own. Making keys for each test was a good part of the time of the suite.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import imaplib
import itertools
import json
import os
import random
import re
import shutil
import signal
import smtplib
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.support.pki import Identity

COMMAND = [sys.executable, "-m", "gateway"]
START_TIMEOUT_SECONDS = 30
VISIBLE_TIMEOUT_SECONDS = 20


_PORTS = itertools.cycle(random.Random(os.getpid()).sample(range(10_240, 32_000), 20_000))
"""Below those that the kernel gives to outgoing connections: such a one would take a port before its daemon has it."""


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago. Processes that run tests side by side draw from other orders."""
    found: list[int] = []
    for port in _PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            break
    return found


def wait_for(condition: Callable[[], Any], *, timeout: float = VISIBLE_TIMEOUT_SECONDS, what: str = "condition") -> Any:
    """Poll until the condition gives something true; that value is returned."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come true within {timeout} s")


_TEMPLATES: list[Path] = []


@atexit.register
def remove_templates() -> None:
    """Also called at the end of a test session: the processes that run tests side by side end without more ado."""
    _template.cache_clear()
    while _TEMPLATES:
        shutil.rmtree(_TEMPLATES.pop(), ignore_errors=True)


@functools.cache
def _template(domain: str, addresses: tuple[str, ...]) -> tuple[Path, str, str]:
    """What ``init`` makes: the folder, and login and password of a mail client."""
    place = Path(tempfile.mkdtemp(prefix="practice-"))
    _TEMPLATES.append(place)
    folder = place / "made"
    done = subprocess.run(
        [*COMMAND, "init", str(folder), "--domain", domain, "--address", *addresses, "--json"],
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    login = json.loads(done.stdout)["imap"]
    return folder, login["user"], login["password"]


@dataclass
class Practice:
    """A practice on disk and, while it runs, its daemon."""

    directory: Path
    domain: str
    addresses: list[str]
    login: str
    password: str
    smtp_port: int
    imap_port: int
    imaps_port: int
    http_port: int
    process: subprocess.Popen[bytes] | None = None
    prefix: Sequence[str] = ()
    serve_options: Sequence[str] = ()
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.directory / "serve.log"

    # --- making -----------------------------------------------------------------------------------------------

    @classmethod
    def make(
        cls, directory: Path, *, domain: str = "clinic.example", addresses: Sequence[str] = ("inbox",)
    ) -> Practice:
        smtp, imap, imaps, http, submission = free_ports(5)
        full = [a if "@" in a else f"{a}@{domain}" for a in addresses]
        folder, login, password = _template(domain, tuple(full))
        shutil.copytree(folder, directory)
        made = cls(directory, domain, full, login, password, smtp, imap, imaps, http)
        made.set("smtp", port=smtp)
        made.set("imap", port=imap, tls_port=imaps)
        made.set("http", port=http)
        made.set("submission", port=submission)
        return made

    def use_postgresql(self, url: str, schema: str, *, owner_url: str | None = None, node: str = "main") -> None:
        """Keep everything in a PostgreSQL schema from now on; made when it is not there, with the same login."""
        self.set("store", url=url, schema=schema, node=node)
        self.run("store", "init", *(["--owner-url", owner_url] if owner_url else []))
        password = self.directory / "login-password"
        password.write_text(self.password)
        if node == "main":
            self.run("user", "add", self.login, "--inbox", *self.addresses, "--password-file", str(password))

    def set(self, section: str, **values: str | int) -> None:
        """Change settings in the file of the practice."""
        text = self.config.read_text()
        before, head, after = text.partition(f"[{section}]\n")
        assert head, f"there is no [{section}]"
        rest, following, tail = after.partition("\n[")
        for key, value in values.items():
            line = f"{key} = {json.dumps(value)}"
            rest, count = re.subn(rf"(?m)^{key} = .*$", lambda _, line=line: line, rest)  # type: ignore[misc]
            if not count:
                rest = f"{line}\n{rest}"
        self.config.write_text(before + head + rest + following + tail)

    @property
    def config(self) -> Path:
        return self.directory / "gateway.toml"

    @property
    def tls_ca(self) -> Path:
        return self.directory / "certs" / "tls" / "ca.pem"

    def trust(self, anchor_pem: bytes, *, name: str = "partner", only: str | None = None) -> None:
        """Add a trust anchor, for everybody here or for one domain or address only."""
        folder = self.directory / "certs" / "anchors"
        if only:
            folder = folder / only
            folder.mkdir(exist_ok=True)
        (folder / f"{name}.pem").write_bytes(anchor_pem)

    def identity(self, address: str | None = None) -> Identity:
        """Our own identity: tests encrypt to its certificate."""
        folder = self.directory / "certs" / "identities"
        name = address or self.addresses[0]
        certificate = x509.load_pem_x509_certificate((folder / f"{name}.cert.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / f"{name}.key.pem").read_bytes(), None)
        return Identity(certificate, key)  # type: ignore[arg-type]

    # --- running ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *COMMAND, "serve", "--config", str(self.config), *self.serve_options],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_for(self._answers, timeout=START_TIMEOUT_SECONDS, what="the daemon's start")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return all(self._listens(port) for port in (self.smtp_port, self.imap_port, self.imaps_port))

    @staticmethod
    def _listens(port: int) -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """``kill -9``, the whole process group; returns when the ports are free.

        A daemon under a tracer outlives it for a moment, and would answer in the name of the next one.
        """
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=10)
            self.process = None
            wait_for(lambda: not self._listens(self.smtp_port), what="the end of the daemon")

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        finally:
            self.kill()

    # --- talking ----------------------------------------------------------------------------------------------

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.tls_ca))

    def send(self, raw: bytes, mail_from: str, recipients: Sequence[str]) -> tuple[int, bytes]:
        """Deliver by SMTP with STARTTLS; returns the reply to DATA."""
        with smtplib.SMTP("localhost", self.smtp_port, timeout=60) as client:
            client.starttls(context=self.tls())
            client.ehlo()
            client.mail(mail_from)
            for recipient in recipients:
                code, reply = client.rcpt(recipient)
                assert code == 250, (code, reply)
            return client.data(raw)

    @contextlib.contextmanager
    def imap(self, login: str | None = None, password: str | None = None) -> Iterator[imaplib.IMAP4_SSL]:
        """A logged-in session."""
        client = imaplib.IMAP4_SSL("localhost", self.imaps_port, ssl_context=self.tls(), timeout=30)
        try:
            client.login(login or self.login, password or self.password)
            yield client
        finally:
            with contextlib.suppress(imaplib.IMAP4.error, OSError):
                client.logout()
            # Also when the daemon was killed meanwhile, and there is nobody to say goodbye to.
            with contextlib.suppress(OSError):
                client.shutdown()

    def inbox(self, folder: str = "INBOX", login: str | None = None, password: str | None = None) -> list[bytes]:
        """Every message of a folder, byte for byte."""
        with self.imap(login, password) as client:
            status, count = client.select(f'"{folder}"', readonly=True)
            assert status == "OK", count
            if count == [b"0"]:
                return []
            _, answer = client.fetch("1:*", "(UID BODY.PEEK[])")
            return [item[1] for item in answer if isinstance(item, tuple)]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run a command of ours on this practice."""
        done = subprocess.run(
            [*COMMAND, *arguments, "--config", str(self.config)], capture_output=True, check=False, timeout=60
        )
        assert not check or done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *arguments: str) -> Any:
        """The parsed JSON output of a command."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def messages(self) -> list[dict[str, Any]]:
        """``message list --json``, newest first."""
        listed = self.json("message", "list")
        return list(listed)

    def settled(self, count: int) -> list[dict[str, Any]]:
        """Wait until that many messages are known and none waits for a step; return them."""

        settled: list[dict[str, Any]] = []

        def is_settled(states: list[str]) -> bool:
            return len(states) >= count and not {"received", "unwrapped"} & set(states)

        def ready() -> bool:
            # To ask the command again and again would take the processor from the daemon that is waited for.
            states = self._states_in_the_file()
            if states is not None and not is_settled(states):
                return False
            settled[:] = self.messages()
            return is_settled([message["state"] for message in settled])

        wait_for(ready, what=f"{count} settled messages")
        return settled

    def _states_in_the_file(self) -> list[str] | None:
        """The state of each message; None when the store is no file."""
        path = self.directory / "data" / "gateway.db"
        if 'url = "postgresql' in self.config.read_text():
            return None
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            # Rows are only added: the newest of each message counts.
            newest = "SELECT state, max(seq) FROM message_state GROUP BY message_id"
            return [state for state, _ in database.execute(newest)]
