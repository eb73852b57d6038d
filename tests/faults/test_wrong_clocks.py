"""F11: of two nodes on one database one has a clock that is wrong, and jumps, while mail comes in at both.

libfaketime gives the daemon's process the other clock; the test writes how far it is off into a file. Leases and
schedules are kept in the database's time: no job is done twice and none waits for an hour, UIDs rise, and every
acknowledged message is delivered once. The checker is that of test_cluster_history, which finds its seeded bugs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.test_cluster_history import LEASE_SECONDS, SENDER, STACK, Run, violations
from tests.support.direct_messages import direct_message, inner_message
from tests.support.gateway_process import Practice, wait_for
from tests.support.nodes import make_nodes
from tests.support.pki import Authority
from tests.support.postgresql import Cluster, running_cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
SECONDS = 20.0
YEARS_SECONDS = 5 * 365 * 86_400


def with_clock(node: Practice, file: Path) -> None:
    """Let the node's next daemon read its clock through the file; what is monotonic stays so."""
    if not LIBRARIES:
        pytest.skip("faketime is not installed")
    file.write_text("+0")
    node.prefix = [
        "env", f"LD_PRELOAD={LIBRARIES[0]}", f"FAKETIME_TIMESTAMP_FILE={file}", "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    ]  # fmt: skip


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster() as made:
        yield made


def test_f11_a_clock_that_jumps_by_an_hour(
    cluster: Cluster, tmp_path: Path, partner_ca: Authority, report: Callable[[str], None]
) -> None:
    nodes = make_nodes(cluster, tmp_path, partner_ca.pem, 2, lease_seconds=LEASE_SECONDS)
    clock = tmp_path / "clock"
    with_clock(nodes[1], clock)
    run = Run(cluster, nodes, partner_ca, seed=11)

    def disturb(run: Run, chance: random.Random) -> None:
        offset = chance.choice(("+3600", "-3600", "+0", "-90", "+30"))
        run.disturbed[offset] += 1
        clock.write_text(offset)
        time.sleep(chance.uniform(0.5, 1.5))

    try:
        for node in nodes:
            node.start()
        run.run(SECONDS, disturb)
        # The hour that it is off at the end must keep nothing waiting.
        clock.write_text("-3600")
        inbox = run.settle()
    finally:
        for node in nodes:
            node.kill()
    found = violations(run.history, inbox)
    report(f"F11 jumps {dict(run.disturbed)}: points={len(run.history.acked)} lost+duplicated={len(found)}")
    assert run.history.acked
    assert found == []


@pytest.mark.parametrize("years", [5, -5])
def test_f11_a_clock_that_is_years_off(
    cluster: Cluster, tmp_path: Path, partner_ca: Authority, report: Callable[[str], None], years: int
) -> None:
    """Certificates are not valid there and then, so such a node refuses; it takes no lease of the other and no mail."""
    nodes = make_nodes(cluster, tmp_path, partner_ca.pem, 2, lease_seconds=LEASE_SECONDS)
    clock = tmp_path / "clock"
    with_clock(nodes[1], clock)
    right, wrong = nodes
    signer, sent = partner_ca.issue(address=SENDER), []
    try:
        right.start()
        clock.write_text(f"{years * YEARS_SECONDS // 5:+d}")
        wrong.start()
        for number in range(6):
            inner = inner_message(SENDER, right.addresses, message_id=f"<{number}@partner.example>")
            raw = direct_message(
                STACK, inner, sender=SENDER, recipients=right.addresses, signer=signer, to=[right.identity()],
            )  # fmt: skip
            assert nodes[number % 2].send(raw, SENDER, right.addresses)[0] == 250
            sent.append(inner)
        messages = right.settled(len(sent))
        schema = next(line.split('"')[1] for line in right.config.read_text().splitlines() if line.startswith("schema"))
        jobs = f"SELECT count(*) FROM {schema}.job"  # noqa: S608 - our own name
        wait_for(lambda: cluster.sql(jobs, "gateway") == [(0,)], timeout=30, what="the end of all jobs")
        inbox = right.inbox()
    finally:
        for node in nodes:
            node.kill()
    filed = [message for message in messages if message["state"] == "filed"]
    report(
        f"F11 {years:+d} years: points={len(sent)} stored={len(messages)} delivered={len(inbox)} "
        f"refused-by-the-wrong-clock={len(messages) - len(filed)} duplicated={len(inbox) - len(set(inbox))}"
    )
    assert len(messages) == len(sent)
    assert len(inbox) == len(set(inbox)) == len(filed)
    assert set(inbox) <= set(sent)
    # A message that is refused by a wrong clock is kept, with its reason, and can be judged again.
    assert {m["reason"] for m in messages if m["state"] != "filed"} <= {"expired", "untrusted"}
