"""What the demonstration stands on: two practices made by the real command, the daemon as a process, a screen.

The daemon is a child of this process and always ended by its own handle; its log stays in the practice's folder
and its last lines are shown when a step fails.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from gateway.cli.demo_mail import DemoError, Identity

COMMAND_TIMEOUT_SECONDS = 120
START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.2
LOG_TAIL_LINES = 20


class Screen:
    """Numbered steps with check marks; plain ASCII where the terminal's encoding has no check mark."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._number = 0
        encoding = (stream.encoding or "ascii").lower().replace("-", "")
        self._good, self._bad = ("\u2713", "\u2717") if encoding == "utf8" else ("[ok]", "[failed]")
        self._bold, self._plain = ("\x1b[1m", "\x1b[0m") if _colours(stream) else ("", "")

    def line(self, text: str = "") -> None:
        """Print a line as it is."""
        encoding = self._stream.encoding or "ascii"
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=self._stream, flush=True)

    def title(self, text: str) -> None:
        self.line(f"\n{self._bold}{text}{self._plain}\n")

    def step(self, text: str) -> None:
        self._number += 1
        self.line(f"\n{self._bold}{self._number}. {text}{self._plain}")

    def check(self, text: str) -> None:
        self.line(f"   {self._good} {text}")

    def failure(self, text: str) -> None:
        self.line(f"\n   {self._bad} The demonstration failed: {text}")

    def command(self, words: list[str]) -> None:
        self.line(f"   $ direct-gateway {shlex.join(words)}")

    def command_output(self, text: str) -> None:
        for row in text.rstrip("\n").splitlines():
            self.line(f"      {row}")


def _colours(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


@dataclass(frozen=True, slots=True)
class Practice:
    """A practice that ``direct-gateway init`` made."""

    directory: Path
    config: Path
    smtp_port: int
    imap_port: int
    imaps_port: int
    http_port: int
    login: str
    password: str
    tls_ca: Path

    def identity(self, address: str) -> Identity:
        """The key pair of one of its addresses."""
        folder = self.directory / "certs" / "identities"
        return Identity(folder / f"{address}.cert.pem", folder / f"{address}.key.pem")


def free_ports(count: int) -> list[int]:
    """Return ports that are free at this moment, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(held.getsockname()[1]) for held in sockets]
    finally:
        for held in sockets:
            held.close()


def run_program(*words: str) -> str:
    """Run the ``direct-gateway`` command of this installation and return its output.

    Raises:
        DemoError: it ended with another status than 0.
    """
    done = subprocess.run(  # noqa: S603 - this installation's own program
        [sys.executable, "-m", "gateway", *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=_environment(),
        timeout=COMMAND_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise DemoError(f"direct-gateway {words[0]} ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _environment() -> dict[str, str]:
    """The environment without settings of another gateway, which would override the demonstration's own."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("DIRECTGW_")}
    return kept | {"PYTHONIOENCODING": "utf-8"}


def run_command(screen: Screen, practice: Practice, *words: str) -> str:
    """Show a command line, run it on the practice and return its output."""
    screen.command([*words])
    return run_program("--config", str(practice.config), *words)


def query(practice: Practice, *words: str) -> Any:
    """Run a command with ``--json`` and return the parsed answer."""
    return json.loads(run_program("--config", str(practice.config), *words, "--json"))


def make_practice(screen: Screen, directory: Path, domain: str, addresses: list[str]) -> Practice:
    """Make a practice on free ports."""
    smtp, imap, imaps, web, submission = free_ports(5)
    screen.command(["init", directory.name, "--domain", domain, "--address", *addresses])
    ports = {"smtp": smtp, "imap": imap, "imaps": imaps, "http": web, "submission": submission}
    options = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
    made = json.loads(
        run_program("init", str(directory), "--domain", domain, "--address", *addresses, *options, "--json")
    )
    return Practice(
        directory=directory,
        config=Path(made["config"]),
        smtp_port=smtp,
        imap_port=imap,
        imaps_port=imaps,
        http_port=web,
        login=made["imap"]["user"],
        password=made["imap"]["password"],
        tls_ca=Path(made["imap"]["ca_file"]),
    )


def trust(practice: Practice, other: Practice) -> None:
    """Put the other practice's authority among the anchors, as an operator does with a partner's."""
    anchors = practice.directory / "certs" / "anchors"
    shutil.copy(other.directory / "certs" / "ca" / "ca.cert.pem", anchors / f"{other.directory.name}.cert.pem")
    for crl in (other.directory / "certs" / "crls").iterdir():
        shutil.copy(crl, practice.directory / "certs" / "crls" / f"{other.directory.name}.{crl.name}")


class Daemon:
    """``direct-gateway serve`` for one practice, from ready to ended."""

    def __init__(self, practice: Practice, screen: Screen) -> None:
        self._practice = practice
        self._screen = screen
        self._log = practice.directory / "serve.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._screen.command(["serve", "--config", f"{self._practice.directory.name}/gateway.toml"])
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C reaches the demonstration, which then stops the daemon in order.
            self._process = subprocess.Popen(  # noqa: S603 - this installation's own program
                [sys.executable, "-m", "gateway", "serve", "--config", str(self._practice.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self._stop()
            raise
        self._screen.check(f"ready: SMTP on port {self._practice.smtp_port}, IMAP on {self._practice.imaps_port} (TLS)")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        if isinstance(error, DemoError):
            self._show_log()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                self._show_log()
                raise DemoError(f"the daemon ended with status {process.returncode}")
            if _is_ready(self._practice.http_port):
                return
            time.sleep(POLL_SECONDS)
        self._show_log()
        raise DemoError(f"the daemon was not ready after {START_TIMEOUT_SECONDS:.0f} seconds")

    def _stop(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _show_log(self) -> None:
        self._screen.line("   the daemon's last words:")
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        self._screen.command_output("\n".join(lines[-LOG_TAIL_LINES:]))


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
