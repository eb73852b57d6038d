"""F20 and F21 over POP3, against the real daemon with raw sockets; and against one with a bug, which they find."""

from __future__ import annotations

import base64
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.faults.test_harnesses_find_bugs import unheard, with_bug
from tests.support.gateway_process import Practice, free_ports

Report = Callable[[str], None]

CLEAR_TEXT_REACHES_INTO_TLS = """
from gateway.serving.connection import Connection
start_tls = Connection.start_tls
async def keeping(self, context):
    clear = bytes(self._input)
    await start_tls(self, context)
    self._input[:0] = clear
    self._arrived.set()
Connection.start_tls = keeping
"""
NOBODY_IS_HURRIED = """
from gateway.pop3.session import POP3Session
init = POP3Session.__init__
def patient(self, *arguments):
    init(self, *arguments)
    self._login_deadline += 1000
POP3Session.__init__ = patient
"""


def pop3(made: Practice) -> tuple[Practice, int]:
    """The practice with POP3 on a port with STLS, before its start."""
    (port,) = free_ports(1)
    made.set("pop3", port=port, failed_login_delay_seconds=0, login_timeout_seconds=2)
    return made, port


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Practice, int]]:
    made, port = pop3(Practice.make(tmp_path_factory.mktemp("pop3-abuse") / "practice"))
    made.start()
    try:
        yield made, port
    finally:
        made.stop()


def greeted(port: int) -> socket.socket:
    client = socket.create_connection(("localhost", port), timeout=10)
    assert client.recv(100).startswith(b"+OK")
    return client


def inside(practice: Practice, client: socket.socket) -> ssl.SSLSocket:
    return practice.tls().wrap_socket(client, server_hostname="localhost")


def test_f21_what_was_sent_in_the_clear_is_forgotten_by_stls(gate: tuple[Practice, int], report: Report) -> None:
    """A command that an attacker puts behind STLS is answered neither before nor within TLS, and leaves no state."""
    practice, port = gate
    login = base64.b64encode(f"\0{practice.login}\0{practice.password}".encode())
    injections = [b"NOOP\r\n", b"USER " + practice.login.encode() + b"\r\n", b"AUTH PLAIN " + login + b"\r\n", b"NO"]
    for injected in injections:
        with greeted(port) as client:
            client.sendall(b"STLS\r\n" + injected)
            assert client.recv(100) == b"+OK Begin TLS negotiation\r\n"
            with inside(practice, client) as within:
                within.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    within.recv(100)
                within.settimeout(10)
                within.sendall(b"STAT\r\n")
                assert within.recv(100) == b"-ERR Command is allowed after login only\r\n"
                within.sendall(b"PASS " + practice.password.encode() + b"\r\n")
                assert within.recv(100) == b"-ERR PASS comes after USER\r\n"
                within.sendall(b"STLS\r\n")
                assert within.recv(100).startswith(b"-ERR")
    report(f"F21 POP3: points={len(injections)} answered-inside=0")


def test_f21_no_password_is_taken_in_the_clear(gate: tuple[Practice, int]) -> None:
    practice, port = gate
    with greeted(port) as client:
        for command in (f"USER {practice.login}", f"PASS {practice.password}", "AUTH PLAIN", "AUTH PLAIN AGEAYg=="):
            client.sendall(command.encode() + b"\r\n")
            assert client.recv(100) == b"-ERR Log in after STLS\r\n"


def test_f20_who_does_not_log_in_is_sent_away(gate: tuple[Practice, int], report: Report) -> None:
    """In clear, in a handshake that never ends, and within TLS: each within the deadline, and others are served."""
    practice, port = gate
    with ExitStack() as stack:
        silent = [stack.enter_context(greeted(port)) for _ in range(20)]
        for _ in range(20):
            half = stack.enter_context(socket.create_connection(("localhost", port), timeout=10))
            half.sendall(b"\x16\x03\x01")
        began = time.monotonic()
        slow = stack.enter_context(inside(practice, stack.enter_context(_asked_for_tls(port))))
        with suppress(OSError):
            while _says_something(slow):
                assert time.monotonic() - began < 6, "a session without a login goes on and on"
        took = time.monotonic() - began
        for client in silent:
            client.settimeout(8)
            assert client.recv(100) == b""
        stack.enter_context(greeted(port))
    report(f"F20 POP3: points={len(silent) + 1} longest={took:.0f} s")


def _says_something(client: ssl.SSLSocket) -> bool:
    """A command that costs nothing; False when the server has closed."""
    time.sleep(0.1)
    client.sendall(b"NOOP\r\n")
    return client.recv(100) == b"+OK Done\r\n"


def _asked_for_tls(port: int) -> socket.socket:
    client = greeted(port)
    client.sendall(b"STLS\r\n")
    assert client.recv(100).startswith(b"+OK")
    return client


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bug", "experiment"),
    [
        (CLEAR_TEXT_REACHES_INTO_TLS, test_f21_what_was_sent_in_the_clear_is_forgotten_by_stls),
        (NOBODY_IS_HURRIED, test_f20_who_does_not_log_in_is_sent_away),
    ],
    ids=["F21, clear text reaches into TLS", "F20, nobody is hurried"],
)
def test_the_experiment_over_pop3_finds_its_bug(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bug: str,
    experiment: Callable[[tuple[Practice, int], Report], None],
) -> None:
    practice, port = pop3(Practice.make(tmp_path / "practice"))
    with with_bug(tmp_path, bug, monkeypatch):
        practice.start()
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            experiment((practice, port), unheard)
    finally:
        practice.kill()
