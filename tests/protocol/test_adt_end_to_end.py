"""The real daemon fed by an EHR over MLLP: TLS, many connections, kill -9, and mail that goes on (HL7-6 to HL7-8)."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.gateway_process import Practice, free_ports, wait_for
from tests.support.tls_files import make_authority

START, END = b"\x0b", b"\x1c\r"


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def practice(tmp_path: Path, port: int) -> Iterator[Practice]:
    made = Practice.make(tmp_path / "practice")
    made.set("adt", port=port, assigning_authority="HOSP")
    yield made
    made.kill()


def adt(number: int | str, *, event: str = "A08", control: str = "", family: str = "Quimby", extra: str = "") -> bytes:
    control = control or f"C{event}{number}{family}"
    return (
        f"MSH|^~\\&|EHR|HOSP|DIRECTGW|CLINIC|20260601||ADT^{event}|{control}|P|2.5.1\rEVN|{event}|20260601\r"
        f"PID|1||{number}^^^HOSP^MR||{family}^Ann||19610203|F\r{extra}"
    ).encode()


class Engine:
    """A sending integration engine, as simple as they are."""

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        raw = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._socket = context.wrap_socket(raw, server_hostname="localhost") if context else raw
        self._held = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def write(self, message: bytes) -> None:
        self._socket.sendall(START + message + END)

    def read(self) -> list[list[str]]:
        """The next answer: segments, each a list of fields."""
        while END not in self._held:
            octets = self._socket.recv(65_536)
            if not octets:
                raise ConnectionError("closed without an answer")
            self._held += octets
        answer, _, self._held = self._held.partition(END)
        return [segment.split("|") for segment in answer.removeprefix(START).decode().rstrip("\r").split("\r")]

    def ask(self, message: bytes) -> str:
        """The code of the answer, which must be for the message."""
        self.write(message)
        msa = self.read()[1]
        assert msa[2] == message.split(b"|")[9].decode()
        return msa[1]


def rows(practice: Practice, statement: str) -> list[tuple[Any, ...]]:
    path = practice.directory / "data" / "gateway.db"
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(statement).fetchall()


def test_twenty_connections_over_tls_are_all_applied_and_listed(practice: Practice, port: int) -> None:
    practice.start()
    assert f"ADT {port}" in practice.log.read_text()
    wrong: list[str] = []

    def feed(worker: int) -> None:
        with Engine(port, practice.tls()) as engine:
            wrong.extend(code for n in range(5) if (code := engine.ask(adt(f"{worker}-{n}"))) != "AA")

    threads = [threading.Thread(target=feed, args=(worker,)) for worker in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(practice.json("patient", "list", "--limit", "500")) == 100
    with Engine(port, practice.tls()) as engine:
        assert engine.ask(adt(1, event="A40", extra="MRG|0-0^^^HOSP^MR\r")) == "AA"
        assert engine.ask(b"MSH|^~\\&|E|H|||20260601||ADT^A08|BAD1|P|2.5.1\rPID|1||9^^^OTHER^MR||SECRET\r") == "AR"
    listed = {patient["id"]: patient for patient in practice.json("patient", "list", "--limit", "500")}
    assert (listed["0-0"]["active"], listed["1"]["active"]) == (False, True)
    refused = practice.json("patient", "feed")
    assert [(entry["control_id"], entry["outcome"]) for entry in refused] == [("BAD1", "refused")]
    assert "PID-3" in refused[0]["reason"]
    assert len(practice.json("patient", "feed", "--all", "--limit", "500")) == 102
    shown = practice.run("patient", "feed").stdout.decode()
    assert "BAD1" in shown
    assert practice.stop() == 0
    assert practice.run("audit", "verify", check=False).returncode == 0
    assert "SECRET" not in practice.log.read_text()


def test_the_daemon_killed_between_commit_and_answer_makes_no_second_version(practice: Practice, port: int) -> None:
    practice.start()
    message = adt(7, control="ONCE")
    with Engine(port, practice.tls()) as engine:
        assert engine.ask(adt(6)) == "AA"
        engine.write(message)
        # Committed, and killed before anybody read the answer.
        wait_for(lambda: rows(practice, "SELECT 1 FROM patient_feed WHERE control_id = 'ONCE'"), what="the commit")
        practice.kill()
    practice.start()
    with Engine(port, practice.tls()) as engine:
        assert engine.ask(message) == "AA"
        assert engine.ask(message) == "AA"
    assert rows(practice, "SELECT max(version), count(*) FROM patient_version WHERE patient_id = '7'") == [(1, 1)]
    assert rows(practice, "SELECT count(*) FROM patient_feed WHERE control_id = 'ONCE'") == [(1,)]


@pytest.mark.slow
def test_killed_again_and_again_every_message_that_was_answered_is_there(practice: Practice, port: int) -> None:
    acknowledged: list[int] = []
    number = 0
    for round_number in range(4):
        practice.start()
        killer = threading.Timer(0.15 + 0.1 * round_number, practice.kill)
        killer.start()
        try:
            with Engine(port, practice.tls()) as engine:
                for _ in range(2_000):
                    number += 1
                    if engine.ask(adt(number)) == "AA":
                        acknowledged.append(number)
        except OSError:
            pass
        killer.join()
    assert acknowledged
    stored = {int(found) for (found,) in rows(practice, "SELECT patient_id FROM patient_version")}
    assert set(acknowledged) <= stored
    assert rows(practice, "SELECT max(version) FROM patient_version") == [(1,)]


def test_a_client_certificate_is_asked_for_where_the_settings_say_so(practice: Practice, port: int) -> None:
    ca, _, client = make_authority(practice.directory / "engine")
    practice.set("adt", client_ca_file=str(ca))
    practice.start()
    mine = practice.tls()
    mine.load_cert_chain(*client)
    with Engine(port, mine) as engine:
        assert engine.ask(adt(7)) == "AA"
    with pytest.raises((OSError, ssl.SSLError)), Engine(port, practice.tls()) as engine:
        engine.ask(adt(8))
    with pytest.raises(OSError), Engine(port, None) as engine:
        engine.ask(adt(8))
    assert [patient["id"] for patient in practice.json("patient", "list")] == ["7"]


def test_peers_that_are_not_allowed_and_settings_that_do_not_fit(practice: Practice, port: int) -> None:
    practice.set("adt", tls="none")
    practice.config.write_text(
        practice.config.read_text().replace(
            'allowed_peers = ["127.0.0.1/32", "::1/128"]', 'allowed_peers = ["10.0.0.0/8"]'
        )
    )
    practice.start()
    with pytest.raises(OSError), Engine(port, None) as engine:
        engine.ask(adt(7))
    assert "adt_in_clear_text" in practice.log.read_text()
    assert practice.stop() == 0
    for key, value, told in (
        ("assigning_authority", "", "adt.assigning_authority"),
        ("time_zone", "Mars/Olympus", "adt.time_zone"),
        ("client_ca_file", "x.pem", "adt.client_ca_file"),
    ):
        before = practice.config.read_text()
        practice.set("adt", **{key: value})
        done = practice.run("config", "check", check=False)
        assert done.returncode == 2, (key, done.stdout)
        assert told in json.dumps(done.stderr.decode() + done.stdout.decode())
        practice.config.write_text(before)
