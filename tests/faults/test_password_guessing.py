"""F22: a thousand guesses over IMAP, from one address and from a hundred; who knows the password gets in meanwhile.

The daemon is real, with its default limits. Addresses are those of the loopback network. Guesses that were decided are
counted in the daemon's audit log, not by the guessers. The harness is believed because it finds the same crowd decided
when nobody has to wait.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gateway_process import Practice, wait_for
from tests.support.intake_faults import PROJECT
from tests.support.pki import Authority

Report = Callable[[str], None]
pytestmark = pytest.mark.timeout(300)
GUESSES = 1_000
SECONDS = 11.0
FEW_SECONDS = 5.0
"""Enough for the first delays to be told from none."""
MANY = "nobody{}@clinic.example"
DELAYS = (0, 2, 4, 8)
CONNECTIONS = {1: 90, 100: 3}
"""Of each address, by the number of addresses."""
PARALLEL = 2
"""Checks at one time, whoever asks for them: those begin before anything is known."""
CARELESS = """
# The seeded bug: nobody waits for anything.
from gateway.accounts.login_delay import LoginDelay
LoginDelay._delay = lambda *_: 0.0
"""


def seconds_at_most() -> float:
    """The promise is three seconds; a machine that does much else besides needs more for a login of any kind."""
    return max(3.0, 3 * os.getloadavg()[0] / (os.cpu_count() or 1))


def crowd(practice: Practice, sources: int, connections: int, name: str, seconds: float = SECONDS) -> list[float]:
    """Guess from every source over so many connections each; returns how long it took somebody else to log in."""
    words = [practice.imaps_port, practice.tls_ca, sources, connections, GUESSES, name]
    guessers = subprocess.Popen(
        [sys.executable, "-m", "tests.support.guessers", *map(str, words)], cwd=PROJECT, start_new_session=True
    )
    took: list[float] = []
    try:
        # A crowd that has not begun keeps nobody out.
        wait_for(lambda: "login_refused" in practice.log.read_text(), what="the first guess")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            began = time.monotonic()
            practice_login(practice)
            took.append(time.monotonic() - began)
            time.sleep(0.5)
    finally:
        guessers.kill()
        guessers.wait(timeout=10)
    return took


def practice_login(practice: Practice) -> None:
    with practice.imap() as client:
        assert client.select("INBOX", readonly=True)[0] == "OK"


def decided(practice: Practice) -> Counter[str]:
    """Failed logins by address, as the audit log has them."""
    events = practice.json("audit", "list", "--limit", "5000")
    return Counter(event["detail"]["peer"] for event in events if event["action"] == "login.failed")


@pytest.fixture
def clinic(tmp_path: Path, partner_ca: Authority) -> Iterator[Practice]:
    made = Practice.make(tmp_path / "practice")
    made.trust(partner_ca.pem)
    made.set("imap", failed_login_delay_seconds=0)
    made.start()
    yield made
    made.stop()


def most_of_one_address(seconds: float = SECONDS) -> int:
    """How many guesses fit into the time, one after the other and each after its delay, and those of the beginning."""
    at, count = 0.0, 0
    for delay in (*DELAYS, *[15] * 10):
        at += delay
        count += at <= seconds
    return count + PARALLEL


@pytest.mark.parametrize(
    ("addresses", "names", "seconds"),
    [
        (1, "many logins", FEW_SECONDS),
        pytest.param(1, "many logins", SECONDS, marks=pytest.mark.slow),
        pytest.param(1, "one login", SECONDS, marks=pytest.mark.slow),
        pytest.param(100, "one login", SECONDS, marks=pytest.mark.slow),
        pytest.param(100, "many logins", SECONDS, marks=pytest.mark.slow),
    ],
)
def test_f22_a_crowd_that_guesses_learns_little_and_keeps_nobody_out(
    clinic: Practice, report: Report, addresses: int, names: str, seconds: float
) -> None:
    practice_login(clinic)
    took = crowd(
        clinic, addresses, CONNECTIONS[addresses], "nobody@clinic.example" if names == "one login" else MANY, seconds
    )
    found = decided(clinic)
    most = max(found.values(), default=0)
    report(
        f"F22 ({addresses} addresses, {names}): points={GUESSES} decided={sum(found.values())} "
        f"most-of-one-address={most} logins-meanwhile={len(took)} slowest={max(took):.1f} s"
    )
    assert found
    assert all(peer.startswith("127.0.1.") for peer in found)
    assert most <= most_of_one_address(seconds)
    assert max(took) < seconds_at_most()


@pytest.mark.slow
def test_f22_the_harness_sees_a_gateway_without_delays(
    tmp_path: Path, partner_ca: Authority, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CARELESS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner_ca.pem)
    practice.set("imap", failed_login_delay_seconds=0)
    practice.start()
    try:
        crowd(practice, 1, 90, MANY, FEW_SECONDS)
        most = max(decided(practice).values())
    finally:
        practice.stop()
    report(f"F22 with the seeded bug of no delays: decided={most}")
    assert most > most_of_one_address(FEW_SECONDS)
