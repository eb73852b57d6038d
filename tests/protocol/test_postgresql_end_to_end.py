"""The real daemon on PostgreSQL: a message through to IMAP, on one node and from one node to another."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice, free_ports, wait_for
from tests.support.idling import Idling
from tests.support.nodes import make_nodes
from tests.support.pki import Authority
from tests.support.postgresql import running_cluster, shared_cluster

pytestmark = pytest.mark.timeout(300)
"""Two daemons start first."""
SENDER = "jane.doe@phr.example"
STACK = CryptographyStack()
HINT_SECONDS = 10.0
"""Much less than the poll interval of mailboxes (20 s), much more than a hint needs on a busy machine."""


def deliver(node: Practice, partner: Authority, number: int = 0) -> tuple[bytes, bytes]:
    inner = inner_message(SENDER, node.addresses, message_id=f"<{number}@phr.example>", subject=f"Result {number}")
    raw = direct_message(
        STACK, inner, sender=SENDER, recipients=node.addresses, signer=partner.issue(address=SENDER),
        to=[node.identity()], message_id=f"<{number}@phr.example>",
    )  # fmt: skip
    assert node.send(raw, SENDER, node.addresses)[0] == 250
    return inner, raw


def test_a_message_comes_in_at_one_node_and_is_seen_at_the_other_at_once(
    two: list[Practice], partner_ca: Authority
) -> None:
    first, second = two
    with Idling(second) as idle:
        begun = time.monotonic()
        inner, raw = deliver(first, partner_ca)
        idle.wait_for(b"EXISTS", timeout=HINT_SECONDS)
        assert time.monotonic() - begun < HINT_SECONDS
    assert first.inbox() == second.inbox() == [inner]
    # F13: its reply was lost, and the sender tries the other node.
    again = [node.send(raw, SENDER, node.addresses) for node in two]
    assert {code for code, _ in again} == {250}
    assert len({reply for _, reply in again}) == 1
    assert len(first.settled(1)) == 1
    assert second.json("job", "list") == []


def test_a_flag_set_at_one_node_is_seen_at_the_other(two: list[Practice], partner_ca: Authority) -> None:
    first, second = two
    inner, _ = deliver(first, partner_ca, 2)
    wait_for(lambda: inner in first.inbox(), what="the message")
    with Idling(second) as idle, first.imap() as client:
        client.select("INBOX")
        client.store("1", "+FLAGS", "(\\Flagged)")
        idle.wait_for(b"\\Flagged", timeout=HINT_SECONDS)


def test_a_server_that_is_away_at_the_start_is_temporary_and_tables_that_are_not_there_are_not(
    two: list[Practice],
) -> None:
    """Status 75: a supervisor starts the gateway again. Status 2: a person has to do something."""
    [port] = free_ports(1)
    before = two[0].config.read_text()
    try:
        two[0].set("store", url=f"postgresql://nobody@127.0.0.1:{port}/gateway")
        away = two[0].run("serve", check=False)
        assert away.returncode == 75
        assert b"does not answer" in away.stderr
        checked = two[0].run("config", "check", check=False)
        assert (checked.returncode, b"store.url: the database does not answer" in checked.stderr) == (2, True)
        assert two[0].run("job", "list", check=False).returncode == 3
        two[0].set("store", url=shared_cluster().url(), schema="nothing_here")
        empty = two[0].run("job", "list", check=False)
        assert (empty.returncode, b"store init" in empty.stderr) == (2, True)
        checked = two[0].run("config", "check", check=False)
        assert (checked.returncode, b"store init" in checked.stderr) == (2, True)
    finally:
        two[0].config.write_text(before)


def test_the_commands_tell_of_the_nodes_and_the_settings_hold_no_secret(two: list[Practice]) -> None:
    [first, second] = two
    third = first.run("serve", check=False)
    assert third.returncode == 2
    assert b"store.node" in third.stderr or b"port" in third.stderr
    assert second.run("config", "check", check=False).returncode in {0, 1}
    assert wait_for(lambda: second.run("health", check=False).returncode == 0, what="health")


def test_a_rotation_beside_another_node_makes_no_key(two: list[Practice]) -> None:
    """The other one could not read what is wrapped under it."""
    first, second = two
    keys = first.directory / "certs" / "store" / "bodies.keys"
    before = keys.read_bytes()
    refused = first.run("keys", "rotate", check=False)
    assert refused.returncode == 1
    assert b"other nodes run on this database" in refused.stderr
    assert json.loads(second.config.read_text().split("node = ")[1].split("\n")[0]).encode() in refused.stderr
    assert keys.read_bytes() == before


def test_a_database_that_goes_away_is_named_by_health(tmp_path: Path, partner_ca: Authority) -> None:
    """In words of what happens to mail; and what cannot be known meanwhile is no fault of its own."""

    def health(node: Practice) -> Any:
        return json.loads(node.run("health", "--json", check=False).stdout)["answer"]

    with running_cluster() as cluster:
        [node] = make_nodes(cluster, tmp_path, partner_ca.pem, 1)
        try:
            node.start()
            wait_for(lambda: health(node)["status"] == "ready", what="good health")
            cluster.stop("immediate")
            told = health(node)
            assert told["status"] == "not ready"
            assert told["checks"]["store"].startswith("the database does not answer: senders are put off (451)")
            assert "itself failed" not in json.dumps(told)
            assert told["warnings"]["trust_bundles"] == "nothing is known of this while the database does not answer"
            assert "database" not in told["warnings"]
            cluster.start()
            wait_for(lambda: health(node)["status"] == "ready", timeout=40, what="good health again")
        finally:
            node.stop()
