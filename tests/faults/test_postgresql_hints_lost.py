"""F37: the connections that carry hints are cut again and again; the gateway is slower and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.idling import Idling
from tests.support.nodes import make_nodes
from tests.support.pki import Authority
from tests.support.postgresql import running_cluster

SENDER = "lab@partner.example"
POLLED_SECONDS = 30.0
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '% hints'"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_new_mail_is_seen_by_polling_when_no_hint_comes(
    tmp_path: Path, partner_ca: Authority, report: Callable[[str], None]
) -> None:
    stopping = threading.Event()
    with running_cluster() as cluster:

        def cut() -> None:
            with cluster.connect() as connection:
                while not stopping.wait(0.02):
                    connection.execute(CUT)

        first, second = nodes = make_nodes(cluster, tmp_path, partner_ca.pem, 2)
        cutter = threading.Thread(target=cut)
        try:
            for node in nodes:
                node.start()
            cutter.start()
            with Idling(second) as idle:
                inner = inner_message(SENDER, first.addresses)
                raw = direct_message(
                    CryptographyStack(), inner, sender=SENDER, recipients=first.addresses,
                    signer=partner_ca.issue(address=SENDER), to=[first.identity()],
                )  # fmt: skip
                begun = time.monotonic()
                assert first.send(raw, SENDER, first.addresses)[0] == 250
                idle.wait_for(b"EXISTS", timeout=POLLED_SECONDS)
                seconds = time.monotonic() - begun
            assert second.inbox() == [inner]
            report(f"F37 hints cut every 20 ms: new mail seen at the other node after {seconds:.1f} s")
        finally:
            stopping.set()
            for node in nodes:
                node.stop()
            cutter.join()
